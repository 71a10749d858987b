"""A facility whose ledger says what a test lets it say, and somebody who is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.ledgers import new_ledger

from io_fhir_adapter.classify.ruleset import Ruleset, load_ruleset
from io_fhir_adapter.config import Config
from io_fhir_adapter.config.notify import TargetConfig
from io_fhir_adapter.errors import TransportError
from io_fhir_adapter.ledger.backup import LAST_BACKUP
from io_fhir_adapter.ledger.database import Ledger, timestamp
from io_fhir_adapter.ledger.facts import put_decisions
from io_fhir_adapter.ledger.intake import StoredFact, put_facts
from io_fhir_adapter.ledger.runs import finish_run, last_run, start_run, write_state
from io_fhir_adapter.model import Code, Decision, ProcedureFact
from io_fhir_adapter.notify import tell as telling
from io_fhir_adapter.notify.tell import Told

NIGHT = datetime(2026, 3, 2, 2, 30, tzinfo=UTC)
Json = dict[str, Any]


@cache
def ruleset() -> Ruleset:
    return load_ruleset()


@dataclass
class Facility:
    """A facility, its nights, and what was told.

    Attributes:
        said: Target, title and text of each message that arrived.
        deaf: Targets that cannot be reached.
    """

    folder: Path
    ledger: Ledger
    now: datetime = NIGHT
    config: Config = field(init=False)
    said: list[tuple[str, str, str]] = field(default_factory=list)
    deaf: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.configure({"targets": [{"name": "it", "url": {"env": "NOT_READ"}}]})
        with self.ledger.begin() as connection:
            write_state(connection, "ruleset", ruleset().digest)
            write_state(connection, LAST_BACKUP, timestamp(NIGHT + timedelta(days=400)))

    def configure(self, notify: Json, **more: Any) -> None:
        document = {
            "facility": {"code": "F-1"},
            "sources": [{"name": "his", "kind": "files", "paths": [str(self.folder / "none.ndjson")]}],
            "ledger": {"path": str(self.folder / "ledger.sqlite")},
            "notify": notify,
        }
        self.config = Config.model_validate(document | more)

    def night(self, error: str = "", **summary: Any) -> None:
        """A run, a day after the one before."""
        self.now += timedelta(days=1)
        with self.ledger.begin() as connection:
            run = start_run(connection, self.now)
            finish_run(connection, run, self.now, "failed" if error else "complete", summary, error)

    def tell(self, failure: str = "") -> Told:
        return telling.tell(self.config, self.ledger, ruleset(), self.now, self.now.date(), failure=failure)

    def titles(self, failure: str = "") -> list[str]:
        """Tells, and gives the titles of what arrived just now."""
        before = len(self.said)
        self.tell(failure)
        return [title for _, title, _ in self.said[before:]]

    def procedures(self, code: str, number: int, *, days_ago: int = 1, mapped: bool = False) -> None:
        """Completed Procedures under a code."""
        day = (self.now - timedelta(days=days_ago)).date().isoformat()
        made = [
            ProcedureFact(
                "his", f"{code}-{day}-{one}", f"Patient/{one}", "completed", day, codes=(Code("urn:x", code),)
            )
            for one in range(number)
        ]
        with self.ledger.begin() as connection:
            run = last_run(connection)
            put_facts(connection, [StoredFact(one, mapped, mapped) for one in made], run.id if run else 1)

    def counted(self, number: int) -> None:
        """So many sessions counted this year, as a whole."""
        made = [
            Decision("his", "Patient/1", f"{self.now.year}-01-02", "ablation", "counted", "counted")
            for _ in range(number)
        ]
        with self.ledger.begin() as connection:
            put_decisions(connection, "Patient/1", made)


@pytest.fixture
def facility(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Facility]:
    ledger = new_ledger(tmp_path / "ledger.sqlite")
    made = Facility(tmp_path, ledger)

    def send(target: TargetConfig, title: str, text: str, *, kind: str) -> None:
        if target.name in made.deaf:
            raise TransportError("no", number=60)
        made.said.append((target.name, title, text))

    monkeypatch.setattr(telling, "send", send)
    yield made
    ledger.close()
