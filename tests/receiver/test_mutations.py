"""Seeded changes of a real submission, each refused with a status and an expression.

The submission is made by the real pipeline from a small synthetic hospital: pulled, decided, drawn, de-identified,
sealed, signed. Most changes are refused too where they are sealed and signed again afterwards, as if the sender itself
had gone wrong; the rest happen on the way.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import OKPKey

from io_fhir_adapter.config import Config
from io_fhir_adapter.demo import AS_OF
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.owner_only import put_owner_only
from io_fhir_adapter.pipeline import Nightly, rules_for
from io_fhir_adapter.receiver.checks import Rules, Seal, Submission, check_transaction
from io_fhir_adapter.receiver.wire import RefusedError, operation_outcome
from io_fhir_adapter.sandbox.hospital import build_hospital
from io_fhir_adapter.shipped import shipped_path
from io_fhir_adapter.trust.signature import SignatureKey, sign_bundle
from io_fhir_adapter.trust.submission import submission_digest

pytestmark = pytest.mark.xdist_group("receiver-real")

Json = dict[str, Any]

KEY: SignatureKey = OKPKey.import_key(
    {
        "kty": "OKP", "crv": "Ed25519", "kid": "synthetic",
        "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    }
)  # fmt: skip
"""The key pair that RFC 8037 publishes as an example: known to everyone, so good for tests alone."""
KEYS: Json = {"keys": [KEY.as_dict(private=False)]}
RULES = Rules(programmes={"iasios"}, keys=lambda _facility: KEYS)
WHEN = datetime(2026, 1, 30, 3, 0, tzinfo=UTC)


def sealed_again(bundle: Json) -> Json:
    """The Bundle with its digest and signature made anew, as if the sender itself had said all this."""
    resealed = {**bundle, "identifier": {**bundle["identifier"], "value": submission_digest(bundle)}}
    return sign_bundle(resealed, KEY, when=WHEN)


def real_submission(folder: Path) -> Json:
    """One signed submission of two cases, the same at every call."""
    programme = shipped_path("mappings", "programmes", "iasios.yaml").read_text(encoding="utf-8")
    small = programme.replace("\n  size: 30\n", "\n  size: 2\n").replace("\n  reserves: 10\n", "\n  reserves: 1\n")
    assert small != programme
    (folder / "iasios.yaml").write_text(small, encoding="utf-8")
    found = build_hospital(7, patients=60, procedures=240).resources.values()
    (folder / "all.ndjson").write_text("\n".join(json.dumps(one) for resources in found for one in resources))
    config = Config.model_validate(
        {
            "facility": {"code": "F-001", "name": "Sandbox Hospital (synthetic)", "time_zone": "Europe/Berlin"},
            "programme": str(folder / "iasios.yaml"),
            "sources": [{"name": "files", "kind": "files", "paths": [str(folder / "all.ndjson")]}],
            "ledger": {"path": folder / "ledger.sqlite"},
            "review": {"key_file": folder / "pseudonym.key"},
            "submission": {
                "url": "http://127.0.0.1:9/fhir",
                "automatic": True,
                "approver": "Head",
                "nonce": "local",
                "retries": 0,
            },
        }
    )
    put_owner_only(folder / "pseudonym.key", b"5a" * 32)
    with closing(open_ledger(config.ledger)) as ledger, pytest.MonkeyPatch.context() as patch:
        patch.setattr("io_fhir_adapter.submit.announce.secrets.token_hex", lambda size: "a5" * size)
        night = asyncio.run(Nightly(config, ledger, rules_for(config), as_of=AS_OF).run())
    assert night.submission is not None
    bundle: Json = json.loads(night.submission.body)
    return sealed_again(bundle)


@pytest.fixture(scope="module")
def submission(tmp_path_factory: pytest.TempPathFactory) -> Json:
    """That submission. It is shared: copy before changing."""
    return real_submission(tmp_path_factory.mktemp("facility"))


@dataclass(frozen=True)
class Mutation:
    """What is changed, and the expression (its end) that the refusal names; ``status`` where it is not 422."""

    name: str
    change: Callable[[Json], Any]
    expression: str
    status: int = 422
    on_the_way: bool = False


def of(bundle: Json, kind: str, number: int = 0) -> Json:
    """The resource of an entry."""
    found = [entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == kind]
    resource: Json = found[number]
    return resource


def setting(kind: str, **elements: Any) -> Callable[[Json], Any]:
    return lambda bundle: of(bundle, kind).update(elements)


def adding(kind: str, name: str, item: Any) -> Callable[[Json], Any]:
    return lambda bundle: of(bundle, kind).setdefault(name, []).append(item)


def volume(bundle: Json) -> Json:
    group: Json = of(bundle, "MeasureReport")["group"][0]
    return group


def without(kind: str) -> Callable[[Json], Any]:
    """Drops the first entry of a type, and every mention of it in the method statement."""

    def drop(bundle: Json) -> None:
        place = next(n for n, entry in enumerate(bundle["entry"]) if entry["resource"]["resourceType"] == kind)
        gone = bundle["entry"].pop(place)["fullUrl"]
        statement = of(bundle, "Provenance")
        statement["target"] = [target for target in statement["target"] if target["reference"] != gone]

    return drop


def answers(bundle: Json, kind: str) -> Iterator[Json]:
    """Every answer of the first form that has a value of that kind."""

    def below(node: Json) -> Iterator[Json]:
        for item in node.get("item", ()):
            yield from (answer for answer in item.get("answer", ()) if kind in answer)
            yield from below(item)

    return below(of(bundle, "QuestionnaireResponse"))


def source(bundle: Json, system: str) -> Json:
    """The identifier that the method statement names as a source."""
    found = (entity["what"]["identifier"] for entity in of(bundle, "Provenance")["entity"])
    return next(one for one in found if one["system"].endswith(system))


def swap(bundle: Json, kind: str, element: str) -> None:
    """Exchanges an element of the first resource of a type and the last."""
    first, last = of(bundle, kind), of(bundle, kind, -1)
    first[element], last[element] = last[element], first[element]


def twice(bundle: Json) -> None:
    copied = copy.deepcopy(bundle["entry"][-2])
    bundle["entry"].append({**copied, "fullUrl": "urn:uuid:00000000-0000-4000-8000-000000000000"})


def another_code(bundle: Json) -> None:
    next(answers(bundle, "valueCoding"))["valueCoding"]["display"] = "CANARY"


def typed_text(bundle: Json) -> None:
    next(answers(bundle, "valueString"))["valueString"] = "CANARY"


def drawn_for_another(bundle: Json) -> None:
    places = of(bundle, "List")["entry"]
    places[0]["item"], places[1]["item"] = places[1]["item"], places[0]["item"]


def extra_stratifier(bundle: Json) -> None:
    code = [{"coding": [{"system": f"{BASE}/CodeSystem/volume-stratifier", "code": "operator"}]}]
    volume(bundle)["stratifier"].append({"code": code})


def moved_count(bundle: Json) -> None:
    strata = volume(bundle)["stratifier"][0]["stratum"]
    strata[0]["population"][0]["count"] += 1
    strata[1]["population"][0]["count"] -= 1
    volume(bundle)["stratifier"][0]["stratum"] = [one for one in strata if one["population"][0]["count"] >= 0][:-1]


def cut_signature(bundle: Json) -> None:
    bundle["signature"]["data"] = bundle["signature"]["data"][:-8]


def renamed_reviews(bundle: Json) -> None:
    first = of(bundle, "QuestionnaireResponse")
    last = of(bundle, "QuestionnaireResponse", -1)
    first["subject"], last["subject"] = last["subject"], first["subject"]


BASE = "https://io-fhir-adapter.example/fhir"
NARRATIVE = {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">CANARY</div>'}
PRECISE = {"url": f"{BASE}/StructureDefinition/index-date", "valueDate": "2025-05-06"}
CODING = {"system": "http://hl7.org/fhir/sid/icd-10", "code": "C22.0"}

MUTATIONS = [
    # persons, places, texts, precise dates
    Mutation("a name", setting("Patient", name=[{"family": "CANARY"}]), ".name"),
    Mutation("a date of birth", setting("Patient", birthDate="1951-03-07"), ".birthDate"),
    Mutation("a postal code", setting("Patient", address=[{"postalCode": "12345"}]), ".address"),
    Mutation("a telephone number", setting("Patient", telecom=[{"value": "CANARY"}]), ".telecom"),
    Mutation("a second identifier", adding("Patient", "identifier", {"system": "urn:h", "value": "C"}), ".identifier"),
    Mutation("a narrative", setting("Patient", text=NARRATIVE), ".text"),
    Mutation("a narrative of the report", setting("MeasureReport", text=NARRATIVE), ".text"),
    Mutation("a contained resource", setting("Condition", contained=[{"resourceType": "Patient"}]), ".contained"),
    Mutation("a precise date", setting("Procedure", performedDateTime="2025-05-06"), ".performedDateTime"),
    Mutation("a date as an extension", setting("Procedure", extension=[PRECISE]), "extension[0]"),
    Mutation("a period", setting("Encounter", period={"start": "2025-05-06"}), ".period"),
    Mutation("a performer", setting("Procedure", performer=[{"actor": {"display": "CANARY"}}]), ".performer"),
    Mutation("a note", setting("Procedure", note=[{"text": "CANARY"}]), ".note"),
    Mutation(
        "a display of a code", lambda b: of(b, "Procedure")["category"]["coding"][0].update(display="C"), ".display"
    ),
    Mutation("a text of a code", lambda b: of(b, "Procedure")["category"].update(text="CANARY"), ".category.text"),
    Mutation("a location", setting("Encounter", location=[{"location": {"display": "CANARY"}}]), ".location"),
    Mutation("an author", setting("QuestionnaireResponse", author={"display": "CANARY"}), ".author"),
    Mutation("a typed answer", typed_text, ".valueString"),
    Mutation("another display of an answer", another_code, ".valueCoding"),
    Mutation(
        "a text beside an item", lambda b: of(b, "QuestionnaireResponse")["item"][0].update(text="CANARY"), ".text"
    ),
    Mutation("a name in a measure", setting("Measure", author=[{"name": "CANARY"}]), ".author"),
    Mutation("an altered form", setting("Questionnaire", title="CANARY"), ".resource"),
    Mutation(
        "another text in the report",
        lambda b: volume(b)["population"][0]["code"]["coding"][0].update(display="C"),
        ".display",
    ),
    # codes, systems, kinds
    Mutation("a whole diagnosis", setting("Condition", code={"coding": [CODING]}), ".coding[0].code"),
    Mutation("another system", lambda b: of(b, "Patient")["identifier"][0].update(system="urn:h"), ".identifier"),
    Mutation(
        "a code of a local system",
        setting("Procedure", code={"coding": [{"system": "urn:h", "code": "C"}]}),
        ".coding[0].system",
    ),
    Mutation(
        "a precise age",
        setting("Patient", extension=[{"url": f"{BASE}/StructureDefinition/age-band", "valueCode": "67"}]),
        ".valueCode",
    ),
    Mutation("another type of a value", setting("Group", quantity="13"), ".quantity"),
    Mutation("an unknown status", setting("Encounter", status="over"), ".status"),
    Mutation(
        "another type of resource", lambda b: b["entry"][0]["resource"].update(resourceType="Library"), ".resourceType"
    ),
    # counts
    Mutation("a raised count", lambda b: volume(b)["population"][1].update(count=200), ".stratifier[0]"),
    Mutation(
        "a raised count of a stratum",
        lambda b: volume(b)["stratifier"][1]["stratum"][0]["population"][0].update(count=99),
        ".stratifier[1]",
    ),
    Mutation("a negative count", lambda b: volume(b)["population"][0].update(count=-1), ".count"),
    Mutation("an extra stratifier", extra_stratifier, ".stratifier[3]"),
    Mutation("a count moved and a stratum dropped", moved_count, ".stratifier[0]"),
    Mutation(
        "another reason's count",
        lambda b: volume(b)["stratifier"][2]["stratum"][1]["population"][2].update(count=999),
        ".stratifier[2]",
    ),
    Mutation("another Measure", setting("MeasureReport", measure=f"{BASE}/Measure/other|1"), ".measure"),
    # the draw
    Mutation("a changed nonce", lambda b: source(b, "draw-nonce").update(value="0" * 64), "Bundle.entry"),
    Mutation(
        "a changed token",
        lambda b: of(b, "Group")["member"][0]["entity"]["identifier"].update(value="0" * 64),
        "Bundle.entry",
    ),
    Mutation("one patient fewer in the frame", lambda b: of(b, "Group")["member"].pop(), "Bundle.entry"),
    Mutation(
        "another window",
        lambda b: of(b, "Group")["characteristic"][0]["period"].update(end="2025-11-30"),
        "Bundle.entry",
    ),
    Mutation("another ruleset", lambda b: source(b, "ruleset").update(value="sha256:" + "0" * 64), ".entity"),
    Mutation("two drawn in another order", drawn_for_another, "Bundle.entry"),
    Mutation("reviews of each other's patients", renamed_reviews, ".identifier"),
    Mutation("forms swapped", lambda b: swap(b, "QuestionnaireResponse", "item"), ".valueString"),
    Mutation("no review of a case", without("QuestionnaireResponse"), "Bundle.entry"),
    Mutation("no frame", without("Group"), ".reference"),
    # entries and the whole
    Mutation("a duplicated entry", twice, "Bundle.entry"),
    Mutation("a dropped report", without("MeasureReport"), "Bundle.entry"),
    Mutation(
        "a lost link", lambda b: of(b, "Procedure")["subject"].update(reference="Patient/1"), ".subject.reference"
    ),
    Mutation("a request for another", lambda b: b["entry"][0]["request"].update(url="Measure?url=urn:x"), ".url"),
    Mutation("a deletion", lambda b: b["entry"][0]["request"].update(method="DELETE"), ".request"),
    Mutation(
        "another facility in the statement",
        lambda b: of(b, "Provenance")["agent"][0]["onBehalfOf"]["identifier"].update(value="F-002"),
        ".agent",
    ),
    Mutation("an entry that the statement leaves out", lambda b: of(b, "Provenance")["target"].pop(), ".target"),
    Mutation("another programme", lambda b: b["meta"]["tag"][0].update(code="degir"), "Bundle.meta.tag"),
    # on the way
    Mutation(
        "a changed answer", lambda b: next(answers(b, "valueBoolean")).update(valueBoolean=None), "", on_the_way=True
    ),
    Mutation("another sex", setting("Patient", gender="other"), "Bundle.identifier", on_the_way=True),
    Mutation(
        "another time of sealing",
        lambda b: b.update(timestamp="2026-01-01T00:00:00Z"),
        "Bundle.signature",
        on_the_way=True,
    ),
    Mutation("a cut signature", cut_signature, "Bundle.signature", on_the_way=True),
    Mutation("no signature", lambda b: b.pop("signature"), "Bundle.signature", on_the_way=True),
]


def refusal(bundle: Json) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        check_transaction(bundle, RULES)
    return caught.value


def test_the_submission_itself_is_taken(submission: Json) -> None:
    taken = check_transaction(submission, RULES)
    assert isinstance(taken, Submission)
    assert (taken.facility, taken.cases) == ("F-001", 2)
    assert taken.seal == Seal("valid", "synthetic")


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name.replace(" ", "-"))
def test_a_changed_submission_is_refused_by_element(submission: Json, mutation: Mutation) -> None:
    bundle = copy.deepcopy(submission)
    mutation.change(bundle)
    assert bundle != submission
    found = refusal(bundle)
    if not mutation.on_the_way and [issue.expression for issue in found.issues] == ["Bundle.identifier"]:
        found = refusal(sealed_again(bundle))  # what was refused before that does not hang on the seal
    assert found.status == mutation.status
    assert any(issue.expression.endswith(mutation.expression) for issue in found.issues), found.issues
    assert "CANARY" not in json.dumps(operation_outcome(found.issues))


def test_there_are_enough_changes_and_each_is_another() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 35
