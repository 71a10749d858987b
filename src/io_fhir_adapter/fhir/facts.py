"""From input structs to facts: the one place where versions of FHIR and spellings of dates are levelled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import tzinfo
from typing import Final

import msgspec

from io_fhir_adapter.errors import ResourceError
from io_fhir_adapter.fhir.dates import local_day, local_moment
from io_fhir_adapter.fhir.mentions import encounter_mentions, procedure_mentions
from io_fhir_adapter.fhir.references import reference_key
from io_fhir_adapter.fhir.structs import (
    CodeableConcept,
    Condition,
    Encounter,
    EncounterDiagnosis,
    Patient,
    Performer,
    Period,
    Procedure,
    ProcedureSketch,
    Reference,
)
from io_fhir_adapter.model import Code, ConditionFact, EncounterFact, PatientFact, ProcedureFact

__all__ = [
    "codes_of",
    "condition_fact",
    "encounter_fact",
    "keys_of",
    "operator_of",
    "origin_of",
    "patient_fact",
    "performed_on",
    "procedure_fact",
    "status_of",
]

_LAST_RANK: Final = 1_000  # of a diagnosis; what is higher is none
_NO_CODES: tuple[Code, ...] = ()
_CONDITION: Final = msgspec.json.Decoder(Condition)


def codes_of(concepts: Iterable[CodeableConcept]) -> tuple[Code, ...]:
    """All codings with a code, in the order written."""
    codes = []
    for concept in concepts:
        for coding in concept.coding or ():
            if coding.code:
                codes.append(Code(coding.system or "", coding.code, coding.version or "", coding.display or ""))
    return tuple(codes)


def status_of(procedure: Procedure | ProcedureSketch) -> str:
    """The status in R4 terms; STU3's ``notDone`` flag and ``aborted``, ``suspended`` are translated."""
    if procedure.notDone:
        return "not-done"
    status = procedure.status or "unknown"
    if status == "aborted":
        return "stopped"
    return "on-hold" if status == "suspended" else status


def procedure_fact(
    procedure: Procedure, source: str, tz: tzinfo | None, fallback_id: str = "", *, not_after: str = ""
) -> ProcedureFact:
    """The fact kept of a Procedure.

    Args:
        procedure: As decoded.
        source: Name of the source.
        tz: The facility's time zone, None for dates as written.
        fallback_id: The id to take where the resource has none (a Bundle entry's fullUrl).
        not_after: Last local date that can be true; a later one is a mistake of the record. Empty for any.

    Raises:
        ResourceError: No id, no subject, or a date that is none or lies in the future.
    """
    resource_id = procedure.id or fallback_id
    if not resource_id:
        raise ResourceError("the Procedure has no id", number=1)
    patient = reference_key(procedure.subject, "Patient")
    if not patient:
        raise ResourceError("the Procedure has no subject that could be told apart", number=2)
    day, time, end_day, end_time = performed_on(procedure, tz)
    if not_after and day > not_after:
        raise ResourceError("the date lies in the future", number=13)
    code = procedure.code
    reasons, reason_refs = procedure.reasonCode or (), procedure.reasonReference or ()
    if procedure.reason:  # R5 has both in one element
        reasons = [*reasons, *(reason.concept for reason in procedure.reason if reason.concept)]
        reason_refs = [*reason_refs, *(reason.reference for reason in procedure.reason if reason.reference)]
    if procedure.contained and reason_refs:
        reasons = [*reasons, *_contained_reasons(procedure.contained, reason_refs)]
    return ProcedureFact(
        source=source,
        id=resource_id,
        patient=patient,
        status=status_of(procedure),
        day=day,
        end_day=end_day,
        encounter=reference_key(procedure.encounter or procedure.context, "Encounter"),
        codes=codes_of((code,)) if code is not None else _NO_CODES,
        text=(code.text or "") if code is not None else "",
        reasons=codes_of(reasons) if reasons else _NO_CODES,
        reason_refs=keys_of(reason_refs, "Condition") if reason_refs else (),
        body_sites=codes_of(procedure.bodySite) if procedure.bodySite else _NO_CODES,
        part_of=keys_of(procedure.partOf, "Procedure") if procedure.partOf else (),
        origin=origin_of(procedure),
        operator=operator_of(procedure.performer or ()),
        updated=(procedure.meta.lastUpdated or "") if procedure.meta is not None else "",
        mentions=procedure_mentions(procedure),
        time=time,
        end_time=end_time,
    )


