"""Codes without a row that turn up: a hospital changed its catalogue, or a device its export.

Most Procedures of a hospital have no row and need none, so that their number tells nothing. What tells is that many
come under codes that were never seen before. Codes are remembered by a digest, since anything may stand in one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from sqlalchemy import Connection

from io_fhir_adapter.ledger.facts import completed_since, unmapped_since
from io_fhir_adapter.ledger.runs import read_state
from io_fhir_adapter.model import ProcedureFact
from io_fhir_adapter.notify.incidents import Incident
from io_fhir_adapter.trust.canonical import digest_bytes

__all__ = ["NewCodes"]

_NAME: Final = "notify codes"
_NEW_DAYS: Final = 30
_KNOWN_DAYS: Final = 400
_MOST: Final = 20_000
_FEWEST: Final = 10  # a share of next to nothing says nothing
_LONG_AGO: Final = "0000-00-00"


@dataclass(frozen=True, slots=True)
class NewCodes:
    """What is known of codes without a row.

    Attributes:
        seen: Digest of a code to the day on which it was first seen and the month in which it was seen last.
        new: How many codes were first seen in the last 30 days and are in use.
        under_new: How many completed Procedures of the last 30 days have one of those.
        completed: How many completed Procedures there are of the last 30 days.
    """

    seen: Mapping[str, str]
    new: int
    under_new: int
    completed: int

    @classmethod
    def read(cls, connection: Connection, today: date) -> NewCodes:
        """Looks at the last 30 days; at the first look at more than a year, whose codes are all taken for old."""
        known: dict[str, str] = json.loads(read_state(connection, _NAME) or "{}")
        recent = (today - timedelta(days=_NEW_DAYS)).isoformat()
        since = recent if known else (today - timedelta(days=_KNOWN_DAYS)).isoformat()
        first = today.isoformat() if known else _LONG_AGO
        month = today.isoformat()[:7]
        used: Counter[str] = Counter()
        for fact in unmapped_since(connection, since):
            for code in set(_codes(fact)):
                known[code] = f"{known.get(code, first)[:10]} {month}"
                used[code] += 1
        new = {code for code in used if known[code][:10] > recent}
        under_new = (
            sum(bool(new.intersection(_codes(fact))) for fact in unmapped_since(connection, recent)) if new else 0
        )
        return cls(_pruned(known, today), len(new), under_new, completed_since(connection, recent))

    @property
    def share(self) -> float:
        """Of the completed Procedures of the last 30 days, the share under new codes."""
        return self.under_new / self.completed if self.completed else 0.0

    def above(self, share: float) -> Iterator[Incident]:
        """The incident, where so large a share is exceeded."""
        if self.under_new < _FEWEST or self.share <= share:
            return
        text = (
            f"{self.under_new} of the {self.completed} completed Procedures of the last {_NEW_DAYS} days "
            f"({self.share:.1%}) come under {self.new} codes that were never seen before and have no row in the tables."
        )
        do = "see the worklist with mappings coverage; add rows for what counts, or tell the source's administrator"
        yield Incident("unmapped", "", "new", text, do)

    def state(self) -> tuple[str, str]:
        """Name and value under which the ledger remembers it."""
        return _NAME, json.dumps(dict(sorted(self.seen.items())), separators=(",", ":"))


def _codes(fact: ProcedureFact) -> list[str]:
    named = [f"{code.system}|{code.code}" for code in fact.codes] or ["|"]
    return [digest_bytes(name.encode())[-12:] for name in named]


def _pruned(known: Mapping[str, str], today: date) -> dict[str, str]:
    """Without what was not seen for over a year; of a catalogue without end the part that was seen last."""
    oldest = (today - timedelta(days=_KNOWN_DAYS)).isoformat()[:7]
    kept = [(code, days) for code, days in known.items() if days[11:] >= oldest]
    return dict(sorted(kept, key=lambda pair: pair[1][11:], reverse=True)[:_MOST])
