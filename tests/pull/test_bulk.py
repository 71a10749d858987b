"""Pulling by Bulk Data export, over a real socket: the same ledger as by search, whatever the server is like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import pytest

from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.pull.bulk_job import poll_wait
from io_fhir_adapter.sandbox.bulk_faults import BulkFaults
from io_fhir_adapter.sandbox.faults import Faults, PageFault
from io_fhir_adapter.sandbox.hospital import build_hospital

Make = Callable[..., Any]
QUICK = {"poll_min_s": 0, "poll_max_s": 0.01}
PROCEDURES = [f"p{number:02}" for number in range(12)]
ENCOUNTERS = sorted(f"e{number}" for number in (0, 1, 10, 2, 4, 5, 6, 8, 9))
CONDITIONS = ["c0", "c1", "c2", "c4", "c5", "c6"]
PATIENTS = ["a", "b", "c"]


def bulk(site: Any, /, bulk_of: dict[str, Any] | None = None, **more: Any) -> Any:
    """One pull by export."""
    return site.pull(strategy="bulk", bulk={**QUICK, **(bulk_of or {})}, **more)


def check_whole(site: Any) -> None:
    """Exactly what the small hospital needs is in the ledger, and nothing else is left anywhere."""
    assert site.ids("Procedure") == PROCEDURES
    assert site.ids("Encounter") == ENCOUNTERS
    assert site.ids("Condition") == CONDITIONS
    assert site.ids("Patient") == PATIENTS
    assert site.quarantine() == {}
    check_cleared(site)


def check_cleared(site: Any) -> None:
    """No file and no job of an export is left."""
    assert not site.ledger_path.with_name(f"{site.ledger_path.name}-bulk-s").exists()
    assert site._rows("select * from bulk_jobs") == []


def asked(site: Any, text: str, method: str = "") -> list[Any]:
    """Requests whose path holds a text."""
    return [one for one in site.requests() if text in one["path"] and method in one["method"]]


# --- the right ledger ------------------------------------------------------------------------------------------------


def test_an_export_gives_the_ledger_that_a_search_gives(make_site: Make) -> None:
    searched, exported = make_site(), make_site()
    assert searched.pull().error == ""
    outcome = bulk(exported)
    assert (outcome.error, outcome.complete, outcome.strategy, outcome.notes) == ("", True, "bulk", [])
    assert exported.facts() == searched.facts()
    check_whole(exported)
    found = {kind: (one.read, one.new, one.total, one.pages) for kind, one in outcome.types.items()}
    assert found == {
        "Procedure": (12, 12, 12, 1), "Encounter": (9, 9, None, 1), "Condition": (6, 6, None, 1),
        "Patient": (3, 3, None, 1),
    }  # fmt: skip
    assert [one["method"] for one in exported.requests()][-1] == "DELETE"


def test_a_whole_hospital_with_broken_resources(make_site: Make) -> None:
    hospital = build_hospital(patients=60, procedures=700)
    resources = [one for held in hospital.resources.values() for one in held]
    searched, exported = (make_site(resources, list(hospital.broken)) for _ in range(2))
    assert searched.pull(page_size=200, batch_size=50).error == ""
    exported.switch(Faults(bulk=BulkFaults(per_file=150, count="absent")))
    outcome = bulk(exported)
    assert (outcome.error, outcome.complete) == ("", True)
    assert exported.facts() == searched.facts()
    assert exported.quarantine() == searched.quarantine()
    assert outcome.types["Procedure"].quarantined == sum(1 for kind, _ in hospital.broken if kind == "Procedure")


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("level", ["system", "patient", "group"])
def test_every_level_by_every_method(site: Any, level: str, method: str) -> None:
    more = {"group": "everyone"} if level == "group" else {}
    assert bulk(site, {"level": level, "method": method, **more}).error == ""
    check_whole(site)
    path = {"system": "/fhir/$export", "patient": "/fhir/Patient/$export", "group": "/fhir/Group/everyone/$export"}
    (kick_off,) = asked(site, "$export")
    assert (kick_off["method"], kick_off["path"]) == (method.upper(), path[level])


def test_a_group_is_its_members_alone(make_site: Make, kit: Any) -> None:
    members = [{"entity": {"reference": f"Patient/{name}"}} for name in "ab"]
    group = {"resourceType": "Group", "id": "g", "type": "person", "actual": True, "member": members}
    site = make_site([*kit.small_hospital(), group])
    assert bulk(site, {"level": "group", "group": "g"}).error == ""
    assert site.ids("Patient") == ["a", "b"]
    assert site.ids("Procedure") == [name for number, name in enumerate(PROCEDURES) if number % 4 < 2]


def test_text_beyond_ascii_survives_any_boundary(make_site: Make, kit: Any) -> None:
    texts = {"note": [{"text": "Ablation im Süden 🫁 – € " * 40}], "extension": [{"url": "http://x/ü"}]}
    resources = [*kit.small_hospital(), *(kit.procedure(f"ü-{number}🫁", **texts) for number in range(20))]
    searched, exported = make_site(resources), make_site(resources)
    assert searched.pull().error == ""
    exported.switch(Faults(page_faults=(PageFault("drip", token="bulk-file", times=None, seconds=0.05),)))
    assert bulk(exported).error == ""
    assert exported.facts() == searched.facts()


# --- servers as they are ---------------------------------------------------------------------------------------------


def said(severity: str) -> str:
    """What a server says among the resources of a file."""
    return f'{{"resourceType":"OperationOutcome","id":"p00","issue":[{{"severity":"{severity}","code":"exception"}}]}}'


STATUS, FILE, KICK_OFF = "bulk-status", "bulk-file", "$export"
EXPIRED = "the server's export had expired; it was made once more"
SURVIVED: dict[str, tuple[Faults, dict[str, Any], list[str]]] = {
    "ready at once": (Faults(bulk=BulkFaults(polls=0)), {}, []),
    "many looks": (Faults(bulk=BulkFaults(polls=7), retry_after_s=3600), {}, []),
    "Retry-After as a date": (Faults(bulk=BulkFaults(polls=3), retry_after_s=3600, retry_after_as_date=True), {}, []),
    "no Retry-After": (Faults(bulk=BulkFaults(polls=3), retry_after_s=None), {}, []),
    "kick-off throttled": (Faults(page_faults=(PageFault("error", token=KICK_OFF, status=429, times=2),)), {}, []),
    "kick-off cut": (Faults(page_faults=(PageFault("cut-headers", token=KICK_OFF),)), {}, []),
    "status fails twice": (Faults(page_faults=(PageFault("error", token=STATUS, times=2),)), {}, []),
    "status throttled": (Faults(page_faults=(PageFault("error", token=STATUS, status=429, times=3),)), {}, []),
    "status forgotten": (Faults(page_faults=(PageFault("gone", token=STATUS),)), {}, [EXPIRED]),
    "manifest cut off": (
        Faults(bulk=BulkFaults(polls=0), page_faults=(PageFault("truncated", token=STATUS),)), {}, [],
    ),
    "sign-in page for a manifest": (
        Faults(bulk=BulkFaults(polls=0), page_faults=(PageFault("html", token=STATUS),)), {}, [],
    ),
    "file fails": (Faults(page_faults=(PageFault("error", token=FILE, times=2),)), {}, []),
    "file cut": (Faults(page_faults=(PageFault("cut-body", token=FILE, times=2),)), {}, []),
    "file cut before it began": (Faults(page_faults=(PageFault("cut-headers", token=FILE, times=2),)), {}, []),
    "file truncated": (Faults(page_faults=(PageFault("truncated", token=FILE),)), {}, []),
    "file truncated, no count": (
        Faults(
            bulk=BulkFaults(count="absent"), page_faults=(PageFault("truncated", token=FILE, types=("Procedure",)),)
        ), {}, [],
    ),
    "file cut at a line end, no length, no count": (
        Faults(bulk=BulkFaults(count="absent"), page_faults=(PageFault("cut-lines", token=FILE),)), {}, [],
    ),
    "no length": (Faults(page_faults=(PageFault("no-length", token=FILE, times=None),)), {}, []),
    "no length, no count, gzip files": (
        Faults(
            bulk=BulkFaults(gzip_files=True, count="absent"),
            page_faults=(PageFault("no-length", token=FILE, times=None),),
        ), {}, [],
    ),
    "no length, no count, gzip on the way": (
        Faults(
            bulk=BulkFaults(count="absent"),
            page_faults=(PageFault("no-length", token=FILE, types=("Procedure",), times=None),),
        ), {}, [],
    ),
    "sign-in page for a file": (Faults(page_faults=(PageFault("html", token=FILE),)), {}, []),
    "sign-in page for a file, no count": (
        Faults(bulk=BulkFaults(count="absent"), page_faults=(PageFault("html", token=FILE),)), {}, [],
    ),
    "file of no known type": (Faults(page_faults=(PageFault("wrong-content-type", token=FILE, times=None),)), {}, []),
    "file expired (410)": (Faults(page_faults=(PageFault("gone", token=FILE),)), {}, [EXPIRED]),
    "file expired (404)": (Faults(page_faults=(PageFault("error", token=FILE, status=404),)), {}, [EXPIRED]),
    "file expired (403)": (Faults(page_faults=(PageFault("error", token=FILE, status=403),)), {}, [EXPIRED]),
    "small files": (Faults(bulk=BulkFaults(per_file=2)), {}, []),
    "manifest in pages": (Faults(bulk=BulkFaults(per_file=2, per_manifest=3)), {}, []),
    "no counts": (Faults(bulk=BulkFaults(count="absent")), {}, []),
    "no last line end": (Faults(bulk=BulkFaults(final_newline=False)), {}, []),
    "gzip files": (Faults(bulk=BulkFaults(gzip_files=True)), {}, []),
    "gzip files, no count": (Faults(bulk=BulkFaults(gzip_files=True, count="absent")), {}, []),
    "by patient": (Faults(bulk=BulkFaults(by_patient=True)), {}, []),
    "by patient, small files, no count": (Faults(bulk=BulkFaults(by_patient=True, per_file=2, count="absent")), {}, []),
    "no token for files": (Faults(bulk=BulkFaults(requires_token=False)), {}, []),
    "other types too": (
        Faults(bulk=BulkFaults(stray_types=True)), {"types": ["Procedure", "Patient", "Condition"]},
        ["the export has types that were not asked for; they were not read"],
    ),
    "refuses _typeFilter": (
        Faults(bulk=BulkFaults(refused_parameters=("_typeFilter",))), {"type_filter": ["Procedure?date=ge2025-06-01"]},
        ["the server refuses _typeFilter; all resources of these types were exported"],
    ),
    "refuses GET": (
        Faults(bulk=BulkFaults(refused_methods=("GET",))), {},
        ["the server does not take the kick-off of exports by GET, but by POST"],
    ),
    "refuses POST": (
        Faults(bulk=BulkFaults(refused_methods=("POST",))), {"method": "post"},
        ["the server does not take the kick-off of exports by POST, but by GET"],
    ),
    "warnings": (
        Faults(bulk=BulkFaults(issues=("warning", "information"))), {}, ["the export carries 2 warnings or remarks"],
    ),
    "warnings in a file named among the resources": (
        Faults(bulk=BulkFaults(issues=("warning",), issues_first=True)), {},
        ["the export carries 1 warnings or remarks"],
    ),
    "warnings between the resources": (
        Faults(bulk=BulkFaults(foreign_lines=(said("warning"),))), {}, ["the export carries 4 warnings or remarks"],
    ),
    "warnings between the resources, by patient": (
        Faults(bulk=BulkFaults(foreign_lines=(said("warning"),), by_patient=True)), {},
        ["the export carries 1 warnings or remarks"],
    ),
    "keeps its jobs": (
        Faults(bulk=BulkFaults(refuses_delete=True)), {},
        ["the finished export could not be deleted on the server: the server refused the request (HTTP 405, "
         "not-supported)"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SURVIVED)
def test_a_fault_that_passes_leaves_no_trace(site: Any, name: str) -> None:
    faults, of, notes = SURVIVED[name]
    site.switch(faults)
    outcome = bulk(site, of, retries=8)
    assert (outcome.error, outcome.notes, outcome.complete) == ("", notes, True)
    check_whole(site)
    assert outcome.types["Procedure"].read == 12
    assert site.cursor() != ""
    deleted = asked(site, STATUS, "DELETE")
    assert [one["status"] for one in deleted] == [405 if faults.bulk.refuses_delete else 202]


FAILED: dict[str, tuple[Faults, str]] = {
    "always truncated": (
        Faults(page_faults=(PageFault("truncated", token=FILE, times=None),)), "ends in mid-line",
    ),
    "always truncated, gzip": (
        Faults(bulk=BulkFaults(gzip_files=True), page_faults=(PageFault("truncated", token=FILE, times=None),)),
        "is compressed and ends early",
    ),
    "more counted than there are": (
        Faults(bulk=BulkFaults(count_off_by=1)), "the manifest says 13 resources and a file of the export (Procedure) "
    ),
    "fewer counted than there are": (Faults(bulk=BulkFaults(count_off_by=-1)), "the manifest says 11 resources"),
    "no count and no last line end": (
        Faults(bulk=BulkFaults(count="absent", final_newline=False)), "has no line end at its end, and no count",
    ),
    "always a sign-in page": (Faults(page_faults=(PageFault("html", token=FILE, times=None),)), "is no NDJSON"),
    "always expired": (
        Faults(page_faults=(PageFault("gone", token=FILE, times=None),)),
        "does not give a file of its export any more (HTTP 410)",
    ),
    "always forgotten": (
        Faults(page_faults=(PageFault("gone", token=STATUS, times=None),)), "does not know its export any more",
    ),
    "status always fails": (Faults(page_faults=(PageFault("error", token=STATUS, times=None),)), "(HTTP 500"),
    "file always fails": (Faults(page_faults=(PageFault("error", token=FILE, times=None),)), "(HTTP 500"),
    "file always cut": (Faults(page_faults=(PageFault("cut-body", token=FILE, times=None),)), "the connection failed"),
    "manifest never readable": (
        Faults(bulk=BulkFaults(polls=0), page_faults=(PageFault("html", token=STATUS, times=None),)),
        "manifest cannot be read",
    ),
    "errors in the export": (
        Faults(bulk=BulkFaults(issues=("error", "warning", "fatal"))),
        "could not export everything: it reports 2 errors",
    ),
    "errors in a file named among the resources": (
        Faults(bulk=BulkFaults(issues=("error",), issues_first=True)),
        "could not export everything: it reports 1 errors",
    ),
    "errors between the resources": (
        Faults(bulk=BulkFaults(foreign_lines=(said("error"),))), "could not export everything: it reports 4 errors",
    ),
    "errors between the resources, by patient": (
        Faults(bulk=BulkFaults(foreign_lines=(said("fatal"),), by_patient=True)),
        "could not export everything: it reports 1 errors",
    ),
    "no length and no count": (
        Faults(
            bulk=BulkFaults(count="absent"),
            page_faults=(PageFault("no-length", token=FILE, types=("Patient",), times=None),),
        ), "(Patient) came with no length and no count",
    ),
    "always cut at a line end": (
        Faults(bulk=BulkFaults(count="absent"), page_faults=(PageFault("cut-lines", token=FILE, times=None),)),
        "came with no length and no count",
    ),
    "a time before all times": (
        Faults(bulk=BulkFaults(transaction_time="0001-01-01T00:00:00Z")), "transactionTime is no instant",
    ),
    "a time beyond the calendar": (
        Faults(bulk=BulkFaults(transaction_time="0001-01-01T00:00:00+01:00")), "transactionTime is no instant",
    ),
    "files at no address": (
        Faults(bulk=BulkFaults(file_origin="https://[x")), "names a file at an address that is no URL",
    ),
    "kick-off refused": (
        Faults(bulk=BulkFaults(refused_methods=("GET", "POST"))), "refused the request (HTTP 405, not-supported)",
    ),
    "files elsewhere": (
        Faults(bulk=BulkFaults(file_origin="http://169.254.169.254")), "leads to an address inside a network",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILED)
def test_a_fault_that_stays_moves_no_cursor_and_loses_nothing(site: Any, name: str) -> None:
    faults, sentence = FAILED[name]
    site.switch(faults)
    outcome = bulk(site, retries=1)
    assert sentence in outcome.error
    assert not outcome.complete
    assert site.cursor() == ""

    site.switch(Faults())
    assert bulk(site).error == ""
    check_whole(site)
    assert site.stale() == {"Patient/a", "Patient/b", "Patient/c"}


def test_an_export_that_never_ends_is_given_up(site: Any) -> None:
    site.switch(Faults(bulk=BulkFaults(polls=1_000_000)))
    outcome = bulk(site, {"give_up_after_hours": 0.00001})
    assert "the export is not done after 1e-05 hours" in outcome.error
    assert asked(site, STATUS, "DELETE")
    assert site.cursor() == ""


def test_a_damaged_line_is_set_aside_and_the_rest_is_read(make_site: Make) -> None:
    site = make_site(broken=[("Procedure", '{"resourceType":"Procedure","id":7}'), ("Procedure", "[1]")])
    outcome = bulk(site)
    assert outcome.error == ""
    assert site.ids("Procedure") == PROCEDURES
    assert len(site.quarantine()) == 2
    assert outcome.types["Procedure"].quarantined == 2


@pytest.mark.parametrize("by_patient", [False, True])
def test_a_line_of_no_type_is_set_aside(site: Any, by_patient: bool) -> None:
    site.switch(Faults(bulk=BulkFaults(foreign_lines=('{"id":"x"}',), by_patient=by_patient)))
    assert bulk(site).error == ""
    assert set(site.quarantine().values()) == {"no resourceType"}
    assert site.ids("Procedure") == PROCEDURES


def test_a_resource_of_another_type_is_told_and_takes_no_other_one_away(site: Any) -> None:
    site.switch(Faults(bulk=BulkFaults(foreign_lines=('{"resourceType":"Observation","id":"p00"}',))))
    outcome = bulk(site)
    assert outcome.error == ""
    assert set(site.quarantine().values()) == {"of a type that was not asked for"}
    assert {kind: one.quarantined for kind, one in outcome.types.items()} == {
        "Procedure": 1, "Encounter": 1, "Condition": 1, "Patient": 1,
    }  # fmt: skip
    assert site.ids("Procedure") == PROCEDURES
    site.switch(Faults())
    assert bulk(site, {"since": False}).error == ""
    check_whole(site)


# --- whom credentials go to ------------------------------------------------------------------------------------------


def token(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> dict[str, Any]:
    """A bearer token's configuration."""
    monkeypatch.setenv(name, value)
    return {"kind": "bearer", "token": {"env": name}}


