"""What a submission says beside the cases, and what it becomes: standards, corrections, who approved, signature."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from io_fhir_adapter.classify.programme import Programme
from io_fhir_adapter.config import Config
from io_fhir_adapter.ledger.assessments import assessment_of
from io_fhir_adapter.ledger.outbox import accepted_of, item, put_body, settle
from io_fhir_adapter.report.standards import questionnaire, without_evidence
from io_fhir_adapter.review.forms import canonical
from io_fhir_adapter.review.keys import pseudonym_key
from io_fhir_adapter.submit.seal import StandardsContent, SubmissionContent, replaced_by, seal
from io_fhir_adapter.submit.signing import Finish, signing_key
from io_fhir_adapter.trust.approver import approver_agent, approver_token
from io_fhir_adapter.trust.canonical import digest

if TYPE_CHECKING:  # cryptography: for who signs
    from io_fhir_adapter.trust.signature import SignatureKey

__all__ = ["approved_form", "seal_correcting", "sign_anew", "standards_digest", "standards_of"]

Json = dict[str, Any]


def standards_of(connection: Connection, programme: Programme) -> StandardsContent | None:
    """The self-assessment as it may leave: the last one that was taken, where it is completed; without its evidence."""
    if programme.standards is None:
        return None
    known, form = assessment_of(connection, programme.id), questionnaire(programme)
    if known is None or known.response.get("status") != "completed":
        return None
    if known.response.get("questionnaire") != canonical(form):
        return None  # answers to an earlier form say nothing about this one
    return StandardsContent(form, without_evidence(known.response))


def standards_digest(connection: Connection, programme: Programme) -> str:
    """Another one whenever the self-assessment says something else; empty where there is none."""
    found = standards_of(connection, programme)
    return digest([found.questionnaire, found.response]) if found is not None else ""


def seal_correcting(connection: Connection, content: SubmissionContent, period: str, now: datetime) -> Json:
    """The sealed Bundle; where another submission of the period was accepted before, it names that one.

    What says the same as the accepted one is that submission, and no correction of it.

    Args:
        connection: An open transaction.
        content: All that it says.
        period: Label of the reported period.
        now: When.

    Raises:
        SubmitError: Something is missing, or is not valid FHIR R4.
    """
    for earlier in accepted_of(connection, period):
        said = json.loads(earlier.body)
        if content.programme not in {tag.get("code") for tag in said["meta"]["tag"]}:
            continue
        same = seal(replace(content, replaces=replaced_by(said)), now)
        if same["identifier"]["value"] == earlier.identifier:
            return same
        return seal(replace(content, replaces=earlier.identifier), now)
    return seal(content, now)


def sign_anew(connection: Connection, identifier: str, body: bytes, key: SignatureKey | None) -> None:
    """Replaces the bytes of a submission that was refused or parked before it was signed with the present key.

    Args:
        connection: An open transaction.
        identifier: The submission.
        body: As it is sealed now.
        key: The present key, None where nothing is signed.
    """
    found = item(connection, identifier)
    if key is None or found is None or found.state not in {"rejected", "parked"}:
        return
    from io_fhir_adapter.trust.signature import named_key  # noqa: PLC0415 - as above

    if named_key(json.loads(found.body)) == key.kid:
        return
    put_body(connection, identifier, body)
    settle(connection, identifier, "held", "waits for approval, which signs it")


def approved_form(config: Config, by: str, name: str, now: datetime) -> Finish:
    """What an approval makes of a body.

    Args:
        config: The facility's configuration.
        by: Account of the approver.
        name: Their name; leaves only where the facility says so.
        now: When.

    Raises:
        ConfigError: A key cannot be used.
    """
    submission = config.submission
    token = approver_token(pseudonym_key(config.review.key_file), config.facility.code, by)
    shown = name if submission is not None and submission.name_approver else ""
    return Finish(signing_key(submission), now, approver_agent(token, shown))
