"""FHIR servers of other makers, and the synthetic hospital to fill them with; what cannot be run here is skipped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.interop import servers

from io_fhir_adapter.sandbox.hospital import Hospital, build_hospital


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "interop: against FHIR servers of other makers; run by make interop")


@pytest.fixture(scope="session")
def hospital() -> Hospital:
    return build_hospital(patients=100, procedures=800)


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="module")
def hapi(logs: Path) -> Iterator[str]:
    """Base URL of an empty HAPI FHIR JPA server."""
    try:
        with servers.hapi(logs) as url:
            yield url
    except servers.Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def medplum(logs: Path) -> Iterator[str]:
    """Base URL of an empty @medplum/fhir-router server."""
    try:
        with servers.medplum(logs) as url:
            yield url
    except servers.Unavailable as reason:
        pytest.skip(str(reason))
