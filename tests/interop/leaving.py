"""A facility that sends all that there is: cases reviewed, signed and approved, standards, a correction, a way back.

Everything that leaves is kept as it left, for the validators; and the same facility sends to endpoints of other makers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from io_fhir_adapter.classify.ruleset import Ruleset, rules_for
from io_fhir_adapter.config import Config
from io_fhir_adapter.demo import AS_OF, LOCAL_SYSTEM
from io_fhir_adapter.handover.desk import Desk
from io_fhir_adapter.handover.withdrawing import Approver, Withdrawal, withdraw
from io_fhir_adapter.ledger.accounts import Actor, account_of, add_account
from io_fhir_adapter.ledger.assessments import put_assessment
from io_fhir_adapter.ledger.database import Ledger, open_ledger
from io_fhir_adapter.ledger.outbox import OutboxItem, find_item
from io_fhir_adapter.night import Night
from io_fhir_adapter.owner_only import put_owner_only
from io_fhir_adapter.pipeline import Nightly
from io_fhir_adapter.report.standards import questionnaire, requirements
from io_fhir_adapter.review.assessing import accept_assessment
from io_fhir_adapter.review.completing import completeness
from io_fhir_adapter.review.forms import canonical, items
from io_fhir_adapter.sandbox.hospital import Hospital
from io_fhir_adapter.shipped import shipped_path
from io_fhir_adapter.trust.keys import public_set

__all__ = ["CODE", "Facility", "facility", "write_records"]

Json = dict[str, Any]
CODE = "INTEROP-1"
_REVIEWER, _APPROVER, _NAME = "weber", "lang", "Prof. Jonas Lang"
_STANDARDS = "https://io-fhir-adapter.example/fhir/CodeSystem/standards-assessment"


def write_records(hospital: Hospital, folder: Path) -> Path:
    """The good resources of the synthetic hospital, as files that another tool exported."""
    path = folder / "records.ndjson"
    resources = (one for found in hospital.resources.values() for one in found)
    path.write_text("\n".join(json.dumps(one) for one in resources), encoding="utf-8")
    return path


@dataclass
class Facility:
    """The facility, its ledger and its people.

    Attributes:
        config: Sends to the endpoint under test.
        ledger: Open as long as the facility is there.
        jwks: The public half of its signing key.
    """

    config: Config
    ledger: Ledger
    jwks: Json

    @cached_property
    def rules(self) -> Ruleset:
        return rules_for(self.config)

    @property
    def desk(self) -> Desk:
        return Desk(self.config, self.ledger, self.rules, as_of=AS_OF)

    def night(self) -> Night:
        """One nightly job."""
        return asyncio.run(Nightly(self.config, self.ledger, self.rules, as_of=AS_OF).run())

    def review(self) -> None:
        """A reviewer answers all that is open of every case, and signs it."""
        desk = self.desk
        sample, casework = desk.sample(), desk.casework
        form = asyncio.run(casework.form())
        for case in sample.cases:
            seen = casework.case_form(sample, case.number)
            saved = casework.save(
                sample, case.number, _filled(form, seen.response), form, by=_REVIEWER, revision=seen.revision
            )
            casework.sign(sample, case.number, form, by=_REVIEWER, revision=saved.revision)

    def approve(self) -> OutboxItem:
        """An approver lets every rare case leave, and then the submission, which is sent."""
        desk = self.desk
        seen = asyncio.run(desk.proposal())
        assert seen is not None
        for case in seen.rare:
            desk.clear(case.number, reason="not-recognisable", by=_APPROVER)
        asyncio.run(desk.approve(seen.identifier, seen.digest, by=_APPROVER, name=_NAME))
        asyncio.run(desk.deliver())
        return self.item(seen.identifier)

    def assess(self, code: str) -> None:
        """Answers every requirement of the standards with one code."""
        programme = self.rules.programme
        form = questionnaire(programme)
        links = {one.link_id for one in requirements(programme)}

        def below(node: Json) -> list[Json]:
            made = []
            for item in node.get("item", ()):
                inside = below(item)
                coding = {"system": _STANDARDS, "code": code}
                answer = {"answer": [{"valueCoding": coding}]} if item["linkId"] in links else {}
                if answer or inside:
                    made.append({"linkId": item["linkId"], **answer, **({"item": inside} if inside else {})})
            return made

        posted = {
            "resourceType": "QuestionnaireResponse", "status": "completed", "questionnaire": canonical(form),
            "item": below(form),
        }  # fmt: skip
        with self.ledger.begin() as connection:
            put_assessment(connection, programme.id, accept_assessment(form, posted, "answers"), datetime.now(UTC))

    def withdraw(self, identifier: str) -> Withdrawal:
        """An approver takes a submission back."""
        with self.ledger.begin() as connection:
            if account_of(connection, _APPROVER) is None:
                by, now = Actor("console", ""), datetime.now(UTC)
                add_account(connection, _APPROVER, _NAME, "-", ("approver",), one_time=False, by=by, at=now)
            approver = account_of(connection, _APPROVER)
        assert approver is not None
        says = Approver(approver.name, approver.display, approver.roles)
        return asyncio.run(withdraw(self.config, self.ledger, identifier, "counted-wrongly", approver=says))

    def item(self, identifier: str) -> OutboxItem:
        """A submission as the outbox has it."""
        with self.ledger.read() as connection:
            return find_item(connection, identifier)


@contextmanager
def facility(folder: Path, records: Path, key: Any, **submission: Any) -> Iterator[Facility]:
    """The facility in a folder, found again by who comes later.

    Args:
        folder: Takes its ledger and keys.
        records: The hospital's resources.
        key: What it signs with.
        submission: Where it sends, as the configuration says it.
    """
    folder.mkdir(exist_ok=True)
    secret, private = folder / "pseudonym.key", folder / "signing-key.json"
    if not private.exists():
        put_owner_only(private, json.dumps(key.as_dict(private=True)).encode())
        put_owner_only(secret, bytes(range(32)).hex().encode())
    table = {"system": LOCAL_SYSTEM, "file": str(shipped_path("config", "sandbox-local-codes.csv"))}
    config = Config.model_validate({
        "facility": {"code": CODE, "name": "Sandbox Hospital (synthetic)", "time_zone": "Europe/Berlin"},
        "sources": [{"name": "files", "kind": "files", "paths": [str(records)]}],
        "mappings": {"site_tables": [table]},
        "ledger": {"path": folder / "ledger.sqlite"},
        "review": {"key_file": secret},
        "submission": {
            "signing_key": {"file": private}, "name_approver": True, "retries": 0, "read_timeout_s": 600, **submission,
        },
        "sign_in": {"accounts": True},
    })  # fmt: skip
    with closing(open_ledger(config.ledger)) as ledger:
        yield Facility(config, ledger, public_set(key))


def _filled(form: Json, response: Json) -> Json:
    """A pre-filled response with an answer to every open question, as a browser would post it."""
    posted: Json = json.loads(json.dumps(response))
    known = {item["linkId"]: item for item in items(form)}
    for _ in range(6):  # an answer may enable other questions
        for link in (one.link_id for one in completeness(form, posted)):
            _put(form, posted, link, _an_answer(known[link]))
    return posted


def _put(form: Json, posted: Json, link: str, value: Json) -> None:
    """Puts an answer in its place, with the groups around it."""
    node, below = posted, form
    while True:
        inside = next(one for one in below["item"] if link in {one["linkId"]} | {deep["linkId"] for deep in items(one)})
        found = next((one for one in node.setdefault("item", []) if one["linkId"] == inside["linkId"]), None)
        if found is None:
            found = {"linkId": inside["linkId"]}
            node["item"].append(found)
        node, below = found, inside
        if inside["linkId"] == link:
            node["answer"] = [value]
            return


def _an_answer(item: Json) -> Json:
    kind = item["type"]
    if kind in ("choice", "open-choice"):
        return {"valueCoding": item["answerOption"][-1]["valueCoding"]}
    if kind == "quantity":
        unit = next(one["valueCoding"] for one in item["extension"] if "unitOption" in one["url"])
        return {"valueQuantity": {"value": 1, "code": unit["code"], "system": unit["system"]}}
    if kind in ("string", "text"):
        return {"valueString": "synthetic"}
    if kind == "decimal":
        return {"valueDecimal": 1.5}
    return {"valueBoolean": False} if kind == "boolean" else {"valueInteger": 1}
