"""Each fault of the sandbox, seen from a client over a real socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest

from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.sandbox.faults import FaultPlanner, Faults, PageFault, faults_from_json, faults_to_json
from io_fhir_adapter.sandbox.server import create_app
from io_fhir_adapter.sandbox.store import SandboxStore

Start = Callable[[Faults], httpx.Client]

_COUNT = 12


def _resources() -> list[dict[str, Any]]:
    return [
        {
            "resourceType": "Procedure",
            "id": f"p{number}",
            "status": "completed",
            "code": {"text": "synthetic " * 30},
            "subject": {"reference": f"Patient/{number % 2}"},
            "performedDateTime": f"2025-03-{number + 1:02}",
        }
        for number in range(_COUNT)
    ]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a server with faults; gives a client for it."""
    with ExitStack() as stack:

        def run(faults: Faults) -> httpx.Client:
            broken = [("Procedure", '{"resourceType":"Procedure","id":"cut')]
            app = create_app(SandboxStore.from_resources(_resources(), broken), faults)
            server = stack.enter_context(LoopbackServer(app))
            return stack.enter_context(httpx.Client(base_url=server.base_url))

        yield run


def _link(bundle: dict[str, Any], relation: str) -> str | None:
    return next((link["url"] for link in bundle["link"] if link["relation"] == relation), None)


def _pages(client: httpx.Client, query: str = "Procedure?_count=5", most: int = 20) -> list[httpx.Response]:
    """The pages from the first to the last, to the first that is no good, or so many."""
    pages = [client.get(f"/fhir/{query}")]
    while len(pages) < most and pages[-1].status_code == 200:
        following = _link(pages[-1].json(), "next")
        if following is None:
            break
        pages.append(client.get(following))
    return pages


def _ids(pages: list[httpx.Response]) -> list[str]:
    return [entry["resource"]["id"] for page in pages for entry in page.json().get("entry", [])]


_EVERYTHING = [f"p{number}" for number in range(_COUNT)]


def test_all_is_well_without_faults(start: Start) -> None:
    assert _ids(_pages(start(Faults()))) == _EVERYTHING


def test_latency(start: Start) -> None:
    client = start(Faults(latency_s=0.2))
    begin = time.monotonic()
    client.get("/fhir/Procedure/p1")
    assert time.monotonic() - begin >= 0.19


def test_every_nth_request_is_throttled_with_seconds(start: Start) -> None:
    client = start(Faults(every_nth=3, retry_after_s=7))
    answers = [client.get("/fhir/Procedure/p1") for _ in range(6)]
    assert [one.status_code for one in answers] == [200, 200, 429, 200, 200, 429]
    assert answers[2].headers["retry-after"] == "7"
    assert answers[2].json()["resourceType"] == "OperationOutcome"


def test_throttling_with_a_date_or_without_a_word(start: Start) -> None:
    answer = start(Faults(every_nth=1, every_nth_status=503, retry_after_as_date=True)).get("/fhir/metadata")
    assert answer.status_code == 503
    assert parsedate_to_datetime(answer.headers["retry-after"]).tzinfo is not None
    assert "retry-after" not in start(Faults(every_nth=1, retry_after_s=None)).get("/fhir/metadata").headers


def test_too_many_requests_at_a_time(start: Start) -> None:
    client = start(Faults(max_concurrent=2, latency_s=0.3))
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(client.get("/fhir/Procedure/p1").status_code)) for _ in range(4)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert {200, 429} == set(statuses)
    assert client.get("/_sandbox/stats").json()["most_in_flight"] >= 3


def test_an_error_once_and_always(start: Start) -> None:
    client = start(Faults(page_faults=(PageFault("error", page=2),)))
    following = _link(client.get("/fhir/Procedure?_count=5").json(), "next")
    assert following is not None
    assert [client.get(following).status_code for _ in range(3)] == [500, 200, 200]

    client = start(Faults(page_faults=(PageFault("error", page=2, times=None, status=502),)))
    assert [page.status_code for page in _pages(client)] == [200, 502]
    assert [page.status_code for page in _pages(client)] == [200, 502]


def test_an_error_on_one_token_or_one_type(start: Start) -> None:
    client = start(Faults(page_faults=(PageFault("error", token="patient=1", times=None),)))
    assert client.get("/fhir/Procedure?patient=0").status_code == 200
    assert client.get("/fhir/Procedure?patient=1").status_code == 500

    client = start(Faults(page_faults=(PageFault("error", types=("Patient",), times=None),)))
    assert client.get("/fhir/Procedure").status_code == 200
    assert client.get("/fhir/Patient").status_code == 500


