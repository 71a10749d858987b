"""The cases of a draw as reviewers see them: how far each form is, what is missing, who works on it.

Nothing here names a patient but :class:`Identity`, which is read on its own, so that every look at it can be noted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Connection

from io_fhir_adapter.errors import ReviewError
from io_fhir_adapter.ledger.draws import StoredCase, StoredDraw, StoredForm, cases_of, forms_of
from io_fhir_adapter.ledger.reviews import CaseReview, reviews_of
from io_fhir_adapter.review.completing import completeness
from io_fhir_adapter.review.sample import frame_of

__all__ = ["CaseForm", "CaseLine", "Identity", "OpenQuestion", "board_of", "form_of", "identity_of", "prefilled_of"]

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """A question that a person still has to answer.

    Attributes:
        link_id: The item's linkId.
        text: Its text in the form.
        group: Text of its outermost group.
        reason: Why the record does not answer it, such as ``not recorded``.
    """

    link_id: str
    text: str
    group: str
    reason: str


@dataclass(frozen=True, slots=True)
class CaseLine:
    """One case on the board; it names no patient.

    Attributes:
        number: Place in the draw.
        role: ``case``, or ``left`` for one that is not asked for any more.
        left_because: Why it left, a code; empty for a case.
        state: ``open`` (nobody wrote anything), ``draft``, ``signed`` or ``returned``.
        prefilled: Whether the form was pre-filled already.
        share: How much of the form the record answered, from 0 to 1.
        open: The questions that are still open, in the form's order.
        category: What was done in the session.
        reviewer: Account of who works on it, or signed it.
        saved: When it was saved last, empty where never.
        signed: When it was signed, empty where it is not.
        comment: Why it was sent back.
        revision: What a change has to name.
        alike: How many patients of the frame look alike after generalising, None where nobody measured yet.
        rare: Whether those are fewer than the profile asks for.
        steps: What was generalised.
        cleared: Whether an approver let the rare case leave.
    """

    number: int
    role: Literal["case", "left"]
    left_because: str
    state: Literal["open", "draft", "signed", "returned"]
    prefilled: bool
    share: float
    open: tuple[OpenQuestion, ...]
    category: str
    reviewer: str
    saved: str
    signed: str
    comment: str
    revision: int
    alike: int | None = None
    rare: bool = False
    steps: tuple[str, ...] = ()
    cleared: bool = False

    def to_json(self) -> Json:
        """For the command line."""
        return {
            "case": self.number, "role": self.role, "left_because": self.left_because, "state": self.state,
            "reviewer": self.reviewer, "share": round(self.share, 4), "category": self.category,
            "open": [{"linkId": one.link_id, "text": one.text, "reason": one.reason} for one in self.open],
            "saved": self.saved, "signed": self.signed, "comment": self.comment,
            "rare": self.rare, "steps": list(self.steps), "cleared": self.cleared,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class CaseForm:
    """One case's form as it is shown: what a person left, else the newest pre-fill.

    Attributes:
        number: Place in the draw.
        state: As in :class:`CaseLine`.
        response: The QuestionnaireResponse.
        prefilled: The newest pre-fill, to compare with.
        missing: linkId to why the record does not answer it.
        sources: linkId to the references that an answer was read from, separated by spaces. They name resources of the
            patient's record: local, and to be shown to reviewers only.
        reviewer: Account of who works on it, or signed it.
        comment: Why it was sent back.
        returned_by: Account of who sent it back.
        revision: What a change has to name.
    """

    number: int
    state: Literal["open", "draft", "signed", "returned"]
    response: Json
    prefilled: Json
    missing: Mapping[str, str]
    sources: Mapping[str, str] = field(repr=False)
    reviewer: str = ""
    comment: str = ""
    returned_by: str = ""
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose case it is, for those who have to open the file. Every look at it belongs into the audit.

    Attributes:
        number: Place in the draw.
        source: Name of the source that the session is from.
        patient: The patient's reference there, such as ``Patient/4711``.
        procedures: References of the session's Procedures.
        date: Local date of the session.
    """

    number: int
    source: str
    patient: str = field(repr=False)
    procedures: tuple[str, ...] = field(repr=False)
    date: str = field(repr=False)

    @property
    def patient_id(self) -> str:
        """The id by which the source knows the patient."""
        return self.patient.partition("/")[2].partition("@")[0]


