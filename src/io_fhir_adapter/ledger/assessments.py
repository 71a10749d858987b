"""The standards self-assessment of a programme, as people answered it last."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from io_fhir_adapter.ledger.chain import add_link
from io_fhir_adapter.ledger.database import timestamp
from io_fhir_adapter.ledger.runs import read_state, write_state
from io_fhir_adapter.trust.canonical import digest

__all__ = ["Assessment", "assessment_of", "put_assessment"]

_NAME: Final = "standards {}"


@dataclass(frozen=True, slots=True)
class Assessment:
    """A QuestionnaireResponse to the standards of a programme, when it was taken, and its digest (``sha256:…``)."""

    at: str
    digest: str
    response: dict[str, Any]


def assessment_of(connection: Connection, programme: str) -> Assessment | None:
    """What was answered last, None where nothing was."""
    text = read_state(connection, _NAME.format(programme))
    return Assessment(**json.loads(text)) if text else None


def put_assessment(connection: Connection, programme: str, response: Mapping[str, Any], now: datetime) -> Assessment:
    """Keeps an accepted response in place of the one before; the chain remembers when, and the digest of each.

    Args:
        connection: An open transaction.
        programme: The programme's id.
        response: A clean QuestionnaireResponse.
        now: When.
    """
    made = Assessment(timestamp(now), digest(dict(response)), dict(response))
    known = assessment_of(connection, programme)
    if known is not None and known.digest == made.digest:
        return known
    text = json.dumps({"at": made.at, "digest": made.digest, "response": made.response})
    write_state(connection, _NAME.format(programme), text)
    add_link(connection, "self-assessment", {"programme": programme, "digest": made.digest}, now)
    return made
