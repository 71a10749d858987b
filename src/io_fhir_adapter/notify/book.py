"""The book of what is open and who was told of it, so that each is told once, and once more when it is over.

It lies in the ledger as one JSON object: a night that is killed while it tells people tells them again rather than
never, and of two replicas one tells.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from io_fhir_adapter.config.notify import TargetConfig
from io_fhir_adapter.ledger.database import timestamp
from io_fhir_adapter.notify.incidents import title_of

if TYPE_CHECKING:  # who only reads the book does without all that is looked at
    from io_fhir_adapter.notify.look import Look

__all__ = ["BOOK", "Book", "Entry", "Message"]

BOOK: Final = "notify book"
_BUSY_FOR: Final = timedelta(minutes=10)
_NEWS_KEPT: Final = timedelta(days=60)


@dataclass(frozen=True, slots=True)
class Message:
    """What is told to one target: a title, a text, whether it is an all-clear, and the incident and cause of it."""

    target: str
    key: str
    cause: str
    title: str
    text: str
    clear: bool = False


@dataclass(slots=True)
class Entry:
    """One incident in the book.

    Attributes:
        since: When it was first seen, UTC.
        over: When it was found to be over, UTC; empty as long as it is not.
        news: Whether it never ends but is only told.
        text: What was so when it was last seen; empty where that is not known.
        do: What to do about it.
        cause: What it was last.
        told: Target to the causes that were told there.
    """

    since: str
    over: str = ""
    news: bool = False
    text: str = ""
    do: str = ""
    cause: str = ""
    told: dict[str, list[str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {"since": self.since, "over": self.over, "news": self.news, "text": self.text, "do": self.do,
                "cause": self.cause, "told": self.told}  # fmt: skip


@dataclass(slots=True)
class Book:
    """What is open.

    Attributes:
        entries: Key of an incident to what is known of it.
        busy: When somebody began to tell what is in it, UTC; empty where nobody does.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    busy: str = ""

    @classmethod
    def read(cls, text: str) -> Book:
        """The book as the ledger has it; an empty one for an empty text."""
        found = json.loads(text or "{}")
        return cls({key: Entry(**entry) for key, entry in found.get("entries", {}).items()}, found.get("busy", ""))

    def write(self) -> str:
        """As the ledger keeps it."""
        entries = {key: entry.to_json() for key, entry in sorted(self.entries.items())}
        return json.dumps({"busy": self.busy, "entries": entries}, ensure_ascii=False)

    @property
    def open(self) -> set[str]:
        """Keys of what is open; news never are."""
        return {key for key, entry in self.entries.items() if not entry.over and not entry.news}

    def is_busy(self, now: datetime) -> bool:
        """Whether another process is at telling; one that died at it is over after ten minutes."""
        return bool(self.busy) and now - datetime.fromisoformat(self.busy) < _BUSY_FOR

    def take(self, look: Look, now: datetime) -> None:
        """Enters what a look found, and what is over."""
        moment = timestamp(now)
        for found in look.incidents:
            entry = self.entries.setdefault(found.key, Entry(moment))
            if entry.over:  # it is back before everybody heard that it was over
                entry.over, entry.since, entry.told = "", moment, {}
            if entry.news and entry.cause != found.cause:
                entry.since = moment
            entry.news, entry.text, entry.do, entry.cause = found.over, found.text, found.do, found.cause
        for key in look.lapsed:
            self.entries.pop(key, None)
        seen = {found.key for found in look.incidents}
        for key, entry in self.entries.items():
            if key not in seen and not entry.over and not entry.news and look.could_see(key):
                entry.over = moment
        old = timestamp(now - _NEWS_KEPT)
        for key in [key for key, entry in self.entries.items() if entry.news and entry.since < old]:
            del self.entries[key]
        self._forget()

    def messages(self, facility: str, targets: tuple[TargetConfig, ...]) -> Iterator[Message]:
        """What is to be told now, to whom."""
        for key, entry in sorted(self.entries.items(), key=lambda pair: pair[1].since):
            title = title_of(key)
            for target in targets:
                told = entry.told.get(target.name, [])
                if entry.over and told:
                    text = f"What began on {entry.since[:10]} was over on {entry.over[:10]}."
                    yield Message(target.name, key, "", f"[{facility}] All clear: {title}", text, clear=True)
                elif not entry.over and entry.cause not in told and target.wants(key.partition(" ")[0]):
                    again = " (for another reason)" if told and not entry.news else ""
                    text = f"{entry.text}\nWhat to do: {entry.do}.\nSince {entry.since[:10]}."
                    yield Message(target.name, key, entry.cause, f"[{facility}] {title}{again}", text)

    def note(self, message: Message) -> None:
        """Enters that a message arrived."""
        entry = self.entries[message.key]
        if message.clear:
            entry.told.pop(message.target, None)
        elif entry.news:
            entry.told[message.target] = [message.cause]
        else:
            entry.told.setdefault(message.target, []).append(message.cause)
        self._forget()

    def drop_targets(self, names: set[str]) -> None:
        """Forgets who is not told any more."""
        for entry in self.entries.values():
            entry.told = {name: causes for name, causes in entry.told.items() if name in names}

    def _forget(self) -> None:
        self.entries = {key: entry for key, entry in self.entries.items() if not entry.over or entry.told}
