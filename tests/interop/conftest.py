"""FHIR servers of other makers, and the synthetic hospital to fill them with; what cannot be run here is skipped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.interop import servers
from tests.interop.leaving import write_records

from io_fhir_adapter.sandbox.hospital import Hospital, build_hospital


@pytest.fixture(scope="session")
def hospital() -> Hospital:
    return build_hospital(patients=100, procedures=800)


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def records(logs: Path) -> Path:
    """Files of a hospital that is large enough for thirty cases."""
    return write_records(build_hospital(patients=300, procedures=1_800), logs)


@pytest.fixture(scope="session")
def few_records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of a small hospital, of which every patient is a case; for servers to which much at once is too much."""
    return write_records(build_hospital(patients=60, procedures=300), tmp_path_factory.mktemp("few"))


@pytest.fixture(scope="session")
def hapi(logs: Path) -> Iterator[str]:
    """Base URL of a HAPI FHIR JPA server, one for all; it is empty for those that read from it, which come first."""
    try:
        with servers.hapi(logs) as url:
            yield url
    except servers.Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def medplum(logs: Path) -> Iterator[str]:
    """Base URL of a @medplum/fhir-router server, one for all tests that read from it."""
    yield from _medplum(logs)


@pytest.fixture
def empty_medplum(tmp_path: Path) -> Iterator[str]:
    """Another one, for what is sent: it looks through all that it holds for each entry of a transaction."""
    yield from _medplum(tmp_path)


def _medplum(logs: Path) -> Iterator[str]:
    try:
        with servers.medplum(logs) as url:
            yield url
    except servers.Unavailable as reason:
        pytest.skip(str(reason))
