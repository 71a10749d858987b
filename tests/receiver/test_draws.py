"""The receiver's part in a draw: one nonce for each announced frame, and no submission that was drawn with another."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.capabilitystatement import CapabilityStatement
from fhir.resources.R4B.group import Group
from fhir.resources.R4B.task import Task

from io_fhir_adapter.canonical_urls import DRAW_TASK, FRAME_SYSTEM
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.receiver.app import Programme, create_app
from io_fhir_adapter.receiver.checks import check_submission
from io_fhir_adapter.receiver.draws import check_announcement
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.receiver.wire import RefusedError
from io_fhir_adapter.submit.frame import frame_announcement
from io_fhir_adapter.trust.frame import draw_digest, rank
from io_fhir_adapter.trust.submission import submission_digest

Json = dict[str, Any]
Make = Callable[..., Any]
FHIR = "application/fhir+json"


@pytest.fixture
def clients() -> Iterator[dict[str, httpx.Client]]:
    """A receiver of two facilities, by HTTP: a client for each of two, and one without a token."""
    received = ReceiverStore()
    tokens = {"one": "F-001", "two": "F-002"}
    with LoopbackServer(create_app(received, tokens=tokens, programmes={"iasios": Programme("IASIOS", 150)})) as server:
        made = {}
        for token in ("one", "two", ""):
            headers = {"Content-Type": FHIR} | ({"Authorization": f"Bearer {token}"} if token else {})
            made[token] = httpx.Client(base_url=f"{server.base_url}/fhir", headers=headers, trust_env=False)
        yield made
        for client in made.values():
            client.close()
    received.close()


def announce(client: httpx.Client, commitment: Any, **change: Any) -> httpx.Response:
    group = frame_announcement(commitment) | change
    query = quote(f"{FRAME_SYSTEM}|{commitment.digest}", safe="")
    return client.put(f"/Group?identifier={query}", content=json.dumps(group))


def tasks(client: httpx.Client, frame: str) -> list[Json]:
    found = client.get(f"/Task?identifier={quote(f'{DRAW_TASK}|{frame}', safe='')}")
    assert found.status_code == 200, found.text
    Bundle.model_validate_json(found.content)
    return [entry["resource"] for entry in found.json().get("entry", [])]


def test_an_announced_frame_gets_one_order_with_one_nonce_for_good(
    clients: dict[str, httpx.Client], synthetic_draw: Make
) -> None:
    frame = synthetic_draw().commitment
    first = announce(clients["one"], frame)
    assert first.status_code == 201
    Group.model_validate_json(first.content)
    (task,) = tasks(clients["one"], frame.digest)
    Task.model_validate(task)
    nonce = task["input"][0]["valueString"]
    assert len(bytes.fromhex(nonce)) == 32
    assert task["code"]["coding"][0]["code"] == "draw-sample"
    assert task["focus"]["reference"] == f"Group/{first.json()['id']}"
    again = announce(clients["one"], frame, quantity=7)
    assert (again.status_code, again.json()) == (200, first.json())
    assert tasks(clients["one"], frame.digest) == [task]


def test_every_frame_has_a_nonce_of_its_own(clients: dict[str, httpx.Client], synthetic_draw: Make) -> None:
    given = set()
    for seed in range(5):
        frame = synthetic_draw(seed=str(seed)).commitment
        announce(clients["one"], frame)
        given.add(tasks(clients["one"], frame.digest)[0]["input"][0]["valueString"])
    assert len(given) == 5


def test_announcing_at_the_same_time_gives_one_order(clients: dict[str, httpx.Client], synthetic_draw: Make) -> None:
    frame = synthetic_draw().commitment
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: announce(clients["one"], frame), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len(tasks(clients["one"], frame.digest)) == 1


def test_the_nonce_is_given_to_its_facility_alone(clients: dict[str, httpx.Client], synthetic_draw: Make) -> None:
    frame = synthetic_draw().commitment
    announce(clients["one"], frame)
    (task,) = tasks(clients["one"], frame.digest)
    assert tasks(clients["two"], frame.digest) == []
    assert clients["two"].get(f"/Task/{task['id']}").status_code == 404
    assert clients[""].get(f"/Task/{task['id']}").status_code == 401
    assert announce(clients["two"], frame).status_code == 403
    assert announce(clients[""], frame).status_code == 401


def test_nobody_can_change_an_order(clients: dict[str, httpx.Client], sealed: Make, synthetic_draw: Make) -> None:
    frame = synthetic_draw().commitment
    announce(clients["one"], frame)
    (task,) = tasks(clients["one"], frame.digest)
    for method in ("PUT", "PATCH", "DELETE", "POST"):
        assert clients["one"].request(method, f"/Task/{task['id']}", content=json.dumps(task)).status_code == 405
    bundle = sealed()
    bundle["entry"].append(
        {
            "fullUrl": "urn:uuid:00000000-0000-4000-8000-000000000000",
            "resource": task | {"input": []},
            "request": {"method": "PUT", "url": f"Task/{task['id']}"},
        }
    )
    bundle["identifier"]["value"] = submission_digest(bundle)
    assert clients["one"].post("", content=json.dumps(bundle)).status_code == 422
    assert tasks(clients["one"], frame.digest) == [task]


WRONG: dict[str, Json] = {
    "members": {"member": [{"entity": {"identifier": {"system": "s", "value": "v"}}}]},
    "a name": {"name": "CANARY"},
    "a narrative": {"text": {"status": "generated", "div": "<div>CANARY</div>"}},
    "not people": {"type": "device"},
    "not actual": {"actual": False},
    "nobody": {"quantity": 0},
    "no facility": {"managingEntity": {"display": "CANARY"}},
    "an unknown programme": {"meta": {"tag": [{"system": "x", "code": "iasios"}]}},
    "no window": {"characteristic": []},
    "another digest": {"identifier": [{"system": FRAME_SYSTEM, "value": "sha256:" + "0" * 64}]},
    "no FHIR": {"quantity": "many"},
    "no Group": {"resourceType": "Patient"},
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_announcement_is_refused_and_gets_no_nonce(
    clients: dict[str, httpx.Client], synthetic_draw: Make, name: str
) -> None:
    frame = synthetic_draw().commitment
    refused = announce(clients["one"], frame, **WRONG[name])
    assert refused.status_code == 422, refused.text
    assert "CANARY" not in refused.text
    assert tasks(clients["one"], frame.digest) == []


@pytest.mark.parametrize(
    "query", ["", "identifier=", "identifier=sha256:1", "identifier=x|y", "_id=1", "identifier=a|b&identifier=c|d"]
)
def test_an_announcement_is_a_conditional_update_by_its_digest(synthetic_draw: Make, query: str) -> None:
    with pytest.raises(RefusedError) as refused:
        check_announcement(frame_announcement(synthetic_draw().commitment), query, None)
    assert refused.value.status == 400


def test_the_capability_statement_says_so(clients: dict[str, httpx.Client]) -> None:
    statement = clients[""].get("/metadata")
    CapabilityStatement.model_validate_json(statement.content)
    kinds = {resource["type"]: resource for resource in statement.json()["rest"][0]["resource"]}
    assert {"code": "update"} in kinds["Group"]["interaction"]
    assert kinds["Task"]["conditionalUpdate"] is False
    assert {item["code"] for item in kinds["Task"]["interaction"]} == {"read", "vread", "search-type"}


def drawn_again(bundle: Json, draw: Any, nonce: str, origin: str) -> Json:
    """The submission as it is where the same frame is drawn with another nonce."""
    made = copy.deepcopy(bundle)
    roles = [place.role for place in draw.places]
    order = rank(bytes.fromhex(nonce), draw.commitment.tokens)[: len(roles)]
    cases = dict(zip(draw.tokens, order, strict=False))
    for entry in made["entry"]:
        resource = entry["resource"]
        if resource["resourceType"] == "List":
            resource["orderedBy"]["coding"][0]["code"] = f"nonce-{origin}"
            for place, token in zip(resource["entry"], order, strict=True):
                place["item"]["identifier"]["value"] = token
        if resource["resourceType"] == "Patient":
            resource["identifier"][0]["value"] = cases[resource["identifier"][0]["value"]]
        if resource["resourceType"] in ("Procedure", "Condition", "QuestionnaireResponse"):  # named after the token
            held = next(token for token in cases if token in json.dumps(entry))
            entry.update(json.loads(json.dumps(entry).replace(held, cases[held])))
        if resource["resourceType"] == "Provenance":
            for entity in resource["entity"]:
                if entity["what"]["identifier"]["system"].endswith("draw-nonce"):
                    entity["what"]["identifier"]["value"] = nonce
    for entry in made["entry"]:
        resource = entry["resource"]
        if resource["resourceType"] == "List":
            value = draw_digest(draw.commitment.digest, nonce)
            entry["request"]["url"] = entry["request"]["url"].replace(
                quote(resource["identifier"][0]["value"], safe=""), quote(value, safe="")
            )
            resource["identifier"][0]["value"] = value
        if resource["resourceType"] == "Patient":
            url = entry["request"]["url"].rpartition("%7C")[0]
            entry["request"]["url"] = f"{url}%7C{resource['identifier'][0]['value']}"
    made["identifier"]["value"] = submission_digest(made)
    return made


def test_a_submission_is_taken_only_with_the_nonce_that_was_given(
    clients: dict[str, httpx.Client], sealed: Make, synthetic_draw: Make
) -> None:
    draw, bundle, client = synthetic_draw(), sealed(), clients["one"]
    announce(client, draw.commitment)
    nonce = tasks(client, draw.commitment.digest)[0]["input"][0]["valueString"]
    for value, origin, words in (
        (draw.nonce, "local", "although one was given"),
        (nonce, "local", "although one was given"),
        (draw.nonce, "task", "not the one that was given"),
        (nonce, "", "where the nonce came from"),
        (nonce, "dice", "where the nonce came from"),
    ):
        refused = client.post("", content=json.dumps(drawn_again(bundle, draw, value, origin)))
        assert refused.status_code == 422, refused.text
        (issue,) = refused.json()["issue"]
        assert (issue["code"], words in issue["diagnostics"]) == ("business-rule", True), issue
    taken = client.post("", content=json.dumps(drawn_again(bundle, draw, nonce, "task")))
    assert taken.status_code == 200, taken.text
    group = client.get(f"/Group?identifier={quote(f'{FRAME_SYSTEM}|{draw.commitment.digest}', safe='')}").json()
    (stored,) = [entry["resource"] for entry in group["entry"]]
    assert (len(stored["member"]), stored["meta"]["versionId"]) == (120, "2")


def test_without_an_announcement_the_facilitys_own_nonce_is_taken_and_no_other(
    clients: dict[str, httpx.Client], sealed: Make, synthetic_draw: Make
) -> None:
    draw, bundle, client = synthetic_draw(), sealed(), clients["one"]
    invented = client.post("", content=json.dumps(drawn_again(bundle, draw, draw.nonce, "task")))
    assert "no nonce was given" in invented.json()["issue"][0]["diagnostics"]
    assert client.post("", content=json.dumps(bundle)).status_code == 200


def test_an_announcement_after_a_submission_does_not_take_its_members_away(
    store: ReceiverStore, sealed: Make, synthetic_draw: Make
) -> None:
    frame = synthetic_draw().commitment
    store.accept(check_submission(sealed()))
    query = f"identifier={FRAME_SYSTEM}|{frame.digest}"
    stored, new = store.announce(check_announcement(frame_announcement(frame), query, None))
    assert (new, len(stored.content["member"])) == (False, 120)
    assert len(store.search("Task", "identifier", DRAW_TASK, frame.digest, "F-001")) == 1


def test_a_submission_that_was_taken_stays_taken(store: ReceiverStore, sealed: Make, synthetic_draw: Make) -> None:
    frame, submission = synthetic_draw().commitment, check_submission(sealed())
    first = store.accept(submission)
    store.announce(check_announcement(frame_announcement(frame), f"identifier={FRAME_SYSTEM}|{frame.digest}", None))
    assert [result.id for result in store.accept(submission)] == [result.id for result in first]