@pytest.mark.parametrize("needed", [True, False])
def test_files_get_the_token_only_where_they_need_it(site: Any, monkeypatch: pytest.MonkeyPatch, needed: bool) -> None:
    site.switch(Faults(require_bearer="right", bulk=BulkFaults(requires_token=needed)))
    assert bulk(site, auth=token(monkeypatch, "T_REST", "right")).error == ""
    check_whole(site)
    assert {one["authorization"] for one in asked(site, FILE)} == {needed}
    assert {one["authorization"] for one in asked(site, STATUS)} == {True}


def test_an_export_may_sign_in_otherwise(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site.switch(Faults(require_bearer="for-bulk"))
    auth = {"auth": token(monkeypatch, "T_BULK", "for-bulk")}
    assert "refused the credentials" in bulk(site, auth=token(monkeypatch, "T_REST", "for-rest")).error
    assert bulk(site, auth, auth=token(monkeypatch, "T_REST", "for-rest")).error == ""
    check_whole(site)


def test_a_redirect_to_another_origin_is_followed_without_credentials(
    make_site: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(own=True)
    auth = token(monkeypatch, "T_REST", "right")
    with LoopbackServer(site.app) as elsewhere:
        site.switch(Faults(require_bearer="right", bulk=BulkFaults(redirect_to=elsewhere.base_url)))
        outcome = bulk(site, auth=auth)
        assert "leads to an address inside a network" in outcome.error
        assert bulk(site, auth=auth, download_origins=[elsewhere.base_url]).error == ""
    check_whole(site)
    redirected = [one for one in site.requests() if one["query"] == "granted=1"]
    assert {(one["status"], one["authorization"]) for one in redirected} == {(200, False)}
    assert len(redirected) == 4


def test_files_that_lie_elsewhere_are_fetched_without_credentials(
    make_site: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(own=True)
    with LoopbackServer(site.app) as elsewhere:
        faults = BulkFaults(file_origin=elsewhere.base_url, requires_token=False)
        site.switch(Faults(require_bearer="right", bulk=faults))
        auth = token(monkeypatch, "T_REST", "right")
        assert bulk(site, auth=auth, download_origins=[elsewhere.base_url]).error == ""
    check_whole(site)
    assert {one["authorization"] for one in asked(site, FILE)} == {False}


# --- how long to wait ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retry_after", "looks", "seconds"),
    [(None, 0, 2), (None, 2, 4.5), (None, 500, 60), (0, 0, 1), (7, 3, 7), (86_400, 0, 120)],
)
def test_the_wait_is_what_the_server_asks_for_within_bounds(
    retry_after: float | None, looks: int, seconds: float
) -> None:
    assert poll_wait(retry_after, looks, 1, 120) == seconds


def test_what_is_asked_for(site: Any) -> None:
    filters = ["Procedure?date=ge2025-01-01", "Condition?code=x,y"]
    bulk(site, {"type_filter": filters})
    (kick_off,) = asked(site, "$export")
    assert parse_qsl(kick_off["query"]) == [
        ("_outputFormat", "application/fhir+ndjson"),
        ("_type", "Procedure,Patient,Encounter,Condition"),
        ("_typeFilter", filters[0]),
        ("_typeFilter", filters[1]),
    ]


def test_an_export_of_everything_without_procedures_is_none(make_site: Make, kit: Any) -> None:
    site = make_site([kit.person("a"), kit.condition("c0")])
    assert "the export of everything holds no Procedure" in bulk(site).error
    assert site.cursor() == ""
