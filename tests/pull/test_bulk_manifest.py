"""Manifests as servers write them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from io_fhir_adapter.errors import PullError
from io_fhir_adapter.pull.bulk_manifest import joined, manifest_from

WHERE = "https://fhir.example/status/1"


def made(**more: Any) -> bytes:
    """A manifest."""
    file = {"type": "Procedure", "url": "https://fhir.example/1.ndjson"}
    whole = {"transactionTime": "2026-01-02T03:04:05Z", "requiresAccessToken": True, "output": [file]}
    return json.dumps({**whole, **more}).encode()


def test_what_may_be_left_out_or_null() -> None:
    found = manifest_from(made(deleted=None, error=None, link=None, extension={"a": 1}), WHERE)
    assert (found.deletions, found.failures, found.next_link) == ((), (), "")
    assert [(file.type, file.count) for file in found.files] == [("Procedure", None)]


def test_a_count_may_be_text() -> None:
    assert manifest_from(made(output=[{"url": "x", "count": "12"}]), WHERE).files[0].count == 12


def test_addresses_may_be_relative() -> None:
    found = manifest_from(made(output=[{"url": "../file/1"}], error=[{"url": "/e"}]), WHERE).based_on(WHERE)
    assert [file.url for file in found.files] == ["https://fhir.example/file/1"]
    assert [file.url for file in found.failures] == ["https://fhir.example/e"]


def test_the_later_name_of_error_files() -> None:
    page = manifest_from(made(outcome=[{"url": "e2"}], error=[{"url": "e1"}]), WHERE)
    assert [file.url for file in joined([page]).failures] == ["e1", "e2"]


def test_of_several_pages_the_earliest_time_holds_and_a_token_is_never_forgotten() -> None:
    first = manifest_from(made(transactionTime="2026-01-02T04:00:00+01:00", requiresAccessToken=False), WHERE)
    second = manifest_from(made(transactionTime="2026-01-02T03:30:00Z"), WHERE)
    whole = joined([second, first])
    assert whole.transactionTime == "2026-01-02T04:00:00+01:00"
    assert whole.requiresAccessToken
    assert len(whole.files) == 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html></html>",
        made()[:-5],
        b"[]",
        made(transactionTime="2026-01-02"),
        made(transactionTime=None),
        b"\xff",
    ],
)
def test_what_is_no_manifest(body: bytes) -> None:
    with pytest.raises(PullError):
        manifest_from(body, WHERE)
