"""Writes plans down as FHIR R4 resources, in the varied ways of several departmental systems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from random import Random
from typing import Any

from io_fhir_adapter.sandbox.documentation import document_condition
from io_fhir_adapter.sandbox.people import ORGANIZATION_ID, Canaries, safety
from io_fhir_adapter.sandbox.plans import CODES, SYSTEMS
from io_fhir_adapter.sandbox.times import local, performed

__all__ = ["CODING_SYSTEM", "ICD_SYSTEM", "RIS_SYSTEM", "Person", "ProcedurePlan", "Register", "icd_concept"]

CODING_SYSTEM = "http://sandbox.example/system/coding"
RIS_SYSTEM = "http://sandbox.example/system/ris"
_NOTES = {(row.system, row.code): row.note for row in CODES}
_OPS_OLD = "http://fhir.de/CodeSystem/dimdi/ops"
_PCS_OTHER = "http://hl7.org/fhir/sid/icd-10-pcs"
ICD_SYSTEM = "http://fhir.de/CodeSystem/bfarm/icd-10-gm"
_ICD_OLD = "http://fhir.de/CodeSystem/dimdi/icd-10-gm"
_PAIRED = ("5-552.", "5-339.2")
_CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
_VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
_SNOMED_DISEASES = {
    "C22.0": "109841003", "C78.7": "94381002", "C64": "363518003", "C34.1": "93880001", "C78.0": "94391008",
    "C25.0": "363419009", "C79.5": "94222008", "C67.2": "399326009", "C18.7": "363410008", "C50.4": "254837009",
    "M81.98": "64859006", "I10.00": "59621000", "I48.0": "282825002", "E11.90": "44054006",
}  # fmt: skip
"""ICD-10-GM -> SNOMED CT GPS 2020-09, given as a second coding at times."""


@dataclass
class Person:
    """A patient while the hospital is being made.

    Attributes:
        id: Logical id; ``alias`` is that of a duplicate record merged into this one, or empty.
        gender: As recorded.
        profile: Kind of tumour, ``resolved`` for one that is over, or empty.
        conditions: ICD-10-GM code -> reference of the Condition on record.
        taken: Ordinals of the days on which something of this person happens.
    """

    id: str
    gender: str
    profile: str = ""
    alias: str = ""
    conditions: dict[str, str] = field(default_factory=dict)
    taken: set[int] = field(default_factory=set)

    @property
    def reference(self) -> str:
        """Reference of the record that survives merging."""
        return f"Patient/{self.id}"

    def free(self, day: int, margin: int) -> bool:
        """Whether nothing was planned within ``margin`` days of the ordinal ``day``."""
        return self.taken.isdisjoint(range(day - margin, day + margin + 1))


@dataclass(frozen=True)
class ProcedurePlan:
    """What one Procedure is to say; ``codes`` are (short system name, code), ``form`` is one of :mod:`times`."""

    codes: Sequence[tuple[str, str]]
    day: date
    form: str = "offset"
    minute: int = 600
    duration: int = 60
    status: str = "completed"
    origin: str = CODING_SYSTEM
    encounter: str = ""
    part_of: str = ""
    reason_codes: Sequence[str] = ()
    reason_references: Sequence[str] = ()
    label: str = ""
    versioned: bool = False


def icd_concept(rng: Random, code: str, year: int) -> dict[str, Any]:
    """A CodeableConcept with an ICD-10-GM code, at times with its SNOMED CT sibling."""
    coding = [{"system": _ICD_OLD if rng.random() < 0.08 else ICD_SYSTEM, "version": str(year), "code": code}]
    if code in _SNOMED_DISEASES and rng.random() < 0.25:
        coding.append({"system": SYSTEMS["sct"], "code": _SNOMED_DISEASES[code]})
    return {"coding": coding}


class Register:
    """All good resources made so far, by type and by reference.

    Args:
        rng: Source of everything that varies.
        canaries: Source of personal strings.
        closing: Nothing is recorded as changed after this instant (UTC, with milliseconds).
        practitioners: Number of physicians to choose from.
    """

    def __init__(self, rng: Random, canaries: Canaries, closing: str, practitioners: int) -> None:
        self.rng = rng
        self.canaries = canaries
        self.closing = closing
        self.practitioners = practitioners
        self.by_reference: dict[str, dict[str, Any]] = {}

    def keep(self, resource: dict[str, Any]) -> str:
        """Keeps a finished resource and gives its reference."""
        reference = f"{resource['resourceType']}/{resource['id']}"
        self.by_reference[reference] = resource
        return reference

    def of_type(self, resource_type: str) -> tuple[dict[str, Any], ...]:
        """All resources of a type, by id."""
        prefix = f"{resource_type}/"
        return tuple(self.by_reference[name] for name in sorted(self.by_reference) if name.startswith(prefix))

    def updated(self, day: date) -> str:
        """An instant one to four days after ``day``, never after the closing moment."""
        chance = self.rng.getrandbits(24)
        moved = day + timedelta(days=1 + (chance & 3))
        moment = f"{moved}T{(chance >> 2) % 24:02d}:{(chance >> 7) % 60:02d}:{(chance >> 13) % 60:02d}.000Z"
        return min(moment, self.closing)

    def new_id(self, resource_type: str, prefix: str) -> str:
        """A new logical id, ``prefix-`` and ten hexadecimal digits."""
        while True:
            name = f"{prefix}-{self.rng.getrandbits(40):010x}"
            if f"{resource_type}/{name}" not in self.by_reference:
                return name

    def coding(self, system: str, code: str, year: int) -> dict[str, Any]:
        """One Coding as some system would write it: old URIs, other case, no version, no display."""
        rng = self.rng
        uri, written, version = SYSTEMS[system], code, {}
        if system == "ops":
            uri = _OPS_OLD if rng.random() < 0.08 else uri
            version = {"version": str(year)} if rng.random() < 0.9 else {}
            written = code.upper() if rng.random() < 0.15 else code
            if code.startswith(_PAIRED) and rng.random() < 0.3:
                written += rng.choice((":R", ":L"))
        elif system == "pcs":
            uri = _PCS_OTHER if rng.random() < 0.2 else uri
        coding = {"system": uri, **version, "code": written}
        note = _NOTES.get((system, code), "")
        if note and system != "cpt" and rng.random() < 0.6:
            coding["display"] = note
        return coding

    def add_condition(
        self, person: Person, code: str, onset: date, *, clinical: str = "active", abated: date | None = None
    ) -> str:
        """Adds a Condition of the person and gives its reference."""
        resource: dict[str, Any] = {
            "resourceType": "Condition",
            "id": self.new_id("Condition", "con"),
            "meta": {"versionId": "1", "lastUpdated": self.updated(abated or onset), **safety()},
            "clinicalStatus": {"coding": [{"system": _CLINICAL, "code": clinical}]},
            "verificationStatus": {"coding": [{"system": _VERIFICATION, "code": "confirmed"}]},
            "code": icd_concept(self.rng, code, onset.year),
            "subject": {"reference": person.reference},
            "onsetDateTime": onset.isoformat() if self.rng.random() < 0.7 else f"{onset.year}-{onset.month:02d}",
            "recordedDate": onset.isoformat(),
        }
        if abated is not None:
            resource["abatementDateTime"] = abated.isoformat()
        if self.rng.random() < 0.1:
            resource["code"]["text"] = f"Seen by Dr. {self.canaries.token()}"
        if self.rng.random() < 0.05:
            resource["note"] = [{"text": f"Told the family {self.canaries.token()}"}]
        if code.startswith("C"):
            document_condition(resource)
        reference = self.keep(resource)
        person.conditions[code] = reference
        return reference

    def add_encounter(
        self, person: Person, first: date, last: date, *, diagnoses: Sequence[str] = (), inpatient: bool = True
    ) -> str:
        """Adds an Encounter over these local days and gives its reference; ``diagnoses`` are Conditions."""
        rng = self.rng
        class_code = rng.choice(("IMP", "IMP", "EMER")) if inpatient else "AMB"
        resource: dict[str, Any] = {
            "resourceType": "Encounter",
            "id": self.new_id("Encounter", "enc"),
            "meta": {"versionId": "1", "lastUpdated": self.updated(last), **safety()},
            "identifier": [{"system": "http://sandbox.example/case-number", "value": self.canaries.token()}],
            "status": "finished",
            "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": class_code},
            "subject": {"reference": person.reference},
            "period": {
                "start": local(first, rng.randint(1, 15)).isoformat(timespec="seconds"),
                "end": local(last, 1439 - rng.randint(1, 15)).isoformat(timespec="seconds"),
            },
            "serviceProvider": {"reference": f"Organization/{ORGANIZATION_ID}"},
        }
        if diagnoses:
            role = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/diagnosis-role", "code": "DD"}]}
            resource["diagnosis"] = [
                {"condition": {"reference": reference}, "use": role, "rank": rank}
                for rank, reference in enumerate(diagnoses, start=1)
            ]
        return self.keep(resource)

    def add_procedure(self, subject: str, plan: ProcedurePlan) -> str:
        """Adds a Procedure of the patient with the id ``subject`` and gives its reference."""
        rng, canaries = self.rng, self.canaries
        resource: dict[str, Any] = {
            "resourceType": "Procedure",
            "id": self.new_id("Procedure", "prc"),
            "meta": {"versionId": "1", "lastUpdated": self.updated(plan.day), **safety()},
            "status": plan.status,
            "subject": {"reference": f"Patient/{subject}" + ("/_history/1" if plan.versioned else "")},
            **performed(plan.form, plan.day, plan.minute, plan.duration),
        }
        sourced = rng.random() < 0.7
        if sourced:
            resource["meta"]["source"] = plan.origin
        if not sourced or rng.random() < 0.3:
            resource["identifier"] = [{"system": plan.origin, "value": canaries.token()}]
        code = self._code(plan)
        if code:
            resource["code"] = code
        if plan.encounter:
            resource["encounter"] = {"reference": plan.encounter}
        if plan.part_of:
            resource["partOf"] = [{"reference": plan.part_of}]
        if plan.reason_codes:
            resource["reasonCode"] = [icd_concept(rng, value, plan.day.year) for value in plan.reason_codes]
        if plan.reason_references:
            resource["reasonReference"] = [{"reference": reference} for reference in plan.reason_references]
        self._add_personal(resource)
        return self.keep(resource)

    def _code(self, plan: ProcedurePlan) -> dict[str, Any]:
        code: dict[str, Any] = {}
        if plan.codes:
            code["coding"] = [self.coding(system, value, plan.day.year) for system, value in plan.codes]
        if plan.label:
            code["text"] = plan.label
        elif plan.codes and self.rng.random() < 0.06:
            code["text"] = f"For {self.canaries.token()}"
        return code

    def _add_personal(self, resource: dict[str, Any]) -> None:
        """Personal strings where hospitals put them although nobody should: displays, notes, extensions."""
        rng, canaries = self.rng, self.canaries
        if resource["status"] == "not-done":
            resource["statusReason"] = {"text": f"Patient {canaries.token()} did not come"}
        if rng.random() < 0.05:
            resource["subject"]["display"] = canaries.token()
        if rng.random() < 0.5:
            actor = {"reference": f"Practitioner/doc-{1 + int(rng.random() * self.practitioners):03d}"}
            if rng.random() < 0.2:
                actor["display"] = f"Dr. {canaries.token()}"
            resource["performer"] = [{"actor": actor}]
        if rng.random() < 0.08:
            resource["note"] = [
                {"authorString": canaries.token(), "text": f"Talked to {canaries.token()}, no complaints."}
            ]
        if rng.random() < 0.02:
            resource["extension"] = [
                {"url": "http://sandbox.example/StructureDefinition/room", "valueString": f"Room {canaries.token()}"}
            ]
