"""What changes on the second night: late corrections, and a little new work."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from io_fhir_adapter.sandbox.ordinary import ORDINARY_CODES, UNMAPPED_CODES
from io_fhir_adapter.sandbox.plans import SYSTEMS
from io_fhir_adapter.sandbox.records import ICD_SYSTEM, Person, ProcedurePlan, Register
from io_fhir_adapter.sandbox.schedule import PlannedSession
from io_fhir_adapter.sandbox.sessions import write_session
from io_fhir_adapter.sandbox.truth import SessionTruth

__all__ = ["Corrections", "correct"]

_Change = Callable[[dict[str, Any]], None]
_SIMPLE = {"part-of"}


@dataclass
class Corrections:
    """The second night.

    Attributes:
        sessions: Every session as it is true then.
        changed: New versions and new resources, by reference.
        new: Those references among them that did not exist before.
        unmapped: (system URI, code, local date) of new Procedures with an unmapped code.
    """

    sessions: list[SessionTruth]
    changed: dict[str, dict[str, Any]] = field(default_factory=dict)
    new: set[str] = field(default_factory=set)
    unmapped: list[tuple[str, str, str]] = field(default_factory=list)


def correct(
    register: Register, plans: Sequence[PlannedSession], truths: Sequence[SessionTruth], year: int, updated: str
) -> Corrections:
    """Corrects some of the sessions of ``year``; the register keeps the first versions.

    Args:
        register: All resources of the first night.
        plans: The planned sessions.
        truths: What is true of each, in the same order.
        year: Calendar year whose sessions are corrected.
        updated: ``meta.lastUpdated`` of every new version.
    """
    result = Corrections(list(truths))
    free = [index for index, truth in enumerate(truths) if truth.date[:4] == str(year) and set(truth.traits) <= _SIMPLE]

    def revise(number: int, wanted: Callable[[SessionTruth], bool], change: _Change, **now: str) -> None:
        for index in [index for index in free if wanted(truths[index])][:number]:
            free.remove(index)
            for reference in truths[index].procedures:
                _revise(register, result, reference, change, updated)
            result.sessions[index] = _now(truths[index], **now)

    counted = {"decision": "counted", "reason": "counted"}
    error = {"decision": "not-counted", "reason": "entered-in-error"}
    revise(3, lambda truth: truth.decision == "counted", _status("entered-in-error"), **error)
    revise(2, lambda truth: truth.kind == "cement without any reason", _reason("C79.5"), **counted)
    revise(2, lambda truth: truth.kind == "liver ablation without any reason", _reason("C22.0"), **counted)
    revise(2, lambda truth: truth.kind == "chemoembolisation in progress", _status("completed"), **counted)
    for index in [index for index in free if truths[index].decision == "counted"][5:7]:
        free.remove(index)
        day = _free_day(plans[index].person, year)
        for reference in truths[index].procedures:
            _revise(register, result, reference, _date(day), updated)
        result.sessions[index] = _now(truths[index], date=day.isoformat())
    _withdraw_tumours(register, result, plans, updated)
    _rename(register, result, [plans[index].person for index in free[:4]], updated)
    _add_work(register, result, plans, year, updated)
    return result


def _now(truth: SessionTruth, **changes: str) -> SessionTruth:
    return replace(truth, traits=(*truth.traits, "corrected"), **changes)  # type: ignore[arg-type]


def _revise(register: Register, result: Corrections, reference: str, change: _Change, updated: str) -> None:
    resource = copy.deepcopy(register.by_reference[reference])
    resource["meta"] |= {"versionId": "2", "lastUpdated": updated}
    change(resource)
    result.changed[reference] = resource


def _status(status: str) -> _Change:
    def change(resource: dict[str, Any]) -> None:
        resource["status"] = status

    return change


def _reason(code: str) -> _Change:
    def change(resource: dict[str, Any]) -> None:
        resource["reasonCode"] = [{"coding": [{"system": ICD_SYSTEM, "code": code}]}]

    return change


def _date(day: date) -> _Change:
    def change(resource: dict[str, Any]) -> None:
        resource.pop("performedPeriod", None)
        resource["performedDateTime"] = day.isoformat()

    return change


def _free_day(person: Person, year: int) -> date:
    """The latest day of the year's first eleven months with nothing else of the patient nearby; it is taken then."""
    day = date(year, 11, 28).toordinal()
    while not person.free(day, 3):
        day -= 1
    person.taken.add(day)
    return date.fromordinal(day)


def _withdraw_tumours(register: Register, result: Corrections, plans: Sequence[PlannedSession], updated: str) -> None:
    """A tumour on record turns out to be an error: what rested on it alone is now for review."""

    def withdraw(resource: dict[str, Any]) -> None:
        del resource["clinicalStatus"]
        resource["verificationStatus"]["coding"][0]["code"] = "entered-in-error"

    for index, plan in enumerate(plans):
        if "withdrawn-later" in plan.traits:
            for reference in plan.person.conditions.values():
                _revise(register, result, reference, withdraw, updated)
            now = {"decision": "review", "reason": "indication-not-found"}
            result.sessions[index] = _now(result.sessions[index], **now)


def _rename(register: Register, result: Corrections, people: Sequence[Person], updated: str) -> None:
    def marry(resource: dict[str, Any]) -> None:
        family, given = register.canaries.token(), register.canaries.token()
        resource["name"][0] = {"use": "official", "family": family, "given": [given]}

    for person in people:
        _revise(register, result, person.reference, marry, updated)


def _add_work(
    register: Register, result: Corrections, plans: Sequence[PlannedSession], year: int, updated: str
) -> None:
    """Two new counted sessions, ordinary work and one Procedure with an unmapped code, recorded late."""
    before = set(register.by_reference)
    fresh = [plan for plan in plans if plan.recipe.name == "portal vein embolisation"][:2]
    for plan in fresh:
        day = _free_day(plan.person, year)
        late = replace(plan, day=day, route="reason-code", form="offset", traits=())
        truth = write_session(register, late)
        result.sessions.append(replace(truth, traits=(*truth.traits, "new")))
        other = _free_day(plan.person, year)
        register.add_procedure(plan.person.id, ProcedurePlan(ORDINARY_CODES[0], other))
    unmapped = UNMAPPED_CODES[0]
    other = _free_day(fresh[0].person, year)
    register.add_procedure(fresh[0].person.id, ProcedurePlan((unmapped,), other))
    result.unmapped.append((SYSTEMS[unmapped[0]], unmapped[1], other.isoformat()))
    result.new = set(register.by_reference) - before
    for reference in sorted(result.new):
        resource = register.by_reference.pop(reference)
        resource["meta"]["lastUpdated"] = updated
        result.changed[reference] = resource
