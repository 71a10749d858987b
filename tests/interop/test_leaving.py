"""All that ever leaves a facility, and all that the receiver answers, is valid for validators of other makers.

One facility does everything once, and every request and answer is kept; the HL7 validator, fhircraft, pyrofile and
fhir.resources then look at the same documents. What each of them warns of is listed here, so that a new kind is seen.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from pyrofile_validator.config import ValidatorConfig
from pyrofile_validator.core.engine import Validator
from pyrofile_validator.models import Severity
from tests.e2e.conftest import same_nonces
from tests.interop import servers
from tests.interop.leaving import CODE, facility
from tests.second_validator import r4

from io_fhir_adapter.canonical_urls import VERDICT_TASK
from io_fhir_adapter.fhir.validity import resource_problems
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.owner_only import put_owner_only
from io_fhir_adapter.receiver.app import create_app
from io_fhir_adapter.receiver.registry import Facility as Registered
from io_fhir_adapter.receiver.registry import registry_of_tokens
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.receiver.verdicts import give_verdict
from io_fhir_adapter.trust.keys import new_signature_key, public_set
from io_fhir_adapter.trust.signature import check_signature

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900), pytest.mark.xdist_group("validators")]

Json = dict[str, Any]
TOKEN = "t" * 40
SDC_CODES = {
    "resourceType": "CodeSystem", "id": "launch-context", "status": "active", "content": "fragment",
    "url": "http://hl7.org/fhir/uv/sdc/CodeSystem/launchContext",
    "concept": [{"code": "patient"}, {"code": "encounter"}],
}  # fmt: skip
"""Of Structured Data Capture, which is no part of the core that the validator has."""
JUDGED = {
    "dom-6": "narrative does not leave: it would repeat the elements as free text",
    "MeasurePopulationType": "what is for review and what was lost has no code there, and the binding lets us add ours",
    "PurposeOfUse": "no purpose of use says why a submission is taken back",
    "text/plain is not supported": "what a session is cannot be said in a query language",
    "Count should be present": "a step of the funnel that is not asked for has none",
}
"""Words of the HL7 validator's warnings, and why they stay."""


@dataclass
class Papers:
    """Everything that went over the wire, by name."""

    documents: dict[str, Json] = field(default_factory=dict)

    def inside(self, *kinds: str) -> list[Json]:
        """The resources of these types in the submission."""
        entries = self.documents["submission"]["entry"]
        return [one["resource"] for one in entries if one["resource"]["resourceType"] in kinds]

    def known(self) -> list[Json]:
        """Forms and measures that other documents refer to."""
        found = self.inside("Measure", "Questionnaire")
        return [SDC_CODES, *({**one, "id": f"known-{number}"} for number, one in enumerate(found))]


