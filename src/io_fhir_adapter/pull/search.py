"""Pulling from a FHIR server by search: Procedures first, then what their decisions need.

A pull ends complete, with numbers that agree, or fails with the cursor where it was. Pages are written as they
come; writing one twice changes nothing, so a pull that was cut off simply starts again.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.config import FhirSourceConfig
from io_fhir_adapter.errors import AdapterError, TransportError
from io_fhir_adapter.fhir.references import id_of
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.facts import mapped_encounters, mapped_patients, patient_links, referenced, survivor
from io_fhir_adapter.ledger.first_load import first_load
from io_fhir_adapter.ledger.intake import forget_quarantined
from io_fhir_adapter.ledger.runs import cursor, move_cursor
from io_fhir_adapter.pull.asked import digest_of, is_ahead, is_other, note_asked, place_of
from io_fhir_adapter.pull.batches import Batches, is_literal, subject_of
from io_fhir_adapter.pull.code_filter import CodeFilter
from io_fhir_adapter.pull.decode import Resource
from io_fhir_adapter.pull.outcome import Progress, SourceOutcome
from io_fhir_adapter.pull.reading import Keep, Pairs, SearchReader
from io_fhir_adapter.pull.reconcile import Gone, is_due, note_reconciled, remove_gone
from io_fhir_adapter.pull.searchset import SearchPage, parse_searchset
from io_fhir_adapter.pull.sliced import SlicedSearch
from io_fhir_adapter.pull.slices import Slice, changed_slices, dated_slices, instant_of
from io_fhir_adapter.pull.store import FactStore
from io_fhir_adapter.transport.client import FhirClient

__all__ = ["SearchPull", "parse_searchset"]

_TICK: Final = timedelta(seconds=1)  # the resolution of HTTP dates
_LAST: Final = datetime(9000, 1, 1, tzinfo=UTC)  # with which one can still reckon
_NEEDED: Final = ("Patient", "Condition", "Encounter")


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

    strategy = "search"

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
        self._run = run
        self._tz = tz
        self.outcome = SourceOutcome(config.name, strategy=self.strategy)
        self._is_first = False
        self._began = run  # in which the reading began; an earlier one where it was cut off and goes on
        self.read_patients: frozenset[str] | None = None  # whose Procedures were asked for; None for everyone's
        self._store = FactStore(config.name, ruleset, tz, run)
        self._reader = SearchReader(config, client, ledger, self._store, self.outcome, progress)
        self._batches = Batches(config, self._reader, self.outcome)
        self._sliced = SlicedSearch(self._reader, self.outcome, config.slice_size, config.concurrency)
        self._codes = CodeFilter(config, self._reader, self.outcome, ruleset)

    async def pull(self) -> SourceOutcome:
        """Reads what changed since the last complete pull, or everything the first time.

        The outcome tells what was read and whether it is complete; an error that ended it is in ``error``.
        """
        began = time.monotonic()
        try:
            await self._pull()
        except AdapterError as exc:
            self.outcome.error = exc.sentence
        self._reader.settle()
        self.outcome.seconds = time.monotonic() - began
        self.outcome.requests = self._client.requests
        self.outcome.retried = self._client.retried
        return self.outcome

    async def _pull(self) -> None:
        name = self._config.name
        with self._ledger.read() as connection:
            since = on_record = cursor(connection, name, "Procedure")
            if since and is_ahead(since, self._client.clock_skew_s):
                since = on_record = ""
                self.outcome.note("by its time the last pull lies in the future; everything was read again")
            if since and is_due(connection, name, self._config.reconcile_days, datetime.now(UTC)):
                since = ""
                self.outcome.note("everything was read again, to find what was deleted")
            if since and is_other(connection, name, self._asked_for()):
                since = ""
                self.outcome.note("the way of reading or what is asked for changed; everything was read again")
            if since and self._codes.begin(connection):
                since = ""
        since = await self._procedures(since)
        if on_record and not since and self._codes.looked_for is not None:
            await self._changed_procedures(on_record)
        self.outcome.since = since
        await self._needed(since)
        while await self._procedures_of_others():
            await self._needed(since, only_fresh=True)
        self._reader.settle()
        for outcome in self.outcome.types.values():
            outcome.complete = True
        with self._ledger.begin() as connection:
            before = cursor(connection, name, "Procedure")
            if not since:
                looked_for = self._codes.looked_for
                if looked_for is None:
                    forget_quarantined(connection, name, self._began)
                gone = Gone(name, self._reader.seen, self._config.since, self.read_patients, looked_for, self._is_first)
                remove_gone(connection, gone, self.outcome, self._run)
                note_reconciled(connection, name, self._run, datetime.now(UTC))
                self._codes.end(connection, self._run)
            note_asked(connection, name, self._asked_for(), self._run)
            reached = self._reached()
            if reached > before or (reached and not since):
                move_cursor(connection, name, "Procedure", reached, self._run)
        self._ended()

    def _asked_for(self) -> str:
        """A digest of what decides which Procedures are read."""
        return digest_of(self.strategy, self._config.since, *place_of(self._config.base_url, self._tz))

    def _ended(self) -> None:
        """Called when a pull is complete."""

    def _reached(self) -> str:
        """Up to when the server was read: the newest version seen, but never beyond the server's own clock.

        One resource that claims to come from the future would hide all that follow.
        """
        newest = self._reader.newest.get("Procedure")
        if newest is None:
            return ""
        return min(newest, self._now() + _TICK).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def _now(self) -> datetime:
        """The server's time when the pull began; our own clock where it does not say."""
        try:
            moment = parsedate_to_datetime(self._client.server_date)
            moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
        except (ValueError, OverflowError):
            return datetime.now(UTC)
        return min(moment, _LAST)

    # --- Procedures ---------------------------------------------------------------------------------------------

    async def _procedures(self, since: str) -> str:
        """Procedures: all that the configuration asks for, or later all that changed, from whatever date it is now.

        Returns:
            The cursor that was used, empty where everything was read.
        """
        if since:
            pairs = self._since(since)
            first = await self._first_changed(pairs)
            if first is not None:
                await self._sliced.read("Procedure", pairs, self._changed(since), first=first)
                return since
        with first_load(self._ledger) as self._is_first:
            await self._all_procedures()
        if self._is_first:
            self._store.recount(self._ledger, "Procedure", self.outcome)
        return ""

    async def _procedures_of_others(self) -> bool:
        """Reads the Procedures of those who turned out to matter, too; says whether there were any."""
        return False

    async def _changed_procedures(self, since: str) -> None:
        """What changed, whatever its codes, beside a reading of some codes: those on record go on being corrected."""
        pairs = self._since(since)
        first = await self._first_changed(pairs, "what changed with other codes is not seen", keeps_all=False)
        if first is not None:
            await self._sliced.read("Procedure", pairs, self._changed(since), _whatever, first=first)

    async def _first_changed(
        self, pairs: Pairs, instead: str = "everything was read again", *, keeps_all: bool = True
    ) -> SearchPage | None:
        """The first page of what changed; None where the server cannot be asked so, and a note of what is done then."""
        try:
            first = await self._reader.open("Procedure", pairs, keeps_all=keeps_all)
        except TransportError as exc:
            if exc.status != HTTPStatus.BAD_REQUEST:
                raise
            self.outcome.note(f"the server refuses to search by _lastUpdated; {instead}")
            return None
        since = datetime.fromisoformat(pairs[0][1].removeprefix("ge"))
        moments = [instant_of(one.meta.lastUpdated or "") for one in first.resources if one.meta is not None]
        if any(moment is not None and moment < since - _TICK for moment in moments):
            self.outcome.note(f"the server ignores _lastUpdated; {instead}")
            return None
        return first

    async def _all_procedures(self) -> None:
        since = self._config.since
        pairs: Pairs = (("date", f"ge{since}"),) if since is not None else ()
        for codes in await self._codes.searches(pairs):
            await self._procedures_with(codes, pairs)

    async def _procedures_with(self, codes: Pairs, pairs: Pairs) -> None:
        """All Procedures, or those with some codes."""
        since = self._config.since
        today = datetime.now(self._tz).date()
        await self._sliced.read(
            "Procedure",
            (*codes, *pairs),
            lambda _: dated_slices(since, today, codes),
            keep=_whatever if codes else None,  # what several searches find is not to be added up
            undated=since is None,
        )
        if since is not None:
            await self._undated(codes)

    async def _undated(self, codes: Pairs) -> None:
        """Procedures without a date, which a search from a day on does not find."""
        part = Slice("date", undated=True, also=codes)
        try:
            first = await self._reader.open("Procedure", part.pairs())
        except TransportError as exc:
            if exc.status != HTTPStatus.BAD_REQUEST:
                raise
            first = None
        if first is None or not all(part.admits(one) for one in first.resources):
            self.outcome.note("the server cannot be asked for Procedures without a date; with since they are not read")
            return
        reading = await self._reader.read("Procedure", part.pairs(), first=first)
        await self._reader.check_end("Procedure", part.pairs(), reading, "no date")

    # --- what their decisions need ------------------------------------------------------------------------------

    async def _needed(self, since: str, *, only_fresh: bool = False) -> None:
        """Patients, Conditions and Encounters: of everyone anew, or what changed and what became needed.

        Args:
            since: The cursor, empty where everything is read.
            only_fresh: Whether the rest was just read.
        """
        name = self._config.name
        known, since = bool(since) or only_fresh, "" if only_fresh else since
        with self._ledger.read() as connection:
            on_record = {kind: referenced(connection, name, kind) if known else set() for kind in _NEEDED}
            encounters = {id_of(key) for key in mapped_encounters(connection, name) if is_literal(key, "Encounter")}
        await self._batches.read("Encounter", "_id", encounters - on_record["Encounter"])
        if since:
            await self._changes("Patient", since, on_record["Patient"])  # first: a merged record brings another one
            await self._changes("Encounter", since, on_record["Encounter"])
        people = await self._people(on_record["Patient"])
        if since:
            # of those on record, too, who have none at the moment: they may have one again
            await self._changes("Condition", since, on_record["Condition"], people | on_record["Patient"])

    async def _people(self, on_record: set[str]) -> set[str]:
        """Conditions and records of everyone with a mapped Procedure, and of the records that they were merged into.

        Args:
            on_record: Ids of the patients that an earlier pull read.

        Returns:
            Ids of everyone whose Conditions matter.
        """
        asked: set[str] = set()
        while fresh := self._wanted() - on_record - asked:
            await self._batches.read("Condition", "patient", [f"Patient/{patient}" for patient in fresh])
            # after their Conditions: a patient on record is one whose Conditions were read
            await self._batches.read("Patient", "_id", fresh)
            asked |= fresh
        return self._wanted()

    def _wanted(self) -> set[str]:
        with self._ledger.read() as connection:
            links = patient_links(connection, self._config.name)
            patients = mapped_patients(connection, self._config.name)
        keys = {key for patient in patients for key in (patient, survivor(patient, links))}
        return {id_of(key) for key in keys if is_literal(key, "Patient")}

    async def _changes(self, resource_type: str, since: str, on_record: set[str], people: Collection[str] = ()) -> None:
        """Later versions of what is on record, and what is new of ``people``."""
        subjects = {f"Patient/{patient}" for patient in people}
        keep: Keep = _matters(on_record, subjects)
        try:
            await self._sliced.read(resource_type, self._since(since), self._changed(since), keep)
        except TransportError as exc:
            if exc.status != HTTPStatus.BAD_REQUEST:
                raise
            self.outcome.note(
                f"the server refuses to search {resource_type} by _lastUpdated; all needed were read again"
            )
            if resource_type == "Condition":
                await self._batches.read("Condition", "patient", subjects)
            else:
                await self._batches.read(resource_type, "_id", on_record)

    def _changed(self, since: str) -> _Changed:
        return _Changed(self._earlier(since), self._now())

    def _since(self, since: str) -> Pairs:
        return (("_lastUpdated", f"ge{self._earlier(since).strftime('%Y-%m-%dT%H:%M:%SZ')}"),)

    def _earlier(self, instant: str) -> datetime:
        return datetime.fromisoformat(instant) - timedelta(minutes=self._config.overlap_minutes)


class _Changed:
    """The slices of what changed since a moment."""

    def __init__(self, since: datetime, now: datetime) -> None:
        self._since = since
        self._now = now

    def __call__(self, parts: int) -> Sequence[Slice]:
        return changed_slices(self._since, self._now, parts)


def _whatever(resource: Resource | None, resource_id: str) -> bool:  # noqa: ARG001 - it is a Keep
    return True


def _matters(on_record: Collection[str], subjects: Collection[str]) -> Keep:
    def matters(resource: Resource | None, resource_id: str) -> bool:
        return resource_id in on_record or subject_of(resource) in subjects

    return matters
