"""Searches for a few named things: the records of these patients, or the resources with these ids, some at a time.

What a server may do to a list of values, each of them noticed: refuse the long URL, refuse POST, ignore the parameter
and send everything, take the list for one value and find nothing, or read only its beginning.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from io_fhir_adapter.config import FhirSourceConfig
from io_fhir_adapter.errors import PullError, TransportError
from io_fhir_adapter.fhir.references import reference_key
from io_fhir_adapter.fhir.structs import Patient
from io_fhir_adapter.pull.decode import Resource
from io_fhir_adapter.pull.list_size import ListSize, unanswered
from io_fhir_adapter.pull.outcome import SourceOutcome
from io_fhir_adapter.pull.proof import Reading
from io_fhir_adapter.pull.reading import Keep, Pairs, SearchReader
from io_fhir_adapter.pull.searchset import SearchPage
from io_fhir_adapter.pull.sliced import side_by_side

__all__ = ["Batches", "escaped", "is_literal", "subject_of"]

_TOO_LONG: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.REQUEST_URI_TOO_LONG, 431})
"""What a long URL is answered with."""
_DOUBTS: Final = 3
"""So many lists that find nothing, as their values do one by one, are doubt enough."""
_SAMPLE: Final = 10
_SPECIAL: Final = re.compile(r"[\\,|$]")
"""What a value of a search has a backslash before."""
_NOBODY: Final = "Patient/00000000-0000-4000-8000-00000000{:04}"
_NOBODIES: Final = 30
_WITNESSED: Final = 10  # in shorter lists one value more costs too much, until one was found cut
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


@dataclass(slots=True)
class _Search:
    """What is searched for.

    Attributes:
        resource_type: The type.
        parameter: The parameter that takes the values.
        more: Further parameters.
        only: What to keep, where not everything.
        done: Told the values of each list that was read to its end.
        witness: A value for which something was found, empty for none yet. It is named last in every list that
            follows: where nothing is found for it, the list was not read to its end.
        is_cut: Whether that has happened.
        silent: Lists without a witness for which nothing was found.
    """

    resource_type: str
    parameter: str
    more: Pairs
    only: Keep | None
    done: Done | None
    witness: str = ""
    is_cut: bool = False
    silent: list[Sequence[str]] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, str]:
        return self.resource_type, self.parameter

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
        self._sizes: dict[tuple[str, str], ListSize] = {}
        self._bare: set[tuple[str, str]] = set()  # where patients are named by their ids alone
        self._moved: set[tuple[str, str]] = set()  # where what comes for a patient may name another record of theirs
        self._proved: set[tuple[str, str]] = set()  # where something was found for values as they are written
        self._tried: Counter[tuple[str, str]] = Counter()
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
        search = _Search(resource_type, parameter, more, only, done)
        batches = self._batches(search, ordered)

        async def work() -> None:
            for batch in batches:
                if search.key not in self._ignored:
                    await self._batch(search, batch)

        try:
            await side_by_side([work() for _ in range(self._config.concurrency)])
            if search.is_cut:  # then those may have been so, too
                batches = iter(tuple(search.silent))
                await side_by_side([work() for _ in range(self._config.concurrency)])
        finally:
            self._reader.write()
        if search.key in self._ignored and wanted:
            await self._everything(search, wanted)
            if done is not None:
                done(ordered)

    def _batches(self, search: _Search, values: Sequence[str]) -> Iterator[Sequence[str]]:
        """Lists that may become longer while the first of them are read."""
        start = 0
        while start < len(values):
            size = self._size(search)
            length = size.now if search.done is None else size.usual  # who goes on after a crash does so in small steps
            length = self._room(search, length) if self._lists.get(search.key, True) else 1
            yield values[start : start + length]
            start += length

    def _room(self, search: _Search, length: int) -> int:
        """How many values a list of that length has place for beside a witness."""
        return length - 1 if self._witness(search, length) else length

    def _witness(self, search: _Search, length: int) -> str:
        """The value that shows whether a list of so many others was read to its end; empty where it has none."""
        worthwhile = search.is_cut or self._size(search).usual >= _WITNESSED
        return search.witness if length > 1 and worthwhile else ""

    def _size(self, search: _Search) -> ListSize:
        return self._sizes.setdefault(search.key, ListSize.of(self._config))

    async def _batch(self, search: _Search, batch: Sequence[str]) -> None:
        """Reads one list, or the parts that it has to be cut into, to its end."""
        try:
            left = await self._search(search, batch)
        except (PullError, TransportError) as exc:
            for part in self._shorter(search, batch, exc):
                await self._batch(search, part)
            return
        for part in [left] if len(left) < len(batch) else _halves(batch):
            if part:
                await self._batch(search, part)
        if search.done is not None and search.key not in self._ignored:
            search.done(batch[: len(batch) - len(left)])

    def _shorter(
        self, search: _Search, batch: Sequence[str], failure: PullError | TransportError
    ) -> list[Sequence[str]]:
        """The parts in which a list is asked for again that failed.

        Raises:
            PullError, TransportError: The failure, where it is not the length that failed.
        """
        size = self._size(search)
        if len(batch) > size.usual:
            size.failed(size.usual)
            self._outcome.note(f"the server does not answer long lists of {search.parameter}; it gets shorter ones")
            length = self._room(search, size.usual)
            return [batch[start : start + length] for start in range(0, len(batch), length)]
        if isinstance(failure, TransportError) and failure.status in _TOO_LONG and len(batch) > 1:
            return _halves(batch)
        raise failure

    async def _search(self, search: _Search, batch: Sequence[str]) -> Sequence[str]:
        """One search by a list.

        Returns:
            The values at its end that the server may not have looked at; none where it ignores the parameter.
        """
        resource_type, parameter = search.resource_type, search.parameter
        witness = self._witness(search, len(batch))
        values = [*batch, witness] if witness else batch
        asked = frozenset(values)
        found: set[str] = set()

        def keep(resource: Resource | None, resource_id: str) -> bool:
            name = _value_of(resource, resource_id, parameter)
            kept = search.key in self._moved or _is_asked(name, resource, parameter, asked)
            if kept:
                found.add(name)
            return kept and search.wants(resource, resource_id)

        is_bare = search.key in self._bare
        pairs = ((parameter, ",".join(self._written(search, values))), *search.more)
        first = await self._reader.open(resource_type, pairs)
        if self._ignores(first, parameter, asked) and self._reader.posts(resource_type, pairs):
            self._reader.refuse_posts()  # it may be the form that is not read
            first = await self._reader.open(resource_type, pairs)
        if self._ignores(first, parameter, asked) and not await self._is_moved(search, len(values)):
            self._ignored.add(search.key)
            return ()
        reading = await self._reader.read(resource_type, pairs, keep, first=first, writes=search.done is not None)
        if len(values) == 1:
            await self._check_end(search, pairs, reading)
        await self._check_lists(search, batch, found)
        if is_bare is not (search.key in self._bare):
            return await self._search(search, batch)
        return await self._left(search, batch, found, witness, reading)

    async def _left(
        self, search: _Search, batch: Sequence[str], found: Collection[str], witness: str, reading: Reading
    ) -> Sequence[str]:
        """The values that a list has to be asked for again; takes notice of how long lists may be."""
        if len(batch) == 1 or self._lists.get(search.key) is not True:
            return ()  # each value was asked for by itself
        size = self._size(search)
        if reading.is_doubtful and (search.parameter != "_id" or len(found) < len(batch) + bool(witness)):
            return batch  # in halves: of fewer it may hand over all
        if witness and witness in found:
            size.answered(len(batch) + 1, reading)
            return ()
        left = unanswered(batch, found)
        if not witness and len(left) == len(batch):
            search.silent.append(batch)
            return ()
        if not witness and not left:
            size.answered(len(batch), reading)
        if witness and await self._singly(search, (witness,)):
            search.is_cut = True
            size.failed(len(batch) - len(left) or len(batch) // 2)
            self._outcome.note(f"the server reads only the beginning of long lists of {search.parameter}")
        else:  # there is none, or the server has deleted what it stands for
            search.witness = next((value for value in reversed(batch) if value in found), "")
        return left

    def _ignores(self, first: SearchPage, parameter: str, asked: Collection[str]) -> bool:
        """Whether what comes was not asked for."""
        names = [_value_of(item.resource, resource_id, parameter) for item, resource_id in first.items]
        return any(name and name not in asked for name in names)

    async def _is_moved(self, search: _Search, number: int) -> bool:
        """Whether a server that answers with resources of others does look at patients: it finds nothing of nobody.

        Such a server knows which records were merged, and answers for a former one with what the other has now. It is
        asked in the same way, for as many as have place in a short search.
        """
        if search.parameter != "patient" or search.key in self._moved:
            return search.key in self._moved
        nobodys = ",".join(self._written(search, map(_NOBODY.format, range(min(number, _NOBODIES)))))
        try:
            page = await self._reader.open(search.resource_type, ((search.parameter, nobodys), *search.more))
        except TransportError as exc:
            if exc.transient or exc.status is None:
                raise
            if exc.status in _TOO_LONG:
                return False
        else:
            if page.items:
                return False
        self._moved.add(search.key)
        self._outcome.note("the server answers for some patients with another record of theirs")
        return True

    async def _check_lists(self, search: _Search, batch: Sequence[str], found: Collection[str]) -> None:
        """Whether the server reads a list as a list: where it hardly found anything, each value is asked for once."""
        key = search.key
        if found:
            self._proved.add(key)
        if len(found) > 1:
            self._lists.setdefault(key, True)
        async with self._doubting:
            if len(batch) > 1 and self._lists.get(key) is not True:
                await self._doubt(search, batch, found)
            elif not found:
                await self._are_bare(search, batch[:_SAMPLE])

    async def _doubt(self, search: _Search, batch: Sequence[str], found: Collection[str]) -> None:
        key = search.key
        if self._lists.get(key) is False:
            await self._singly(search, batch)
            return
        # where something was found, the rest of this batch is read so; of one without any, a few will tell
        sample = batch if found else batch[:_SAMPLE]
        singly = await self._singly(search, sample)
        if not singly and not found and await self._are_bare(search, sample):
            return
        if singly and not found and len(batch) > _SAMPLE:
            singly |= await self._singly(search, batch[_SAMPLE:])
        if singly - set(found):
            self._outcome.note(f"the server does not take lists of {search.parameter}; each is asked for by itself")
            self._lists[key] = False
        else:
            self._doubts[key] += 1
            if singly or self._doubts[key] >= _DOUBTS:
                self._lists.setdefault(key, True)

    async def _are_bare(self, search: _Search, sample: Sequence[str]) -> bool:
        """Whether the server finds patients by their ids alone, who are named with their type at first."""
        if (
            search.parameter != "patient"
            or search.key in self._proved | self._bare
            or self._tried[search.key] == _DOUBTS
        ):
            return False
        self._tried[search.key] += 1
        self._bare.add(search.key)
        if not await self._singly(search, sample):
            self._bare.discard(search.key)
            return False
        self._outcome.note("the server finds patients by their ids alone; they are named so")
        return True

    def _written(self, search: _Search, values: Iterable[str]) -> list[str]:
        """Values as they stand in a search."""
        if search.key in self._bare:
            values = [value.removeprefix("Patient/") for value in values]
        return [escaped(value) for value in values]

    async def _singly(self, search: _Search, batch: Sequence[str]) -> set[str]:
        resource_type, parameter = search.resource_type, search.parameter
        found: set[str] = set()
        for value in batch:
            hits: list[str] = []

            def keep(resource: Resource | None, resource_id: str, value: str = value, hits: list[str] = hits) -> bool:
                name = _value_of(resource, resource_id, parameter)
                kept = search.key in self._moved or _is_asked(name, resource, parameter, (value,))
                if kept:
                    hits.append(name or value)
                return kept and search.wants(resource, resource_id)

            pairs = ((parameter, self._written(search, (value,))[0]), *search.more)
            first = await self._reader.open(resource_type, pairs)
            if self._ignores(first, parameter, (value,)):
                await self._is_moved(search, 1)
            await self._check_end(search, pairs, await self._reader.read(resource_type, pairs, keep, first=first))
            found.update(hits)
        return found

    async def _check_end(self, search: _Search, pairs: Pairs, reading: Reading) -> None:
        """Looks whether there may be more for one value; with an id there is one resource at most."""
        if search.parameter != "_id":
            await self._reader.check_end(search.resource_type, pairs, reading, f"one {search.parameter}")

    async def _everything(self, search: _Search, wanted: frozenset[str]) -> None:
        """All resources of a type, once, where the server cannot be asked for some."""
        resource_type, parameter = search.resource_type, search.parameter
        self._outcome.note(f"the server ignores {parameter} of {resource_type}; all of them were read")

        def keep(resource: Resource | None, resource_id: str) -> bool:
            name = _value_of(resource, resource_id, parameter)
            return _is_asked(name, resource, parameter, wanted) and search.wants(resource, resource_id)

        async with self._whole:
            reading = await self._reader.read(resource_type, search.more, keep)
            await self._reader.check_end(resource_type, search.more, reading)


def escaped(value: str) -> str:
    """A value as it stands among others in a search."""
    return _SPECIAL.sub(r"\\\g<0>", value)


def _halves(batch: Sequence[str]) -> list[Sequence[str]]:
    middle = len(batch) // 2
    return [batch[:middle], batch[middle:]]


def _value_of(resource: Resource | None, resource_id: str, parameter: str) -> str:
    return resource_id if parameter == "_id" else subject_of(resource)


def _is_asked(name: str, resource: Resource | None, parameter: str, asked: Collection[str]) -> bool:
    """Whether it was asked for; whose it is cannot be read of a broken resource, which is set aside all the same."""
    return name in asked or (resource is None and parameter != "_id")
