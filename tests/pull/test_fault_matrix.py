"""Faults of real servers, proxies and networks, over real sockets: the ledger of an undisturbed pull, or none moved.

Every row ends in one of two ways: the facts are exactly those of the undisturbed pull and the cursor moved, or the pull
failed with a sentence, the cursor stayed where it was, and the next undisturbed pull makes it good. Rows that are about
one way of reading alone stand beside that way (test_faults, test_slices, test_bulk, test_patient_strategy).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from io_fhir_adapter.sandbox.auth_plan import AuthPlan
from io_fhir_adapter.sandbox.bulk_faults import BulkFaults
from io_fhir_adapter.sandbox.faults import Faults, PageFault

Make = Callable[..., Any]
Json = dict[str, Any]

BY_SEARCH: Json = {}
BY_BULK: Json = {"strategy": "bulk", "bulk": {"poll_min_s": 0, "poll_max_s": 0.01}}
BY_PATIENT: Json = {"strategy": "patient", "patients": {"from": "encounters"}}
CUT: Json = {"slice_size": 3}
SIGNED: Json = {
    "auth": {"kind": "client-credentials", "client_id": "io-fhir-adapter", "client_secret": {"env": "SECRET"}}
}
AUTH = AuthPlan(required=True, client_secret="sesame", scopes=("system/*.rs",))
FILE, STATUS, KICK_OFF = "bulk-file", "bulk-status", "$export"


def once(kind: Any, **more: Any) -> Faults:
    return Faults(page_faults=(PageFault(kind, **more),))


def always(kind: Any, **more: Any) -> Faults:
    return once(kind, times=None, **more)


PASSES: dict[str, tuple[Faults, Json]] = {
    "gzip cut in the middle": (once("cut-gzip", page=2), BY_SEARCH),
    "gzip of an export cut in the middle": (once("cut-gzip", token=FILE), BY_BULK),
    "chunks without an end": (once("no-end", page=1), BY_SEARCH),
    "chunks without an end, export": (once("no-end", token=FILE), BY_BULK),
    "byte order mark": (always("byte-order-mark"), BY_SEARCH),
    "byte order mark, patient by patient": (always("byte-order-mark"), BY_PATIENT),
    "byte order mark, export": (always("byte-order-mark"), BY_BULK),
    "characters that JSON does not allow": (always("odd-json"), BY_SEARCH),
    "characters that JSON does not allow, export": (always("odd-json", token=FILE), BY_BULK),
    "an empty body": (once("empty", page=2, times=2), BY_SEARCH),
    "an empty manifest": (replace(once("empty", token=STATUS), bulk=BulkFaults(polls=0)), BY_BULK),
    "an empty file": (once("empty", token=FILE), BY_BULK),
    "unknown statuses": (once("error", page=2, status=520), BY_SEARCH),
    "too early": (once("error", status=425), BY_SEARCH),
    "request time-outs": (once("error", page=1, status=408, times=3), BY_SEARCH),
    "a lost search that is said to be wrong": (once("error", page=2, status=400), BY_SEARCH),
    "a lost search in a slice that is said to be wrong": (once("error", page=2, status=400), CUT),
    "links of a query alone": (Faults(next_links="query"), BY_SEARCH),
    "links with a fragment": (Faults(next_links="fragment"), BY_SEARCH),
    "outcomes and other resources on every page": (Faults(strange_entries=True), BY_SEARCH),
    "an outcome says that a parameter is not known": (Faults(left_out="not-supported"), BY_SEARCH),
    "outcomes and other resources, patient by patient": (Faults(strange_entries=True), BY_PATIENT),
    **{
        f"_count refused with {status}": (Faults(refused_parameters=("_count",), refused_status=status), BY_SEARCH)
        for status in (400, 412, 422)
    },
    "_total refused with 422": (Faults(refused_parameters=("_total",), refused_status=422), BY_SEARCH),
    "date refused with 422": (Faults(refused_parameters=("date",), refused_status=422), CUT),
    "pages of ten at most": (Faults(max_page_size=10), {"page_size": 500}),
    "very many tiny files, throttled": (Faults(bulk=BulkFaults(per_file=1), every_nth=4), BY_BULK),
    "slow, and slices side by side": (Faults(latency_s=0.005, max_concurrent=2), {**CUT, "concurrency": 8}),
    "throttled until long ago": (Faults(every_nth=3, retry_after_s=-86_400, retry_after_as_date=True), BY_SEARCH),
    "throttled for ages": (Faults(every_nth=3, retry_after_s=10**30), BY_SEARCH),
    "tokens that end while files are downloaded": (
        Faults(auth=replace(AUTH, uses=3), bulk=BulkFaults(per_file=2)),
        {"strategy": "bulk", "bulk": {**BY_BULK["bulk"], "concurrency": 1}, **SIGNED},
    ),
    "tokens that end while pages are read": (Faults(auth=replace(AUTH, uses=3)), {**CUT, **SIGNED, "concurrency": 1}),
    "token endpoint throttled": (
        Faults(auth=replace(AUTH, token_status=429, token_status_times=2)), {**BY_SEARCH, **SIGNED},
    ),
    "one token refused": (Faults(auth=replace(AUTH, refused_times=1)), {**BY_PATIENT, **SIGNED}),
    "all at once": (
        Faults(
            every_nth=5, retry_after_s=None, max_page_size=2, empty_page=2, duplicate_entries=1, total="on-request",
            next_links="relative", no_lists=True, ignored_parameters=("_lastUpdated",), strange_entries=True,
            page_faults=(PageFault("gone", page=3), PageFault("truncated", page=2), PageFault("cut-headers")),
        ),
        CUT,
    ),
}  # fmt: skip

STAYS: dict[str, tuple[Faults, Json, str]] = {
    "gzip always cut": (always("cut-gzip", page=2), BY_SEARCH, "compressed answer is broken or cut off"),
    "chunks never end": (always("no-end", page=2), BY_SEARCH, "the connection failed"),
    "always empty": (always("empty", page=2), BY_SEARCH, "ends early or is damaged"),
    "a file always empty": (always("empty", token=FILE), BY_BULK, "the manifest says"),
    "an outcome in place of a page": (always("outcome", page=2), BY_SEARCH, "something else than a Bundle"),
    "an outcome in place of a patient's page": (always("outcome", page=1), BY_PATIENT, "something else than a Bundle"),
    **{
        f"an outcome says that something is missing: {code}": (
            Faults(left_out=code), way, "could not give everything that it was asked for",
        )
        for code, way in {"incomplete": BY_SEARCH, "timeout": CUT, "throttled": BY_PATIENT}.items()
    },
    "a total that grows for ever": (Faults(total_grows=1), BY_SEARCH, "Procedure resources and handed over"),
    "links to the first page for ever": (Faults(next_links="endless"), BY_SEARCH, "the search does not end"),
    "links to the first page for ever, no total": (
        Faults(next_links="endless", total="never"), BY_SEARCH, "the search does not end",
    ),
    "links to the first page for ever, in slices": (
        Faults(next_links="endless"), {**CUT, "page_size": 1}, "the search does not end",
    ),
    "links to inside the network": (
        Faults(next_links="foreign", foreign_origin="http://169.254.169.254"), BY_SEARCH, "leads to another origin",
    ),
    "links to another scheme": (
        Faults(next_links="foreign", foreign_origin="ftp://127.0.0.1"), BY_SEARCH, "leads to another origin",
    ),
    "long links not found": (
        Faults(next_padding=3_000, max_url=2_500, max_url_status=404), BY_SEARCH, "(HTTP 404",
    ),
    "forbidden half-way": (always("error", page=2, status=403), BY_SEARCH, "refused the credentials (HTTP 403"),
    "every parameter refused": (Faults(refused_parameters=("_count", "patient", "_id")), BY_PATIENT, "(HTTP 400"),
    "token endpoint down": (
        Faults(auth=replace(AUTH, token_status=503)), {**BY_SEARCH, **SIGNED}, "no access token to be had",
    ),
    "no token is good": (Faults(auth=replace(AUTH, refused_times=None)), {**CUT, **SIGNED}, "(HTTP 401"),
    "export forbidden": (always("error", token=KICK_OFF, status=403), BY_BULK, "(HTTP 403"),
}  # fmt: skip


def given(site: Any, way: Json, monkeypatch: pytest.MonkeyPatch) -> Json:
    """The configuration of a row; tokens come from the site itself."""
    monkeypatch.setenv("SECRET", AUTH.client_secret)
    if "auth" not in way:
        return way
    return {**way, "auth": {**way["auth"], "token_url": f"{site.url}/auth/token"}}


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Any]:
    """The facts of a pull of the small hospital without faults, filled by the first test that asks."""
    return {}


def facts_without_faults(make_site: Make, kept: dict[str, Any]) -> list[tuple[Any, ...]]:
    if not kept:
        site = make_site()
        assert site.pull().error == ""
        kept["facts"] = site.facts()
    return kept["facts"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", PASSES)
def test_the_ledger_is_that_of_an_undisturbed_pull(
    make_site: Make, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    expected = facts_without_faults(make_site, undisturbed)
    faults, way = PASSES[name]
    site = make_site()
    site.switch(faults)
    outcome = site.pull(retries=12, **given(site, way, monkeypatch))
    assert outcome.error == ""
    assert outcome.complete
    assert site.facts() == expected
    assert site.quarantine() == {}
    assert site.cursor() >= "2025-06-01T08:00:00"


@pytest.mark.parametrize("name", STAYS)
def test_the_pull_fails_and_the_next_one_makes_it_good(
    make_site: Make, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    expected = facts_without_faults(make_site, undisturbed)
    faults, way, sentence = STAYS[name]
    site = make_site()
    site.switch(faults)
    config = given(site, way, monkeypatch)
    outcome = site.pull(retries=1, **config)
    assert sentence in outcome.error
    assert not outcome.complete
    assert site.cursor() == ""
    assert set(site.facts()) <= set(expected)

    site.switch(Faults(auth=AUTH) if "auth" in config else Faults())
    assert site.pull(**config).error == ""
    assert site.facts() == expected


PARTS: list[Json] = [
    {"every_nth": 4, "retry_after_s": None},
    {"max_page_size": 2},
    {"empty_page": 2},
    {"duplicate_entries": 2},
    {"total": "never"},
    {"next_links": "relative"},
    {"next_padding": 60},
    {"ignored_parameters": ("_id", "patient"), "ignored_in_self": True},
    {"no_lists": True},
    {"max_list": 1},
    {"bare_ids": True},
    {"strict_parameters": True, "unsupported_parameters": ("_total",)},
    {"posted_searches": "refused", "max_url": 200},
    {"refused_parameters": ("_count",)},
    {"strange_entries": True},
    {"page_faults": (PageFault("gone", page=2), PageFault("cut-body", times=2), PageFault("odd-json", times=5))},
    {"total_at_most": 5},
    {"refuse_partial_dates": True},
]


@pytest.mark.parametrize("seed", range(12))
def test_faults_together(make_site: Make, undisturbed: dict[str, Any], seed: int) -> None:
    """Five faults that a pull survives by themselves, drawn at random, in one of the ways to search."""
    expected = facts_without_faults(make_site, undisturbed)
    rng = Random(seed)
    faults = Faults()
    for part in rng.sample(PARTS, 5):
        faults = replace(faults, **part)
    site = make_site()
    site.switch(faults)
    outcome = site.pull(retries=12, **rng.choice([BY_SEARCH, CUT, BY_PATIENT]))
    assert (outcome.error, outcome.complete) == ("", True)
    assert site.facts() == expected
    assert site.quarantine() == {}


def test_a_fault_in_a_later_night(make_site: Make, kit: Any) -> None:
    """What changed is read once the fault is gone, however many nights it lasted."""
    site = make_site()
    site.pull()
    before, facts = site.cursor(), site.facts()
    site.store.put(kit.procedure("p00", status="entered-in-error", encounter={"reference": "Encounter/e0"}, meta={}))
    for faults in (
        always("cut-gzip"), always("outcome"), Faults(next_links="endless"), always("error", types=("Condition",)),
    ):  # fmt: skip
        site.switch(faults)
        outcome = site.pull(retries=0, page_size=1)
        assert outcome.error
        assert site.cursor() == before
    site.switch(Faults())
    assert site.pull().error == ""
    assert site.cursor() > before
    changed = [row for row in site.facts() if row not in facts]
    assert [(row[1], row[3]) for row in changed] == [("p00", "entered-in-error")]