class Taps:
    """An ASGI application that keeps request and answer of another one."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.seen: list[tuple[str, str, Any, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        asked, answered = bytearray(), bytearray()

        async def listening() -> Any:
            message = await receive()
            asked.extend(message.get("body", b""))
            return message

        async def telling(message: Any) -> None:
            answered.extend(message.get("body", b""))
            await send(message)

        await self.app(scope, listening, telling)
        if scope["type"] == "http":
            bodies = [json.loads(one) if one.startswith(b"{") else None for one in (bytes(asked), bytes(answered))]
            self.seen.append((scope["method"], scope["path"], *bodies))


@pytest.fixture(scope="module")
def papers(records: Path, tmp_path_factory: pytest.TempPathFactory) -> Papers:
    """What a facility that reviews thirty cases sends in a year, on both ways, and what it is answered."""
    folder, key = tmp_path_factory.mktemp("leaving"), new_signature_key("ES256")
    token = folder / "receiver.token"
    put_owner_only(token, TOKEN.encode())
    known = Registered(CODE, "Sandbox Hospital (synthetic)", public_set(key), client_id=CODE)
    registry = replace(registry_of_tokens({TOKEN: CODE}), facilities=(known,))
    store = ReceiverStore("sqlite://")
    taps = Taps(create_app(store, registry=registry, require_signature=True))
    made: dict[str, Json] = {}
    with same_nonces(), closing(store), LoopbackServer(taps) as server:
        url, auth = f"{server.base_url}/fhir", {"kind": "bearer", "token": {"file": str(token)}}
        with facility(folder / "facility", records, key, url=url, auth=auth) as sender:
            sender.assess("met")
            assert sender.night().problem is None
            sender.review()
            sender.night()
            first = sender.approve()
            give_verdict(store, first.identifier, "correction-asked", "Please look at the standards again.", "body")
        with facility(folder / "facility", records, key, url=url, auth=auth, channel="submit-data") as sender:
            sender.assess("partly-met")
            sender.night()
            second = sender.approve()
            assert [first.state, second.state, sender.withdraw(second.identifier).item.state] == ["accepted"] * 3
            with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
                for name, path in {
                    "capabilities": "/metadata",
                    "first verdict": f"/Task?identifier={VERDICT_TASK}|{first.identifier}",
                    "second verdict": f"/Task?identifier={VERDICT_TASK}|{second.identifier}",
                }.items():
                    made[name] = client.get(path).raise_for_status().json()
                made["refusal"] = client.post("", json={**json.loads(first.body), "type": "batch"}).json()
    announced, *posted = [one for one in taps.seen if one[0] in ("PUT", "POST")]
    made |= {"announcement": announced[2], "announced": announced[3]}
    names = iter(("submission", "correction", "withdrawal"))
    for _, _, asked, answered in posted[:3]:
        name = next(names)
        made |= {name: asked, f"answer to the {name}": answered}
    made["nonce"] = next(one[3] for one in taps.seen if one[0] == "GET" and one[1].endswith("/Task"))
    assert check_signature(made["submission"], public_set(key)) == key.kid
    return Papers(made)


def test_it_is_all_there(papers: Papers) -> None:
    kinds = {name: one["resourceType"] for name, one in papers.documents.items()}
    assert kinds == {
        "announcement": "Group", "announced": "Group", "nonce": "Bundle", "submission": "Bundle",
        "answer to the submission": "Bundle", "correction": "Parameters", "answer to the correction": "Bundle",
        "withdrawal": "Bundle", "answer to the withdrawal": "Bundle", "capabilities": "CapabilityStatement",
        "first verdict": "Bundle", "second verdict": "Bundle", "refusal": "OperationOutcome",
    }  # fmt: skip
    assert len(papers.inside("Patient")) == 30
    assert len(papers.inside("QuestionnaireResponse")) == 31
    assert len(papers.inside("Measure", "MeasureReport", "Group", "List", "Questionnaire")) == 6
    (statement,) = papers.inside("Provenance")
    assert [agent["who"]["type"] for agent in statement["agent"]] == ["Device", "PractitionerRole"]


@pytest.fixture(scope="module")
def hl7(papers: Papers, tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """What the HL7 validator finds in all of it, and in one document that is broken on purpose."""
    folder = tmp_path_factory.mktemp("hl7")
    documents = {**papers.documents, "broken": broken(papers)}
    for place, found in (("known", papers.known()), ("documents", documents)):
        (folder / place).mkdir()
        for name, one in found.items() if isinstance(found, dict) else enumerate(found):
            (folder / place / f"{name}.json").write_text(json.dumps(one), encoding="utf-8")
    try:
        return servers.hl7_validator(folder / "known", sorted((folder / "documents").iterdir()), folder / "log")
    except servers.Unavailable as reason:
        pytest.skip(str(reason))


def broken(papers: Papers) -> Json:
    """A MeasureReport that lost a population which its Measure asks for, and is of no known status."""
    found = next(one for one in papers.inside("MeasureReport"))
    first, *others = found["group"]
    group = {**first, "population": first["population"][1:]}
    return {**found, "status": "finished", "group": [group, *others]}


def test_the_hl7_validator_finds_no_error(hl7: list[list[str]]) -> None:
    wrong = [one for one in hl7 if one[1] in ("ERROR", "FATAL")]
    assert [one for one in wrong if one[0] != "broken.json"] == []
    assert len([one for one in wrong if one[0] == "broken.json"]) >= 2


def test_what_the_hl7_validator_warns_of_is_known(hl7: list[list[str]]) -> None:
    warned = {one[4] for one in hl7 if one[1] == "WARNING" and one[0] != "broken.json"}
    assert [words for words in warned if not any(known in words for known in JUDGED)] == []
    assert [known for known in JUDGED if not any(known in words for words in warned)] == []


# dom-6 asks for narrative, which does not leave on purpose.
@pytest.mark.filterwarnings(r"ignore:(?s).*\[dom-6\]")
def test_fhircraft_finds_no_error(papers: Papers) -> None:
    models = r4()
    seen = papers.documents["submission"]["entry"]
    for one in papers.documents.values():
        if one["resourceType"] == "Parameters":  # twice as long, and of the Bundle almost all is in the submission
            one = json.loads(json.dumps(one))  # noqa: PLW2901
            bundle = one["parameter"][1]["resource"]
            bundle["entry"] = [entry for entry in bundle["entry"] if entry not in seen]
            assert len(bundle["entry"]) < 5
        getattr(models, one["resourceType"]).model_validate(one)
    with pytest.raises(ValueError, match="mrp-1"):
        models.MeasureReport.model_validate({**broken(papers), "type": "data-collection"})


def test_fhir_resources_finds_no_error(papers: Papers) -> None:
    for one in papers.documents.values():
        assert resource_problems(one, frozenset({one["resourceType"]})) == ()
    assert resource_problems(broken(papers) | {"group": 1}, frozenset({"MeasureReport"}))


@pytest.fixture(scope="module")
def pyrofile() -> Validator:
    try:
        core = [str(servers.core_definitions())]
        return RootRules(ValidatorConfig(local_package_paths=core, allow_unknown_extensions=True))
    except servers.Unavailable as reason:
        pytest.skip(str(reason))


class RootRules(Validator):
    """The validator without its checks of each element against the base profile: these count over siblings of siblings.

    Structure, types, cardinalities, bindings and the rules of each resource are checked elsewhere, and stay.
    """

    def _validate_profile_element_constraints(self, *_: Any) -> list[Any]:
        return []


def errors(validator: Validator, document: Json) -> list[tuple[str, str]]:
    """Code and place of each error, but of a choice that is there: inside an element it does not see any."""
    with contextlib.redirect_stdout(io.StringIO()):  # fhirpathpy prints what it traces
        found = validator.validate_resource(document).issues
    return [
        (one.code, path)
        for one in found
        if one.severity is Severity.ERROR and not ((path := one.path or "").endswith("[x]") and _chosen(document, path))
    ]


def _chosen(document: Json, path: str) -> bool:
    """Whether each resource of the type has a choice at a place where one is said to be missing."""
    kind, *steps, last = path.split(".")
    for node in _of_kind(document, kind):
        nodes: list[Any] = [node]
        for step in steps:
            name, _, number = step.rstrip("]").partition("[")
            at = [one.get(name, []) for one in nodes]
            nodes = [one[int(number)] for one in at if len(one) > int(number)] if number else at
        name = last.removesuffix("[x]")
        if any(not [key for key in one if key.startswith(name) and key != name] for one in nodes):
            return False
    return True


def _of_kind(node: Any, kind: str) -> Iterator[Json]:
    if isinstance(node, dict) and node.get("resourceType") == kind:
        yield node
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in children:
        yield from _of_kind(child, kind)


def test_pyrofile_finds_no_error(papers: Papers, pyrofile: Validator) -> None:
    found = {name: errors(pyrofile, one) for name, one in papers.documents.items()}
    assert {name: one for name, one in found.items() if one} == {}
    assert [code for code, _ in errors(pyrofile, broken(papers))] == ["terminology.required"]
    group = {**papers.documents["announcement"]}
    group["characteristic"] = [{"code": {"text": "x"}, "exclude": False}]
    assert errors(pyrofile, group) == [("cardinality.min", "Group.characteristic[0].value[x]")]
