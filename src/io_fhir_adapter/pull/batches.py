"""Searches for a few named things: the records of these patients, or the resources with these ids, some at a time.

What a server may do to a list of values, each of them noticed: refuse the long URL, refuse POST, ignore the parameter
and send everything, or take the list for one value and find nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from io_fhir_adapter.config import FhirSourceConfig
from io_fhir_adapter.errors import TransportError
from io_fhir_adapter.fhir.references import reference_key
from io_fhir_adapter.fhir.structs import Patient
from io_fhir_adapter.pull.decode import Resource
from io_fhir_adapter.pull.outcome import SourceOutcome
from io_fhir_adapter.pull.reading import Keep, Pairs, SearchReader
from io_fhir_adapter.pull.searchset import SearchPage
from io_fhir_adapter.pull.sliced import side_by_side

__all__ = ["Batches", "is_literal", "subject_of"]

_TOO_LONG: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.REQUEST_URI_TOO_LONG, 431})
"""What a long URL is answered with."""
_DOUBTS: Final = 3
"""So many lists that find nothing, as their values do one by one, are doubt enough."""
_SAMPLE: Final = 10
Done = Callable[[Sequence[str]], None]


def subject_of(resource: Resource | None) -> str:
    """The patient that a resource is about, empty where it does not say."""
    if resource is None:
        return ""
    if isinstance(resource, Patient):
        return f"Patient/{resource.id}"
    return reference_key(resource.subject, "Patient")


def is_literal(key: str, resource_type: str) -> bool:
    """Whether a reference names a resource by its id; a logical one names it by an identifier."""
    return key.startswith(f"{resource_type}/") and "?" not in key


@dataclass(frozen=True, slots=True)
class _Search:
    resource_type: str
    parameter: str
    more: Pairs
    only: Keep | None
    done: Done | None

    def wants(self, resource: Resource | None, resource_id: str) -> bool:
        return self.only is None or self.only(resource, resource_id)


class Batches:
    """Searches of one source by lists of values.

    Args:
        config: The source.
        reader: Reads single searches.
        outcome: Takes notes.
    """

    def __init__(self, config: FhirSourceConfig, reader: SearchReader, outcome: SourceOutcome) -> None:
        self._config = config
        self._reader = reader
        self._outcome = outcome
        self._ignored: set[tuple[str, str]] = set()
        self._lists: dict[tuple[str, str], bool] = {}
        self._doubts: Counter[tuple[str, str]] = Counter()
        self._whole = asyncio.Lock()
        self._doubting = asyncio.Lock()  # one doubt at a time: it may answer the next

    async def read(
        self,
        resource_type: str,
        parameter: str,
        values: Collection[str],
        more: Pairs = (),
        *,
        only: Keep | None = None,
        done: Done | None = None,
    ) -> None:
        """Reads all that carries one of the values, some values at a time and some batches side by side.

        Args:
            resource_type: What is searched for.
            parameter: ``_id`` or ``patient``; patients are named ``Patient/1``.
            values: The values.
            more: Further parameters of each search.
            only: What to keep of it, where not everything.
            done: Told the values of each batch that was read to its end.

        Raises:
            PullError: The server handed over less than it says there is.
            TransportError: It does not answer or refuses.
        """
        self._outcome.of(resource_type)
        wanted = frozenset(values)
        ordered = sorted(wanted)
        size = self._config.batch_size if self._lists.get((resource_type, parameter), True) else 1
        batches = iter([ordered[start : start + size] for start in range(0, len(ordered), size)])

        async def work() -> None:
            for batch in batches:
                if (resource_type, parameter) not in self._ignored:
                    await self._batch(_Search(resource_type, parameter, more, only, done), batch)

        try:
            await side_by_side([work() for _ in range(self._config.concurrency)])
        finally:
            self._reader.write()
        if (resource_type, parameter) in self._ignored and wanted:
            await self._everything(_Search(resource_type, parameter, more, only, done), wanted)
            if done is not None:
                done(ordered)

    async def _batch(self, search: _Search, batch: Sequence[str]) -> None:
        try:
            read = await self._search(search, batch)
        except TransportError as exc:
            if exc.status not in _TOO_LONG or len(batch) == 1:
                raise
            middle = len(batch) // 2
            for part in (batch[:middle], batch[middle:]):
                await self._batch(search, part)
            return
        if read and search.done is not None:
            search.done(batch)

    async def _search(self, search: _Search, batch: Sequence[str]) -> bool:
        """One search by a list; says whether it was read, which it is not where the server ignores the parameter."""
        resource_type, parameter = search.resource_type, search.parameter
        asked = frozenset(batch)
        found: set[str] = set()

        def keep(resource: Resource | None, resource_id: str) -> bool:
            name = _value_of(resource, resource_id, parameter)
            kept = _is_asked(name, resource, parameter, asked)
            if kept:
                found.add(name)
            return kept and search.wants(resource, resource_id)

        pairs = ((parameter, ",".join(_escaped(batch))), *search.more)
        first = await self._reader.open(resource_type, pairs)
        if self._ignores(first, parameter, asked) and self._reader.posts(resource_type, pairs):
            self._reader.refuse_posts()  # it may be the form that is not read
            first = await self._reader.open(resource_type, pairs)
        if self._ignores(first, parameter, asked):
            self._ignored.add((resource_type, parameter))
            return False
        await self._reader.read(resource_type, pairs, keep, first=first, writes=search.done is not None)
        await self._check_lists(search, batch, found)
        return True

    def _ignores(self, first: SearchPage, parameter: str, asked: Collection[str]) -> bool:
        """Whether what comes was not asked for."""
        names = [_value_of(item.resource, resource_id, parameter) for item, resource_id in first.items]
        return any(name and name not in asked for name in names)

    async def _check_lists(self, search: _Search, batch: Sequence[str], found: Collection[str]) -> None:
        """Whether the server reads a list as a list: where it hardly found anything, each value is asked for once."""
        key = search.resource_type, search.parameter
        if len(found) > 1:
            self._lists.setdefault(key, True)
        async with self._doubting:
            if len(batch) > 1 and self._lists.get(key) is not True:
                await self._doubt(search, batch, found)

    async def _doubt(self, search: _Search, batch: Sequence[str], found: Collection[str]) -> None:
        key = search.resource_type, search.parameter
        if self._lists.get(key) is False:
            await self._singly(search, batch)
            return
        # where something was found, the rest of this batch is read so; of one without any, a few will tell
        singly = await self._singly(search, batch if found else batch[:_SAMPLE])
        if singly and not found and len(batch) > _SAMPLE:
            singly |= await self._singly(search, batch[_SAMPLE:])
        if singly - set(found):
            self._outcome.note(f"the server does not take lists of {search.parameter}; each is asked for by itself")
            self._lists[key] = False
        else:
            self._doubts[key] += 1
            if singly or self._doubts[key] >= _DOUBTS:
                self._lists.setdefault(key, True)

    async def _singly(self, search: _Search, batch: Sequence[str]) -> set[str]:
        resource_type, parameter = search.resource_type, search.parameter
        found: set[str] = set()
        for value in batch:
            hits: list[str] = []

            def keep(resource: Resource | None, resource_id: str, value: str = value, hits: list[str] = hits) -> bool:
                name = _value_of(resource, resource_id, parameter)
                kept = _is_asked(name, resource, parameter, (value,))
                if kept:
                    hits.append(value)
                return kept and search.wants(resource, resource_id)

            await self._reader.read(resource_type, ((parameter, _escaped((value,))[0]), *search.more), keep)
            found.update(hits)
        return found

    async def _everything(self, search: _Search, wanted: frozenset[str]) -> None:
        """All resources of a type, once, where the server cannot be asked for some."""
        resource_type, parameter = search.resource_type, search.parameter
        self._outcome.note(f"the server ignores {parameter} of {resource_type}; all of them were read")

        def keep(resource: Resource | None, resource_id: str) -> bool:
            name = _value_of(resource, resource_id, parameter)
            return _is_asked(name, resource, parameter, wanted) and search.wants(resource, resource_id)

        async with self._whole:
            await self._reader.read(resource_type, search.more, keep)


def _value_of(resource: Resource | None, resource_id: str, parameter: str) -> str:
    return resource_id if parameter == "_id" else subject_of(resource)


def _is_asked(name: str, resource: Resource | None, parameter: str, asked: Collection[str]) -> bool:
    """Whether it was asked for; whose it is cannot be read of a broken resource, which is set aside all the same."""
    return name in asked or (resource is None and parameter != "_id")


def _escaped(values: Iterable[str]) -> list[str]:
    return [value.replace("\\", "\\\\").replace(",", "\\,").replace("|", "\\|").replace("$", "\\$") for value in values]
