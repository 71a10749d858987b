"""Pulling from a server that misbehaves: the right ledger in the end, or a failure that moves no cursor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from io_fhir_adapter.sandbox.faults import Faults, PageFault

PROCEDURES = [f"p{number:02}" for number in range(12)]
ENCOUNTERS = [f"e{number}" for number in (0, 1, 10, 2, 4, 5, 6, 8, 9)]
CONDITIONS = ["c0", "c1", "c2", "c4", "c5", "c6"]
PATIENTS = ["a", "b", "c"]

SURVIVED = {
    "none": Faults(),
    "latency": Faults(latency_s=0.01),
    "throttled": Faults(every_nth=3, retry_after_s=30),
    "throttled, without a word": Faults(every_nth=3, retry_after_s=None),
    "busy, with a date": Faults(every_nth=4, every_nth_status=503, retry_after_as_date=True, retry_after_s=30),
    "one 500": Faults(page_faults=(PageFault("error", page=2),)),
    "two 502": Faults(page_faults=(PageFault("error", page=2, times=2, status=502),)),
    "cut in the body": Faults(page_faults=(PageFault("cut-body", page=2),)),
    "cut before the answer": Faults(page_faults=(PageFault("cut-headers", times=2),)),
    "cut JSON with a 200": Faults(page_faults=(PageFault("truncated", page=2, times=2),)),
    "a sign-in page once": Faults(page_faults=(PageFault("html", page=1),)),
    "text/plain": Faults(page_faults=(PageFault("wrong-content-type", times=None),)),
    "drip": Faults(page_faults=(PageFault("drip", page=1, seconds=0.05),)),
    "expired search": Faults(page_faults=(PageFault("gone", page=2),)),
    "expired search, twice": Faults(page_faults=(PageFault("gone", page=3, times=2),)),
    "small pages": Faults(max_page_size=1),
    "host-relative links": Faults(next_links="relative"),
    "long links": Faults(next_padding=6000),
    "an empty page": Faults(empty_page=2),
    "repeated entries": Faults(duplicate_entries=2),
    "no total": Faults(total="never"),
    "total on request": Faults(total="on-request"),
    "total too small": Faults(total_off_by=-1),
    "long URLs refused": Faults(max_url=110),
    "long URLs not found": Faults(max_url=110, max_url_status=404),
    "few at a time": Faults(max_concurrent=3, latency_s=0.005),
    "no partial dates": Faults(refuse_partial_dates=True),
    "strict": Faults(strict_parameters=True),
    "strict and no _total": Faults(strict_parameters=True, unsupported_parameters=("_total",)),
    **{
        f"ignores {name}": Faults(ignored_parameters=(name,), ignored_in_self=True)
        for name in ("_id", "patient", "_count", "_total", "_lastUpdated", "date")
    },
}

FAILED = {
    "always 500": (Faults(page_faults=(PageFault("error", page=2, times=None),)), "busy or failing (HTTP 500"),
    "always 503": (Faults(every_nth=1, every_nth_status=503), "(HTTP 503"),
    "always cut": (Faults(page_faults=(PageFault("cut-body", page=2, times=None),)), "the connection failed"),
    "always truncated": (Faults(page_faults=(PageFault("truncated", page=3, times=None),)), "ends early or is damaged"),
    "sign-in page": (Faults(page_faults=(PageFault("html", times=None),)), "no FHIR, maybe a sign-in"),
    "always expired": (Faults(page_faults=(PageFault("gone", page=2, times=None),)), "(HTTP 410, expired)"),
    "next vanishes": (Faults(max_results=7), "says 12 Procedure resources and handed over 7"),
    "total too large": (Faults(total_off_by=1), "says 13 Procedure resources and handed over 12"),
    "foreign links": (Faults(next_links="foreign"), "another origin (https://fhir.invalid:443)"),
    "circle": (Faults(next_links="loop"), "run in a circle"),
    "long links refused": (Faults(next_padding=300, max_url=250), "(HTTP 414"),
    "sign-in needed": (Faults(require_bearer="right"), "refused the credentials (HTTP 401"),
    "patient needed": (Faults(patient_required=400), "refused the request (HTTP 400"),
    "patient needed, 403": (Faults(patient_required=403), "(HTTP 403"),
    "no JSON in a page": (Faults(broken_json_pages=True), "ends early or is damaged"),
    "Conditions always 500": (
        Faults(page_faults=(PageFault("error", types=("Condition",), times=None),)), "busy or failing",
    ),
    "Patients always 500": (
        Faults(page_faults=(PageFault("error", types=("Patient",), times=None),)), "busy or failing",
    ),
}  # fmt: skip


def check_whole(site: Any) -> None:
    """Exactly what the small hospital needs is in the ledger."""
    assert site.ids("Procedure") == PROCEDURES
    assert site.ids("Encounter") == sorted(ENCOUNTERS)
    assert site.ids("Condition") == CONDITIONS
    assert site.ids("Patient") == PATIENTS
    assert site.quarantine() == {}


@pytest.mark.parametrize("name", SURVIVED)
def test_a_fault_that_passes_leaves_no_trace(site: Any, name: str) -> None:
    site.switch(SURVIVED[name])
    outcome = site.pull(retries=8)
    assert outcome.error == ""
    assert outcome.complete
    check_whole(site)
    found = {kind: (types.read, types.new, types.unchanged) for kind, types in outcome.types.items()}
    assert found == {"Procedure": (12, 12, 0), "Encounter": (9, 9, 0), "Condition": (6, 6, 0), "Patient": (3, 3, 0)}
    assert site.cursor() == "2025-06-01T08:00:00.000000Z"


@pytest.mark.parametrize("name", FAILED)
def test_a_fault_that_stays_moves_no_cursor_and_loses_nothing(make_site: Callable[..., Any], name: str) -> None:
    faults, sentence = FAILED[name]
    site = make_site(broken=[("Procedure", '{"resourceType":"Procedure","id":"cut')])
    site.switch(faults)
    outcome = site.pull(retries=1)
    assert sentence in outcome.error
    assert not outcome.complete
    assert site.cursor() == ""

    site.switch(Faults())
    assert site.pull().error == ""
    check_whole(site)
    assert site.stale() == {"Patient/a", "Patient/b", "Patient/c"}


def test_a_server_that_does_not_answer_in_time(make_site: Callable[..., Any]) -> None:
    site = make_site(own=True)
    site.switch(Faults(latency_s=0.5))
    outcome = site.pull(retries=1, read_timeout_s=0.05)
    assert "did not answer in time" in outcome.error
    assert (outcome.requests, outcome.retried) == (2, 1)


def test_credentials_go_to_the_server_and_not_to_a_stranger(
    site: Any, make_site: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "right")
    auth = {"kind": "bearer", "token": {"env": "TOKEN"}}
    site.switch(Faults(require_bearer="right"))
    assert site.pull(auth=auth).error == ""
    check_whole(site)
    assert all(request["authorization"] for request in site.requests())

    stranger = make_site(own=True)
    site.switch(Faults(next_links="foreign", foreign_origin=stranger.url))
    assert "another origin" in site.pull(auth=auth).error
    assert stranger.requests() == []


def test_a_trusted_origin_may_go_on(site: Any) -> None:
    other = site.url.replace("127.0.0.1", "localhost")
    site.switch(Faults(next_links="foreign", foreign_origin=other))
    assert "another origin" in site.pull().error
    assert site.pull(trusted_origins=[other]).error == ""
    check_whole(site)


def test_batches_run_side_by_side_up_to_the_limit(make_site: Callable[..., Any]) -> None:
    site = make_site(own=True)
    site.switch(Faults(latency_s=0.03))
    assert site.pull(batch_size=1, concurrency=3).error == ""
    check_whole(site)
    assert httpx.get(f"{site.url}/_sandbox/stats").json()["most_in_flight"] == 3
