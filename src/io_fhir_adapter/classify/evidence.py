"""Indication evidence: which diagnosis stands behind a session, from the strongest source to the weakest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from io_fhir_adapter.classify.indications import Diagnosis, DiagnosisTables
from io_fhir_adapter.classify.programme import IndicationRule
from io_fhir_adapter.fhir.dates import may_precede
from io_fhir_adapter.model import Code, ConditionFact, EncounterFact, Indication, ProcedureFact

__all__ = ["Background", "Evidence", "gather", "stated_kinds"]

_REFUTED = frozenset({"refuted", "entered-in-error"})
_UNSURE = frozenset({"unconfirmed", "provisional", "differential"})
_OVER = frozenset({"inactive", "remission", "resolved"})
_BLEEDING = "bleeding"
_NOT_A_TUMOUR = frozenset({"benign", "fracture", "other"})
_CONTRARY_MAIN_DIAGNOSIS = frozenset({"benign", "fracture", _BLEEDING})
_RIVALS = frozenset({"benign", "fracture"})
_CHIEF = "CC"  # Encounter.diagnosis.use: the chief complaint, which German stays write for the main diagnosis
_ICDO3 = "icdo3"
_NONE = Indication("none")

_Known = TypeVar("_Known", ConditionFact, EncounterFact)


@dataclass(frozen=True, slots=True)
class Background:
    """What is known of one patient beside the Procedures, by source and reference."""

    conditions: Mapping[tuple[str, str], ConditionFact]
    encounters: Mapping[tuple[str, str], EncounterFact]

    @classmethod
    def of(cls, conditions: Iterable[ConditionFact], encounters: Iterable[EncounterFact]) -> Background:
        """Of several versions of a resource the one updated last, whatever the order they came in."""
        return cls(_newest("Condition", conditions), _newest("Encounter", encounters))


def _newest(kind: str, facts: Iterable[_Known]) -> dict[tuple[str, str], _Known]:
    newest: dict[tuple[str, str], _Known] = {}
    for fact in facts:
        key = (fact.source, f"{kind}/{fact.id}")
        known = newest.get(key)
        if known is None or (fact.updated, repr(fact)) > (known.updated, repr(known)):
            newest[key] = fact
    return newest


@dataclass(frozen=True, slots=True)
class Evidence:
    """The outcome for one treatment.

    Attributes:
        indication: The evidence used: of a tumour, or else of the disease that was found in its place.
        other_disease: Another disease that was stated as the reason and is none of a tumour, or None.
        bleeding: A bleeding that was stated as the reason where no tumour was, or None.
        doubtful: Nobody stated the tumour as the reason, and it is not the likely one: it lies elsewhere, or a
            fracture or benign disease of the same place is on record beside it.
    """

    indication: Indication
    other_disease: Indication | None = None
    bleeding: Indication | None = None
    doubtful: bool = False


@dataclass(frozen=True, slots=True)
class _Item:
    level: str
    diagnosis: Diagnosis
    resource: str
    sure: bool = True
    main: bool = False

    @property
    def indication(self) -> Indication:
        found = self.diagnosis
        return Indication(self.level, found.system, found.code, found.kind, self.resource, found.rule)


def stated_kinds(facts: Sequence[ProcedureFact], background: Background, tables: DiagnosisTables) -> frozenset[str]:
    """The kinds of the diagnoses stated as the reason for these Procedures, or as main diagnosis against it."""
    reasons = [*_stated(facts, background, tables), *_contrary(_of_encounters(facts, background, tables))]
    return frozenset(item.diagnosis.kind for item in reasons)


def gather(
    facts: Sequence[ProcedureFact],
    sites: frozenset[str],
    day: str,
    background: Background,
    tables: DiagnosisTables,
    rule: IndicationRule,
) -> Evidence:
    """The strongest plausible evidence of a tumour for one treatment.

    Levels in order: reasonCode, reasonReference, Encounter.diagnosis (and reasonCode), a Condition on record
    that was active on the day. A stated reason that names another disease, or a main diagnosis of the stay that
    contradicts a tumour treatment, beats what is merely on record.

    Args:
        facts: The Procedures of the treatment.
        sites: Where it was done, as far as the codes say.
        day: Local date, possibly partial.
        background: The patient's Conditions and Encounters.
        tables: What diagnosis codes mean.
        rule: Which kinds of diagnosis are a tumour, and which may be one.
    """
    stated = _stated(facts, background, tables)
    plausible = [item for item in stated if tables.explains(item.diagnosis, sites)]
    tumour = next((item for item in plausible if _is_tumour(item, rule)), None)
    if tumour is not None:
        return Evidence(tumour.indication)
    admitted = _of_encounters(facts, background, tables)
    reasons = [*stated, *_contrary(admitted)]
    other = next((item for item in reasons if item.diagnosis.kind in _NOT_A_TUMOUR), None)
    if other is not None:
        return Evidence(other.indication, other_disease=other.indication)
    bled = next((item.indication for item in reasons if item.diagnosis.kind == _BLEEDING), None)
    uncertain = next((item for item in plausible if _may_be_tumour(item, rule)), None)
    if uncertain is not None:
        return Evidence(_uncertain(uncertain), bleeding=bled)
    known = [*admitted, *_on_record(background.conditions.values(), day, facts, tables)]
    return _from_record(known, sites, tables, rule, bled)


def _from_record(
    known: Sequence[_Item],
    sites: frozenset[str],
    tables: DiagnosisTables,
    rule: IndicationRule,
    bled: Indication | None,
) -> Evidence:
    """Evidence from what nobody stated as the reason for this treatment, strongest first."""
    fitting = [item for item in known if tables.explains(item.diagnosis, sites, stated=False)]
    tumours = [item for item in fitting if _is_tumour(item, rule)]
    likely = next((i for i in tumours if i.main or tables.fits_on_record(i.diagnosis, sites)), None)
    if likely is not None:
        rival = not likely.main and any(
            item.diagnosis.kind in _RIVALS and tables.names_organ(item.diagnosis, sites) for item in known
        )
        return Evidence(likely.indication, bleeding=bled, doubtful=rival)
    if tumours:
        return Evidence(tumours[0].indication, bleeding=bled, doubtful=True)
    uncertain = next((item for item in fitting if _may_be_tumour(item, rule)), None)
    return Evidence(_uncertain(uncertain) if uncertain is not None else _NONE, bleeding=bled)


def _is_tumour(item: _Item, rule: IndicationRule) -> bool:
    return item.sure and item.diagnosis.kind in rule.tumour


def _may_be_tumour(item: _Item, rule: IndicationRule) -> bool:
    return item.diagnosis.kind in rule.uncertain or (not item.sure and item.diagnosis.kind in rule.tumour)


def _uncertain(item: _Item) -> Indication:
    """The evidence of a tumour that is not certain; a malignant diagnosis not confirmed is uncertain too."""
    found = item.diagnosis
    kind = found.kind if item.sure else "uncertain"
    return Indication(item.level, found.system, found.code, kind, item.resource, found.rule)


def _contrary(admitted: Iterable[_Item]) -> list[_Item]:
    """The main diagnosis of the stay, where it contradicts a tumour treatment."""
    return [item for item in admitted if item.main and item.diagnosis.kind in _CONTRARY_MAIN_DIAGNOSIS][:1]


def _items(
    level: str,
    codes: Iterable[Code],
    resource: str,
    tables: DiagnosisTables,
    *,
    verification: str = "",
    main: bool = False,
) -> list[_Item]:
    found = [diagnosis for code in codes if (diagnosis := tables.diagnose(code)) is not None]
    return sorted(
        (_Item(level, diagnosis, resource, verification not in _UNSURE, main) for diagnosis in _placed(found)),
        key=lambda item: (item.diagnosis.system, item.diagnosis.code),
    )


def _placed(found: Sequence[Diagnosis]) -> list[Diagnosis]:
    """The diagnoses, with a morphology of ICD-O-3 in the organ that the topography beside it names."""
    organs = {item.organ for item in found if item.system == _ICDO3 and item.organ}
    if len(organs) != 1:
        return list(found)
    (organ,) = organs
    return [replace(item, organ=organ) if item.system == _ICDO3 and not item.organ else item for item in found]


def _stated(facts: Sequence[ProcedureFact], background: Background, tables: DiagnosisTables) -> list[_Item]:
    items: list[_Item] = []
    for fact in facts:
        if fact.reasons:
            items += _items("reasonCode", fact.reasons, f"Procedure/{fact.id}", tables)
    for fact in facts:
        for reference in fact.reason_refs:
            items += _referenced("reasonReference", fact.source, reference, background, tables)
    return items


def _referenced(
    level: str, source: str, reference: str, background: Background, tables: DiagnosisTables, *, main: bool = False
) -> list[_Item]:
    condition = background.conditions.get((source, reference))
    if condition is None or condition.verification_status in _REFUTED:
        return []
    return _items(level, condition.codes, reference, tables, verification=condition.verification_status, main=main)


def _of_encounters(facts: Sequence[ProcedureFact], background: Background, tables: DiagnosisTables) -> list[_Item]:
    items: list[_Item] = []
    for key in dict.fromkeys((fact.source, fact.encounter) for fact in facts if fact.encounter):
        encounter = background.encounters.get(key)
        if encounter is None:
            continue
        source, reference = key
        items += _items("encounter", encounter.reasons, reference, tables)
        ranked = any(rank for _, _, rank in encounter.diagnoses)
        for target, use, rank in sorted(encounter.diagnoses, key=lambda entry: (entry[2] or 999, entry[0], entry[1])):
            main = rank == 1 if ranked else use == _CHIEF
            items += _referenced("encounter", source, target, background, tables, main=main)
    return items


def _on_record(
    conditions: Iterable[ConditionFact], day: str, facts: Sequence[ProcedureFact], tables: DiagnosisTables
) -> list[_Item]:
    encounters = {(fact.source, fact.encounter) for fact in facts if fact.encounter}
    items: list[_Item] = []
    for condition in sorted(conditions, key=lambda fact: (fact.id, fact.source)):
        if _active_on(condition, day, (condition.source, condition.encounter) in encounters):
            items += _items(
                "condition",
                condition.codes,
                f"Condition/{condition.id}",
                tables,
                verification=condition.verification_status,
            )
    return items


def _active_on(condition: ConditionFact, day: str, same_stay: bool) -> bool:
    """Whether the Condition was active on that day, as far as its dates say.

    An abatement date tells when it ended; a status of resolved without one leaves open whether the disease was
    still there on the day, and is no evidence. Without an onset the recording date stands in, except within the
    same stay, where coding follows treatment.
    """
    if condition.verification_status in _REFUTED:
        return False
    began = condition.onset or ("" if same_stay else condition.recorded)
    if began and day and not may_precede(began, day):
        return False
    if condition.abated:
        return not day or may_precede(day, condition.abated)
    return condition.clinical_status not in _OVER
