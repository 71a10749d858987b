"""Pulling patient by patient, from servers that refuse to search the Procedures of everyone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Final

from io_fhir_adapter.errors import PullError, TransportError
from io_fhir_adapter.fhir.references import id_of
from io_fhir_adapter.fhir.structs import Procedure
from io_fhir_adapter.ledger.facts import patient_links, survivor
from io_fhir_adapter.ledger.runs import cursor, move_cursor, read_state, write_state
from io_fhir_adapter.pull.batches import is_literal
from io_fhir_adapter.pull.decode import Resource
from io_fhir_adapter.pull.reading import Pairs
from io_fhir_adapter.pull.roster import read_roster
from io_fhir_adapter.pull.search import SearchPull
from io_fhir_adapter.pull.slices import days_of

__all__ = ["PatientPull"]

_STARTED: Final = "roster-started"
_DONE: Final = "roster-done"
_SHOWN: Final = 12  # characters of a digest that tell two apart
_REFUSED: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN})


class PatientPull(SearchPull):
    """A pull that names its patients: those of a roster, some at a time.

    A pull that was cut off goes on after the patients that it had done, and reads those who joined meanwhile. What a
    patient's Procedures were and are no longer is removed by a complete reading of that patient.
    """

    strategy = "patient"

    async def _procedures(self, since: str) -> str:
        name = self._config.name
        if self._config.patients is None:
            do = "add patients to the source: from a group, a list, encounters or a csv"
            raise PullError("strategy patient needs a roster", where=f"source {name}", do=do, number=21)
        roster = await read_roster(self._config.patients, self._client, self._reader, self.outcome)
        self.outcome.note(f"{len(roster):,} patients are on the roster (from {self._config.patients.origin})")
        roster = sorted({*roster, *self._survivors(roster)})
        kind = f"{'changes' if since else 'all'}:{self._asked_for()[:_SHOWN]}"
        with self._ledger.begin() as connection:
            known = set(json.loads(read_state(connection, self._roster_name()) or "[]")) if since else set()
            begun, _, rest = cursor(connection, name, _STARTED).partition(" ")
            started, _, run = rest.partition(" ")
            done = cursor(connection, name, _DONE) if begun == kind else ""
            first = set(json.loads(read_state(connection, self._first_name()) or "[]"))  # on the roster when it began
            if done and started:
                self.outcome.note("a pull that was cut off went on where it ended")
                first &= set(roster)  # who left and comes back was perhaps never read
            else:
                first = set(roster)
                started, done = self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"), ""
                run = str(self._run)
                move_cursor(connection, name, _STARTED, f"{kind} {started} {run}", self._run)
                move_cursor(connection, name, _DONE, "", self._run)
            write_state(connection, self._first_name(), json.dumps(sorted(first)))
        self._started, self._began = started, int(run or self._run)
        left = [patient for patient in roster if patient > done]
        joined = [patient for patient in roster if patient <= done and patient not in first]
        if known:
            await self._read_known([*left, *joined], known, since)
        else:
            await self._read(left, ())
            await self._read(joined, (), mark=False)
        self.read_patients = frozenset(f"Patient/{patient}" for patient in (*left, *joined))
        self._roster = roster
        return since

    def _survivors(self, patients: Iterable[str]) -> set[str]:
        """The records that these were merged into: their Procedures went with them."""
        with self._ledger.read() as connection:
            links = patient_links(connection, self._config.name)
        keys = (survivor(f"Patient/{patient}", links) for patient in patients)
        return {id_of(key) for key in keys if is_literal(key, "Patient")}

    async def _procedures_of_others(self) -> bool:
        fresh = self._survivors(self._roster).difference(self._roster)
        if fresh:
            await self._read(sorted(fresh), (), mark=False)
            self.read_patients = (self.read_patients or frozenset()) | {f"Patient/{patient}" for patient in fresh}
            self._roster = sorted(fresh.union(self._roster))
        return bool(fresh)

    async def _read_known(self, roster: Sequence[str], known: Collection[str], since: str) -> None:
        """What changed of those who were read before, and everything of the others."""
        changed = self._since(since)
        patients = self._config.patients
        days = patients.window_days if patients is not None else 0
        days += max(0, (datetime.now(UTC) - datetime.fromisoformat(since)).days)  # the last pull may be long ago
        recent: Pairs = (("date", f"ge{(datetime.now(self._tz) - timedelta(days=days)).date().isoformat()}"),)
        old = [patient for patient in roster if patient in known]
        try:
            await self._read(old, changed, mark=False)
        except TransportError as exc:
            if exc.status not in _REFUSED:
                raise
            self.outcome.note(f"the server does not say what changed; the last {days} days were read again")
            await self._read(old, recent, mark=False)
        await self._read([patient for patient in roster if patient not in known], (), mark=False)

    async def _read(self, patients: Sequence[str], more: Pairs, *, mark: bool = True) -> None:
        values = sorted(f"Patient/{patient}" for patient in patients)
        finished: set[str] = set()
        reached = 0

        def done(batch: Sequence[str]) -> None:
            nonlocal reached
            finished.update(batch)
            before = reached
            while reached < len(values) and values[reached] in finished:
                finished.discard(values[reached])
                reached += 1
            if mark and reached > before:
                with self._ledger.begin() as connection:
                    last = values[reached - 1].removeprefix("Patient/")
                    move_cursor(connection, self._config.name, _DONE, last, self._run)

        only = None if more else self._matters  # what changed may be on record, with a later date
        await self._batches.read("Procedure", "patient", values, more, only=only, done=done)

    def _matters(self, resource: Resource | None, _: str) -> bool:
        """Whether a Procedure is late enough to matter; one without a date is."""
        since = self._config.since
        if since is None or not isinstance(resource, Procedure):
            return True
        last = max(days_of(resource))
        return not last or last >= since[: len(last)]

    async def _changes(
        self,
        resource_type: str,
        since: str,  # noqa: ARG002 - all of it is read, whenever it changed
        on_record: set[str],
        people: Collection[str] = (),
    ) -> None:
        """Everything of those who matter: such servers do not search everyone's Conditions either."""
        if resource_type == "Condition":
            await self._batches.read("Condition", "patient", {f"Patient/{patient}" for patient in people})
        else:
            await self._batches.read(resource_type, "_id", on_record)

    def _reached(self) -> str:
        """The time at which the pull began: what changed later is read again."""
        return self._started

    def _ended(self) -> None:
        with self._ledger.begin() as connection:
            write_state(connection, self._roster_name(), json.dumps(self._roster))
            write_state(connection, self._first_name(), "")
            move_cursor(connection, self._config.name, _STARTED, "", self._run)
            move_cursor(connection, self._config.name, _DONE, "", self._run)

    def _roster_name(self) -> str:
        """Under what the roster of the last complete pull is remembered."""
        return f"roster {self._digest()}"

    def _first_name(self) -> str:
        """Under what the roster is remembered with which a reading began, until it has ended."""
        return f"roster begun {self._digest()}"

    def _digest(self) -> str:
        return hashlib.sha256(self._config.name.encode()).hexdigest()[:24]
