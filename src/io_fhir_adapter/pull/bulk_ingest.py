"""From the downloaded files of an export to facts: a block of lines at a time, by type, and only what is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec

from io_fhir_adapter.errors import PullError
from io_fhir_adapter.fhir.references import normalise, reference_key
from io_fhir_adapter.fhir.structs import Patient
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.intake import drop_facts, drop_quarantined
from io_fhir_adapter.pull.bulk_parts import (
    Downloaded,
    Issues,
    Keep,
    Part,
    issues_of,
    read_parts,
    read_ready,
)
from io_fhir_adapter.pull.decode import UNREADABLE, Item, Resource
from io_fhir_adapter.pull.outcome import Progress, SourceOutcome, TypeOutcome
from io_fhir_adapter.pull.packing import Packer
from io_fhir_adapter.pull.packing_aside import Aside
from io_fhir_adapter.pull.pages import Pages
from io_fhir_adapter.pull.plain_text import open_plain
from io_fhir_adapter.pull.seen import Seen, marks_of
from io_fhir_adapter.pull.store import FactStore

__all__ = ["Downloaded", "Intake", "Issues", "Keep", "merged_patients", "read_deletions", "read_issues"]

_AT_ONCE: Final = 4_000  # resources that are written in one transaction


class _Request(msgspec.Struct):
    method: str = ""
    url: str = ""


class _DeletedEntry(msgspec.Struct):
    request: _Request | None = None


class _Deleted(msgspec.Struct):
    entry: list[_DeletedEntry] | None = None


_DELETED: Final = msgspec.json.Decoder(_Deleted)


@dataclass(slots=True)
class Intake:
    """Writes the files of exports into the ledger.

    Attributes:
        ledger: Takes the facts.
        store: Makes facts and writes them.
        outcome: Takes the numbers.
        progress: Told what is being read.
        seen: What was read and kept, by type.
        issues: What the server says between the resources that were read.
    """

    ledger: Ledger
    store: FactStore
    outcome: SourceOutcome
    progress: Progress
    seen: dict[str, Seen] = field(default_factory=dict)
    issues: Issues = field(default_factory=Issues)
    _nameless: dict[str, Counter[str]] = field(default_factory=dict)
    _set_aside: dict[str, set[str]] = field(default_factory=dict)
    _readers: dict[Path, str] = field(default_factory=dict)  # a mixed file is read for each type

    def take(
        self,
        resource_type: str,
        files: Iterable[Downloaded],
        keep: Keep | None = None,
        look: Callable[[Sequence[Resource]], None] | None = None,
        aside: Aside | None = None,
    ) -> None:
        """Reads all resources of one type.

        Args:
            resource_type: Which.
            files: The files that may hold them.
            keep: What to keep; everything where None.
            look: Is shown the sound ones that are kept, before they are written.
            aside: Has made Procedures ready, all of which are to be kept.
        """
        self.outcome.of(resource_type)
        everything = resource_type == "Procedure" and keep is None and look is None
        packer = self.store.packer(self.ledger) if everything else None
        held = [one for one in files if one.may_hold(resource_type)]
        pending: list[Part] = []
        waiting = 0
        for part in self._parts(held, resource_type, packer, aside, keep):
            if look is not None:
                look(part.sound)
            self.issues += part.issues
            pending.append(part)
            waiting += part.size
            if waiting >= _AT_ONCE:
                self._write(resource_type, pending)
                pending, waiting = [], 0
        self._write(resource_type, pending)

    def _parts(
        self,
        files: Sequence[Downloaded],
        resource_type: str,
        packer: Packer | None,
        aside: Aside | None,
        keep: Keep | None,
    ) -> Iterator[Part]:
        self.outcome.of(resource_type).pages += len(files)
        ready = aside.blocks([one.path for one in files]) if packer is not None and aside is not None else None
        if ready is not None:
            yield from read_ready(ready)
            return
        for downloaded in files:
            is_first = self._readers.setdefault(downloaded.path, resource_type) == resource_type
            for part in read_parts(downloaded, resource_type, packer, keep):
                yield part if is_first else replace(part, issues=Issues())

    def _write(self, resource_type: str, parts: Sequence[Part]) -> None:
        outcome, part = self.outcome.of(resource_type), TypeOutcome()
        seen = self.seen.setdefault(resource_type, Seen())
        for one in parts:
            seen.add(marks_of([packed.id for packed in one.packed]))
            seen.add(marks_of([resource.id or "" for resource in one.sound]))
            seen.add(marks_of([broken.resource_id for broken in one.broken if broken.resource_id]))
            outcome.read += one.size  # told again exactly at the end
        bad: set[str] = set()
        with self.ledger.begin() as connection:
            for pages in self._together(resource_type, parts):
                bad |= self.store.put_pages(connection, resource_type, pages, part)
        self._set_aside.setdefault(resource_type, set()).update(bad)
        outcome.new += part.new
        outcome.changed += part.changed
        self.progress(f"{self.outcome.name} {resource_type}", outcome.read, outcome.total)

    def _together(self, resource_type: str, parts: Iterable[Part]) -> Iterator[Pages]:
        pages = Pages()
        for part in parts:
            found = [
                (one.item if one.resource_id else self._numbered(resource_type, one.item), one.resource_id)
                for one in part.broken
            ]
            if not pages.takes(part.packed, part.sound, found):
                yield pages
                pages = Pages()
                pages.takes(part.packed, part.sound, found)
            pages.packed.extend(part.packed)
            pages.sound.extend(part.sound)
            pages.found.extend(found)
        yield pages

    def _numbered(self, resource_type: str, item: Item) -> Item:
        """A resource without an id under a position of its own; those with the same content are numbered."""
        counted = self._nameless.setdefault(resource_type, Counter())
        counted[item.position] += 1
        number = counted[item.position]
        return item if number == 1 else msgspec.structs.replace(item, position=f"{item.position} ({number})")

    def settle(self) -> None:
        """Brings the numbers of the outcome to what they are over all files: different resources, each once."""
        for resource_type, seen in self.seen.items():
            outcome, digest = self.outcome.of(resource_type), seen.digest()  # which counts as well
            outcome.read = seen.count() + self._nameless.get(resource_type, Counter()).total()
            outcome.quarantined = len(self._set_aside.get(resource_type, ()))
            outcome.ids = digest if outcome.read else ""

    def delete(self, files: Iterable[Downloaded], where: str) -> None:
        """Removes what the server says was deleted.

        Raises:
            PullError: It says so in a way that cannot be understood.
        """
        for downloaded in files:
            for resource_type, ids in read_deletions(downloaded, where).items():
                with self.ledger.begin() as connection:
                    gone = drop_facts(connection, self.store.source, resource_type, ids)
                    positions = [f"{resource_type}/{name}" for name in ids]
                    drop_quarantined(connection, self.store.source, resource_type, positions)
                if gone:
                    self.outcome.of(resource_type).removed += gone


def merged_patients(files: Iterable[Downloaded]) -> dict[str, str]:
    """References of records that were merged into another, with that other; as the files say."""
    links: dict[str, str] = {}
    for downloaded in files:
        if downloaded.may_hold("Patient"):
            for part in read_parts(downloaded, "Patient"):
                for one in part.sound:
                    for link in (one.link or ()) if isinstance(one, Patient) else ():
                        if link.type == "replaced-by":
                            links[f"Patient/{one.id}"] = reference_key(link.other, "Patient")
    return {record: other for record, other in links.items() if other}


def read_deletions(downloaded: Downloaded, where: str) -> dict[str, list[str]]:
    """Ids by type out of a file of Bundles whose entries are DELETE requests.

    Raises:
        PullError: Something else stands there.
    """
    found: dict[str, list[str]] = {}
    with open_plain(downloaded.path) as handle:
        for line in handle:
            if not line.strip():
                continue
            try:
                entries = _DELETED.decode(line).entry or []
            except UNREADABLE:
                entries = [_DeletedEntry()]
            for entry in entries:
                request = entry.request or _Request()
                resource_type, _, resource_id = normalise(request.url, "").partition("/")
                if request.method != "DELETE" or not resource_type or not resource_id or "?" in request.url:
                    raise PullError(
                        "the export names deleted resources in a way that is not understood",
                        where=where,
                        do="report this to the server's vendor; set bulk.since to false until it is corrected",
                        number=28,
                    )
                found.setdefault(resource_type, []).append(resource_id)
    return found


def read_issues(downloaded: Downloaded) -> Issues:
    """What an error file says; what cannot be read is an error."""
    with open_plain(downloaded.path) as handle:
        return sum((issues_of(line) for line in handle if line.strip()), Issues())
