"""What the sandbox server holds: resources as bytes, ready to send, and the indexes that searches use.

A row keeps the JSON that leaves, never the parsed resource. A parameter is indexed when it is first searched by, since
most are not. Rows are immutable: a page of an older search still holds the rows it found, whatever happened since.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any, Self, TypedDict
from urllib.parse import quote

import msgspec

from io_fhir_adapter.sandbox.periods import COMPARISONS, FOREVER, Range, implicit_range
from io_fhir_adapter.sandbox.search import Criterion, Key, Query, date_range, keys, parameters_for, references

__all__ = ["Row", "SandboxStore", "instant"]

_typed_dict: Any = TypedDict  # made at run time, which type checkers do not follow


class Row(msgspec.Struct, frozen=True, gc=False):
    """One stored resource.

    Attributes:
        resource_type: The type it is served under.
        id: Its id, empty where a broken resource has none.
        version: Counted per id, from 1.
        updated: meta.lastUpdated in microseconds since 1970-01-01 UTC, None where there is none.
        body: Its JSON.
        head: The bytes between the base URL and the body of a Bundle entry: ``/Patient/1","resource":``.
    """

    resource_type: str
    id: str
    version: int
    updated: int | None
    body: bytes
    head: bytes


class _Table:
    """The rows of one type in a stable order, by a number that a resource keeps through its updates."""

    def __init__(self, resource_type: str, zone: tzinfo) -> None:
        self.resource_type = resource_type
        self.zone = zone
        self.rows: dict[int, Row] = {}
        self.by_id: dict[str, int] = {}
        self.gone: dict[str, int] = {}
        self.gone_at: dict[str, datetime] = {}
        self.unparseable: list[Row] = []
        self.keys: dict[str, dict[Key, list[int]]] = {}
        self.dates: dict[str, dict[int, Range]] = {}
        self._next = 0

    def add(self, row: Row, content: Any, number: int | None = None) -> int:
        """Store a row under a new number or in the place of an older one."""
        if number is None:
            number = self._next
            self._next += 1
        else:
            self.drop(number)
        self.rows[number] = row
        for name in self.keys:
            self._index_keys(name, number, content)
        for name in self.dates:
            self._index_date(name, number, content)
        return number

    def drop(self, number: int) -> None:
        """Take a row out of the indexes; its place in the order stays."""
        content = msgspec.json.decode(self.rows[number].body)
        for name, index in self.keys.items():
            for key in keys(content, parameters_for(self.resource_type)[name]):
                index[key].remove(number)
        for column in self.dates.values():
            column.pop(number, None)

    def _index_keys(self, name: str, number: int, content: Any) -> None:
        for key in keys(content, parameters_for(self.resource_type)[name]):
            self.keys[name].setdefault(key, []).append(number)

    def _index_date(self, name: str, number: int, content: Any) -> None:
        found = date_range(content, parameters_for(self.resource_type)[name], self.zone)
        if found is not None:
            self.dates[name][number] = found

    def _contents(self, name: str) -> Iterator[tuple[int, Any]]:
        """All rows with the elements that one parameter looks at; rows that are no object at all are left out."""
        elements = {path.partition(".")[0]: Any for path in parameters_for(self.resource_type)[name].paths}
        decoder = msgspec.json.Decoder(_typed_dict("Part", elements, total=False))
        for number, row in self.rows.items():
            if row.body.lstrip()[:1] == b"{":
                yield number, decoder.decode(row.body)

    def column(self, name: str) -> dict[int, Range]:
        """The ranges of a date parameter by row number."""
        if name not in self.dates:
            self.dates[name] = {}
            for number, content in self._contents(name):
                self._index_date(name, number, content)
        return self.dates[name]

    def numbers(self, criterion: Criterion) -> set[int]:
        """The rows that have any of a criterion's keys."""
        name = criterion.name
        if name == "_id":
            wanted = (self.by_id.get(code) for _, code in criterion.keys if code is not None)
            return {number for number in wanted if number is not None}
        if name not in self.keys:
            self.keys[name] = {}
            for number, content in self._contents(name):
                self._index_keys(name, number, content)
        found: set[int] = set()
        for key in criterion.keys:
            found.update(self.keys[name].get(key, ()))
        return found

    def matching(self, query: Query) -> list[int]:
        """The numbers of all rows that a query finds, in order."""
        dated: list[Criterion] = []
        chosen: set[int] | None = None
        for criterion in query.criteria:
            if parameters_for(self.resource_type)[criterion.name].kind == "date":
                dated.append(criterion)
            else:
                found = self.numbers(criterion)
                chosen = found if chosen is None else chosen & found
        numbers = list(self.rows) if chosen is None else sorted(chosen)
        for criterion in dated:
            column = self.column(criterion.name)
            if criterion.missing is not None:
                numbers = [number for number in numbers if (number not in column) is criterion.missing]
                continue
            tests = [(COMPARISONS[prefix], asked) for prefix, asked in criterion.dates]
            numbers = [
                number
                for number in numbers
                if (target := column.get(number)) is not None
                for holds, asked in tests
                if holds(target, asked)
            ]
            if len(tests) > 1:
                numbers = list(dict.fromkeys(numbers))
        return numbers

    def sort(self, numbers: list[int], name: str, *, descending: bool) -> None:
        """Sort row numbers by ``_id`` or a date parameter, stably; what has no date comes as if it were latest."""
        if name == "_id":
            numbers.sort(key=lambda number: self.rows[number].id, reverse=descending)
        else:
            column = self.column(name)
            numbers.sort(key=lambda number: column.get(number, (FOREVER, FOREVER))[0], reverse=descending)


