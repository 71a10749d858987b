"""A search that may be too large for one chain of pages: cut into slices, read side by side, reconciled as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from http import HTTPStatus
from math import ceil
from typing import Any, Final

from io_fhir_adapter.errors import TransportError
from io_fhir_adapter.pull.outcome import SourceOutcome
from io_fhir_adapter.pull.proof import Incomplete, Reading
from io_fhir_adapter.pull.reading import Keep, Pairs, SearchReader
from io_fhir_adapter.pull.searchset import SearchPage
from io_fhir_adapter.pull.slices import Slice

__all__ = ["SlicedSearch", "side_by_side"]

_FILLED: Final = 0.8
_WORTHWHILE: Final = 0.4
"""So full a slice is meant to be, and at least, as part of the largest that is read in one chain."""


class _NotUsed(Exception):  # noqa: N818 - a way out, not a failure
    """The server does not use the parameter that slices are cut by."""


async def side_by_side(jobs: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Runs jobs side by side; the first failure ends them all and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)
    except BaseExceptionGroup as failed:
        first: BaseException = failed
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from first.__cause__


def _may_lack(reading: Reading, total: int | None) -> bool:
    """Whether a server may have handed over less than there is, although it did not say so."""
    number = reading.handed_over
    is_short = number < total if total is not None and number <= total else reading.is_doubtful
    return is_short or reading.is_capped


class SlicedSearch:
    """Reads a whole search of one type, in one chain of pages or in slices.

    Args:
        reader: Reads single searches.
        outcome: Takes notes.
        size: The largest search that is read in one chain; 0 never cuts one.
        concurrency: How many slices are read at a time.
    """

    def __init__(self, reader: SearchReader, outcome: SourceOutcome, size: int, concurrency: int) -> None:
        self._reader = reader
        self._outcome = outcome
        self._size = size
        self._concurrency = concurrency
        self._turns = asyncio.Semaphore(concurrency)

    async def read(
        self,
        resource_type: str,
        pairs: Pairs,
        slices: Callable[[int], Sequence[Slice]],
        keep: Keep | None = None,
        *,
        undated: bool = False,
        first: SearchPage | None = None,
    ) -> None:
        """Reads all that a search finds.

        Args:
            resource_type: What is searched for.
            pairs: The uncut search.
            slices: Makes the slices that together cover it, given about how many are wanted.
            keep: What to keep of it.
            undated: Whether resources without the slices' date belong to the search too.
            first: Its first page, where it has been fetched.

        Raises:
            PullError: The server handed over less than it says there is.
            TransportError: It does not answer or refuses.
        """
        first = first or await self._reader.open(resource_type, pairs, keeps_all=keep is None)
        total = first.total
        if total is None and first.next_link and self._size:
            total = await self._reader.count(resource_type, pairs)
        short: Incomplete | None = None
        counts_pages = False
        if not self._is_large(total, first):
            try:
                reading = await self._reader.read(resource_type, pairs, keep, first=first)
            except Incomplete as exc:
                if not self._size or not first.next_link:
                    raise
                short = exc
                self._outcome.note(f"the server's pages of {resource_type} end early; it was read in slices")
            else:
                whole = reading.total
                if self._size and ((reading.is_doubtful and total is None) or reading.is_one_full_page):
                    total = whole = await self._reader.count(resource_type, pairs)
                elif whole is None:
                    whole = total
                if whole is not None and reading.handed_over > whole:
                    total = whole = None  # that was no total: some servers count a page, or stop counting
                is_none = reading.is_one_full_page or (reading.total is not None and reading.is_doubtful)
                counts_pages = whole is None and is_none
                if not self._size or not (_may_lack(reading, whole) or counts_pages):
                    self._count_whole(resource_type, keep, whole)
                    return
                self._outcome.note(f"the server hands over {reading.handed_over:,} at most; it was read in slices")
        try:
            await self._cut(
                resource_type, pairs, slices, keep, total,
                cap=short.handed_over if short else 0, undated=undated, counts_pages=counts_pages,
            )  # fmt: skip
        except Incomplete as exc:
            raise (short or exc) from exc

    def _is_large(self, total: int | None, first: SearchPage) -> bool:
        return bool(self._size and first.next_link and total is not None and total > self._size)

    async def _cut(
        self,
        resource_type: str,
        pairs: Pairs,
        slices: Callable[[int], Sequence[Slice]],
        keep: Keep | None,
        total: int | None,
        *,
        cap: int,
        undated: bool,
        counts_pages: bool,
    ) -> None:
        # where all is kept, the reader has noted all that was handed over: a second list of a million would be the same
        whole = Reading(total=total) if keep is not None else Reading(total, self._reader.seen_of(resource_type))
        parts = slices(ceil((total or self._size) / self._size))
        parameter = parts[0].parameter
        work = _Slices(
            self._reader, self._outcome, resource_type, keep, whole, self._turns, self._concurrency, self._size, cap,
            counts_pages=counts_pages,
        )  # fmt: skip
        try:
            without = [self._undated(work, replace(parts[0], low=None, high=None, undated=True))] if undated else []
            await side_by_side([*(work.read(part) for part in parts), *without])
        except _NotUsed:
            self._outcome.note(f"the server does not search {resource_type} by {parameter}; it was read in one go")
        except TransportError as exc:
            if exc.status != HTTPStatus.BAD_REQUEST:
                raise
            self._outcome.note(f"the server refuses to search {resource_type} by {parameter}; it was read in one go")
        else:
            found = whole.handed_over
            if total is not None and found < total:  # something may have been deleted meanwhile
                total = await self._reader.count(resource_type, pairs) or total
            if total is None or found >= total:
                self._count_whole(resource_type, keep, total)
                return
            self._outcome.note(
                f"{total - found:,} of {total:,} {resource_type} resources are in no slice; all were read in one go"
            )
        finally:
            self._reader.write()
        reading = await self._reader.read(resource_type, pairs, keep)
        if reading.total is None and total is not None:
            self._reader.check_whole(resource_type, reading.handed_over, total)
        if counts_pages:
            reading.total = None
        await self._reader.check_end(resource_type, pairs, reading)
        self._count_whole(resource_type, keep, reading.total if reading.total is not None else total)

    def _count_whole(self, resource_type: str, keep: Keep | None, total: int | None) -> None:
        if keep is None and total is not None:
            outcome = self._outcome.of(resource_type)
            outcome.total = (outcome.total or 0) + total

    async def _undated(self, work: _Slices, part: Slice) -> None:
        try:
            await work.read(part)
        except _NotUsed:
            self._outcome.note("the server does not search for Procedures without a date by themselves")
        except TransportError as exc:
            if exc.status != HTTPStatus.BAD_REQUEST:
                raise
            self._outcome.note("the server refuses to search for Procedures without a date by themselves")


class _Slices:
    """The slices of one search, as they are read and cut further."""

    def __init__(
        self,
        reader: SearchReader,
        outcome: SourceOutcome,
        resource_type: str,
        keep: Keep | None,
        whole: Reading,
        turns: asyncio.Semaphore,
        concurrency: int,
        size: int,
        cap: int,
        *,
        counts_pages: bool,
    ) -> None:
        self._counts_pages = counts_pages  # the server's totals are none, such as what a page holds
        self._cap = cap  # how much a search hands over at most, where one has shown it
        self._reader = reader
        self._outcome = outcome
        self._type = resource_type
        self._keep = keep
        self._whole = whole
        self._turns = turns
        self._concurrency = concurrency
        self._size = size

    async def read(self, part: Slice) -> None:
        """Reads one slice, or the parts that it has to be cut into."""
        async with self._turns:
            smaller = await self._read(part)
        if smaller:
            await side_by_side([self.read(one) for one in smaller])

    async def _read(self, part: Slice) -> Sequence[Slice]:
        first = await self._reader.open(self._type, part.pairs(), keeps_all=self._keep is None)
        self._refuse_unused(part, first)
        total = first.total
        if total is not None and total > self._size and first.next_link:
            smaller = part.split(self._parts(total))
            if smaller:
                return smaller
        try:
            reading = await self._reader.read(self._type, part.pairs(), self._keep, first=first, writes=False)
        except Incomplete as exc:
            smaller = part.split(2) if exc.handed_over and exc.handed_over >= self._cap else []
            self._cap = self._cap or exc.handed_over
            if not smaller:
                raise
            return smaller
        if self._counts_pages:
            reading.total = None
        if _may_lack(reading, reading.total):
            if smaller := part.split(2):
                return smaller
            await self._reader.check_end(
                self._type, part.pairs(), reading, " ".join(value for _, value in part.pairs())
            )
        self._outcome.of(self._type).slices += 1
        if self._keep is not None:
            self._whole.seen.merge(reading.seen)
        self._whole.nameless |= reading.nameless
        return ()

    def _parts(self, total: int) -> int:
        """In how many a slice that finds so many is cut: as many as are read at a time, or a multiple of that.

        They are somewhat smaller than need be: few dates are as usual as others, and what has to be cut again was
        asked for in vain.
        """
        needed = ceil(total / (_FILLED * self._size))
        rounds = ceil(needed / self._concurrency) * self._concurrency
        return rounds if total >= rounds * _WORTHWHILE * self._size else needed

    def _refuse_unused(self, part: Slice, first: SearchPage) -> None:
        """Ends the slicing where the server ignores what it is cut by.

        Raises:
            _NotUsed: Resources that do not belong to the slice, and as many as there are without it.
        """
        if all(map(part.admits, first.resources)):
            return
        whole = self._whole.total
        if part.undated or self._counts_pages or first.total is None or (whole is not None and first.total >= whole):
            raise _NotUsed
        if part.parameter == "date":
            self._outcome.note("the server's date of a Procedure is not the date on which it was done")