def performed_on(procedure: Procedure | ProcedureSketch, tz: tzinfo | None) -> tuple[str, str, str, str]:
    """Local date and time of the start and of the end, as far as they are known."""
    single = procedure.performedDateTime or procedure.occurrenceDateTime
    if single:
        return *local_moment(single, tz), "", ""
    period = procedure.performedPeriod or procedure.occurrencePeriod
    if period is None:
        return "", "", "", ""
    start, end = local_moment(period.start, tz), local_moment(period.end, tz)
    return *(start if start[0] else end), *end


def _period(period: Period | None, tz: tzinfo | None) -> tuple[str, str]:
    if period is None:
        return "", ""
    start, end = local_day(period.start, tz), local_day(period.end, tz)
    return (start or end), end


def _contained_reasons(contained: Iterable[msgspec.Raw], references: Iterable[Reference]) -> Iterator[CodeableConcept]:
    """The codes of contained Conditions that references name (``#id``); what is none of that is passed over."""
    named = {text[1:] for reference in references if (text := reference.reference or "").startswith("#")}
    for raw in contained if named else ():
        try:
            condition = _CONDITION.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue  # another resource type, or damaged where decoding the Procedure did not look
        if condition.id in named and condition.code is not None:
            yield condition.code


def keys_of(references: Iterable[Reference], resource_type: str) -> tuple[str, ...]:
    """The keys of References, without those that point nowhere."""
    return tuple(key for reference in references if (key := reference_key(reference, resource_type)))


def origin_of(procedure: Procedure | ProcedureSketch) -> str:
    """Which departmental system recorded it, as far as it says."""
    named = (procedure.meta.source or "").partition("#")[0] if procedure.meta is not None else ""
    if named:  # HAPI writes "#" and the id of a request where no source was given
        return named
    for identifier in procedure.identifier or ():
        if identifier.system:
            return identifier.system
    return ""


def operator_of(performers: Iterable[Performer]) -> str:
    """The reference of the first performer that has one."""
    for performer in performers:
        key = reference_key(performer.actor, "Practitioner")
        if key:
            return key
    return ""


