"""Pulling from a FHIR server by search: Procedures first, then what their decisions need.

A pull ends complete, with numbers that agree, or fails with the cursor where it was. Pages are written as they
come; writing one twice changes nothing, so a pull that was cut off simply starts again.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import msgspec

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.config import FhirSourceConfig
from io_fhir_adapter.errors import AdapterError, PullError, TransportError
from io_fhir_adapter.fhir.references import id_of, reference_key
from io_fhir_adapter.fhir.structs import Patient
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.facts import mapped_encounters, mapped_patients, patient_links, referenced, survivor
from io_fhir_adapter.ledger.intake import forget_quarantined
from io_fhir_adapter.ledger.runs import cursor, move_cursor
from io_fhir_adapter.pull.decode import Item
from io_fhir_adapter.pull.outcome import Progress, SourceOutcome, TypeOutcome
from io_fhir_adapter.pull.searchset import parse_searchset, search_pages
from io_fhir_adapter.pull.store import FactStore
from io_fhir_adapter.transport.client import FhirClient

__all__ = ["SearchPull", "parse_searchset"]

_RESTARTS = 2
_TOO_LONG = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.REQUEST_URI_TOO_LONG, 431})  # what a long URL is answered with
_TICK = timedelta(seconds=1)  # the resolution of HTTP dates

Found = tuple[Item, str]
Keep = Callable[[Found], bool]


class SearchPull:
    """One pull of one FHIR server.

    Args:
        config: The source.
        client: Its HTTP client.
        ledger: Takes the facts.
        ruleset: Says which Procedures matter.
        tz: The facility's time zone.
        run: Number of the run.
        progress: Told what is being read.
    """

    def __init__(
        self,
        config: FhirSourceConfig,
        client: FhirClient,
        ledger: Ledger,
        ruleset: Ruleset,
        tz: tzinfo,
        run: int,
        progress: Progress,
    ) -> None:
        self._config = config
        self._client = client
        self._ledger = ledger
        self._store = FactStore(config.name, ruleset, tz, run)
        self._run = run
        self._progress = progress
        self._newest: datetime | None = None
        self._asks_total = True
        self.outcome = SourceOutcome(config.name)

    async def pull(self) -> SourceOutcome:
        """Reads what changed since the last complete pull, or everything the first time.

        The outcome tells what was read and whether it is complete; an error that ended it is in ``error``.
        """
        began = time.monotonic()
        try:
            await self._pull()
        except AdapterError as exc:
            self.outcome.error = exc.sentence
        self.outcome.seconds = time.monotonic() - began
        self.outcome.requests = self._client.requests
        self.outcome.retried = self._client.retried
        return self.outcome

    async def _pull(self) -> None:
        name = self._config.name
        with self._ledger.read() as connection:
            since = cursor(connection, name, "Procedure")
            on_record = {
                kind: referenced(connection, name, kind) if since else set()
                for kind in ("Patient", "Condition", "Encounter")
            }
        self.outcome.since = since
        await self._procedures(since)
        with self._ledger.read() as connection:
            encounters = {id_of(key) for key in mapped_encounters(connection, name) if _is_literal(key, "Encounter")}
        await self._batches("Encounter", "_id", sorted(encounters - on_record["Encounter"]))
        if since:
            await self._changes("Patient", since, on_record["Patient"])  # first: a merged record brings another one
            await self._changes("Encounter", since, on_record["Encounter"])
        people = await self._people(on_record["Patient"])
        if since:
            await self._changes("Condition", since, on_record["Condition"], people)
        for outcome in self.outcome.types.values():
            outcome.complete = True
        with self._ledger.begin() as connection:
            if not since:
                forget_quarantined(connection, name, self._run)
            reached = self._reached()
            if reached > since:
                move_cursor(connection, name, "Procedure", reached, self._run)

    def _reached(self) -> str:
        """Up to when the server was read: the newest version seen, but never beyond the server's own clock.

        One resource that claims to come from the future would hide all that follow.
        """
        if self._newest is None:
            return ""
        newest = min(self._newest, _moment(self._client.server_date) + _TICK)
        return newest.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    async def _procedures(self, since: str) -> None:
        """Procedures: all that the configuration asks for, or later all that changed, from whatever date it is now."""
        if since:
            params = {"_lastUpdated": f"ge{self._earlier(since)}"}
        else:
            params = {"date": f"ge{self._config.since}"} if self._config.since is not None else {}
        await self._search("Procedure", params)

    async def _people(self, on_record: set[str]) -> set[str]:
        """Conditions and records of everyone with a mapped Procedure, and of the records that they were merged into.

        Args:
            on_record: Ids of the patients that an earlier pull read.

        Returns:
            Ids of everyone whose Conditions matter.
        """
        asked: set[str] = set()
        while fresh := sorted(self._wanted() - on_record - asked):
            await self._batches("Condition", "patient", [f"Patient/{patient}" for patient in fresh])
            # after their Conditions: a patient on record is one whose Conditions were read
            await self._batches("Patient", "_id", fresh)
            asked |= set(fresh)
        return self._wanted()

    def _wanted(self) -> set[str]:
        with self._ledger.read() as connection:
            links = patient_links(connection)
            patients = mapped_patients(connection, self._config.name)
        keys = {key for patient in patients for key in (patient, survivor(patient, links))}
        return {id_of(key) for key in keys if _is_literal(key, "Patient")}

    async def _batches(self, resource_type: str, parameter: str, values: Sequence[str]) -> None:
        """Searches by so many values at a time, some of them side by side; each answer is written by itself."""
        self.outcome.of(resource_type)
        size = self._config.batch_size
        batches = iter([values[start : start + size] for start in range(0, len(values), size)])

        async def work() -> None:
            for batch in batches:
                await self._batch(resource_type, parameter, batch)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._config.concurrency):
                    group.create_task(work())
        except BaseExceptionGroup as failed:
            first = failed.exceptions[0]
            raise first from first.__cause__

    async def _batch(self, resource_type: str, parameter: str, batch: Sequence[str]) -> None:
        asked = set(batch)

        def is_asked(found: Found) -> bool:
            """Whether it was asked for: a server may ignore the parameter and send everything."""
            item, resource_id = found
            if parameter == "_id":
                return resource_id in asked
            return item.resource is None or _subject(item) in asked

        try:
            await self._search(resource_type, {parameter: ",".join(_escaped(batch))}, is_asked)
        except TransportError as exc:
            if exc.status not in _TOO_LONG or len(batch) == 1:
                raise
            middle = len(batch) // 2
            await self._batch(resource_type, parameter, batch[:middle])
            await self._batch(resource_type, parameter, batch[middle:])

    async def _changes(self, resource_type: str, since: str, on_record: set[str], people: Collection[str] = ()) -> None:
        """Later versions of what is on record, and what is new of ``people``."""
        subjects = {f"Patient/{patient}" for patient in people}

        def matters(found: Found) -> bool:
            item, resource_id = found
            return resource_id in on_record or _subject(item) in subjects

        params = {"_lastUpdated": f"ge{self._earlier(since)}"}
        await self._search(resource_type, params, matters)

    def _earlier(self, instant: str) -> str:
        moment = datetime.fromisoformat(instant) - timedelta(minutes=self._config.overlap_minutes)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    async def _search(self, resource_type: str, params: Mapping[str, str], keep: Keep | None = None) -> None:
        """One whole search; started again where the server forgot it half-way (410).

        It is also started again, once in a pull, where the server may not know ``_total`` (400).
        """
        left = _RESTARTS
        while True:
            tally = TypeOutcome()
            try:
                await self._read(resource_type, params, keep, tally)
            except TransportError as exc:
                if exc.status == HTTPStatus.BAD_REQUEST and self._asks_total:
                    self._asks_total = False
                elif exc.status == HTTPStatus.GONE and left:
                    left -= 1
                else:
                    raise
                # what was written is written; the rest of this attempt is read again
                self.outcome.of(resource_type).subtract_read(tally)
            else:
                return

    async def _read(self, resource_type: str, params: Mapping[str, str], keep: Keep | None, tally: TypeOutcome) -> None:
        """One attempt at a search, reconciled against the server's own total."""
        outcome = self.outcome.of(resource_type)
        seen: set[str] = set()
        nameless: Counter[str] = Counter()
        total: int | None = None
        asked = {"_count": str(self._config.page_size), **params}
        if self._asks_total:
            asked["_total"] = "accurate"
        pages = search_pages(
            self._client, resource_type, asked, lambda answer, where: parse_searchset(answer, where, resource_type)
        )
        async for page in pages:
            total = page.total if page.total is not None else total
            items = [found if found[1] else _numbered(found[0], nameless) for found in page.items]
            kept = [found for found in items if keep(found)] if keep is not None else items
            fresh = {resource_id for _, resource_id in kept if resource_id} - seen
            without_id = sum(not resource_id for _, resource_id in kept)
            seen.update(resource_id for _, resource_id in items if resource_id)
            part = TypeOutcome(pages=1, read=len(fresh) + without_id)
            if kept:
                with self._ledger.begin() as connection:
                    self._store.put(connection, resource_type, kept, part)
            tally.add(part)
            outcome.add(part)
            if resource_type == "Procedure":
                self._note_versions(kept)
            self._progress(f"{self._config.name} {resource_type}", outcome.read, total if keep is None else None)
        if total is not None:
            if keep is None:
                outcome.total = (outcome.total or 0) + total
            handed_over = len(seen) + nameless.total()
            if handed_over < total:
                raise PullError(
                    f"the server says {total} {resource_type} resources and handed over {handed_over}",
                    where=self._client.base_url,
                    do="run again; if it persists, lower page_size or ask the server's vendor",
                    number=4,
                )

    def _note_versions(self, items: Iterable[Found]) -> None:
        for item, _ in items:
            meta = item.resource.meta if item.resource is not None else None
            moment = _instant(meta.lastUpdated) if meta is not None and meta.lastUpdated else None
            if moment is not None and (self._newest is None or moment > self._newest):
                self._newest = moment


def _numbered(item: Item, nameless: Counter[str]) -> Found:
    """A resource without an id under a position of its own; those with the same content are numbered."""
    nameless[item.position] += 1
    number = nameless[item.position]
    position = item.position if number == 1 else f"{item.position} ({number})"
    return msgspec.structs.replace(item, position=position), ""


def _is_literal(key: str, resource_type: str) -> bool:
    """Whether a reference names a resource by its id; a logical one names it by an identifier."""
    return key.startswith(f"{resource_type}/") and "?" not in key


def _subject(item: Item) -> str:
    resource = item.resource
    if resource is None:
        return ""
    if isinstance(resource, Patient):
        return f"Patient/{resource.id}"
    return reference_key(resource.subject, "Patient")


def _escaped(values: Iterable[str]) -> list[str]:
    return [value.replace("\\", "\\\\").replace(",", "\\,").replace("|", "\\|").replace("$", "\\$") for value in values]


def _instant(text: str) -> datetime | None:
    """An instant in UTC; None where it is none."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _moment(header: str) -> datetime:
    """An HTTP date; our own clock where the server sends none."""
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return datetime.now(UTC)
    return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
