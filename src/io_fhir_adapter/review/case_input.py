"""What a form can be filled from: the resources of one case, and what the adapter itself knows of its session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import Any

from io_fhir_adapter.errors import ResourceError
from io_fhir_adapter.fhir.dates import is_full, local_day
from io_fhir_adapter.fhir.references import normalise
from io_fhir_adapter.model import Decision
from io_fhir_adapter.review.generalise import age_band, day_offset, quarter

__all__ = ["CaseInput", "index_encounter", "session_facts"]

Json = dict[str, Any]

_EARLIER_DAYS = 730


@dataclass(frozen=True)
class CaseInput:
    """All that a form can be filled from; local only.

    Attributes:
        number: Place in the draw, from 1.
        token: The patient's token in the commitment.
        pseudonym: The case's name in this draw; the token where empty.
        decision: The decision on the index session.
        patient: The Patient resource, R4 JSON, None where it could not be pulled.
        procedures: The session's Procedure resources.
        encounters: Encounter resources of the patient.
        conditions: Condition resources of the patient.
        found: What the form's searches found, by the name of their variable; see :mod:`.queries`.
        absent: Resource types that the source does not offer or does not let be read, and why in a few words.
        earlier: Date and category of the patient's other counted sessions.
        subject: What the form's subject is to say, such as the ``urn:uuid:`` of the de-identified Patient.
        organ: The organ that the indication's code names, empty where it names none.
        last_contact: Local date of the patient's last completed Procedure or Encounter that the ledger knows.
        zone: The facility's time zone.
    """

    number: int
    token: str
    decision: Decision = field(repr=False)
    patient: Json | None = field(default=None, repr=False)
    procedures: tuple[Json, ...] = field(default=(), repr=False)
    encounters: tuple[Json, ...] = field(default=(), repr=False)
    conditions: tuple[Json, ...] = field(default=(), repr=False)
    found: Mapping[str, tuple[Json, ...]] = field(default_factory=dict, repr=False)
    absent: Mapping[str, str] = field(default_factory=dict)
    earlier: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    pseudonym: str = ""
    subject: str = ""
    organ: str = ""
    last_contact: str = field(default="", repr=False)
    zone: tzinfo = UTC


def session_facts(case: CaseInput) -> Json:
    """What the adapter knows of a case, as the Parameters resource ``%session``.

    Names: ``case-number``, ``pseudonym``, ``category``, ``counts``, ``quarter`` (``2025-Q3``), ``age-band``, ``site``
    (once per organ of the main findings), ``guidance`` (Coding, once per code that only says how images guided),
    ``indication`` (Coding), ``indication-kind`` and ``indication-organ`` (what our tables say of that code),
    ``indication-resource`` (``Condition/…``), ``discharge-offset``, ``death-offset`` and ``contact-offset`` (days from
    the index session to the last time that the patient was seen alive), ``deceased`` (false only where the source
    says so), ``index-date`` (for windows and comparisons; no answer ever holds a date) and ``earlier-category`` (once
    per category of the sessions that counted in the two years before). A name is left out where the record does not
    tell.
    """
    decision, patient, encounter = case.decision, case.patient or {}, index_encounter(case) or {}
    parameters: list[Json] = [
        {"name": "case-number", "valueInteger": case.number},
        {"name": "pseudonym", "valueString": case.pseudonym or case.token},
        {"name": "category", "valueCode": decision.category},
        {"name": "counts", "valueBoolean": decision.decision == "counted"},
    ]
    if is_full(decision.date):
        parameters.append({"name": "index-date", "valueDate": decision.date})
    offsets = [(day_offset(day, decision.date), category) for day, category in case.earlier]
    before = {category for offset, category in offsets if offset is not None and -_EARLIER_DAYS <= offset < 0}
    parameters += [{"name": "earlier-category", "valueCode": category} for category in sorted(before)]
    texts = {
        "quarter": quarter(decision.date),
        "age-band": age_band(_day(patient.get("birthDate"), case), decision.date),
    }
    parameters += [{"name": name, "valueCode": value} for name, value in texts.items() if value]
    sites = sorted({finding.site for finding in decision.findings if finding.role == "main" and finding.site})
    parameters += [{"name": "site", "valueCode": site} for site in sites]
    parameters += [
        {"name": "guidance", "valueCoding": {"system": finding.system, "code": finding.code}}
        for finding in decision.findings
        if finding.technique == "guidance"
    ]
    indication = decision.indication
    if indication.code:
        parameters.append({"name": "indication", "valueCoding": {"system": indication.system, "code": indication.code}})
        words = {"indication-kind": indication.kind, "indication-organ": case.organ}
        parameters += [{"name": name, "valueCode": value} for name, value in words.items() if value]
    if indication.resource.startswith("Condition/"):
        parameters.append({"name": "indication-resource", "valueString": indication.resource})
    ends = {
        "discharge-offset": _day(_mapping(encounter.get("period")).get("end"), case),
        "death-offset": _day(patient.get("deceasedDateTime"), case),
        "contact-offset": case.last_contact,
    }
    for name, day in ends.items():
        offset = day_offset(day, decision.date)
        if offset is not None:
            parameters.append({"name": name, "valueInteger": offset})
    if patient.get("deceasedBoolean") is False:
        parameters.append({"name": "deceased", "valueBoolean": False})
    return {"resourceType": "Parameters", "parameter": parameters}


def index_encounter(case: CaseInput) -> Json | None:
    """The first Encounter that a Procedure of the session names; without any, the only one that covers its day."""
    by_id = {f"Encounter/{encounter.get('id')}": encounter for encounter in case.encounters}
    for procedure in case.procedures:
        link = _mapping(procedure.get("encounter")).get("reference")
        found = by_id.get(normalise(link, "Encounter")) if isinstance(link, str) else None
        if found is not None:
            return found
    around = [encounter for encounter in case.encounters if _covers(encounter, case)]
    return around[0] if len(around) == 1 else None


def _covers(encounter: Json, case: CaseInput) -> bool:
    period = _mapping(encounter.get("period"))
    start, end = _day(period.get("start"), case), _day(period.get("end"), case)
    return bool(start and end) and start <= case.decision.date <= end


def _day(value: Any, case: CaseInput) -> str:
    """The local date of a FHIR date or dateTime, empty where there is none that could be read."""
    try:
        return local_day(value, case.zone) if isinstance(value, str) else ""
    except ResourceError:
        return ""


def _mapping(value: Any) -> Json:
    return value if isinstance(value, dict) else {}
