"""The clinical course around each treatment: what was done before, then, and afterwards, and what is true of it.

A course is planned first and written down second, unevenly, as hospitals do: what is true and what is on record are
two things. All chance comes from the patient and the session, so that a course changes nothing else of the hospital.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from random import Random
from typing import Any

from io_fhir_adapter.sandbox.case_truth import Course, Stay, answers_of
from io_fhir_adapter.sandbox.clinical_records import Chart, coded
from io_fhir_adapter.sandbox.records import ProcedurePlan, Register
from io_fhir_adapter.sandbox.schedule import PlannedSession
from io_fhir_adapter.sandbox.times import instant
from io_fhir_adapter.sandbox.truth import CaseTruth, SessionTruth

__all__ = ["write_courses"]

_GRADES = "https://io-fhir-adapter.example/fhir/CodeSystem/case-review"
_KDL = "http://dvmd.de/fhir/CodeSystem/kdl"
_LOINC = "http://loinc.org"
_VASCULAR = {"tace", "deb-tace", "tare", "bland-embolisation", "pve", "ia-chemo", "venous-stent", "biliary", "urinary"}
_UNDER_X_RAYS = {*_VASCULAR, "cementoplasty", "neurolysis", "bleeding-embolisation", "vte", "gi-access"}
_DRUGS = {
    "tace": ("L01DB01", "mg", (30, 50, 75)),
    "deb-tace": ("L01DB01", "mg", (75, 100, 150)),
    "ia-chemo": ("L01AA03", "mg", (100, 150, 200)),
    "tare": ("V10AX", "GBq", (1.2, 1.8, 2.4)),
}
_ANAESTHESIA = (
    ("anaesthesia-local", "N01BB02"),
    ("anaesthesia-sedation", "N05CD08"),
    ("anaesthesia-general", "N01AB08"),
)
_TRANSFUSION, _INTENSIVE = ("ops", "8-800.c0"), ("ops", "8-98f.0")
_RESPONSES = ("CR", "PR", "PR", "SD", "SD", "PD")
_DOCUMENTED = 0.985
_SPREAD = ("liver-metastases", "lung-metastases", "bone-metastases", "peritoneum", "pleura")


@dataclass
class _Patient:
    """What is planned for one patient over all sessions."""

    chart: Chart
    rng: Random
    ecog: int
    course: Course = field(default_factory=Course)


def write_courses(
    register: Register,
    plans: Sequence[PlannedSession],
    truths: Sequence[SessionTruth],
    intensive: Iterable[tuple[str, date]],
    last: date,
) -> tuple[CaseTruth, ...]:
    """Writes the course of every session that counts, and says what is true of each.

    Args:
        register: All resources; those of the sessions are in it.
        plans: The planned sessions.
        truths: What is true of each, in the same order.
        intensive: Patient reference and day of the intensive care that ordinary work recorded.
        last: The last local day on which anything is written down.
    """
    patients: dict[str, _Patient] = {}
    sessions = [
        (plan, truth) for plan, truth in zip(plans, truths, strict=True) if truth.decision == "counted" and truth.date
    ]
    for plan, truth in sessions:
        known = patients.get(truth.patient)
        if known is None:
            rng = Random(f"course of {truth.patient}")  # noqa: S311 - synthetic data, nothing to guess
            died = register.by_reference[truth.patient].get("deceasedDateTime", "")
            end = min(last, date.fromisoformat(died) - timedelta(days=1)) if died else last
            known = _Patient(Chart(register, rng, truth.patient, end), rng, rng.choice((0, 0, 1, 1, 2)))
            patients[truth.patient] = known
        known.course.treatments.append((plan.day, truth.category))
        _before(known, plan)
        _then(register, known, plan, truth)
        _afterwards(register, known, plan, truth)
    for patient, day in intensive:
        if patient in patients:
            patients[patient].course.intensive.append(day)
    for patient, stays in _stays(register, patients.keys()).items():
        patients[patient].course.stays += stays
    return tuple(
        CaseTruth(truth.patient, truth.date, answers_of(register, plan, truth, patients[truth.patient].course))
        for plan, truth in sessions
    )


def _recorded(patient: _Patient, day: date) -> bool:
    """Whether something that happened is written down too."""
    return patient.chart.open_on(day) and patient.rng.random() < _DOCUMENTED


def _before(patient: _Patient, plan: PlannedSession) -> None:
    """Clinic, tumour board, pathology, images, performance status, laboratory, consent, earlier drugs."""
    rng, chart, course = patient.rng, patient.chart, patient.course

    def earlier(least: int, most: int) -> date:
        return plan.day - timedelta(days=rng.randint(least, most))

    course.clinics.append(day := earlier(7, 28))
    if _recorded(patient, day):
        chart.clinic(day)
    if rng.random() < 0.3:
        chart.clinic(earlier(5, 40), radiology=False)
    if rng.random() < 0.985:
        course.boards.append(day := earlier(8, 30))
        if _recorded(patient, day):
            chart.document(day, _KDL, "AD060106")
    course.histologies.append(day := earlier(20, 300))
    if _recorded(patient, day):
        chart.report(day, section=rng.choice(("PAT", "SP")), code="11526-1")
    if rng.random() < 0.98:  # else the images were made elsewhere
        course.studies.append(day := earlier(3, 35))
        chart.study(day, (rng.choice(("CT", "MR", "CT")),))
        chart.measure(day, "21889-1", rng.randint(8, 60), "mm", "imaging")
    course.ecogs.append((day := earlier(1, 20), patient.ecog))
    if _recorded(patient, day):
        chart.observe(day, "89247-1", valueInteger=patient.ecog)
    if rng.random() < 0.05:
        chart.observe(day, "89247-1", status="entered-in-error", valueInteger=4 - patient.ecog)
    if rng.random() < 0.99:
        course.laboratory.append(day := earlier(1, 6))
        chart.measure(day, "6301-6", rng.choice((0.9, 1.0, 1.1, 1.2)), "{INR}")
        chart.measure(day, "2160-0", rng.choice((0.7, 0.9, 1.1, 1.3)), "mg/dL")
    if rng.random() < 0.95:
        chart.observe(earlier(1, 60), "21908-9", valueCodeableConcept={"text": "recorded"})
    _consent(patient, earlier(1, 3))
    if plan.person.profile in _SPREAD and rng.random() < 0.6:
        course.systemic.append(day := earlier(30, 200))
        chart.give(day, rng.choice(("L01XA03", "L01CE02", "L01BC02")), rng.randint(80, 300), "mg")


def _consent(patient: _Patient, day: date) -> None:
    chance = patient.rng.random()
    patient.course.consents.append(day)
    if chance < 0.85:
        patient.chart.consent(day, "treatment", "64293-4")
    elif chance < 0.99:
        patient.chart.document(day, _LOINC, "64293-4")
    if patient.rng.random() < 0.2:
        patient.chart.consent(day, "patient-privacy", "57016-8")


def _then(register: Register, patient: _Patient, plan: PlannedSession, truth: SessionTruth) -> None:
    """Guidance, anaesthesia, drugs, contrast, radiation, report and the watch after it."""
    rng, chart, day = patient.rng, patient.chart, plan.day
    done: dict[str, Any] = {}
    x_rays = truth.category in _UNDER_X_RAYS
    modalities = ("XA",) if x_rays else ("CT",) if rng.random() < 0.8 else ("CT", "US")
    if rng.random() < 0.99:
        done["modalities"] = modalities
        chart.study(day, modalities, truth.procedures[0])
    if rng.random() < 0.98:
        name, atc = rng.choice(_ANAESTHESIA)
        done["anaesthesia"] = name
        chart.give(day, "N01BB02", 200, "mg")
        if atc != "N01BB02":
            chart.give(day, atc, rng.randint(2, 9), "mg")
    if truth.category in _DRUGS and rng.random() < 0.99:
        atc, unit, amounts = _DRUGS[truth.category]
        done["drug"] = (rng.choice(amounts), unit)
        chart.give(day, atc, *done["drug"], arterial=True)
    if rng.random() < 0.97:
        done["contrast"] = (float(rng.randrange(40, 190, 5)), "mL")
        chart.give(day, "V08AB05", *done["contrast"])
    if rng.random() < 0.98:
        values: dict[str, tuple[float, str]] = {}
        if x_rays:
            done["dap"] = values["113722"] = (round(rng.uniform(20, 300), 1), "Gy.cm2")
            done["fluoro"] = values["113730"] = (float(rng.randint(200, 2400)), "s")
        else:
            done["dlp"] = values["113813"] = (float(rng.randint(300, 1800)), "mGy.cm")
        chart.dose(day, values)
    procedures = [register.by_reference[name] for name in truth.procedures]
    ended = max((moment for procedure in procedures for moment in _ends(procedure)), default=None)
    if rng.random() < 0.99:
        hours = rng.choice((1, 2, 3, 5, 20))
        issued = instant(ended + timedelta(hours=hours, minutes=rng.randint(3, 50))) if ended is not None else ""
        report = chart.report(day, section="RAD", code="28570-0", issued=issued)
        procedures[0]["report"] = [{"reference": report}]
        if ended is not None:
            done["report"] = hours
    if rng.random() < 0.99:
        chart.measure(day, "8480-6", rng.randint(90, 160), "mm[Hg]", "vital-signs")
        done["watched"] = True
    patient.course.done[day] = done


def _ends(procedure: dict[str, Any]) -> list[datetime]:
    """The moments at which a Procedure may have ended, where it says the time."""
    period = procedure.get("performedPeriod", {})
    texts = [procedure.get("performedDateTime", ""), period.get("end", "")]
    return [datetime.fromisoformat(text) for text in texts if "T" in text]


def _afterwards(register: Register, patient: _Patient, plan: PlannedSession, truth: SessionTruth) -> None:
    """Complications, letter, visit, images and response."""
    rng, chart, course = patient.rng, patient.chart, patient.course
    coded_event = any("complication" in register.by_reference[name] for name in truth.procedures)
    if coded_event or rng.random() < 0.03:
        grade = rng.choice(("cirse-1", "cirse-2", "cirse-3"))
        course.events[plan.day] = ("cirse-2017", grade)
        if chart.open_on(plan.day + timedelta(days=1)) and rng.random() < 0.9:
            concept = coded(_GRADES, "cirse-2017", grade)
            chart.adverse_event(plan.day + timedelta(days=1), truth.procedures[0], concept)
            _treat_event(register, patient, plan)
    if chart.open_on(day := plan.day + timedelta(days=rng.randint(1, 4))):
        course.letters.append(day)
        if rng.random() < _DOCUMENTED:
            chart.document(day, _LOINC, "18842-5")
    if chart.open_on(day := plan.day + timedelta(days=rng.randint(6, 20))):
        course.visits.append(day)
        if rng.random() < _DOCUMENTED:
            chart.clinic(day)
    if chart.open_on(day := plan.day + timedelta(days=rng.randint(28, 42))) and rng.random() < 0.96:
        course.studies.append(day)
        chart.study(day, (rng.choice(("CT", "MR")),))
        criteria = rng.choice(("RECIST 1.1", "mRECIST"))
        response = rng.choice(_RESPONSES)
        course.responses.append((day, response, criteria))
        chart.assess_response(day, response, criteria)
        chart.measure(day, "21889-1", rng.randint(5, 60), "mm", "imaging")


def _treat_event(register: Register, patient: _Patient, plan: PlannedSession) -> None:
    """A transfusion or intensive care in the days after, where nothing else happens then."""
    day = plan.day + timedelta(days=1)
    if plan.person.free(day.toordinal(), 0) and patient.chart.open_on(day):
        code = patient.rng.choice((_TRANSFUSION, _INTENSIVE))
        plan.person.taken.add(day.toordinal())
        register.add_procedure(plan.person.id, ProcedurePlan((code,), day))
        if code == _INTENSIVE:
            patient.course.intensive.append(day)


def _stays(register: Register, patients: Iterable[str]) -> dict[str, list[Stay]]:
    """The Encounters on record of some patients: first day and class."""
    wanted = set(patients)
    found: dict[str, list[Stay]] = defaultdict(list)
    for reference, resource in register.by_reference.items():
        if resource["resourceType"] == "Encounter" and (subject := resource["subject"]["reference"]) in wanted:
            first, last = (date.fromisoformat(resource["period"][end][:10]) for end in ("start", "end"))
            found[subject].append(Stay(reference, first, last, resource["class"]["code"]))
    return found
