"""The sandbox server over real HTTP: read, search, paging, errors, its own endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.capabilitystatement import CapabilityStatement
from fhir.resources.R4B.operationoutcome import OperationOutcome

from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.sandbox.paging import Cursor, Pages, Search
from io_fhir_adapter.sandbox.search import parse_query
from io_fhir_adapter.sandbox.server import create_app
from io_fhir_adapter.sandbox.store import SandboxStore

OPS = "http://fhir.de/CodeSystem/bfarm/ops"
PCS = "http://www.cms.gov/Medicare/Coding/ICD10"
MRN = "urn:example:mrn"


def _procedure(number: int, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Procedure",
        "id": f"p{number}",
        "meta": {"lastUpdated": f"2025-06-{number % 28 + 1:02}T10:00:00.000Z"},
        "status": "completed",
        "code": {"coding": [{"system": OPS, "code": f"8-836.{number}"}]},
        "subject": {"reference": f"Patient/{number % 3}"},
        "encounter": {"reference": f"Encounter/e{number}"},
        "performedDateTime": f"2025-03-{number % 28 + 1:02}T12:00:00+01:00",
        **more,
    }


def _resources() -> list[dict[str, Any]]:
    patients: list[dict[str, Any]] = [
        {"resourceType": "Patient", "id": str(number), "identifier": [{"system": MRN, "value": f"m{number}"}]}
        for number in range(3)
    ]
    encounters: list[dict[str, Any]] = [
        {
            "resourceType": "Encounter",
            "id": "e1",
            "status": "finished",
            "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
            "subject": {"reference": "Patient/1"},
            "period": {"start": "2025-03-01T08:00:00Z", "end": "2025-03-05"},
            "diagnosis": [{"condition": {"reference": "Condition/c1"}}],
        }
    ]
    conditions: list[dict[str, Any]] = [
        {
            "resourceType": "Condition",
            "id": "c1",
            "subject": {"reference": "Patient/1"},
            "encounter": {"reference": "Encounter/e1"},
            "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": "C22.0"}]},
            "onsetDateTime": "2024",
        }
    ]
    procedures = [_procedure(number) for number in range(10)]
    special = [
        _procedure(10, status="not-done", code={"coding": [{"code": "LOCAL"}, {"system": PCS, "code": "0F503ZZ"}]}),
        _procedure(11, performedDateTime="2024", reasonReference=[{"reference": "Condition/c1"}]),
        _procedure(12, performedPeriod={"start": "2025-04-30T22:00:00Z", "end": "2025-05-01T02:00:00Z"}),
        _procedure(13, subject={"reference": "Group/1"}, identifier=[{"system": MRN, "value": "x"}]),
    ]
    for one in special[2:3]:
        del one["performedDateTime"]
    del special[3]["performedDateTime"]
    return [*patients, *encounters, *conditions, *procedures, *special]


BROKEN = (("Procedure", '{"resourceType":"Procedure","id":"bad1","status":["completed"],"subject":7}'),)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with LoopbackServer(create_app(SandboxStore.from_resources(_resources(), BROKEN))) as server:
        yield f"{server.base_url}/fhir"


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client() as one:
        yield one


def _ids(bundle: dict[str, Any], mode: str = "match") -> set[str]:
    return {entry["resource"]["id"] for entry in bundle.get("entry", []) if entry["search"]["mode"] == mode}


def _search(client: httpx.Client, url: str, query: str) -> dict[str, Any]:
    answer = client.get(f"{url}/{query}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/fhir+json")
    found: dict[str, Any] = answer.json()
    return found


def _link(bundle: dict[str, Any], relation: str) -> str | None:
    return next((link["url"] for link in bundle["link"] if link["relation"] == relation), None)


def _all_pages(client: httpx.Client, url: str, query: str) -> list[dict[str, Any]]:
    pages = [_search(client, url, query)]
    while (following := _link(pages[-1], "next")) is not None:
        answer = client.get(following)
        assert answer.status_code == 200
        pages.append(answer.json())
        assert len(pages) < 100
    return pages


def _named(*numbers: int) -> set[str]:
    return {f"p{number}" for number in numbers}


def test_metadata_says_what_the_server_can_do(client: httpx.Client, url: str) -> None:
    content = client.get(f"{url}/metadata").json()
    CapabilityStatement.model_validate(content)
    assert content["fhirVersion"] == "4.0.1"
    listed = {one["type"]: one for one in content["rest"][0]["resource"]}
    assert {"Procedure", "Patient", "Encounter", "Condition", "Practitioner", "Organization"} <= set(listed)
    names = {one["name"] for one in listed["Procedure"]["searchParam"]}
    assert {"_id", "_lastUpdated", "code", "date", "status", "patient", "subject", "encounter"} <= names
    assert "Procedure:patient" in listed["Procedure"]["searchInclude"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("status=not-done", _named(10)),
        ("status=not-done,completed&_count=100", {*_named(*range(14)), "bad1"}),
        ("status=not-done&status=completed", set()),
        ("_id=p1,p2,missing", _named(1, 2)),
        ("_id=bad1", {"bad1"}),
        (f"code={OPS}|8-836.3", _named(3)),
        ("code=8-836.3,8-836.4", _named(3, 4)),
        (f"code={PCS}|8-836.3", set()),
        ("code=|LOCAL", _named(10)),
        (f"code={PCS}|", _named(10)),
        ("patient=1", _named(1, 4, 7, 10)),
        ("patient=Patient/1", _named(1, 4, 7, 10)),
        ("patient=URL/Patient/1", _named(1, 4, 7, 10)),
        ("patient=http://elsewhere.invalid/Patient/1", set()),
        ("subject=Patient/1,Patient/2", _named(1, 4, 7, 10, 2, 5, 8, 11)),
        ("subject=1", _named(1, 4, 7, 10, 13)),
        ("subject:Group=1", _named(13)),
        ("patient=Group/1", set()),
        ("encounter=e7,Encounter/e8", _named(7, 8)),
        (f"identifier={MRN}|x", _named(13)),
        ("identifier=x&patient=1", set()),
        ("reason-reference=c1", _named(11)),
        ("date=2025-03-05", _named(4)),
        ("date=eq2025-03-05T12:00:00%2B01:00", _named(4)),
        ("date=ge2025-03-10&date=lt2025-04-01", _named(9, 10)),
        ("date=gt2025-03-10&date=lt2025-04-01", _named(10)),
        ("date=le2025-03-02&date=ge2025", _named(0, 1)),
        ("date=lt2025", _named(11)),
        ("date=2024", _named(11)),
        ("date=2024-05", set()),
        ("date=ge2024-05&date=lt2024-06", _named(11)),
        ("date=2025-05-01", set()),
        ("date=ge2025-04-30&date=lt2025-05-01", _named(12)),
        ("date=ge2025-05-01&date=lt2025-05-02", set()),
        ("date=sa2025-04-30", set()),
        ("date=sa2025-04-29", _named(12)),
        ("date=eb2025-03-02", _named(0, 11)),
        ("date=2025-03-05,2025-03-06", _named(4, 5)),
        ("_lastUpdated=ge2025-06-14", _named(13)),
        ("_lastUpdated=gt2025-06-13T10:00:00.000Z", _named(13)),
        ("_lastUpdated=ge2025-06-13T10:00:00.000Z", _named(12, 13)),
    ],
)
def test_each_parameter_finds_what_it_should(client: httpx.Client, url: str, query: str, expected: set[str]) -> None:
    found = _search(client, url, "Procedure?" + query.replace("URL", url))
    assert _ids(found) == expected
    assert found["total"] == len(expected)
    assert "unknown" not in str(found)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (f"Patient?identifier={MRN}|m2", {"2"}),
        ("Encounter?patient=1&date=2025-03", {"e1"}),
        ("Encounter?date=ge2025-03-05&class=IMP", set()),
        ("Encounter?diagnosis=Condition/c1&status=finished", {"e1"}),
        ("Condition?encounter=e1&code=C22.0&onset-date=2024", {"c1"}),
        ("Practitioner", set()),
        ("Organization?_id=none", set()),
    ],
)
def test_other_types_are_searched_too(client: httpx.Client, url: str, query: str, expected: set[str]) -> None:
    assert _ids(_search(client, url, query)) == expected


def test_a_search_by_post_is_the_same_search(client: httpx.Client, url: str) -> None:
    by_get = _search(client, url, "Procedure?patient=1&date=ge2025-03-05")
    form = {"patient": "1", "date": "ge2025-03-05"}
    by_post = client.post(f"{url}/Procedure/_search", data=form).json()
    assert by_post["entry"] == by_get["entry"]
    assert _link(by_post, "self") == _link(by_get, "self")


@pytest.mark.parametrize("size", [1, 3, 7, 15, 16])
@pytest.mark.parametrize("sort", ["", "&_sort=-date", "&_sort=_id"])
def test_paging_reaches_everything_exactly_once(client: httpx.Client, url: str, size: int, sort: str) -> None:
    pages = _all_pages(client, url, f"Procedure?_count={size}{sort}")
    seen = [entry["resource"]["id"] for page in pages for entry in page["entry"]]
    assert sorted(seen) == sorted([*_named(*range(14)), "bad1"])
    assert all(page["total"] == 15 for page in pages)
    assert all(len(page["entry"]) == size for page in pages[:-1])
    for page in pages:
        if _ids(page) & {"bad1"} == set():
            Bundle.model_validate(page)


def test_next_links_are_opaque_and_repeatable(client: httpx.Client, url: str) -> None:
    first = _search(client, url, "Procedure?_count=4")
    following = _link(first, "next")
    assert following is not None
    assert following.startswith(f"{url}?_getpages=")
    assert "4" not in following.partition("_getpages=")[0].rpartition("/")[2]
    once, again = client.get(following).json(), client.get(following).json()
    assert once["entry"] == again["entry"]
    assert _link(once, "next") == _link(again, "next")


def test_an_unknown_page_token_is_gone(client: httpx.Client, url: str) -> None:
    answer = client.get(url, params={"_getpages": "0123456789abcdef0123456789abcdef"})
    assert answer.status_code == 410
    OperationOutcome.model_validate(answer.json())


def test_entries_and_links_have_their_urls(client: httpx.Client, url: str) -> None:
    found = _search(client, url, "Procedure?code=8-836.3&_count=5&date=ge2025-03-01")
    assert found["entry"][0]["fullUrl"] == f"{url}/Procedure/p3"
    assert _link(found, "self") == f"{url}/Procedure?code=8-836.3&_count=5&date=ge2025-03-01"
    assert _link(found, "next") is None


def test_sorting(client: httpx.Client, url: str) -> None:
    def order(query: str) -> list[str]:
        entries = _search(client, url, query)["entry"]
        return [entry["resource"]["id"] for entry in entries if entry["search"]["mode"] == "match"]

    assert order("Procedure?patient=1") == ["p1", "p4", "p7", "p10"]
    assert order("Procedure?patient=1&_sort=_id") == ["p1", "p10", "p4", "p7"]
    assert order("Procedure?patient=1&_sort=-_lastUpdated") == ["p10", "p7", "p4", "p1"]
    assert order("Procedure?patient=2&_sort=date") == ["p11", "p2", "p5", "p8"]
    assert order("Procedure?_id=p4,p10&_sort=status,-date") == ["p4", "p10"]


def test_includes_come_once_and_do_not_count(client: httpx.Client, url: str) -> None:
    query = "Procedure?patient=1&_include=Procedure:patient&_include=Procedure:encounter"
    found = _search(client, url, query)
    Bundle.model_validate(found)
    assert _ids(found, "include") == {"1", "e1"}
    assert found["total"] == 4
    assert _ids(_search(client, url, "Procedure?_id=p11&_include=Procedure:reason-reference"), "include") == {"c1"}
    assert _ids(_search(client, url, "Procedure?_id=p11&_include=Procedure:subject:Group"), "include") == set()
    assert _ids(_search(client, url, "Encounter?_include=*"), "include") == {"1", "c1"}


def test_totals_and_counts(client: httpx.Client, url: str) -> None:
    assert "total" not in _search(client, url, "Procedure?_total=none")
    assert _search(client, url, "Procedure?_total=accurate&patient=1")["total"] == 4
    for query in ("Procedure?_count=0", "Procedure?_summary=count"):
        found = _search(client, url, query)
        assert found["total"] == 15
        assert "entry" not in found
        assert _link(found, "next") is None


def test_unknown_parameters_are_left_out_or_refused(client: httpx.Client, url: str) -> None:
    found = _search(client, url, "Procedure?patient=1&colour=red")
    assert _ids(found) == _named(1, 4, 7, 10)
    assert _link(found, "self") == f"{url}/Procedure?patient=1"
    warning = found["entry"][-1]
    assert warning["search"]["mode"] == "outcome"
    assert "colour" in warning["resource"]["issue"][0]["diagnostics"]
    Bundle.model_validate(found)
    strict = client.get(f"{url}/Procedure?patient=1&colour=red", headers={"Prefer": "handling=strict"})
    assert strict.status_code == 400
    assert "colour" in strict.json()["issue"][0]["diagnostics"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/Procedure/missing", {}, 404),
        ("GET", "/Nonsense", {}, 404),
        ("GET", "/$lastn", {}, 404),
        ("GET", "/Procedure/p1/_history/1", {}, 404),
        ("GET", "", {}, 400),
        ("GET", "/Procedure?date=yesterday", {}, 400),
        ("GET", "/Procedure?date=2025-03-01T10:00:00+01:00", {}, 400),
        ("GET", "/Procedure?date=ap2025", {}, 400),
        ("GET", "/Procedure?_count=many", {}, 400),
        ("GET", "/Procedure?code:in=x", {}, 400),
        ("POST", "/Procedure", {}, 405),
        ("DELETE", "/Procedure/p1", {}, 405),
        ("GET", "/Procedure/_search", {}, 405),
        ("GET", "/Procedure", {"Accept": "application/fhir+xml"}, 406),
        ("GET", "/Procedure?_format=xml", {}, 406),
        ("POST", "/Procedure/_search", {"Content-Type": "application/json"}, 415),
    ],
)
def test_every_error_is_an_operation_outcome(
    client: httpx.Client, url: str, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    answer = client.request(method, url + path, headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("application/fhir+json")
    OperationOutcome.model_validate(answer.json())
    assert "date" in answer.headers
    if status == 405:
        assert answer.headers["allow"] in ("GET", "POST")


def test_reading_one_resource(client: httpx.Client, url: str) -> None:
    answer = client.get(f"{url}/Procedure/p3", headers={"Accept": "application/json;q=0.9"})
    assert answer.json() == _procedure(3)
    assert answer.headers["etag"] == 'W/"1"'
    assert answer.headers["last-modified"] == "Wed, 04 Jun 2025 10:00:00 GMT"


def test_answers_are_compressed_only_when_accepted(client: httpx.Client, url: str) -> None:
    packed = client.get(f"{url}/Procedure")
    plain = client.get(f"{url}/Procedure", headers={"Accept-Encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.json()["entry"] == plain.json()["entry"]


def test_broken_resources_come_as_they_are(client: httpx.Client, url: str) -> None:
    assert BROKEN[0][1] in client.get(f"{url}/Procedure").text
    assert client.get(f"{url}/Procedure/bad1").text == BROKEN[0][1]


def test_broken_resources_take_no_place_and_need_no_id() -> None:
    broken = (
        ("Procedure", '{"id":"p1","status":"completed"}'),
        ("Procedure", '{"resourceType":"Procedure"}'),
        ("Procedure", "[1, 2]"),
        ("Procedure", '{"id": 5}'),
        ("Procedure", '{"id":"cut off"'),
        ("Procedure", '{"id":"a/b \\"c\\""}'),
    )
    store = SandboxStore.from_resources([_procedure(1)], broken)
    with LoopbackServer(create_app(store)) as server, httpx.Client(base_url=f"{server.base_url}/fhir") as client:
        found = client.get("/Procedure").json()
        assert found["total"] == len(found["entry"]) == 6
        assert [entry.get("fullUrl", "").rpartition("/")[2] for entry in found["entry"]] == [
            *("p1", "p1", "", "", ""),
            "a%2Fb%20%22c%22",
        ]
        assert client.get("/Procedure/p1").json() == _procedure(1)
        assert client.get("/Procedure?status=completed").json()["total"] == 2


def test_a_search_is_a_snapshot_while_the_data_changes() -> None:
    store = SandboxStore.from_resources(
        [_procedure(number) for number in range(6)],
        later=[_procedure(5, status="entered-in-error"), _procedure(50)],
    )
    app = create_app(store, truth={"counted": 1}, truth_later={"counted": 2})
    with LoopbackServer(app) as server, httpx.Client(base_url=server.base_url) as client:
        before = client.get("/fhir/Procedure/p5")
        first = client.get("/fhir/Procedure?_count=3").json()
        assert client.get("/_sandbox/truth").json() == {"counted": 1}
        started = store.now()
        assert client.post("/_sandbox/advance").json() == {"applied": 2}
        assert client.post("/_sandbox/advance").json() == {"applied": 0}
        assert client.get("/_sandbox/truth").json() == {"counted": 2}
        store.delete("Procedure", "p4")

        following = _link(first, "next")
        assert following is not None
        second = client.get(following).json()
        assert _ids(second) == _named(3, 4, 5)
        assert {entry["resource"]["status"] for entry in second["entry"]} == {"completed"}

        assert client.get("/fhir/Procedure/p4").status_code == 410
        after = client.get("/fhir/Procedure/p5")
        assert after.json()["status"] == "entered-in-error"
        assert (before.headers["etag"], after.headers["etag"]) == ('W/"1"', 'W/"2"')
        assert _ids(client.get("/fhir/Procedure?status=entered-in-error").json()) == {"p5"}
        since = started.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        changed = client.get("/fhir/Procedure", params={"_lastUpdated": f"ge{since}"}).json()
        assert _ids(changed) == _named(5, 50)
        assert [entry["resource"]["id"] for entry in client.get("/fhir/Procedure").json()["entry"]] == [
            *("p0", "p1", "p2", "p3", "p5", "p50")
        ]


def test_a_deleted_resource_can_come_back() -> None:
    store = SandboxStore.from_resources([_procedure(1)])
    store.delete("Procedure", "p1")
    assert store.read("Procedure", "p1") is None
    assert store.is_gone("Procedure", "p1")
    store.put(_procedure(1))
    row = store.read("Procedure", "p1")
    assert row is not None
    assert row.version == 2
    with pytest.raises(KeyError):
        store.delete("Procedure", "p9")


def test_a_resource_without_lastupdated_gets_the_servers_time() -> None:
    store = SandboxStore.from_resources([{"resourceType": "Patient", "id": "a"}])
    row = store.read("Patient", "a")
    assert row is not None
    assert b'"lastUpdated":"' in row.body
    assert row.updated is not None


def test_stats_tell_what_was_asked() -> None:
    app = create_app(SandboxStore.from_resources(_resources()))
    with LoopbackServer(app) as server, httpx.Client(base_url=server.base_url) as client:
        client.get("/fhir/Procedure?patient=1", headers={"Authorization": "Bearer secret-token"})
        client.get("/fhir/Procedure/p1")
        client.get("/fhir/Procedure/p99")
        answer = client.get("/_sandbox/stats")
    stats = answer.json()
    assert stats["requests"]["total"] == 3
    assert stats["requests"]["by_path"] == {"/fhir/Procedure": {"200": 1}, "/fhir/Procedure/{id}": {"200": 1, "404": 1}}
    assert [one["authorization"] for one in stats["requests"]["last"]] == [True, False, False]
    assert stats["requests"]["last"][0]["query"] == "patient=1"
    assert stats["most_in_flight"] == 1
    assert "secret-token" not in answer.text


def test_another_base_path_and_unknown_places() -> None:
    app = create_app(SandboxStore.from_resources(_resources()), base_path="/app/FHIR/r4")
    with LoopbackServer(app) as server, httpx.Client(base_url=server.base_url) as client:
        found = client.get("/app/FHIR/r4/Procedure?_count=3").json()
        assert (_link(found, "next") or "").startswith(f"{server.base_url}/app/FHIR/r4?_getpages=")
        for path in ("/fhir/Procedure", "/", "/_sandbox/truth", "/app/FHIR/r4x"):
            assert client.get(path).status_code == 404


def test_old_searches_are_forgotten_by_number_and_by_size() -> None:
    store = SandboxStore.from_resources([_procedure(number) for number in range(6)])
    query = parse_query("Procedure", [])

    def started(pages: Pages) -> str:
        search = Search(query, store.select(query), 2)
        pages.keep(search)
        return search.token(Cursor(2, 2))

    for pages in (Pages(most=2), Pages(most_rows=12)):
        first, second = started(pages), started(pages)
        assert pages.find(first) is not None
        third = started(pages)
        assert [pages.find(token) is not None for token in (first, second, third)] == [True, False, True]
        assert pages.find(third[:-1] + "x") is None
    assert started(Pages(most_rows=1))
