"""Pulling from a FHIR server by Bulk Data export: everything that changed in one job, completely or not at all.

The files of the export are downloaded and proved whole before the first of them is read. The job and its manifest are
written down, so that a run that was cut off goes on with the same export and the files it has. Reading a file twice
changes nothing. The cursor is the export's own time, and moves only when everything of it is in the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.config import FhirSourceConfig, LedgerConfig
from io_fhir_adapter.errors import AdapterError, ConfigError, PullError, TransportError
from io_fhir_adapter.fhir.references import reference_key
from io_fhir_adapter.fhir.structs import Procedure
from io_fhir_adapter.ledger.bulk_jobs import mark_ingested
from io_fhir_adapter.ledger.database import Ledger, timestamp
from io_fhir_adapter.ledger.facts import mapped_encounters, mapped_patients, patient_links, referenced, survivor
from io_fhir_adapter.ledger.first_load import first_load
from io_fhir_adapter.ledger.intake import forget_quarantined
from io_fhir_adapter.ledger.runs import cursor, move_cursor
from io_fhir_adapter.pull.asked import digest_of, is_ahead, is_other, note_asked, place_of
from io_fhir_adapter.pull.bulk_background import fetch_background
from io_fhir_adapter.pull.bulk_export import BACKGROUND, CHANGES, Export, Exports
from io_fhir_adapter.pull.bulk_ingest import Downloaded, Intake, Issues, merged_patients, read_issues
from io_fhir_adapter.pull.bulk_job import Wish
from io_fhir_adapter.pull.decode import Resource
from io_fhir_adapter.pull.outcome import Progress, SourceOutcome
from io_fhir_adapter.pull.packing_aside import Aside
from io_fhir_adapter.pull.reconcile import Gone, is_due, note_reconciled, remove_gone
from io_fhir_adapter.pull.seen import Seen, marks_of
from io_fhir_adapter.pull.store import FactStore
from io_fhir_adapter.transport.client import FhirClient

__all__ = ["BulkPull", "pull_bulk"]

_RULES: Final = "bulk rules"  # a cursor beside that of Procedure
_BEHIND: Final = ("Encounter", "Condition", "Patient")  # in this order: see _background


async def pull_bulk(
    config: FhirSourceConfig,
    ledger_config: LedgerConfig,
    client: FhirClient,
    ledger: Ledger,
    ruleset: Ruleset,
    tz: tzinfo,
    run: int,
    progress: Progress,
) -> SourceOutcome:
    """Pulls one source by export, signed in as its ``bulk`` section says.

    Args:
        config: The source.
        ledger_config: Where the ledger is: downloaded files lie beside it for as long as they are needed.
        client: The source's HTTP client.
        ledger: Takes the facts.
        ruleset: Says which Procedures matter.
        tz: The facility's time zone.
        run: Number of the run.
        progress: Told what is being read.
    """
    folder = _folder(config, ledger_config)
    if folder is None:
        error = ConfigError(
            "bulk.folder is missing: downloaded files cannot lie beside a ledger that is no file",
            where=f"sources.{config.name}",
            do="name a folder on a local disk",
            number=20,
        )
        return SourceOutcome(config.name, strategy="bulk", error=error.sentence)
    rest = (ledger, ruleset, tz, run, progress, folder)
    if config.bulk.auth is None:
        return await BulkPull(config, client, client, *rest).pull()
    signed_in = config.model_copy(update={"auth": config.bulk.auth})
    async with FhirClient(signed_in, f"sources.{config.name}.bulk") as bulk_client:
        return await BulkPull(config, client, bulk_client, *rest).pull()


def _folder(config: FhirSourceConfig, ledger: LedgerConfig) -> Path | None:
    if config.bulk.folder is not None:
        return config.bulk.folder / config.name
    if ledger.url is not None:
        return None
    path = ledger.path or Path("ledger.sqlite")
    return path.with_name(f"{path.name}-bulk-{config.name}")


class BulkPull:
    """One pull of one FHIR server by export.

    Args:
        config: The source.
        client: Its HTTP client, for searches.
        bulk_client: The client for the export, which may sign in otherwise; the same one where it does not.
        ledger: Takes the facts.
        ruleset: Says which Procedures matter.
        tz: The facility's time zone.
        run: Number of the run.
        progress: Told what is being read.
        folder: Where downloaded files lie until they are in the ledger; this source's alone.
    """

    def __init__(
        self,
        config: FhirSourceConfig,
        client: FhirClient,
        bulk_client: FhirClient,
        ledger: Ledger,
        ruleset: Ruleset,
        tz: tzinfo,
        run: int,
        progress: Progress,
        folder: Path,
    ) -> None:
        self._config = config
        self._client = client
        self._bulk = bulk_client
        self._ledger = ledger
        self._run = run
        self._progress = progress
        self._store = FactStore(config.name, ruleset, tz, run)
        self.outcome = SourceOutcome(config.name, strategy="bulk")
        self._exports = Exports(config, bulk_client, ledger, folder, self.outcome, progress)
        self._intake = Intake(ledger, self._store, self.outcome, progress)
        self._rules = _digest(config, ruleset)
        self._asked_for = digest_of("bulk", self._rules, *place_of(config.base_url, tz))
        self._named = Seen()  # marks alone: a server that sends everything names millions
        self._behind: list[Downloaded] | None = None
        self._not_before: datetime | None = None  # up to when the ledger has everything

    async def pull(self) -> SourceOutcome:
        """Reads what changed since the last complete export, or everything where that is needed.

        The outcome tells what was read and whether it is complete; an error that ended it is in ``error``.
        """
        began = time.monotonic()
        try:
            await self._exports.clear_up()
            try:
                await self._pull()
            except AdapterError as exc:
                if not exc.transient:
                    await self._exports.give_up()
                raise
            await self._exports.clear_up()
        except AdapterError as exc:
            self.outcome.error = exc.sentence
        clients = {id(client): client for client in (self._client, self._bulk)}.values()
        self.outcome.requests = sum(client.requests for client in clients)
        self.outcome.retried = sum(client.retried for client in clients)
        self.outcome.seconds = time.monotonic() - began
        return self.outcome

    async def _pull(self) -> None:
        name, bulk = self._config.name, self._config.bulk
        with self._ledger.read() as connection:
            since = cursor(connection, name, "Procedure")
            if since and is_ahead(since, min(self._client.clock_skew_s or 0.0, 0.0)):  # it is never beyond our clock
                since = ""
                self.outcome.note("by its time the last export lies in the future; everything was exported")
            full = self._needs_full(connection, since)
            on_record = {kind: referenced(connection, name, kind) for kind in _BEHIND} if not full else {}
        self.outcome.since = "" if full else since
        filters = bulk.type_filter
        if full and not filters and self._config.since is not None:
            filters = (f"Procedure?date=ge{self._config.since}",)
        if since:
            self._not_before = datetime.fromisoformat(since) - timedelta(minutes=self._config.overlap_minutes)
        asked_since = "" if full or self._not_before is None else _instant(self._not_before)
        wish = Wish.of(bulk, bulk.types, asked_since, filters)
        with closing(Aside(self._store.packer(self._ledger))) as aside:
            export = await self._exports.make(CHANGES, wish, self._not_before, aside if full else None)
            is_first = self._take_procedures(export, aside, full=full)
        await self._background(export.output, on_record, full=full)
        self._intake.settle()
        self._refuse_errors(export, self._intake.issues)
        self._commit(export, full=full, is_first=is_first)

    # --- what to ask for ----------------------------------------------------------------------------------------

    def _needs_full(self, connection: Connection, since: str) -> bool:
        """Whether everything has to be exported: the first time, when what is asked for changed, and now and then.

        New tables may need Conditions of patients that an earlier night had no reason to keep.
        """
        name, days = self._config.name, self._config.reconcile_days
        if not since or not self._config.bulk.asks_changes:
            return True
        if cursor(connection, name, _RULES) != self._rules or is_other(connection, name, self._asked_for):
            self.outcome.note("the tables or what is asked for changed; everything was exported")
            return True
        if is_due(connection, name, days, datetime.now(UTC)):
            self.outcome.note("everything was exported, to find what was deleted without a word")
            return True
        return False

    # --- into the ledger ----------------------------------------------------------------------------------------

    def _take_procedures(self, export: Export, aside: Aside, *, full: bool) -> bool:
        """Takes what was deleted and the Procedures; says whether they are the first facts of all."""
        counts = [one.file.count for one in export.output if one.file.type == "Procedure"]
        if counts and None not in counts:
            self.outcome.of("Procedure").total = sum(count or 0 for count in counts)
        if full:
            self._refuse_nothing("Procedure", export.output)
        self._intake.delete(export.deleted, self._bulk.base_url)
        with first_load(self._ledger) as is_first, closing(aside):  # before indexes are made, which take memory, too
            self._intake.take("Procedure", export.output, look=None if full else self._note_named, aside=aside)
        if is_first:
            self._store.recount(self._ledger, "Procedure", self.outcome)
        return is_first

    def _note_named(self, resources: Sequence[Resource]) -> None:
        """Whom and what the Procedures of this export name: the ledger may lack just these."""
        procedures = [one for one in resources if isinstance(one, Procedure)]
        self._named.add(marks_of(reference_key(one.subject, "Patient") for one in procedures))
        self._named.add(marks_of(reference_key(one.encounter or one.context, "Encounter") for one in procedures))

    async def _background(self, output: Sequence[Downloaded], on_record: dict[str, set[str]], *, full: bool) -> None:
        """Encounters, Conditions and Patients of everyone with a mapped Procedure.

        Patients come last: one that is on record is one whose Conditions were read. What is on record stays up to date
        until the next full export, needed or not: it may be needed again, and is not asked for anew then.
        """
        name = self._config.name
        with self._ledger.read() as connection:
            encounters = mapped_encounters(connection, name)
            mapped = set(mapped_patients(connection, name))
            links = patient_links(connection, name)
        links |= merged_patients(output)
        people = mapped | {survivor(patient, links) for patient in mapped}
        known = {kind: {f"{kind}/{one}" for one in on_record.get(kind, ())} for kind in _BEHIND}
        wanted = {"Encounter": encounters, "Condition": people, "Patient": people}
        known["Condition"] |= known["Patient"]
        unread = {
            "Encounter": encounters.difference(self._named.lacks(encounters), known["Encounter"]),
            "Condition": people.difference(self._named.lacks(mapped), known["Patient"]),
        }
        unread["Patient"] = unread["Condition"]
        for kind in _BEHIND:
            asked = kind in self._config.bulk.types
            if asked:
                if full and kind == "Patient" and people:
                    self._refuse_nothing(kind, output)
                self._take(kind, output, wanted[kind] | known[kind])
                if full and wanted[kind] and not self._intake.seen[kind].count():
                    self.outcome.note(
                        f"the export of everything brought no {kind} for any mapped Procedure; "
                        "check what the sign-in may see if there should be one"
                    )
            missing = wanted[kind] if not asked else set() if full else unread[kind]
            if missing:
                await self._fill(kind, missing)

    def _take(self, kind: str, files: Sequence[Downloaded], wanted: set[str]) -> None:
        """Takes what is wanted by its own reference, or by that of its patient."""
        self._intake.take(kind, files, lambda name, subject: subject in wanted or f"{kind}/{name}" in wanted)

    async def _fill(self, kind: str, missing: set[str]) -> None:
        """Reads what lies before the time that was asked for: by search, or by an export of everything."""
        types = tuple(one for one in _BEHIND if one in self._config.bulk.types)
        if self._behind is None or kind not in types:
            try:
                await fetch_background(
                    self._config, self._client, self._ledger, self._store, self.outcome, self._progress, kind, missing,
                    self._intake.seen.setdefault(kind, Seen()),
                )  # fmt: skip
            except TransportError as exc:
                if exc.transient or exc.status is None:
                    raise
                if kind not in types:
                    raise PullError(
                        f"the server gives no {kind} resources, by search or by export",
                        where=self._client.base_url,
                        do=f"permit the search for {kind}, or name it under bulk.types",
                        number=29,
                    ) from exc
                self.outcome.note(
                    f"the server refuses the search for {kind}; the records of patients who are new were exported"
                )
            else:
                return
            wish = Wish.of(self._config.bulk, types, "", ())
            export = await self._exports.make(BACKGROUND, wish, self._not_before)
            self._refuse_errors(export)
            self._behind = export.output
        self._take(kind, self._behind, missing)

    def _refuse_nothing(self, kind: str, output: Sequence[Downloaded]) -> None:
        """An export of everything without Procedures or Patients says what the sign-in may see, not what there is.

        Raises:
            PullError: No file may hold one.
        """
        if not any(one.may_hold(kind) for one in output):
            raise PullError(
                f"the export of everything holds no {kind}",
                where=self._bulk.base_url,
                do="check the scopes of the sign-in, bulk.level and bulk.group",
                number=31,
            )

    def _refuse_errors(self, export: Export, issues: Issues | None = None) -> None:
        """A server that could not export something says so in error files, or between what it did export.

        Raises:
            PullError: It could not.
        """
        issues = sum(map(read_issues, export.errors), issues or Issues())
        if issues.slight:
            self.outcome.note(f"the export carries {issues.slight} warnings or remarks")
        if issues.grave:
            raise PullError(
                f"the server could not export everything: it reports {issues.grave} errors",
                where=self._bulk.base_url,
                do="what was exported is kept, and everything is asked for again; see the server's log",
                number=30,
            )

    def _commit(self, export: Export, *, full: bool, is_first: bool) -> None:
        """Moves the cursor; where everything was exported, what the server does not have any more goes.

        Never beyond the time of the kick-off by our clock: with the server's ahead, what is changed until then would
        not be asked for.
        """
        name = self._config.name
        reached = min(timestamp(export.manifest.moment), export.started)
        for outcome in self.outcome.types.values():
            outcome.complete = True
        with self._ledger.begin() as connection:
            if full:
                since = self._config.since if not self._config.bulk.type_filter else None
                remove_gone(
                    connection, Gone(name, self._intake.seen, since, is_first=is_first), self.outcome, self._run
                )
                note_reconciled(connection, name, self._run, datetime.now(UTC))
                forget_quarantined(connection, name, self._run)
                move_cursor(connection, name, _RULES, self._rules, self._run)
            if full or reached > cursor(connection, name, "Procedure"):
                move_cursor(connection, name, "Procedure", reached, self._run)
            note_asked(connection, name, self._asked_for, self._run)
            mark_ingested(connection, name)


def _instant(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _digest(config: FhirSourceConfig, ruleset: Ruleset) -> str:
    """Of everything that decides what an export must bring; 64 characters."""
    bulk = config.bulk
    return digest_of(ruleset.digest, config.since, bulk.level, bulk.group, bulk.types, bulk.type_filter)
