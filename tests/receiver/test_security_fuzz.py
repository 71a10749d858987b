"""Requests made up from the OpenAPI description, right ones and wrong ones, are answered as the description says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.receiver.app import create_app
from io_fhir_adapter.receiver.rates import Rate
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.receiver.wire import Limits

_FREE = Rate(1, 0)
_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


@pytest.fixture(scope="module")
def described() -> Iterator[Any]:
    limits = Limits(address_rate=_FREE, facility_rate=_FREE, failure_rate=_FREE)
    with (
        closing(ReceiverStore()) as store,
        LoopbackServer(create_app(store, tokens={"one": "F-001"}, limits=limits)) as server,
    ):
        yield schemathesis.openapi.from_url(f"{server.base_url}/openapi.json")


described_api = schemathesis.pytest.from_fixture("described")


@described_api.parametrize()
@settings(
    max_examples=5,
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_one_that_is_described(case: Any) -> None:
    response = case.call(headers={"Authorization": "Bearer one"})
    case.validate_response(response, checks=_CHECKS)
    assert b"Traceback" not in response.content
    if response.status_code >= 400 and "fhir+json" in response.headers["content-type"][0]:
        assert json.loads(response.content)["resourceType"] == "OperationOutcome"