class SandboxStore:
    """Resources by type and id, searchable, with changes that can be applied later.

    Safe to change from one thread while a server reads from another.

    Args:
        zone: The server's time zone, for dates without an offset.
        clock: The time, replaceable in tests.
    """

    def __init__(self, *, zone: tzinfo = UTC, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.zone = zone
        self._clock = clock
        self._lock = threading.RLock()
        self._tables: dict[str, _Table] = {}
        self._later: tuple[Mapping[str, Any], ...] = ()
        self._latest = 0

    @classmethod
    def from_resources(
        cls,
        resources: Iterable[Mapping[str, Any]],
        broken: Iterable[tuple[str, str]] = (),
        later: Iterable[Mapping[str, Any]] = (),
        *,
        zone: tzinfo = UTC,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> Self:
        """A store of ``resources``.

        Args:
            resources: Sound resources, in the order that searches list them.
            broken: Resource type and raw text of what is served as it stands, whatever is wrong with it.
            later: Resources that ``apply_later`` adds or replaces.
            zone: The server's time zone.
            clock: The time, replaceable in tests.
        """
        store = cls(zone=zone, clock=clock)
        for resource in resources:
            store.put(resource)
        for resource_type, text in broken:
            store.put_broken(resource_type, text)
        store._later = tuple(later)
        return store

    def _table(self, resource_type: str) -> _Table:
        return self._tables.setdefault(resource_type, _Table(resource_type, self.zone))

    @property
    def types(self) -> list[str]:
        """The resource types held, sorted."""
        with self._lock:
            return sorted(self._tables)

    def now(self) -> datetime:
        """The server's time: the clock, or the newest resource where that is ahead of it."""
        with self._lock:
            return max(self._clock(), datetime.fromtimestamp(self._latest / 1_000_000, UTC))

    def put(self, resource: Mapping[str, Any]) -> None:
        """Add a resource, or replace the one of the same type and id.

        A missing meta.lastUpdated becomes the server's time.
        """
        with self._lock:
            if not isinstance(resource.get("meta", {}).get("lastUpdated"), str):
                resource = _stamped(resource, instant(self.now()))
            table = self._table(str(resource["resourceType"]))
            resource_id = str(resource["id"])
            number = table.by_id.get(resource_id)
            version = 1 + (table.gone.pop(resource_id, 0) if number is None else table.rows[number].version)
            row = self._row(table.resource_type, resource_id, version, resource, msgspec.json.encode(resource))
            table.by_id[resource_id] = table.add(row, resource, number)
            self._latest = max(self._latest, row.updated or 0)

    def put_broken(self, resource_type: str, text: str) -> None:
        """Add raw text as a resource of a type; it is served as it stands and found by what can be read of it.

        It never takes the place of a sound resource with the same id. Text that is no JSON at all is kept apart
        and served only where a search asks for it.
        """
        raw = text.encode("utf-8", "surrogatepass")
        with self._lock:
            table = self._table(resource_type)
            try:
                content = msgspec.json.decode(raw)
            except (msgspec.DecodeError, UnicodeDecodeError):
                table.unparseable.append(self._row(resource_type, "", 1, None, raw))
                return
            found = content.get("id") if isinstance(content, dict) else None
            resource_id = found if isinstance(found, str) else ""
            number = table.add(self._row(resource_type, resource_id, 1, content, raw), content)
            if resource_id:
                table.by_id.setdefault(resource_id, number)

    def _row(self, resource_type: str, resource_id: str, version: int, content: Any, body: bytes) -> Row:
        head = f'/{resource_type}/{quote(resource_id, safe="")}","resource":' if resource_id else '"resource":'
        updated = date_range(content, parameters_for(resource_type)["_lastUpdated"], self.zone)
        return Row(resource_type, resource_id, version, updated[0] if updated else None, body, head.encode())

    def delete(self, resource_type: str, resource_id: str) -> None:
        """Remove a resource; reading it is 410 from now on.

        Raises:
            KeyError: There is none.
        """
        with self._lock:
            table = self._table(resource_type)
            number = table.by_id.pop(resource_id)
            table.drop(number)
            table.gone[resource_id] = table.rows.pop(number).version
            table.gone_at[resource_id] = self.now()

    def deleted_since(self, since: datetime) -> list[tuple[str, str]]:
        """Type and id of what was deleted at that moment or later and is not there again."""
        with self._lock:
            return [
                (resource_type, resource_id)
                for resource_type, table in sorted(self._tables.items())
                for resource_id in table.gone
                if table.gone_at[resource_id] >= since
            ]

    def apply_later(self) -> int:
        """Store the later resources, once; says how many.

        As on a real server a change is stamped with the server's time of that moment, unless the resource claims
        to be newer still.
        """
        with self._lock:
            changes, self._later = self._later, ()
            for resource in changes:
                now = self.now()
                claimed = resource.get("meta", {}).get("lastUpdated")
                newer = isinstance(claimed, str) and implicit_range(claimed, self.zone)[0] > _microseconds(now)
                self.put(resource if newer else _stamped(resource, instant(now)))
            return len(changes)

    def read(self, resource_type: str, resource_id: str) -> Row | None:
        """The current row of a resource."""
        with self._lock:
            table = self._tables.get(resource_type)
            number = table.by_id.get(resource_id) if table else None
            return table.rows[number] if table and number is not None else None

    def is_gone(self, resource_type: str, resource_id: str) -> bool:
        """Whether the resource existed and was deleted."""
        with self._lock:
            table = self._tables.get(resource_type)
            return table is not None and resource_id in table.gone

    def select(self, query: Query, *, unparseable: bool = False) -> list[Row]:
        """All rows that match, in the order asked for (else the stable order of the store).

        Args:
            query: What to look for.
            unparseable: Whether broken texts that are no JSON follow at the end, whatever was asked.
        """
        with self._lock:
            table = self._tables.get(query.resource_type)
            if table is None:
                return []
            numbers = table.matching(query)
            for name, descending in reversed(query.sort):
                table.sort(numbers, name, descending=descending)
            rows = [table.rows[number] for number in numbers]
            return rows + table.unparseable if unparseable else rows

    def included(self, query: Query, rows: Sequence[Row], base: str) -> list[Row]:
        """The resources that a page's ``_include``s lead to, each once; what is in the page or not held is left out."""
        found: dict[tuple[str, str], Row] = {}
        page = {(row.resource_type, row.id) for row in rows}
        for row in rows:
            content = msgspec.json.decode(row.body)
            for include in query.includes:
                for text in references(content, include.parameter):
                    resource_type, _, resource_id = text.removeprefix(f"{base}/").partition("/")
                    if (resource_type, resource_id) in page or include.target not in ("", resource_type):
                        continue
                    target = self.read(resource_type, resource_id)
                    if target is not None:
                        found.setdefault((resource_type, resource_id), target)
        return list(found.values())


def _microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)


def instant(moment: datetime) -> str:
    """A FHIR instant in UTC with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _stamped(resource: Mapping[str, Any], updated: str) -> dict[str, Any]:
    return {**resource, "meta": {**resource.get("meta", {}), "lastUpdated": updated}}
