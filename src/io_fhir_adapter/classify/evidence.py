"""Indication evidence: which diagnosis stands behind a session, from the strongest source to the weakest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from io_fhir_adapter.classify.indications import Diagnosis, DiagnosisTables
from io_fhir_adapter.classify.programme import IndicationRule
from io_fhir_adapter.fhir.dates import may_precede
from io_fhir_adapter.model import Code, ConditionFact, EncounterFact, Indication, ProcedureFact

__all__ = ["Background", "Evidence", "gather"]

_REFUTED = frozenset({"refuted", "entered-in-error"})
_OVER = frozenset({"inactive", "remission", "resolved"})
_NOT_A_TUMOUR = frozenset({"benign", "fracture", "other"})
_CONTRARY_MAIN_DIAGNOSIS = frozenset({"benign", "fracture", "bleeding"})


@dataclass(frozen=True, slots=True)
class Background:
    """What is known of one patient beside the Procedures, by reference."""

    conditions: Mapping[str, ConditionFact]
    encounters: Mapping[str, EncounterFact]


@dataclass(frozen=True, slots=True)
class Evidence:
    """The outcome: the indication used, the kinds stated as reason, and whether another disease was stated."""

    indication: Indication
    stated_kinds: frozenset[str]
    other_disease: Indication | None


@dataclass(frozen=True, slots=True)
class _Item:
    level: str
    diagnosis: Diagnosis
    resource: str
    main: bool = False


def gather(
    facts: Sequence[ProcedureFact],
    sites: frozenset[str],
    day: str,
    background: Background,
    tables: DiagnosisTables,
    rule: IndicationRule,
) -> Evidence:
    """The strongest plausible evidence of a tumour for the procedures of one session.

    Levels in order: reasonCode, reasonReference, Encounter.diagnosis (and reasonCode), a Condition on record
    that was active on the day. A stated reason that names another disease, or a main diagnosis of the stay that
    contradicts a tumour treatment, beats what is merely on record.
    """
    stated = _stated(facts, background, tables)
    admitted = _of_encounters(facts, background, tables)
    recorded = _on_record(background.conditions.values(), day, facts, tables)
    main = next((item for item in admitted if item.main and item.diagnosis.kind in _CONTRARY_MAIN_DIAGNOSIS), None)
    reasons = [*stated, *([main] if main is not None else [])]
    kinds = frozenset(item.diagnosis.kind for item in reasons)

    def first(items: Sequence[_Item], wanted: Iterable[str]) -> _Item | None:
        fits = frozenset(wanted)
        return next((i for i in items if i.diagnosis.kind in fits and tables.explains(i.diagnosis, sites)), None)

    found = first(stated, rule.tumour)
    if found is None:
        other = next((item for item in reasons if item.diagnosis.kind in _NOT_A_TUMOUR), None)
        if other is not None:
            return Evidence(_indication(other), kinds, _indication(other))
        found = (
            first(admitted, rule.tumour)
            or first(recorded, rule.tumour)
            or first((*stated, *admitted, *recorded), rule.uncertain)
        )
    if found is not None:
        return Evidence(_indication(found), kinds, None)
    bleeding = next((item for item in reasons if item.diagnosis.kind == "bleeding"), None)
    return Evidence(Indication("none"), kinds, _indication(bleeding) if bleeding else None)


def _indication(item: _Item) -> Indication:
    found = item.diagnosis
    return Indication(item.level, found.system, found.code, found.kind, item.resource, found.rule)


def _items(
    level: str, codes: Iterable[Code], resource: str, tables: DiagnosisTables, *, main: bool = False
) -> list[_Item]:
    found = (tables.diagnose(code) for code in codes)
    return sorted(
        (_Item(level, diagnosis, resource, main) for diagnosis in found if diagnosis is not None),
        key=lambda item: (item.diagnosis.system, item.diagnosis.code),
    )


def _stated(facts: Sequence[ProcedureFact], background: Background, tables: DiagnosisTables) -> list[_Item]:
    items: list[_Item] = []
    for fact in facts:
        items += _items("reasonCode", fact.reasons, f"Procedure/{fact.id}", tables)
    for fact in facts:
        for reference in fact.reason_refs:
            condition = background.conditions.get(reference)
            if condition is not None and condition.verification_status not in _REFUTED:
                items += _items("reasonReference", condition.codes, reference, tables)
    return items


def _of_encounters(facts: Sequence[ProcedureFact], background: Background, tables: DiagnosisTables) -> list[_Item]:
    items: list[_Item] = []
    for reference in dict.fromkeys(fact.encounter for fact in facts if fact.encounter):
        encounter = background.encounters.get(reference)
        if encounter is None:
            continue
        items += _items("encounter", encounter.reasons, reference, tables)
        for target, _, rank in sorted(encounter.diagnoses, key=lambda entry: (entry[2] or 999, entry[0])):
            condition = background.conditions.get(target)
            if condition is not None and condition.verification_status not in _REFUTED:
                items += _items("encounter", condition.codes, target, tables, main=rank == 1)
    return items


def _on_record(
    conditions: Iterable[ConditionFact], day: str, facts: Sequence[ProcedureFact], tables: DiagnosisTables
) -> list[_Item]:
    encounters = {fact.encounter for fact in facts if fact.encounter}
    items: list[_Item] = []
    for condition in sorted(conditions, key=lambda fact: fact.id):
        if _active_on(condition, day, encounters):
            items += _items("condition", condition.codes, f"Condition/{condition.id}", tables)
    return items


def _active_on(condition: ConditionFact, day: str, encounters: set[str]) -> bool:
    """Whether the Condition was active on that day, as far as its dates say.

    An abatement date tells when it ended; a status of resolved without one leaves open whether the disease was
    still there on the day, and is no evidence. Without an onset the recording date stands in, except within the
    same stay, where coding follows treatment.
    """
    if condition.verification_status in _REFUTED:
        return False
    began = condition.onset or ("" if condition.encounter in encounters else condition.recorded)
    if began and day and not may_precede(began, day):
        return False
    if condition.abated:
        return not day or may_precede(day, condition.abated)
    return condition.clinical_status not in _OVER