def test_page_zero_is_what_is_no_page(start: Start) -> None:
    client = start(Faults(page_faults=(PageFault("error", page=0, times=None, status=429),), retry_after_s=3))
    assert client.get("/fhir/Procedure").status_code == 200
    answer = client.get("/fhir/metadata")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_the_connection_is_cut_in_mid_body_once(start: Start, encoding: str) -> None:
    client = start(Faults(page_faults=(PageFault("cut-body", page=2),)))
    following = _link(client.get("/fhir/Procedure?_count=5").json(), "next")
    assert following is not None
    with pytest.raises(httpx.RemoteProtocolError, match="complete message body"):
        client.get(following, headers={"Accept-Encoding": encoding})
    assert client.get(following).status_code == 200
    assert client.get("/_sandbox/stats").json()["requests"]["last"][1]["fault"] == "cut-body"


def test_the_connection_is_cut_before_the_answer_always(start: Start) -> None:
    client = start(Faults(page_faults=(PageFault("cut-headers", times=None),)))
    for _ in range(3):
        with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
            client.get("/fhir/Procedure")


def test_cut_connections_are_no_server_errors(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    client = start(Faults(page_faults=(PageFault("cut-headers"), PageFault("cut-body"))))
    for _ in range(2):
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/fhir/Procedure")
    assert client.get("/fhir/Procedure").status_code == 200
    assert [record for record in caplog.records if record.name.startswith("uvicorn") and record.levelno >= 40] == []


def test_a_truncated_body_ends_cleanly(start: Start) -> None:
    answer = start(Faults(page_faults=(PageFault("truncated", page=1),))).get("/fhir/Procedure")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/fhir+json")
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        answer.json()


def test_a_login_page_instead_of_fhir(start: Start) -> None:
    answer = start(Faults(page_faults=(PageFault("html"),))).get("/fhir/Procedure")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert "<html>" in answer.text


def test_the_wrong_content_type(start: Start) -> None:
    answer = start(Faults(page_faults=(PageFault("wrong-content-type"),))).get("/fhir/Procedure")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.json()["total"] == _COUNT


def test_an_expired_search_must_be_started_again(start: Start) -> None:
    client = start(Faults(page_faults=(PageFault("gone", page=2),)))
    pages = _pages(client)
    assert [page.status_code for page in pages] == [200, 410]
    assert pages[1].json()["resourceType"] == "OperationOutcome"
    assert client.get(pages[1].url).status_code == 410
    assert _ids(_pages(client)) == _EVERYTHING


def test_a_slow_drip_takes_its_time_and_arrives_whole(start: Start) -> None:
    client = start(Faults(page_faults=(PageFault("drip", seconds=0.3),)))
    begin = time.monotonic()
    assert client.get("/fhir/Procedure").json()["total"] == _COUNT
    assert time.monotonic() - begin >= 0.29


def test_the_servers_own_page_size(start: Start) -> None:
    pages = _pages(start(Faults(max_page_size=4)), "Procedure?_count=500")
    assert [len(page.json()["entry"]) for page in pages] == [4, 4, 4]
    assert _ids(pages) == _EVERYTHING


def test_next_vanishes_although_total_says_more(start: Start) -> None:
    pages = _pages(start(Faults(max_results=7)))
    assert _ids(pages) == _EVERYTHING[:7]
    assert pages[-1].json()["total"] == _COUNT


def test_links_relative_to_the_host(start: Start) -> None:
    pages = _pages(start(Faults(next_links="relative")))
    assert (_link(pages[0].json(), "next") or "").startswith("/fhir?_getpages=")
    assert _ids(pages) == _EVERYTHING


def test_links_to_a_foreign_host(start: Start) -> None:
    client = start(Faults(next_links="foreign", foreign_origin="https://other.invalid:8443"))
    following = _link(client.get("/fhir/Procedure?_count=5").json(), "next")
    assert (following or "").startswith("https://other.invalid:8443/fhir?_getpages=")


def test_links_to_another_name_of_the_same_server_work(start: Start) -> None:
    client = start(Faults())
    alias = str(client.base_url).replace("127.0.0.1", "localhost")
    client.post("/_sandbox/faults", json={"next_links": "foreign", "foreign_origin": alias.rstrip("/")})
    pages = _pages(client)
    assert _ids(pages) == _EVERYTHING
    assert pages[1].url.host == "localhost"


def test_links_that_loop(start: Start) -> None:
    pages = _pages(start(Faults(next_links="loop")), "Procedure?_count=3", most=5)
    assert _ids(pages[1:2]) == _ids(pages[2:3]) == _ids(pages[4:5]) == ["p3", "p4", "p5"]


def test_links_too_long_for_the_server(start: Start) -> None:
    client = start(Faults(next_padding=2_000, max_url=1_500, max_url_status=404))
    assert [page.status_code for page in _pages(client)] == [200, 404]
    assert client.post("/fhir/Procedure/_search", data={"_id": ",".join(["p1"] * 900)}).status_code == 200


@pytest.mark.parametrize("page", [1, 2, 3, 4])
def test_an_empty_page_in_between_loses_nothing(start: Start, page: int) -> None:
    pages = _pages(start(Faults(empty_page=page)), "Procedure?_count=4")
    assert _ids(pages) == _EVERYTHING
    assert [len(one.json().get("entry", [])) for one in pages].count(0) == (1 if page < 4 else 0)


@pytest.mark.parametrize(("repeated", "size"), [(1, 5), (2, 5), (9, 5), (3, 1)])
def test_entries_that_come_twice(start: Start, repeated: int, size: int) -> None:
    found = _ids(_pages(start(Faults(duplicate_entries=repeated)), f"Procedure?_count={size}"))
    assert sorted(set(found)) == sorted(_EVERYTHING)
    assert (len(found) > _COUNT) is (size > 1)


@pytest.mark.parametrize(
    ("faults", "query", "total"),
    [
        (Faults(total="never"), "", None),
        (Faults(total="never"), "&_total=accurate", None),
        (Faults(total="on-request"), "", None),
        (Faults(total="on-request"), "&_total=accurate", _COUNT),
        (Faults(total_off_by=-3), "", _COUNT - 3),
    ],
)
def test_totals_missing_and_wrong(start: Start, faults: Faults, query: str, total: int | None) -> None:
    assert start(faults).get(f"/fhir/Procedure?_count=5{query}").json().get("total") == total


def test_parameters_ignored_without_a_word(start: Start) -> None:
    bundle = start(Faults(ignored_parameters=("date",))).get("/fhir/Procedure?date=2024&patient=1").json()
    assert bundle["total"] == 6
    assert (_link(bundle, "self") or "").endswith("/Procedure?patient=1")
    assert {entry["search"]["mode"] for entry in bundle["entry"]} == {"match"}


def test_ignored_parameters_that_the_self_link_claims(start: Start) -> None:
    faults = Faults(ignored_parameters=("date",), ignored_in_self=True)
    bundle = start(faults).get("/fhir/Procedure?date=2024&patient=1").json()
    assert bundle["total"] == 6
    assert (_link(bundle, "self") or "").endswith("/Procedure?date=2024&patient=1")


def test_parameters_that_the_server_does_not_have(start: Start) -> None:
    client = start(Faults(unsupported_parameters=("_lastUpdated",)))
    resources = client.get("/fhir/metadata").json()["rest"][0]["resource"]
    assert not any(one["name"] == "_lastUpdated" for kind in resources for one in kind["searchParam"])
    assert client.get("/fhir/Procedure?_lastUpdated=gt2099").json()["total"] == _COUNT
    strict = {"Prefer": "handling=strict"}
    assert client.get("/fhir/Procedure?_lastUpdated=gt2099", headers=strict).status_code == 400


def test_a_server_that_is_always_strict(start: Start) -> None:
    client = start(Faults(strict_parameters=True))
    assert client.get("/fhir/Procedure?colour=red").status_code == 400
    assert client.get("/fhir/Procedure?date=2025").status_code == 200


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("date=2025", 400),
        ("date=ge2025-03", 400),
        ("date=ge2025-03-01&date=lt2025-04", 400),
        ("date=ge2025-03-01", 200),
        ("_lastUpdated=2025-03", 400),
        ("_id=2025", 200),
    ],
)
def test_partial_dates_refused(start: Start, query: str, status: int) -> None:
    assert start(Faults(refuse_partial_dates=True)).get(f"/fhir/Procedure?{query}").status_code == status


