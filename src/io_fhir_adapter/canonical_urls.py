"""The canonical URLs of this project's own FHIR artefacts, in one place.

They are this project's proposal; no accreditation body has published or adopted them. Identifier systems read
``…/sid/…``, code systems ``…/CodeSystem/…``, extensions and profiles ``…/StructureDefinition/…``.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "ABSENCE_OF",
    "AGE_BAND",
    "APPROVER_SYSTEM",
    "BASE",
    "CASE_IDENTIFIER",
    "CASE_REVIEW_ANSWERS",
    "CASE_REVIEW_QUESTIONNAIRE",
    "CATEGORY_CODES",
    "DAY_OFFSET",
    "DRAW_ORDER",
    "DRAW_ROLE",
    "DRAW_SYSTEM",
    "DRAW_TASK",
    "DRAW_TASK_CODES",
    "END_DAY_OFFSET",
    "ENTRY_SYSTEM",
    "FACILITY_SYSTEM",
    "FRAME_CODES",
    "FRAME_DESIGN",
    "FRAME_SYSTEM",
    "GENERALISED",
    "HOUR_OFFSET",
    "NONCE_SYSTEM",
    "PATIENT_TOKEN",
    "PREFILL_NEEDS",
    "PROGRAMME_SYSTEM",
    "QUARTER",
    "ROLE_CODES",
    "RULESET_SYSTEM",
    "SUBMISSION_SYSTEM",
    "SUPERSEDING_REASON",
    "VERDICT_CODES",
    "VERDICT_TASK",
    "VOLUME_REPORT_SYSTEM",
    "WITHDRAWAL_REASON",
    "code_system",
    "identifier_system",
    "structure_definition",
]

BASE: Final = "https://io-fhir-adapter.example/fhir"


def code_system(name: str) -> str:
    """The canonical URL of one of our CodeSystems."""
    return f"{BASE}/CodeSystem/{name}"


def identifier_system(name: str) -> str:
    """The system URL of one of our identifiers."""
    return f"{BASE}/sid/{name}"


def structure_definition(name: str) -> str:
    """The canonical URL of one of our extensions or profiles."""
    return f"{BASE}/StructureDefinition/{name}"


FACILITY_SYSTEM: Final = identifier_system("facility")
"""Facility codes as given at registration."""
SUBMISSION_SYSTEM: Final = identifier_system("submission")
"""Bundle.identifier: the digest of the submission's content."""
ENTRY_SYSTEM: Final = identifier_system("entry")
"""Business identifiers of resources that bring none of their own."""
FRAME_SYSTEM: Final = identifier_system("frame")
"""Digests of sampling frames."""
DRAW_SYSTEM: Final = identifier_system("draw")
"""Digests of draws: of the frame's digest and the nonce."""
DRAW_TASK: Final = identifier_system("draw-task")
"""Task.identifier of an accreditation system's order to draw: the digest of the frame to draw from."""
RULESET_SYSTEM: Final = identifier_system("ruleset")
"""Digests of the mapping tables and rules that decided."""
NONCE_SYSTEM: Final = identifier_system("draw-nonce")
"""The nonce, in hexadecimal, that the draw was ranked with."""
VOLUME_REPORT_SYSTEM: Final = identifier_system("volume-report")
"""MeasureReport.identifier: one for a facility, programme and period."""
PATIENT_TOKEN: Final = identifier_system("patient-token")
"""Patient.identifier of a de-identified patient."""
CASE_IDENTIFIER: Final = identifier_system("case")
"""QuestionnaireResponse.identifier: the case's name in its draw."""

VERDICT_TASK: Final = f"{BASE}/NamingSystem/verdict-task"
"""Task.identifier of what an accreditation body says of a submission: the submission's identifier."""
VERDICT_CODES: Final = code_system("verdict-task")
"""What such a Task is, ``verdict``, and what it says: ``received``, ``accepted`` and so on."""

PROGRAMME_SYSTEM: Final = code_system("programme")
"""Codes of accreditation programmes; Bundle.meta.tag names one."""
FRAME_CODES: Final = code_system("frame")
FRAME_DESIGN: Final = ("sample-cases", "sample-reserves")
"""Codes of :data:`FRAME_CODES` for how many cases and how many reserves are to be drawn."""
"""What a characteristic of a frame's Group is: ``review-window``."""
DRAW_ORDER: Final = code_system("draw-order")
"""Where the nonce came from that the draw is ordered by: ``nonce-local`` or ``nonce-task``."""
DRAW_TASK_CODES: Final = code_system("draw-task")
"""What such a Task is and gives: ``draw-sample``, with the input ``nonce``."""
DRAW_ROLE: Final = code_system("draw-role")
"""What a drawn token is: ``case``, ``reserve``, or why it left the sample."""
GENERALISED: Final = code_system("generalised")
"""Meta.tag of a form: what was made coarser because too few patients looked alike."""
SUPERSEDING_REASON: Final = code_system("superseding-reason")
"""Why a draw was made again."""
WITHDRAWAL_REASON: Final = code_system("withdrawal-reason")
"""Why a submission is taken back."""
ROLE_CODES: Final = code_system("role")
"""In which role a person did something to a submission: ``approver``."""
APPROVER_SYSTEM: Final = f"{BASE}/NamingSystem/approver"
"""The token of the account of who approved a submission; only the facility can lead it back."""
CATEGORY_CODES: Final = code_system("procedure-category")
CASE_REVIEW_ANSWERS: Final = code_system("case-review")
CASE_REVIEW_QUESTIONNAIRE: Final = f"{BASE}/Questionnaire/io-case-review"
AGE_BAND: Final = structure_definition("age-band")
QUARTER: Final = structure_definition("quarter")
DAY_OFFSET: Final = structure_definition("day-offset")
END_DAY_OFFSET: Final = structure_definition("end-day-offset")
HOUR_OFFSET: Final = structure_definition("hour-offset")
"""Whole hours from the end of the index session; put on local copies only, for a form to read."""
PREFILL_NEEDS: Final = structure_definition("prefill-needs")
ABSENCE_OF: Final = structure_definition("absence-of")
