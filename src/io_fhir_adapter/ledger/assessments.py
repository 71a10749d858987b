"""The standards self-assessment of a programme: as people answered it last, the next draft, and its evidence.

Of evidence only name, size and digest of a file are known here; the file itself was never given to the adapter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from io_fhir_adapter.errors import LedgerError
from io_fhir_adapter.ledger.chain import add_link
from io_fhir_adapter.ledger.database import timestamp
from io_fhir_adapter.ledger.runs import change_state, read_state, write_state
from io_fhir_adapter.trust.canonical import digest

__all__ = [
    "Assessment",
    "Draft",
    "Evidence",
    "add_evidence",
    "assessment_of",
    "draft_of",
    "drop_evidence",
    "evidence_of",
    "put_assessment",
    "put_evidence",
    "save_draft",
]

_NAME: Final = "standards {}"
_DRAFT: Final = "assessing {}"
_EVIDENCE: Final = "evidence {}"
_MOST_EVIDENCE: Final = 500


@dataclass(frozen=True, slots=True)
class Assessment:
    """A QuestionnaireResponse to the standards of a programme, when it was taken, and its digest (``sha256:…``)."""

    at: str
    digest: str
    response: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Draft:
    """Answers that are not taken yet.

    Attributes:
        revision: One more with each change; 0 where nobody ever began.
        by: Account of who saved it last, empty where there is no draft now.
        at: When.
        response: The QuestionnaireResponse, None where there is no draft now.
    """

    revision: int = 0
    by: str = ""
    at: str = ""
    response: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """A file that is evidence for a requirement; the file itself stays where it is.

    Attributes:
        link_id: Of the requirement's item.
        name: File name.
        size: In bytes.
        sha256: Of its content, hexadecimal.
        at: When it was named.
        by: Account of who named it; empty where it came with answers from a file.
    """

    link_id: str
    name: str
    size: int
    sha256: str
    at: str = ""
    by: str = ""


def assessment_of(connection: Connection, programme: str) -> Assessment | None:
    """What was answered last, None where nothing was."""
    text = read_state(connection, _NAME.format(programme))
    return Assessment(**json.loads(text)) if text else None


def put_assessment(connection: Connection, programme: str, response: Mapping[str, Any], now: datetime) -> Assessment:
    """Keeps an accepted response in place of the one before; the chain remembers when, and the digest of each.

    A draft ends with it, so that whoever still works on one is told.

    Args:
        connection: An open transaction.
        programme: The programme's id.
        response: A clean QuestionnaireResponse.
        now: When.
    """
    made = Assessment(timestamp(now), digest(dict(response)), dict(response))
    known = assessment_of(connection, programme)
    draft = draft_of(connection, programme)
    if draft.revision:
        write_state(connection, _DRAFT.format(programme), json.dumps(asdict(Draft(draft.revision + 1))))
    if known is not None and known.digest == made.digest:
        return known
    text = json.dumps({"at": made.at, "digest": made.digest, "response": made.response})
    write_state(connection, _NAME.format(programme), text)
    add_link(connection, "self-assessment", {"programme": programme, "digest": made.digest}, now)
    return made


def draft_of(connection: Connection, programme: str) -> Draft:
    """The draft as it stands."""
    text = read_state(connection, _DRAFT.format(programme))
    return Draft(**json.loads(text)) if text else Draft()


def save_draft(
    connection: Connection, programme: str, response: Mapping[str, Any], *, revision: int, by: str, now: datetime
) -> Draft:
    """Keeps answers that are not taken yet.

    Args:
        connection: An open transaction.
        programme: The programme's id.
        response: A clean QuestionnaireResponse.
        revision: The one that the person saw.
        by: Their account.
        now: When.

    Raises:
        LedgerError: Somebody changed it since that revision (80).
    """
    name = _DRAFT.format(programme)
    before = read_state(connection, name)
    known = Draft(**json.loads(before)) if before else Draft()
    made = Draft(known.revision + 1, by, timestamp(now), dict(response))
    if known.revision != revision or not change_state(connection, name, before, json.dumps(asdict(made))):
        raise LedgerError(
            "the self-assessment was changed in the meantime", where=programme,
            do="open the form anew and copy what is missing", number=80,
        )  # fmt: skip
    return made


def evidence_of(connection: Connection, programme: str) -> tuple[Evidence, ...]:
    """The files that were named, in the order in which they were."""
    return _read_evidence(read_state(connection, _EVIDENCE.format(programme)))


def put_evidence(connection: Connection, programme: str, named: Iterable[Evidence]) -> None:
    """Names these files in place of the ones before; of those that were named already, all that is known stays."""
    wanted = tuple(named)

    def replaced(found: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
        known = {(one.link_id, one.sha256): one for one in found}
        return tuple(known.get((one.link_id, one.sha256), one) for one in wanted)

    _change_evidence(connection, programme, replaced)


def add_evidence(connection: Connection, programme: str, evidence: Evidence) -> None:
    """Names a file for a requirement; the same content for the same requirement is named once.

    Raises:
        LedgerError: There are 500 already (81).
    """

    def added(found: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
        if any((one.link_id, one.sha256) == (evidence.link_id, evidence.sha256) for one in found):
            return found
        if len(found) >= _MOST_EVIDENCE:
            raise LedgerError(
                f"{_MOST_EVIDENCE} files are named as evidence already", where=programme,
                do="take out what is not needed", number=81,
            )  # fmt: skip
        return (*found, evidence)

    _change_evidence(connection, programme, added)


def drop_evidence(connection: Connection, programme: str, link_id: str, sha256: str) -> None:
    """Takes a named file out again."""
    _change_evidence(
        connection,
        programme,
        lambda found: tuple(one for one in found if (one.link_id, one.sha256) != (link_id, sha256)),
    )


def _change_evidence(
    connection: Connection, programme: str, step: Callable[[tuple[Evidence, ...]], tuple[Evidence, ...]]
) -> None:
    """Changes the list without losing what another adds at the same moment."""
    name = _EVIDENCE.format(programme)
    while True:
        before = read_state(connection, name)
        after = json.dumps([asdict(one) for one in step(_read_evidence(before))])
        if change_state(connection, name, before, after):
            return


def _read_evidence(text: str) -> tuple[Evidence, ...]:
    return tuple(Evidence(**one) for one in json.loads(text)) if text else ()