@pytest.mark.parametrize(("status", "code"), [(400, "required"), (403, "forbidden")])
def test_a_patient_is_required(start: Start, status: int, code: str) -> None:
    client = start(Faults(patient_required=status))
    answer = client.get("/fhir/Procedure?date=ge2025-03-01")
    assert answer.status_code == status
    assert answer.json()["issue"][0]["code"] == code
    for query in ("Procedure?patient=1", "Procedure?subject=Patient/1", "Procedure?_id=p1", "Patient"):
        assert client.get(f"/fhir/{query}").status_code == 200


def test_a_bearer_token_is_required(start: Start) -> None:
    client = start(Faults(require_bearer="s3cret"))
    refused = client.get("/fhir/Procedure", headers={"Authorization": "Bearer other"})
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert client.get("/fhir/metadata").status_code == 200
    assert client.get("/fhir/Procedure", headers={"Authorization": "Bearer s3cret"}).status_code == 200
    assert "s3cret" not in client.get("/_sandbox/faults").text


def test_text_that_is_no_json_breaks_its_page_only_when_asked(start: Start) -> None:
    client = start(Faults())
    assert client.get("/fhir/Procedure").json()["total"] == _COUNT
    client.post("/_sandbox/faults", json={"broken_json_pages": True})
    answer = client.get("/fhir/Procedure")
    assert '"id":"cut' in answer.text
    with pytest.raises(ValueError, match=r".+"):
        answer.json()


