"""What a submission says, and whether its parts belong together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, TypedDict

from io_fhir_adapter.canonical_urls import FACILITY_SYSTEM, FRAME_SYSTEM
from io_fhir_adapter.errors import SubmitError

__all__ = [
    "CaseContent",
    "Method",
    "StandardsContent",
    "SubmissionContent",
    "Superseded",
    "check_content",
    "facility_of",
    "own_identifier",
]

_CODE: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?")
_HEX: Final = re.compile(r"[0-9a-fA-F]{2,128}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


class Method(TypedDict):
    """How the numbers came about: digests as ``sha256:…``, the nonce in hexadecimal."""

    frame_digest: str
    nonce: str
    ruleset_digest: str
    software_version: str


@dataclass(frozen=True)
class Superseded:
    """An earlier draw that this one takes the place of: its digest, and the code of the reason."""

    draw: str
    reason: str


@dataclass(frozen=True)
class CaseContent:
    """One drawn case, de-identified already: FHIR R4 resources as parsed JSON.

    ``number`` counts from 1; ``token`` is the case's random pseudonym. References between the resources of a case
    may be written ``Type/id`` with the id that the resource carries here; no id leaves.
    """

    number: int
    token: str
    patient: dict[str, Any]
    procedures: tuple[dict[str, Any], ...]
    conditions: tuple[dict[str, Any], ...]
    questionnaire_response: dict[str, Any]
    encounters: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class StandardsContent:
    """The standards self-assessment: its form, and the facility's answers, a completed QuestionnaireResponse."""

    questionnaire: dict[str, Any]
    response: dict[str, Any]


@dataclass(frozen=True)
class SubmissionContent:
    """All that one submission says.

    Attributes:
        facility_code: The facility's code from its registration.
        programme: Code of the accreditation programme.
        period_start: First day counted.
        period_end: Last day counted.
        measure: The Measure; known by its ``url``.
        measure_report: The summary MeasureReport.
        group: The commitment to the sampling frame, or None where nothing is drawn.
        draw: The List of those drawn; goes with ``group``.
        questionnaire: The case-review Questionnaire, known by its ``url``, or None to leave it out.
        cases: The drawn cases, in any order.
        method: How the numbers came about.
        superseded: Earlier draws of the same period.
        standards: The standards self-assessment, or None where there is none.
        replaces: Identifier of the accepted submission of the same period that this one corrects; empty where it is
            the first.
    """

    facility_code: str
    programme: str
    period_start: date
    period_end: date
    measure: dict[str, Any]
    measure_report: dict[str, Any]
    group: dict[str, Any] | None
    draw: dict[str, Any] | None
    questionnaire: dict[str, Any] | None
    cases: tuple[CaseContent, ...]
    method: Method
    superseded: tuple[Superseded, ...] = ()
    standards: StandardsContent | None = None
    replaces: str = ""


def check_content(content: SubmissionContent) -> None:
    """Whether the parts of a submission belong together.

    Raises:
        SubmitError: They do not; the element is named.
    """
    for name, code in (("facility_code", content.facility_code), ("programme", content.programme)):
        if not _CODE.fullmatch(code):
            raise SubmitError(
                "is not a code of letters, digits, dots, hyphens and underscores",
                where=name,
                do="correct it in the configuration",
            )
    if content.period_end < content.period_start:
        raise _refused("the period ends before it starts", "period_end")
    if not _DIGEST.fullmatch(content.method["ruleset_digest"]):
        raise _refused("is not a SHA-256 digest", "method.ruleset_digest")
    _check_report(content)
    if content.group is not None:
        _check_draw(content)
    elif content.cases or content.draw is not None:
        raise _refused("there are cases but no frame that they were drawn from", "group")
    _check_cases(content)
    if content.replaces and not _DIGEST.fullmatch(content.replaces):
        raise _refused("is not the identifier of a submission", "replaces")
    if content.standards is not None:
        answered = str(content.standards.response.get("questionnaire", "")).split("|")[0]
        if answered != content.standards.questionnaire.get("url"):
            raise _refused("answers another form than the submission's", "standards, QuestionnaireResponse")
        if content.standards.response.get("status") != "completed":
            raise _refused("is not completed", "standards, QuestionnaireResponse.status")


def _check_report(content: SubmissionContent) -> None:
    report = content.measure_report
    if not str(report.get("period", {}).get("start", "")).startswith(content.period_start.isoformat()):
        raise _refused("reports another period than the submission's", "MeasureReport.period.start")
    if str(report.get("measure", "")).split("|")[0] != content.measure.get("url"):
        raise _refused("does not name the Measure of the submission", "MeasureReport.measure")
    reporter = report.get("reporter", facility_of(content.facility_code))
    if reporter.get("identifier", {}).get("value") != content.facility_code:
        raise _refused("does not name the facility of the submission", "MeasureReport.reporter.identifier")


def _check_cases(content: SubmissionContent) -> None:
    for name in ("number", "token"):
        times = Counter(getattr(case, name) for case in content.cases)
        if any(count > 1 for count in times.values()):
            raise _refused(f"two cases have the same {name}", "cases")
    for case in content.cases:
        if case.number < 1 or not _CODE.fullmatch(case.token):
            raise _refused("needs a number from 1 and a token of letters and digits", f"case {case.number}")
        answered = str(case.questionnaire_response.get("questionnaire", "")).split("|")[0]
        if content.questionnaire is not None and answered != content.questionnaire.get("url"):
            raise _refused(
                "answers another Questionnaire than the submission's",
                f"case {case.number}, QuestionnaireResponse.questionnaire",
            )


def _check_draw(content: SubmissionContent) -> None:
    if not _DIGEST.fullmatch(content.method["frame_digest"]):
        raise _refused("is not a SHA-256 digest", "method.frame_digest")
    if not _HEX.fullmatch(content.method["nonce"]):
        raise _refused("is not hexadecimal", "method.nonce")
    _, frame = own_identifier(content.group or {}, FRAME_SYSTEM, content.method["frame_digest"])
    if frame != content.method["frame_digest"]:
        raise _refused("is not the digest of the frame in the method statement", "Group.identifier")
    if content.draw is None:
        raise _refused("there is a frame but no draw", "draw")


def own_identifier(resource: Mapping[str, Any], system: str, value: str) -> tuple[str, str]:
    """System and value of the resource's first identifier, else the given ones."""
    given = resource.get("identifier")
    first = given[0] if isinstance(given, list) and given and isinstance(given[0], dict) else {}
    if first.get("system") and first.get("value"):
        return str(first["system"]), str(first["value"])
    return system, value


def facility_of(code: str) -> dict[str, Any]:
    """The reference to the facility that a submission speaks for."""
    return {"type": "Organization", "identifier": {"system": FACILITY_SYSTEM, "value": code}}


def _refused(what: str, where: str) -> SubmitError:
    return SubmitError(what, where=where, do="nothing was queued; this is a fault of the stage before")
