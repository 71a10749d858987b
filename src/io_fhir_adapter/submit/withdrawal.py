"""Taking a submission back: a Bundle of one Provenance that says which, and why. Nothing is deleted anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from io_fhir_adapter.canonical_urls import SUBMISSION_SYSTEM, WITHDRAWAL_REASON
from io_fhir_adapter.errors import SubmitError
from io_fhir_adapter.ledger.outbox import OutboxItem, item, items
from io_fhir_adapter.submit.seal import assembler, with_statement

__all__ = [
    "WITHDRAWING",
    "find_withdrawal",
    "labelled_period",
    "seal_withdrawal",
    "to_withdraw",
    "withdrawal_label",
    "withdrawn_as",
    "withdrawn_by",
]

Json = dict[str, Any]

WITHDRAWING: Final = {
    "counted-wrongly": "what it counted is wrong",
    "case-objection": "a patient whose case is in it objects",
    "sent-in-error": "it should not have been sent",
    "other": "another reason, told the body on another way",
}
"""Why a submission may be taken back; this project's proposal."""

_ACTIVITY: Final = {"system": "http://terminology.hl7.org/CodeSystem/v3-DataOperation", "code": "NULLIFY"}
_LABEL: Final = "withdrawal "
_GONE: Final = ("superseded", "returned", "rejected")


def withdrawal_label(period: str) -> str:
    """What the outbox has as the period of a withdrawal, so that no submission of the period takes its place."""
    return f"{_LABEL}{period}"


def labelled_period(label: str) -> str:
    """The period that a submission or a withdrawal is about, of what the outbox has as its period."""
    return label.removeprefix(_LABEL)


def to_withdraw(connection: Connection, identifier: str) -> OutboxItem:
    """The accepted submission of an identifier.

    Raises:
        SubmitError: There is none: it is unknown, was not accepted, or is a withdrawal itself.
    """
    found = item(connection, identifier)
    if found is not None and found.state == "accepted" and not found.period.startswith(_LABEL):
        return found
    is_now = "unknown" if found is None else found.state if found.state != "accepted" else "a withdrawal itself"
    raise SubmitError(
        f"only a submission that was accepted can be withdrawn, this one is {is_now}",
        where=identifier,
        do="see the outbox list command; what did not leave yet is returned on the approval page",
        number=50,
    )


def find_withdrawal(connection: Connection, withdrawn: OutboxItem) -> OutboxItem | None:
    """The withdrawal of a submission that was made before and still stands, None where there is none."""
    label = withdrawal_label(withdrawn.period)
    made = (one for one in items(connection) if one.period == label and one.state not in _GONE)
    return next((one for one in made if withdrawn_by(json.loads(one.body)) == withdrawn.identifier), None)


def withdrawn_by(bundle: Mapping[str, Any]) -> str:
    """Identifier of the submission that a sealed withdrawal takes back."""
    return str(bundle["entry"][0]["resource"]["target"][0]["identifier"]["value"])


def withdrawn_as(body: bytes) -> str:
    """The code of the reason in a sealed withdrawal."""
    return str(json.loads(body)["entry"][0]["resource"]["reason"][0]["coding"][0]["code"])


def seal_withdrawal(
    facility_code: str, programme: str, withdrawn: str, reason: str, software_version: str, timestamp: datetime
) -> Json:
    """The transaction Bundle that takes a submission back.

    Args:
        facility_code: The facility's code.
        programme: Code of the programme that the submission was for.
        withdrawn: Its identifier.
        reason: One of :data:`WITHDRAWING`.
        software_version: Of this program.
        timestamp: When, with a time zone.

    Raises:
        SubmitError: The reason is none of the list.
    """
    if reason not in WITHDRAWING:
        raise SubmitError(
            f"{reason!r} is no reason to withdraw a submission", do=f"give one of {', '.join(WITHDRAWING)}", number=51
        )
    written = timestamp.isoformat(timespec="seconds")
    provenance = {
        "resourceType": "Provenance",
        "target": [{"type": "Bundle", "identifier": {"system": SUBMISSION_SYSTEM, "value": withdrawn}}],
        "recorded": written,
        "reason": [{"coding": [{"system": WITHDRAWAL_REASON, "code": reason}]}],
        "activity": {"coding": [dict(_ACTIVITY)]},
        "agent": [assembler(facility_code, software_version)],
    }
    return with_statement(facility_code, programme, written, [], provenance)