def test_faults_are_switched_at_run_time(start: Start) -> None:
    client = start(Faults(every_nth=1))
    assert client.get("/fhir/metadata").status_code == 429
    wanted = {"max_page_size": 2, "page_faults": [{"kind": "error", "page": 2}], "ignored_parameters": ["code"]}
    shown = client.post("/_sandbox/faults", json=wanted).json()
    assert shown == client.get("/_sandbox/faults").json()
    assert (shown["every_nth"], shown["max_page_size"]) == (0, 2)
    assert [page.status_code for page in _pages(client)] == [200, 500]
    assert client.post("/_sandbox/faults", json={}).json()["max_page_size"] == 0
    assert len(_pages(client)) == 3


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"latncy_s": 1}',
        b'{"latency_s": "slow"}',
        b'{"page_faults": [{"kind": "magic"}]}',
        b'{"page_faults": [{"kind": "error", "pge": 1}]}',
        b'{"page_faults": 3}',
        b'{"next_links": "upward"}',
    ],
)
def test_faults_that_make_no_sense_are_refused(start: Start, body: bytes) -> None:
    client = start(Faults(max_page_size=3))
    answer = client.post("/_sandbox/faults", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert client.get("/_sandbox/faults").json()["max_page_size"] == 3


def test_faults_survive_json() -> None:
    faults = Faults(page_faults=(PageFault("drip", page=None, times=None),), unsupported_parameters=("code",))
    assert faults_from_json(httpx.Request("POST", "http://x", json=faults_to_json(faults)).content) == faults


def test_the_first_fault_that_fits_strikes_and_counts() -> None:
    planner = FaultPlanner(Faults(page_faults=(PageFault("error", page=2, times=2), PageFault("html", times=1))))

    def strike(page: int) -> str | None:
        fault = planner.after(page=page, resource_type="Procedure", target="/fhir")
        return fault.kind if fault else None

    assert [strike(page) for page in (2, 1, 2, 2, 1)] == ["error", "html", "error", None, None]
    planner.switch(planner.faults)
    assert strike(2) == "error"


def test_searches_by_post_refused_or_not_read(start: Start) -> None:
    form = {"_id": "p1", "_count": "50"}
    assert start(Faults()).post("/fhir/Procedure/_search", data=form).json()["total"] == 1
    assert start(Faults(posted_searches="refused")).post("/fhir/Procedure/_search", data=form).status_code == 405
    whole = start(Faults(posted_searches="ignored")).post("/fhir/Procedure/_search", data=form).json()
    assert whole["total"] == _COUNT


def test_a_list_that_is_taken_for_one_value(start: Start) -> None:
    assert start(Faults()).get("/fhir/Procedure?_id=p1,p2").json()["total"] == 2
    assert start(Faults(no_lists=True)).get("/fhir/Procedure?_id=p1,p2").json()["total"] == 0


def test_totals_where_a_count_is_asked_for_alone(start: Start) -> None:
    client = start(Faults(total="counts"))
    assert "total" not in client.get("/fhir/Procedure?_total=accurate").json()
    assert client.get("/fhir/Procedure?_summary=count").json()["total"] == _COUNT


def test_a_list_of_which_only_the_beginning_is_looked_at(start: Start) -> None:
    assert start(Faults(max_list=2)).get("/fhir/Procedure?_id=p1,p2").json()["total"] == 2
    cut = start(Faults(max_list=2)).get("/fhir/Procedure?_id=p1,p2,p3").json()
    assert [entry["resource"]["id"] for entry in cut["entry"]] == ["p1", "p2"]
    refused = Faults(max_list=2, max_list_status=413)
    assert start(refused).get("/fhir/Procedure?_id=p1,p2").json()["total"] == 2
    assert start(refused).get("/fhir/Procedure?_id=p1,p2,p3").status_code == 413


def test_patients_who_are_found_by_their_bare_id_alone(start: Start) -> None:
    client = start(Faults(bare_ids=True))
    named = start(Faults()).get("/fhir/Procedure").json()["entry"][0]["resource"]["subject"]["reference"]
    assert client.get(f"/fhir/Procedure?patient={named}").json()["total"] == 0
    assert client.get(f"/fhir/Procedure?patient={named.removeprefix('Patient/')}").json()["total"] > 0


def test_totals_stop_counting(start: Start) -> None:
    assert start(Faults(total_at_most=5)).get("/fhir/Procedure?_count=3").json()["total"] == 5


def test_missing_dates(start: Start) -> None:
    client = start(Faults())
    assert client.get("/fhir/Procedure?date:missing=false").json()["total"] == _COUNT
    assert client.get("/fhir/Procedure?date:missing=true").json()["total"] == 0
    assert client.get("/fhir/Procedure?date:missing=maybe").status_code == 400
    assert start(Faults(no_missing=True)).get("/fhir/Procedure?date:missing=true").status_code == 400


def test_bodies_that_are_not_what_they_should_be(start: Start) -> None:
    faults = PageFault("empty"), PageFault("outcome"), PageFault("byte-order-mark"), PageFault("odd-json")
    client = start(Faults(page_faults=faults))
    empty, outcome, marked, odd = [client.get("/fhir/Procedure") for _ in faults]
    assert {one.status_code for one in (empty, outcome, marked, odd)} == {200}
    assert empty.content == b""
    assert outcome.json()["resourceType"] == "OperationOutcome"
    assert marked.content.startswith(b"\xef\xbb\xbf{")
    with pytest.raises(ValueError, match="Invalid control character"):
        odd.json()
    assert client.get("/fhir/Procedure").json()["total"] == _COUNT


def test_bodies_without_their_end(start: Start) -> None:
    client = start(Faults(page_faults=(PageFault("cut-gzip"), PageFault("no-end"))))
    cut = client.get("/fhir/Procedure", headers={"Accept-Encoding": "gzip"})  # httpx takes what there is
    assert cut.headers["content-encoding"] == "gzip"
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        cut.json()
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
        client.get("/fhir/Procedure")


def test_links_that_lead_to_the_first_page_for_ever(start: Start) -> None:
    pages = _pages(start(Faults(next_links="endless")), "Procedure?_count=3", most=5)
    assert [_ids([page]) for page in pages] == [["p0", "p1", "p2"]] * 5
    assert len({str(page.url) for page in pages}) == 5


@pytest.mark.parametrize("written", ["query", "fragment"])
def test_links_written_in_unusual_ways(start: Start, written: Any) -> None:
    client = start(Faults(next_links=written))
    first = client.get("/fhir/Procedure?_count=7")
    following = _link(first.json(), "next") or ""
    assert following.startswith("?") or following.endswith("#more")
    assert _ids([first, client.get(first.url.join(following))]) == _EVERYTHING


def test_totals_that_grow_and_entries_that_nobody_asked_for(start: Start) -> None:
    pages = _pages(start(Faults(total_grows=2, strange_entries=True)))
    assert [page.json()["total"] for page in pages] == [_COUNT, _COUNT + 2, _COUNT + 4]
    kinds = [entry["resource"]["resourceType"] for entry in pages[-1].json()["entry"]]
    assert kinds == ["Procedure", "Procedure", "OperationOutcome", "Organization"]


def test_parameters_that_are_refused(start: Start) -> None:
    client = start(Faults(refused_parameters=("_count", "date"), refused_status=422))
    assert [client.get(f"/fhir/Procedure?{query}").status_code for query in ("_count=1", "date=ge2024", "_id=p1")] == [
        422, 422, 200,
    ]  # fmt: skip
