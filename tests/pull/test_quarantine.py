"""What cannot be used: set aside with its reason, in place of what was known of it, until it is corrected."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from io_fhir_adapter.pull.search import parse_searchset
from io_fhir_adapter.transport.client import Answer

Make = Callable[..., Any]


def broken(resource: dict[str, Any], **spoilt: Any) -> tuple[str, str]:
    """A broken resource for the store."""
    return resource["resourceType"], json.dumps(resource | spoilt)


def test_broken_resources_are_set_aside_and_the_rest_is_kept(make_site: Make, kit: Any) -> None:
    bad = kit.procedure("bad")
    spoilt = [
        broken(bad, id="type", status=1),
        broken(bad, id="date", performedDateTime="31.12.2025"),
        broken(bad, id="subject", subject=None),
        broken(bad, id="kind", resourceType=5),
        broken(bad, id="other", resourceType="Observation"),
        broken(bad, id=None),
        broken(bad, id=None),
        broken(bad, id=None, status="not-done"),
        ("Procedure", '"text"'),
        broken(kit.condition("bad-c", "a"), code=[1]),
        broken(kit.person("x"), link="y"),
    ]
    site = make_site([*kit.small_hospital(), kit.procedure("of-x", "x")], spoilt)
    outcome = site.pull()
    assert outcome.error == ""
    found = site.quarantine()
    nameless = {place for place in found if place.startswith("without an id")}
    assert len(nameless) == 4
    reasons = {
        "Condition/bad-c": "array` at $.code",
        "Patient/x": "`str` at $.link",
        "Procedure/date": "not in FHIR's form",
        "Procedure/kind": "`int` at $.resourceType",
        "Procedure/other": "of a type that was not asked for",
        "Procedure/subject": "the Procedure has no subject that could be told apart",
        "Procedure/type": "`int` at $.status",
    }
    assert found.keys() - nameless == reasons.keys()
    assert [place for place, end in reasons.items() if not found[place].endswith(end)] == []
    procedures = outcome.types["Procedure"]
    assert (procedures.read, procedures.new, procedures.quarantined, procedures.unchanged) == (22, 13, 9, 0)
    # on another page, and on the next night, they are still the same
    site.pull(page_size=1)
    assert site.quarantine() == found


def test_a_corrected_resource_leaves_the_quarantine(make_site: Make, kit: Any) -> None:
    site = make_site([], [broken(kit.procedure("p"), resourceType=5)])
    site.pull()
    assert list(site.quarantine()) == ["Procedure/p"]
    site.store.delete("Procedure", "p")
    site.store.put(kit.procedure("p", meta={}))
    site.pull()
    assert site.quarantine() == {}
    assert site.ids("Procedure") == ["p"]


def test_a_resource_that_breaks_no_longer_counts(make_site: Make, kit: Any) -> None:
    site = make_site([kit.procedure("p", "a"), kit.procedure("q", "b"), kit.condition("c", "a"), kit.person("a")])
    site.pull()
    site.decided()
    for resource in (kit.procedure("p", "a", meta={}), kit.condition("c", "a", meta={})):
        site.store.delete(resource["resourceType"], resource["id"])
        site.store.put_broken(*broken(resource, meta={"lastUpdated": "2025-06-02T00:00:00Z"}, subject=7))
    assert site.pull().error == ""
    assert site.ids("Procedure") == ["q"]
    assert site.ids("Condition") == []
    assert set(site.quarantine()) == {"Procedure/p", "Condition/c"}
    assert site.stale() == {"Patient/a"}


def test_a_whole_reading_forgets_what_is_no_longer_there(make_site: Make, kit: Any) -> None:
    site = make_site([], [broken(kit.procedure("p"), id=None, meta={})])
    site.pull()
    assert len(site.quarantine()) == 1
    site.store = site.app.store = make_site([]).store
    site.pull()  # no cursor yet, so it is a whole reading
    assert site.quarantine() == {}


@pytest.mark.parametrize("full_url", ["http://h/fhir/Procedure/7", "urn:uuid:7"])
def test_an_entry_may_lend_its_id(full_url: str, kit: Any) -> None:
    resource = kit.procedure("x") | {"id": None}
    bundle = {"resourceType": "Bundle", "entry": [{"fullUrl": full_url, "resource": resource}, {"fullUrl": full_url}]}
    answer = Answer(200, httpx.Headers({"content-type": "application/fhir+json"}), json.dumps(bundle).encode(), "")
    page = parse_searchset(answer, "here", "Procedure")
    assert [(item.fallback_id, item.problem, found) for item, found in page.items] == [
        ("7", "", "7"),
        ("7", "the entry holds no resource", "7"),
    ]


@pytest.mark.parametrize("way", [{}, {"strategy": "bulk", "bulk": {"poll_min_s": 0, "poll_max_s": 0.01}}])
def test_what_no_ledger_holds_is_set_aside_and_the_rest_is_read(make_site: Make, kit: Any, way: dict[str, Any]) -> None:
    site = make_site(
        [
            kit.procedure("good"),
            kit.procedure("long-status", status="x" * 30),
            kit.procedure("long-patient", "y" * 300),
            kit.procedure("z" * 250),
            kit.person("a"),
        ]
    )
    outcome = site.pull(**way)
    assert (outcome.error, outcome.types["Procedure"].quarantined) == ("", 3)
    assert site.ids("Procedure") == ["good"]
    assert set(site.quarantine().values()) == {
        "the id, the status or the reference to the patient is too long, or holds a NUL"
    }
