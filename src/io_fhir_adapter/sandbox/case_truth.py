"""What is true of each item of a case-review form, as far as the hospital knows it: from its plans."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Any, NamedTuple

from io_fhir_adapter.sandbox.records import Register
from io_fhir_adapter.sandbox.schedule import PlannedSession
from io_fhir_adapter.sandbox.truth import Answer, SessionTruth

__all__ = ["Course", "Stay", "answers_of"]

_TUMOURS = {
    "liver": "tumour-liver", "liver-metastases": "tumour-liver-metastasis", "kidney": "tumour-kidney",
    "lung": "tumour-lung", "lung-metastases": "tumour-lung-metastasis", "pancreas": "tumour-pancreas",
    "bile-duct": "tumour-bile-duct", "bone-metastases": "tumour-bone-metastasis",
    "adrenal-metastases": "tumour-other-metastasis", "bladder": "tumour-urinary",
    "peritoneum": "tumour-other-metastasis", "pleura": "tumour-other-metastasis", "withdrawn": "tumour-liver",
}  # fmt: skip
_SITES = (
    ("liver", "liver"), ("chemoembolisation", "liver"), ("radioembolisation", "liver"), ("portal vein", "liver"),
    ("arterial chemotherapy", "liver"), ("kidney", "kidney"), ("lung", "lung"), ("pancreas", "pancreas"),
    ("adrenal", "adrenal"), ("vena cava", "vessel"), ("bile duct", "bile-duct"), ("neurolysis", "nerve"),
    ("vertebro", "spine"), ("kyphoplasty", "spine"), ("ops:5-839", "spine"), ("sct:444204007", "bone"),
)  # fmt: skip
_BANDS = ((90, "90+"), (80, "80-89"), (70, "70-79"), (60, "60-69"), (50, "50-59"), (40, "40-49"), (18, "18-39"))
_SETTINGS = {"IMP": "inpatient", "EMER": "emergency", "AMB": "outpatient"}
_GUIDANCE = {"CT": "guidance-ct", "US": "guidance-us", "XA": "guidance-fluoroscopy", "MR": "guidance-mr"}
_INTENTS = {"373808002": "intent-curative", "363676003": "intent-palliative"}
_OUTCOMES = {"385669000": "success-complete", "385670004": "success-partial", "385671000": "success-failed"}
_AT_TUMOUR = ("ablation-", "tace", "deb-tace", "tare", "bland-embolisation", "ia-chemo", "electrochemotherapy")


class Stay(NamedTuple):
    """One Encounter: its reference, first and last local day, and class."""

    reference: str
    first: date
    last: date
    kind: str


@dataclass
class Course:
    """Everything that was planned for one patient, by kind; days are local days.

    Attributes:
        treatments: Day and category of the sessions that count.
        done: What was done on the day of a session.
        events: Scale and grade of an adverse event, by the day of its session.
        ecogs: Day and performance status.
        responses: Day, response and criteria.
        stays: The Encounters on record.
    """

    treatments: list[tuple[date, str]] = field(default_factory=list)
    done: dict[date, dict[str, Any]] = field(default_factory=dict)
    events: dict[date, tuple[str, str]] = field(default_factory=dict)
    ecogs: list[tuple[date, int]] = field(default_factory=list)
    responses: list[tuple[date, str, str]] = field(default_factory=list)
    stays: list[Stay] = field(default_factory=list)
    clinics: list[date] = field(default_factory=list)
    boards: list[date] = field(default_factory=list)
    histologies: list[date] = field(default_factory=list)
    studies: list[date] = field(default_factory=list)
    laboratory: list[date] = field(default_factory=list)
    consents: list[date] = field(default_factory=list)
    systemic: list[date] = field(default_factory=list)
    letters: list[date] = field(default_factory=list)
    visits: list[date] = field(default_factory=list)
    intensive: list[date] = field(default_factory=list)


def answers_of(register: Register, plan: PlannedSession, truth: SessionTruth, course: Course) -> dict[str, Answer]:
    """The true answers of one case by linkId; what the hospital itself does not know is left out.

    Codes are those of the form, numbers stand with their unit, repeating items are sorted tuples.
    """
    procedures = [register.by_reference[name] for name in truth.procedures]
    found: dict[str, Answer | None] = {
        **_person(register.by_reference[truth.patient], plan.day),
        **_session(plan, truth),
        **_before(plan.day, course),
        **_procedure(procedures),
        **_then(course.done.get(plan.day, {})),
        **_afterwards(plan.day, course, _own_stay(procedures, course)),
    }
    return {link: answer for link, answer in found.items() if answer is not None}


def _person(patient: dict[str, Any], day: date) -> dict[str, Answer | None]:
    born = date.fromisoformat(patient["birthDate"])
    age = day.year - born.year - ((day.month, day.day) < (born.month, born.day))
    died = patient.get("deceasedDateTime", "")
    return {
        "case.age-band": next((band for least, band in _BANDS if age >= least), "<18"),
        "case.sex": patient["gender"],
        "ae.death30": bool(died) and (date.fromisoformat(died) - day).days <= 30,
    }


def _session(plan: PlannedSession, truth: SessionTruth) -> dict[str, Answer | None]:
    return {
        "proc.category": truth.category,
        "proc.counts": truth.decision == "counted",
        "proc.quarter": f"quarter-{(plan.day.month + 2) // 3}",
        "proc.site": next((site for word, site in _SITES if word in f"{truth.kind} {plan.variant}"), None),
        "dx.tumour": _TUMOURS.get(plan.person.profile),
    }


def _before(day: date, course: Course) -> dict[str, Answer | None]:
    def said(days: Iterable[date], least: int, most: int) -> str:
        return "yes" if any(-most <= (other - day).days <= -least for other in days) else "no"

    baseline = max(((other - day).days for other in course.studies if -90 <= (other - day).days < 0), default=None)
    prior = {"prior-systemic"} if said(course.systemic, 1, 365) == "yes" else set()
    if any(0 < (day - other).days <= 730 and kind.startswith(_AT_TUMOUR) for other, kind in course.treatments):
        prior.add("prior-locoregional")
    return {
        "dx.histology": said(course.histologies, 0, 365),
        "dx.stage": "yes",
        "dx.ecog": f"ecog-{course.ecogs[0][1]}" if course.ecogs else None,
        "plan.mdt": said(course.boards, 0, 90),
        "plan.clinic": said(course.clinics + course.visits, 1, 90),
        "plan.prior": tuple(sorted(prior or {"none"})),
        "plan.imaging": baseline,
        "plan.labs": said(course.laboratory, 0, 30),
        "consent.signed": said(course.consents, 0, 90),
    }


def _procedure(procedures: list[dict[str, Any]]) -> dict[str, Answer | None]:
    """What the departments wrote with the treatment itself."""
    intents = [
        extension["valueCodeableConcept"]["coding"][0]["code"]
        for procedure in procedures
        for extension in procedure.get("extension", ())
        if "valueCodeableConcept" in extension
    ]
    outcomes = [procedure["outcome"]["coding"][0]["code"] for procedure in procedures if "outcome" in procedure]
    return {
        "plan.intent": _INTENTS[intents[0]] if intents else None,
        "plan.referral": "yes" if any("basedOn" in procedure for procedure in procedures) else None,
        "deliv.device": "yes" if any("usedReference" in procedure for procedure in procedures) else None,
        "out.technical": _OUTCOMES[outcomes[0]] if outcomes else None,
        "fu.plan": "yes" if any("followUp" in procedure for procedure in procedures) else None,
    }


def _then(done: dict[str, Any]) -> dict[str, Answer | None]:
    modalities = done.get("modalities", ())
    x_rays = "XA" in modalities
    away = "not-applicable" if modalities else None
    return {
        "proc.guidance": tuple(sorted(_GUIDANCE[modality] for modality in modalities)) or None,
        "deliv.anaesthesia": done.get("anaesthesia"),
        "deliv.drug": done.get("drug"),
        "deliv.drug.absent": None if "drug" in done else "not-applicable",
        "deliv.contrast": done.get("contrast"),
        "rad.dap": done.get("dap"),
        "rad.dap.absent": None if x_rays else away,
        "rad.fluoro": done.get("fluoro"),
        "rad.fluoro.absent": None if x_rays else away,
        "rad.dlp": done.get("dlp"),
        "rad.dlp.absent": away if x_rays else None,
        "out.report": done.get("report"),
        "out.postcare": "yes" if done.get("watched") else "no",
    }


def _own_stay(procedures: list[dict[str, Any]], course: Course) -> Stay | None:
    named = {procedure["encounter"]["reference"] for procedure in procedures if "encounter" in procedure}
    return next((stay for stay in course.stays if stay.reference in named), None)


def _afterwards(day: date, course: Course, own: Stay | None) -> dict[str, Answer | None]:
    later = [stay for stay in course.stays if stay != own and 0 < (stay.first - day).days <= 30]
    kinds = {stay.kind for stay in later} - {"AMB"}
    intensive = any(0 < (other - day).days <= 30 for other in course.intensive)
    unplanned = {"unplanned-readmission"} if "EMER" in kinds else set()
    unplanned |= {"unplanned-icu"} if intensive else set()
    certain = unplanned or not kinds
    images = min(((other - day).days for other in course.studies if 14 <= (other - day).days <= 180), default=None)
    responses = sorted(one for one in course.responses if 0 < (one[0] - day).days <= 180)
    event = course.events.get(day)
    return {
        "proc.setting": _SETTINGS[own.kind] if own is not None else None,
        "out.stay": (own.last - day).days if own is not None else None,
        "out.unplanned": tuple(sorted(unplanned or {"none"})) if certain else None,
        "ae.any": "yes" if event else "no",
        "ae.system": event[0] if event else None,
        "ae.grade": event[1] if event else None,
        "fu.imaging": images,
        "fu.response": f"response-{responses[0][1].lower()}" if responses else None,
        "fu.response.criteria": ("mrecist" if responses[0][2] == "mRECIST" else "recist") if responses else None,
        "fu.visit": "yes" if any((other - day).days > 0 for other in course.visits + course.clinics) else "no",
        "fu.letter": "yes" if any((other - day).days >= 0 for other in course.letters) else "no",
    }
