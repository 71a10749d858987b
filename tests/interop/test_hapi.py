"""The HAPI FHIR JPA server gives the same ledger as the sandbox: on the first night, and on those after corrections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.interop.nights import Site, Twins, put_all, put_if_kept

from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.sandbox.hospital import Hospital
from io_fhir_adapter.sandbox.server import create_app
from io_fhir_adapter.sandbox.store import SandboxStore

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900), pytest.mark.xdist_group("hapi")]

# several slices, several pages of each; later only what changed, though all that HAPI has is minutes old
SEARCH = {"strategy": "search", "page_size": 100, "slice_size": 300, "overlap_minutes": 0}
EXPORT = {"strategy": "bulk", "overlap_minutes": 0, "bulk": {"poll_min_s": 0.1, "poll_max_s": 0.5}}
DELETED = 3


@pytest.fixture(scope="module")
def twins(hapi: str, hospital: Hospital) -> Iterator[Twins]:
    """HAPI and the sandbox, both with all good resources and with those broken ones that HAPI keeps as they are.

    Most broken ones it refuses or tidies up; they are in neither.
    """
    resources = [resource for found in hospital.resources.values() for resource in found]
    put_all(hapi, resources)
    kept = put_if_kept(hapi, hospital.broken)
    assert kept
    store = SandboxStore.from_resources(resources, kept)
    with LoopbackServer(create_app(store)) as server:
        yield Twins(hapi, f"{server.base_url}/fhir", store)


def corrections(hospital: Hospital) -> list[dict[str, Any]]:
    """What the synthetic hospital corrects and adds after the first night."""
    return list(hospital.later)


def taken_back(hospital: Hospital) -> list[dict[str, Any]]:
    """The corrected resources as they were before."""
    corrected = {(resource["resourceType"], resource["id"]) for resource in hospital.later}
    every = (resource for found in hospital.resources.values() for resource in found)
    return [resource for resource in every if (resource["resourceType"], resource["id"]) in corrected]


@pytest.mark.parametrize(("source", "changes"), [(SEARCH, corrections), (EXPORT, taken_back)], ids=["search", "export"])
def test_the_ledger_is_that_of_the_sandbox_night_after_night(
    source: dict[str, Any],
    changes: Callable[[Hospital], list[dict[str, Any]]],
    twins: Twins,
    hospital: Hospital,
    tmp_path: Path,
) -> None:
    real = Site(tmp_path / "hapi", twins.real, **source)
    twin = Site(tmp_path / "sandbox", twins.sandbox, **source)

    assert real.night()["Procedure"] == twin.night()["Procedure"] > 500
    first = real.content()
    assert first == twin.content()
    assert first["quarantine"]
    assert first["volume"].counted

    twins.change(changes(hospital))
    assert real.night()["Procedure"] < 100  # what changed, not everything
    twin.night()
    second = real.content()
    assert second == twin.content()
    assert second["decisions"] != first["decisions"]

    deleted = real.counted()[:DELETED]
    twins.delete("Procedure", deleted)
    for site in (real, twin):
        site.let_time_pass()
        site.night()
    third = real.content()
    assert third == twin.content()
    assert set(second["facts"]) - set(third["facts"]) == {f"Procedure/{name}" for name in deleted}
    assert third["volume"].counted < second["volume"].counted