def board_of(
    connection: Connection,
    draw: StoredDraw,
    questionnaire: Json,
    risks: Mapping[int, Json],
    cleared: Mapping[int, int],
) -> tuple[CaseLine, ...]:
    """Every case of a draw and those that left it, in drawn order; reserves are not shown.

    Args:
        connection: An open transaction.
        draw: The draw.
        questionnaire: The form.
        risks: Case number to how it stands, as :meth:`.risk.Risk.to_json` with ``holds``; empty where not measured yet.
        cleared: Case number to how few may look alike, where an approver let it leave.
    """
    filled, said = forms_of(connection, draw.id), reviews_of(connection, draw.id)
    return tuple(
        _line(case, filled[case.number], said.get(case.number), questionnaire, risks.get(case.number), cleared)
        for case in cases_of(connection, draw.id, None)
        if case.role in ("case", "left")
    )


def form_of(connection: Connection, draw: StoredDraw, number: int) -> CaseForm:
    """The form of one case in the sample.

    Raises:
        ReviewError: There is no such case, or it is not pre-filled yet.
    """
    _case(connection, draw, number)
    filled = forms_of(connection, draw.id)[number]
    if filled.response is None:
        raise ReviewError("the form is not pre-filled yet", where=f"case {number}", do="wait for the night", number=33)
    review = reviews_of(connection, draw.id).get(number)
    if review is None:
        return CaseForm(number, "open", filled.response, filled.response, filled.missing, filled.sources)
    response = json.loads(review.answers) if review.answers is not None else filled.response
    return CaseForm(
        number, review.state, response, filled.response, filled.missing, filled.sources, review.reviewer,
        review.comment, review.returned_by, review.revision,
    )  # fmt: skip


def prefilled_of(connection: Connection, draw: StoredDraw) -> dict[int, Json]:
    """The newest pre-fill of each case that has one."""
    filled = forms_of(connection, draw.id)
    return {number: one.response for number, one in filled.items() if one.response is not None}


def identity_of(connection: Connection, draw: StoredDraw, number: int) -> Identity:
    """Whose case it is.

    Raises:
        ReviewError: There is no such case in the sample.
    """
    case = _case(connection, draw, number)
    sessions = frame_of(draw).patients.get(case.patient, ())
    source = next((one.source for one in sessions if (one.date, one.category) == (case.date, case.category)), "")
    return Identity(number, source, case.patient, case.procedures, case.date)


def _case(connection: Connection, draw: StoredDraw, number: int) -> StoredCase:
    for case in cases_of(connection, draw.id):
        if case.number == number:
            return case
    raise ReviewError(
        f"there is no case {number} in the sample", do="give the number of a case, see the draw", number=9
    )


def _line(
    case: StoredCase,
    filled: StoredForm,
    review: CaseReview | None,
    questionnaire: Json,
    risk: Json | None,
    cleared: Mapping[int, int],
) -> CaseLine:
    answers = review.answers if review is not None else None
    shown = json.loads(answers) if answers is not None else filled.response
    asked = case.role == "case"
    found = completeness(questionnaire, shown) if asked and shown is not None else ()
    rare = risk is not None and not risk["holds"]
    return CaseLine(
        number=case.number,
        role="case" if asked else "left",
        left_because=case.reason,
        state=review.state if review is not None else "open",
        prefilled=filled.response is not None,
        share=filled.share,
        open=tuple(
            OpenQuestion(one.link_id, one.text, one.group, filled.missing.get(one.link_id, "")) for one in found
        ),
        category=case.category,
        reviewer=review.reviewer if review is not None else "",
        saved=review.saved if review is not None else "",
        signed=review.signed if review is not None else "",
        comment=review.comment if review is not None else "",
        revision=review.revision if review is not None else 0,
        alike=risk["alike"] if risk is not None else None,
        rare=rare,
        steps=tuple(risk["steps"]) if risk is not None else (),
        cleared=rare and risk is not None and cleared.get(case.number, risk["alike"] + 1) <= risk["alike"],
    )