def _first_code(value: str | CodeableConcept | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return next((coding.code for coding in value.coding or () if coding.code), "")


def condition_fact(condition: Condition, source: str, tz: tzinfo | None, fallback_id: str = "") -> ConditionFact:
    """The fact kept of a Condition.

    Raises:
        ResourceError: No id, no subject, or a date that is none.
    """
    resource_id = condition.id or fallback_id
    if not resource_id:
        raise ResourceError("the Condition has no id", number=1)
    patient = reference_key(condition.subject, "Patient")
    if not patient:
        raise ResourceError("the Condition has no subject that could be told apart", number=2)
    return ConditionFact(
        source=source,
        id=resource_id,
        patient=patient,
        codes=codes_of((condition.code,)) if condition.code is not None else _NO_CODES,
        clinical_status=_first_code(condition.clinicalStatus),
        verification_status=_first_code(condition.verificationStatus),
        onset=local_day(condition.onsetDateTime, tz) or _period(condition.onsetPeriod, tz)[0],
        abated=local_day(condition.abatementDateTime, tz) or _period(condition.abatementPeriod, tz)[1],
        recorded=local_day(condition.recordedDate or condition.assertedDate, tz),
        encounter=reference_key(condition.encounter or condition.context, "Encounter"),
        body_sites=codes_of(condition.bodySite or ()),
        updated=(condition.meta.lastUpdated or "") if condition.meta is not None else "",
    )


def encounter_fact(encounter: Encounter, source: str, tz: tzinfo | None, fallback_id: str = "") -> EncounterFact:
    """The fact kept of an Encounter.

    Raises:
        ResourceError: No id, no subject, or a date that is none.
    """
    resource_id = encounter.id or fallback_id
    if not resource_id:
        raise ResourceError("the Encounter has no id", number=1)
    patient = reference_key(encounter.subject, "Patient")
    if not patient:
        raise ResourceError("the Encounter has no subject that could be told apart", number=2)
    start, end = _period(encounter.period or encounter.actualPeriod, tz)
    concepts, references = _encounter_reasons(encounter)
    diagnoses = [item for diagnosis in encounter.diagnosis or () for item in _diagnosis(diagnosis)]
    diagnoses += [(key, "", 0) for key in keys_of(references, "Condition")]
    return EncounterFact(
        source=source,
        id=resource_id,
        patient=patient,
        status=encounter.status or "",
        class_code=_encounter_class(encounter),
        start=start,
        end=end,
        diagnoses=tuple(dict.fromkeys(diagnoses)),
        reasons=codes_of(concepts),
        updated=(encounter.meta.lastUpdated or "") if encounter.meta is not None else "",
        mentions=encounter_mentions(encounter),
    )


def _encounter_reasons(encounter: Encounter) -> tuple[list[CodeableConcept], list[Reference]]:
    """What the stay was for beside its diagnoses by reference: concepts and references, in every version's place."""
    concepts = list(encounter.reasonCode or ())
    references = list(encounter.reasonReference or ())
    inline = [
        item
        for diagnosis in encounter.diagnosis or ()
        if isinstance(diagnosis.condition, list)
        for item in diagnosis.condition
    ]
    concepts += [item.concept for item in inline if item.concept]
    for reason in encounter.reason or ():
        if reason.coding:
            concepts.append(CodeableConcept(reason.coding))
        concepts += [item.concept for item in reason.value or () if item.concept]
        references += [item.reference for item in reason.value or () if item.reference]
    return concepts, references


def _diagnosis(diagnosis: EncounterDiagnosis) -> list[tuple[str, str, int]]:
    use = diagnosis.use[0] if isinstance(diagnosis.use, list) and diagnosis.use else diagnosis.use
    use_code = _first_code(use if isinstance(use, CodeableConcept) else None)
    condition = diagnosis.condition
    if condition is None:
        return []
    references = (
        [item.reference for item in condition if item.reference] if isinstance(condition, list) else [condition]
    )
    rank = diagnosis.rank if diagnosis.rank and 0 < diagnosis.rank <= _LAST_RANK else 0
    return [(key, use_code, rank) for key in keys_of(references, "Condition")]


def _encounter_class(encounter: Encounter) -> str:
    value = encounter.class_
    if isinstance(value, list):
        return _first_code(value[0]) if value else ""
    return (value.code or "") if value is not None else ""


def patient_fact(patient: Patient, source: str, tz: tzinfo | None, fallback_id: str = "") -> PatientFact:
    """The fact kept of a Patient.

    Raises:
        ResourceError: No id, or a date that is none.
    """
    resource_id = patient.id or fallback_id
    if not resource_id:
        raise ResourceError("the Patient has no id", number=1)
    replaced_by = ""
    for link in patient.link or ():
        if link.type == "replaced-by":
            replaced_by = reference_key(link.other, "Patient")
    deceased = local_day(patient.deceasedDateTime, tz) or ("unknown" if patient.deceasedBoolean else "")
    return PatientFact(
        source=source,
        id=resource_id,
        gender=patient.gender or "",
        birth_date=local_day(patient.birthDate, tz),
        deceased=deceased,
        active=patient.active is not False,
        replaced_by=replaced_by,
        updated=(patient.meta.lastUpdated or "") if patient.meta is not None else "",
    )
