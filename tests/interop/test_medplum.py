"""The @medplum/fhir-router server gives the same ledger as the sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.interop.nights import Site, Twins, put_all

from io_fhir_adapter.errors import PullError
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.sandbox.hospital import Hospital
from io_fhir_adapter.sandbox.server import create_app
from io_fhir_adapter.sandbox.store import SandboxStore

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900), pytest.mark.xdist_group("medplum")]


ROOM = 5_000
"""More than there is of any type: this server answers a search with one page that says how many there are, and no link
to the next one. Its searches by date miss a few, too, so that no slices add up to the whole."""


@pytest.fixture(scope="module")
def twins(medplum: str, hospital: Hospital) -> Iterator[Twins]:
    """That server and the sandbox, both with all good resources."""
    resources = [resource for found in hospital.resources.values() for resource in found]
    put_all(medplum, resources)
    store = SandboxStore.from_resources(resources)
    with LoopbackServer(create_app(store)) as server:
        yield Twins(medplum, f"{server.base_url}/fhir", store)


def test_a_page_without_a_next_link_is_not_taken_for_everything(twins: Twins, tmp_path: Path) -> None:
    real = Site(tmp_path / "medplum", twins.real, page_size=200)
    with pytest.raises(PullError):
        real.night()
    assert real.rows("select * from cursors where resource_type = 'Procedure'") == []


def test_the_ledger_is_that_of_the_sandbox_night_after_night(twins: Twins, hospital: Hospital, tmp_path: Path) -> None:
    real = Site(tmp_path / "medplum", twins.real, page_size=ROOM)
    twin = Site(tmp_path / "sandbox", twins.sandbox)
    assert real.night() == twin.night()
    first = real.content()
    assert first == twin.content()
    assert first["volume"].counted

    twins.change(hospital.later)
    for site in (real, twin):
        site.night()
    second = real.content()
    assert second == twin.content()
    assert second["decisions"] != first["decisions"]
