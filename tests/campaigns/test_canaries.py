"""The canary campaign: whatever text FHIR R4 allows in a record, none of it gets out, and the scan alone would see it.

Shortened in ``make test``; ``make canaries`` goes deeper and through all alternatives (``CANARIES=full``).
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
import yaml
from ahocorasick_rs import AhoCorasick
from argon2 import PasswordHasher
from fhir.resources.R4B import get_fhir_model_class
from tests.campaigns.canaries import PULLED, Canary, Garden, without_modifiers
from tests.e2e.conftest import Recorder, write_config
from tests.pipeline.test_approval import FORM, sign_case

from io_fhir_adapter.cli.main import run
from io_fhir_adapter.config import Role, load_config
from io_fhir_adapter.errors import ReviewError
from io_fhir_adapter.handover.desk import Desk
from io_fhir_adapter.ledger.accounts import Actor, add_account
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.look.passwords import Passwords
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.pipeline import rules_for
from io_fhir_adapter.receiver.app import create_app as receiver_app
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.review import cases
from io_fhir_adapter.review.deidentify import DeidContext, deidentify
from io_fhir_adapter.review.forms import load_questionnaire, public_words
from io_fhir_adapter.review.identifiers import identifiers_of, texts_of, values_of
from io_fhir_adapter.review.leaks import LeakScanner
from io_fhir_adapter.review.profile import load_profile
from io_fhir_adapter.sandbox.server import create_app as sandbox_app
from io_fhir_adapter.sandbox.store import SandboxStore
from io_fhir_adapter.serve.app import create_app as service_app

Json = dict[str, Any]
FULL = os.environ.get("CANARIES") == "full"
DEPTH = 4 if FULL else 2
VARIANTS = range(50) if FULL else (0, 23)
PATIENTS = 4
AS_OF = "2026-01-30"
PROFILE = load_profile()
OPS = {"system": "http://fhir.de/CodeSystem/bfarm/ops", "version": "2025", "code": "5-501.93"}
ICD = {"system": "http://fhir.de/CodeSystem/bfarm/icd-10-gm", "version": "2025", "code": "C22.0"}
STATUS = "http://terminology.hl7.org/CodeSystem/condition-"
OF_A_CASE = ("Patient", "Procedure", "Condition", "Encounter")


class Detector:
    """Finds planted strings in anything, in any letter case."""

    def __init__(self, planted: Iterable[Canary]) -> None:
        self.tokens = sorted({canary.token.casefold() for canary in planted})
        self._automaton = AhoCorasick(self.tokens)

    def found(self, data: bytes | str) -> set[str]:
        text = data.decode("utf-8", errors="replace") if isinstance(data, bytes) else data
        return {self.tokens[number] for number, *_ in self._automaton.find_matches_as_indexes(text.casefold())}


def person(garden: Garden, number: int) -> list[Json]:
    """One patient with a counted session: all that is needed for that is set, all else is canaries."""
    made = {kind: without_modifiers(garden.resource(kind)) for kind in PULLED}
    ids = {kind: made[kind]["id"] for kind in made}
    subject = {"reference": f"Patient/{ids['Patient']}"}
    for kind, resource in made.items():
        for link in ("subject", "patient", "individual"):
            if isinstance(resource.get(link), dict):
                resource[link] |= subject
        if kind not in ("Patient", "Practitioner", "RelatedPerson") and isinstance(resource.get("encounter"), dict):
            resource["encounter"] |= {"reference": f"Encounter/{ids['Encounter']}"}
    day = f"2025-09-{number + 1:02d}"
    procedure, condition, patient = made["Procedure"], made["Condition"], made["Patient"]
    for resource, gone in ((procedure, "performed"), (condition, "abatement"), (patient, "deceased")):
        for name in [name for name in resource if name.lstrip("_").startswith(gone)]:
            del resource[name]
    patient.pop("link", None)
    patient |= {"gender": "female", "birthDate": f"195{number}-07-02", "active": True}
    procedure |= {"status": "completed", "performedDateTime": f"{day}T10:00:00+02:00"}
    for resource, coding in ((procedure, OPS), (condition, ICD)):  # known codes with displays of the source
        planted = resource["code"]["coding"]
        resource["code"]["coding"] = [{**planted[0], **coding}, *planted]
    procedure["reasonReference"] = [
        {"reference": f"Condition/{ids['Condition']}"}, *(procedure.get("reasonReference") or [])
    ]  # fmt: skip
    procedure.pop("reasonCode", None)
    procedure.pop("partOf", None)
    for name, code in (("clinical", "active"), ("ver-status", "confirmed")):
        element = "clinicalStatus" if name == "clinical" else "verificationStatus"
        condition[element]["coding"][0] |= {"system": f"{STATUS}{name}", "code": code}
    made["Encounter"]["class"] |= {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"}
    made["Encounter"] |= {"status": "finished"}
    made["Encounter"]["period"] = {"start": day, "end": day}
    return list(made.values())


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_planted_resources_are_ones_that_r4_allows(variant: int) -> None:
    garden = Garden(depth=2, variant=variant)
    for kind in PULLED:
        get_fhir_model_class(kind).model_validate(garden.resource(kind))
    assert len({canary.token for canary in garden.planted}) == len(garden.planted) > 5_000
    paths = {re.sub(r"\[\d+\]", "", canary.path) for canary in garden.planted}
    assert {
        "Patient.name.family", "Patient._gender.extension.url", "Procedure.note.text", "Procedure.code.coding.display",
        "Patient.contained.Practitioner.name.family" if variant % 3 == 0 else "Procedure.text.div",
        "DocumentReference.content.attachment.title", "DocumentReference.content.attachment.url",
    } <= paths  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_copy_holds_a_canary(variant: int) -> None:
    garden = Garden(depth=DEPTH, variant=variant)
    made = {resource["resourceType"]: resource for resource in person(garden, 1)}
    context = DeidContext(
        key=b"k" * 32, token="0f" * 32, patient=f"Patient/{made['Patient']['id']}", index_date="2025-09-02",
        category="ablation-mwa", included=frozenset(f"{kind}/{made[kind]['id']}" for kind in OF_A_CASE),
    )  # fmt: skip
    detector = Detector(garden.planted)
    for kind in OF_A_CASE:
        assert detector.found(json.dumps(made[kind]))
        copied = json.dumps(deidentify(made[kind], PROFILE, context))
        assert detector.found(copied) == set(), kind
    assert context.dropped["Procedure.extension"] > 50
    assert detector.found(str(context.dropped)) == set()


@pytest.mark.parametrize("kind", OF_A_CASE)
def test_a_modifier_extension_anywhere_stops_the_resource(kind: str) -> None:
    garden = Garden(depth=max(DEPTH, 3))
    resource = garden.resource(kind)
    clean = {found["resourceType"]: found for found in person(Garden(depth=DEPTH, start=1_000_000), 1)}[kind]
    places = [name for name, value in resource.items() if "modifierExtension" in json.dumps({name: value})]
    assert "modifierExtension" in places
    context = DeidContext(
        key=b"k" * 32, token="0f" * 32, patient="Patient/x", index_date="2025-09-02", category="tace"
    )  # fmt: skip
    for name in places:
        if name == "contained":
            continue
        changed = {**clean, name: resource[name], "subject": {"reference": "Patient/x"}}
        changed["id"] = "x"
        with pytest.raises(ReviewError, match="modifierExtension") as refused:
            deidentify(changed, PROFILE, context)
        assert Detector(garden.planted).found(str(refused.value)) == set()


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_scan_alone_finds_them_all_but_one_in_a_hundred(variant: int) -> None:
    garden = Garden(depth=DEPTH, variant=variant)
    resources = [garden.resource(kind) for kind in PULLED]
    words = public_words(load_questionnaire()) | PROFILE.public_words
    published = words | {text.casefold() for text in texts_of([load_questionnaire()])}
    scanner = LeakScanner(
        identifiers_of(resources, words), published, values_of(resources, published, PROFILE.shapes)
    )  # fmt: skip
    bundle = {"resourceType": "Bundle", "entry": [{"resource": copy.deepcopy(resource)} for resource in resources]}
    leaked = {_at(bundle, leak.path) for leak in scanner.scan(json.dumps(bundle).encode()) if leak.kind == "value"}
    missed = [canary for canary in garden.planted if canary.value not in leaked]
    assert len(missed) <= 0.01 * len(garden.planted), missed[:20]


def _at(node: Any, path: str) -> Any:
    """The value at a path such as ``Bundle.entry[0].resource.id``."""
    for name, index in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        node = node[name] if name else node[int(index)]
    return node


@pytest.fixture(scope="module")
def garden() -> Garden:
    return Garden(depth=3 if FULL else 2)


@pytest.fixture(scope="module")
def store(garden: Garden) -> SandboxStore:
    resources = []
    for number in range(PATIENTS):
        garden.variant = 7 * number
        resources += person(garden, number)
    return SandboxStore.from_resources(resources)


def test_no_byte_of_a_night_holds_a_canary(
    garden: Garden, store: SandboxStore, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    detector = Detector(garden.planted)
    assert len(detector.tokens) > 1_000
    kept = ReceiverStore("sqlite://")
    received = Recorder(receiver_app(kept))
    try:
        with LoopbackServer(sandbox_app(store)) as sandbox, LoopbackServer(received) as receiver:
            path = write_config(tmp_path, f"{sandbox.base_url}/fhir", f"{receiver.base_url}/fhir")
            code = run(["run", "--config", str(path), "--as-of", AS_OF])
            shown = capfd.readouterr()
            assert detector.found(shown.out + shown.err) == set()
            assert code == 0, shown.err
            kinds = [entry["resource"]["resourceType"] for entry in json.loads(received.bodies[-1])["entry"]]
            assert kinds.count("QuestionnaireResponse") == kinds.count("Procedure") == PATIENTS
            for body in received.bodies:
                assert detector.found(body) == set()
            for file in (tmp_path / "out").iterdir():
                assert detector.found(file.read_bytes()) == set(), file.name
            config = load_config(path)
            ledger = open_ledger(config.ledger)
            with (
                LoopbackServer(service_app(config, ledger, rules_for(config))) as service,
                httpx.Client(base_url=service.base_url) as client,
            ):
                for page in ("/", "/metrics", "/health/live", "/health/ready"):
                    assert detector.found(client.get(page).content) == set(), page
            assert detector.found(httpx.get(f"{receiver.base_url}/").content) == set()
            ledger.close()
    finally:
        kept.close()


PAGES = ("/", "/cases", *(f"/cases/{number}" for number in range(1, PATIENTS + 1)), "/approval",
         "/approval/submission.json", "/report", "/audit", "/audit.ndjson", "/accounts", "/metrics")  # fmt: skip


def form_token(client: httpx.Client, page: str) -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', client.get(page).text)
    assert found is not None
    return found[1]


def signed_in(url: str, role: str) -> httpx.Client:
    """A browser of somebody with that role."""
    client = httpx.Client(base_url=url, follow_redirects=True, timeout=60, headers={"Accept": "text/html"})
    token, password = form_token(client, "/sign-in"), "correct horse battery"
    known = {"csrf": token, "name": f"the-{role}", "password": password, "next": "/"}
    assert client.post("/sign-in", data=known).url.path == "/"
    return client


def test_no_page_holds_a_canary_for_whoever_may_not_see_an_identity(
    garden: Garden, store: SandboxStore, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    detector = Detector(garden.planted)
    kept = ReceiverStore("sqlite://")
    try:
        with LoopbackServer(sandbox_app(store)) as sandbox, LoopbackServer(receiver_app(kept)) as receiver:
            path = write_config(tmp_path, f"{sandbox.base_url}/fhir", f"{receiver.base_url}/fhir")
            (tmp_path / "form.json").write_text(json.dumps(FORM), encoding="utf-8")
            people = {"sign_in": {"accounts": True}, "review": {"questionnaire": "form.json"}}
            path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | people), encoding="utf-8")
            assert run(["run", "--config", str(path), "--as-of", AS_OF]) == 0, capfd.readouterr().err
            config = load_config(path)
            ledger, rules, day = open_ledger(config.ledger), rules_for(config), date.fromisoformat(AS_OF)
            cheap = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)).hash("correct horse battery")
            with ledger.begin() as connection:
                for role in get_args(Role):
                    add_account(
                        connection, f"the-{role}", role, cheap, (role,), one_time=False,
                        by=Actor("console", ""), at=datetime.now(UTC),
                    )  # fmt: skip
            with LoopbackServer(service_app(config, ledger, rules, as_of=day)) as service:
                visitors = {role: signed_in(service.base_url, role) for role in get_args(Role)}
                for stage in ("open", "signed"):
                    for role, client in visitors.items():
                        for page in PAGES:
                            shown = client.get(page)
                            told = detector.found(shown.content) | detector.found(str(shown.headers))
                            assert told == set(), (stage, role, page)
                    if stage == "open":
                        desk = Desk(config, ledger, rules, as_of=day)
                        for case in desk.sample().cases:
                            sign_case(desk, case.number)
                        asyncio.run(desk.propose())
                assert visitors["approver"].get("/approval/submission.json").status_code == 200
                for role, client in visitors.items():
                    assert client.get("/cases/1").status_code == (200 if role in ("reviewer", "approver") else 403)
                    looked = client.post("/cases/1/identity", data={"csrf": form_token(client, "/")})
                    assert bool(detector.found(looked.content)) is (role == "reviewer"), role
                    client.close()
            ledger.close()
    finally:
        kept.close()


def test_without_the_allow_list_the_night_is_refused_and_the_error_names_no_canary(
    garden: Garden,
    store: SandboxStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def careless(resource: Json, profile: Any, context: DeidContext) -> Json:
        made = deidentify(resource, profile, context)
        if resource["resourceType"] == "Procedure":
            made["note"] = [{"text": note["text"]} for note in resource["note"]]
        return made

    monkeypatch.setattr(cases.__name__ + ".deidentify", careless)
    kept = ReceiverStore("sqlite://")
    received = Recorder(receiver_app(kept))
    try:
        with LoopbackServer(sandbox_app(store)) as sandbox, LoopbackServer(received) as receiver:
            path = write_config(tmp_path, f"{sandbox.base_url}/fhir", f"{receiver.base_url}/fhir")
            code = run(["run", "--config", str(path), "--as-of", AS_OF])
    finally:
        kept.close()
    shown = capfd.readouterr()
    assert code == 1
    assert "note[0].text" in shown.err
    assert not [body for body in received.bodies if b'"resourceType":"Bundle"' in body]
    assert Detector(garden.planted).found(shown.out + shown.err) == set()
