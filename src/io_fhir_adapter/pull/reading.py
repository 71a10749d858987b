"""Reading whole searches into the ledger: one search, from its first page to its last, reconciled with its total.

How a server wants to be asked is found out on the way and remembered for the rest of the pull: whether it takes
``_total``, strict handling, POST. Every such fall-back is said in the outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec

from io_fhir_adapter.config import FhirSourceConfig
from io_fhir_adapter.errors import PullError, TransportError
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.pull.chain import pages_from
from io_fhir_adapter.pull.decode import Item, Resource
from io_fhir_adapter.pull.manner import Manner
from io_fhir_adapter.pull.outcome import Progress, SourceOutcome, TypeOutcome
from io_fhir_adapter.pull.packing import Packer
from io_fhir_adapter.pull.pages import Pages
from io_fhir_adapter.pull.proof import Incomplete, Reading
from io_fhir_adapter.pull.searchset import Found, SearchPage, parse_searchset
from io_fhir_adapter.pull.seen import Seen, marks_of
from io_fhir_adapter.pull.slices import instant_of
from io_fhir_adapter.pull.store import FactStore
from io_fhir_adapter.transport.client import Answer, FhirClient

__all__ = ["Keep", "Pairs", "SearchReader"]

Pairs = tuple[tuple[str, str], ...]
Keep = Callable[[Resource | None, str], bool]
"""Says of a resource (None where it could not be decoded) and its id whether it is to be kept."""

_RESTARTS: Final = 2
_EARLIEST: Final = datetime(1900, 1, 1, tzinfo=UTC)  # of a version; before it stands what systems write for no date
_PACKED: Final = "Procedure"  # there are millions of them
_LONG_URL: Final = 2_000  # what every server takes; longer searches are posted
_AT_ONCE: Final = 4_000  # resources that are written in one transaction
_UNSEEN: Final = (
    "the server gives no totals: whether it handed over all {} resources of one day, moment or patient cannot be seen"
)
_EXPIRED: Final = frozenset({HTTPStatus.GONE, HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST})
_NOT_LIKED: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.PRECONDITION_FAILED, 422})
_NO_POST: Final = frozenset({400, 403, 404, 405, 406, 415, 501})
_FORM: Final = "application/x-www-form-urlencoded"


class SearchReader:
    """Reads searches of one source into the ledger.

    Args:
        config: The source.
        client: Its HTTP client.
        ledger: Takes the facts.
        store: Makes facts and writes them.
        outcome: Takes numbers and notes.
        progress: Told what is being read.
    """

    def __init__(
        self,
        config: FhirSourceConfig,
        client: FhirClient,
        ledger: Ledger,
        store: FactStore,
        outcome: SourceOutcome,
        progress: Progress,
    ) -> None:
        self.manner = Manner()
        self.newest: dict[str, datetime] = {}
        self.seen: dict[str, Seen] = {}
        self._takes_count = False
        self._refuses_counts = False
        self._pending: dict[str, Pages] = {}
        self._nameless: dict[str, set[str]] = {}
        self._set_aside: dict[str, set[str]] = {}
        self._config = config
        self._client = client
        self._ledger = ledger
        self._store = store
        self._outcome = outcome
        self._progress = progress

    # --- asking -------------------------------------------------------------------------------------------------

    async def open(
        self, resource_type: str, pairs: Pairs, *, count: int | None = None, keeps_all: bool = False
    ) -> SearchPage:
        """The first page of a search.

        A server that refuses is asked again with less: no strict handling, no ``_total``, at first no ``_count``.

        Args:
            resource_type: What is searched for.
            pairs: The search's parameters.
            count: How many the page is to hold; as configured where None.
            keeps_all: Whether all that it holds is written where it is read on.

        Raises:
            TransportError: It does not answer or refuses whatever is left out.
            PullError: The answer is no searchset.
        """
        manners = [self.manner]
        if self.manner.handling == "strict":
            manners.append(replace(self.manner, handling="lenient"))
        if self.manner.total:
            manners.append(replace(manners[-1], total=False))
        if self.manner.count and not self._takes_count:
            manners += [replace(self.manner, count=False), replace(manners[-1], count=False)]
        for manner in manners:
            try:
                page = await self._ask(
                    resource_type, pairs, manner, count, sketched=keeps_all and resource_type == _PACKED
                )
            except TransportError as exc:
                if exc.status not in _NOT_LIKED or manner is manners[-1]:
                    exc.status = HTTPStatus.BAD_REQUEST if exc.status in _NOT_LIKED else exc.status  # all mean this
                    raise
            else:
                self._takes_count |= manner.count
                if manner is not manners[0]:
                    self._remember(manner)
                self._note_unused(page, pairs)
                return page
        raise AssertionError("unreachable")  # pragma: no cover

    def _remember(self, manner: Manner) -> None:
        if self.manner.count and not manner.count:
            self._outcome.note(f"the server refuses _count={self._config.page_size} and chooses; lower page_size")
        if self.manner.total and not manner.total:
            self._outcome.note("the server refuses _total; it is not asked for")
        elif self.manner.handling != manner.handling:
            self._outcome.note("the server refuses strict handling of searches; it is asked leniently")
        self.manner = replace(self.manner, handling=manner.handling, total=manner.total, count=manner.count)

    def _note_unused(self, page: SearchPage, pairs: Pairs) -> None:
        """The self link says what a server searched for; what it lacks was not used."""
        try:
            used = {name for name, _ in parse_qsl(urlsplit(page.self_link).query)}
        except ValueError:  # it is no URL
            return
        for name, _ in pairs:
            if used and "_getpages" not in used and name not in used:
                self._outcome.note(f"by its self link the server does not search by {name}")

    def _packer(self, resource_type: str, keeps_all: bool) -> Packer | None:
        return self._store.packer(self._ledger) if keeps_all and resource_type == _PACKED else None

    async def _ask(
        self, resource_type: str, pairs: Pairs, manner: Manner, count: int | None, *, sketched: bool
    ) -> SearchPage:
        asked = [*((("_count", str(count or self._config.page_size)),) if manner.count else ()), *pairs]
        if manner.total:
            asked.append(("_total", "accurate"))
        query = urlencode(asked, safe="/,:|")
        base = f"{self._client.base_url}/{resource_type}"
        headers = {"Prefer": f"handling={manner.handling}"}

        def parse(answer: Answer) -> SearchPage:
            return parse_searchset(answer, f"{base} page 1", resource_type, sketched=sketched)

        posted = self.posts(resource_type, pairs)
        if posted:
            form = {**headers, "Content-Type": _FORM}
            try:
                return await self._client.exchange("POST", f"{base}/_search", parse, body=query.encode(), headers=form)
            except TransportError as exc:
                if exc.status not in _NO_POST:
                    raise
        try:
            page = await self._client.exchange("GET", f"{base}?{query}", parse, headers=headers)
        except TransportError as exc:
            if posted and exc.status in {HTTPStatus.NOT_FOUND, HTTPStatus.REQUEST_URI_TOO_LONG}:
                self.refuse_posts()  # neither way: smaller ones have to do
            raise
        if posted:
            self.refuse_posts()
        return page

    def posts(self, resource_type: str, pairs: Pairs) -> bool:
        """Whether a search is so long that it is posted."""
        length = (
            len(self._client.base_url) + len(resource_type) + sum(len(name) + len(value) + 2 for name, value in pairs)
        )
        return self.manner.posts and length > _LONG_URL

    def refuse_posts(self) -> None:
        """From now on long searches are not posted, but sent in smaller parts where they are too long."""
        if self.manner.posts:
            self._outcome.note("the server does not take searches by POST; they are sent in smaller parts")
            self.manner = replace(self.manner, posts=False)

    # --- reading ------------------------------------------------------------------------------------------------

    async def read(
        self,
        resource_type: str,
        pairs: Pairs,
        keep: Keep | None = None,
        *,
        first: SearchPage | None = None,
        writes: bool = True,
    ) -> Reading:
        """One whole search, written as it comes; started again where the server forgot it half-way (410, or 404).

        Args:
            resource_type: What is searched for.
            pairs: The search's parameters.
            keep: What to keep of it; everything where None.
            first: Its first page, where it has been fetched.
            writes: Whether all of it is in the ledger at the end; otherwise the rest is for :meth:`write`, which more
                searches may share.

        Raises:
            Incomplete: The server handed over less than it says there is.
            PullError: A page cannot be read, or the links never end.
            TransportError: The server does not answer or refuses.
        """
        left = _RESTARTS
        while True:
            reading = Reading()
            try:
                await self._follow(
                    resource_type, first or await self.open(resource_type, pairs, keeps_all=keep is None), keep, reading
                )
            except TransportError as exc:
                if not (reading.pages and exc.status in _EXPIRED and left):
                    raise
                left -= 1
                first = None
                self._outcome.note("the server forgot a search half-way; it was started again")
            else:
                is_short = reading.total is not None and reading.handed_over < reading.total
                if not (is_short and reading.fell and left):
                    break
                left = 0
                first = None
                self._outcome.note("the server's total fell while a search was read; it was started again")
            finally:
                if writes:
                    self.write()
        if reading.total is not None:
            self.check_whole(resource_type, reading.handed_over, reading.total)
        return reading

    async def count(self, resource_type: str, pairs: Pairs) -> int | None:
        """How many a search finds, asked for that number alone; None where the server does not say."""
        if self._refuses_counts:
            return None
        try:
            page = await self.open(resource_type, (*pairs, ("_summary", "count")), count=1)
        except (TransportError, PullError):
            self._refuses_counts = True
            return None  # it was a question, not a step: the search is read all the same
        return page.total

    async def check_end(self, resource_type: str, pairs: Pairs, reading: Reading, part: str = "") -> None:
        """Looks whether a search that cannot be cut any further may have ended early.

        Args:
            resource_type: What was searched for.
            pairs: The search's parameters.
            reading: The search.
            part: Which part of everything it is, for the message; without patient data.

        Raises:
            PullError: It ended at a full page, and the server gives no total; or it gives a larger one.
        """
        if not reading.is_doubtful:
            return
        total = await self.count(resource_type, pairs)
        if total is not None and total >= reading.handed_over and not reading.is_capped:
            self.check_whole(resource_type, reading.handed_over, total)
        elif reading.is_full:
            raise PullError(
                "the server gives no totals, and ended a search at a full page: it may have more",
                where=f"{resource_type} of {part}" if part else resource_type,
                do="set another page_size; if it persists, ask the server's vendor how searches are paged",
                number=33,
            )
        else:
            self._outcome.note(_UNSEEN.format(resource_type))

    def check_whole(self, resource_type: str, handed_over: int, total: int) -> None:
        """Compares what a search handed over with what the server says there is.

        Raises:
            Incomplete: It is less.
        """
        if handed_over < total:
            error = Incomplete(
                f"the server says {total} {resource_type} resources and handed over {handed_over}",
                where=self._client.base_url,
                do="run again; if it persists, lower page_size or ask the server's vendor",
                number=4,
            )
            error.handed_over = handed_over
            raise error

    async def _follow(self, resource_type: str, first: SearchPage, keep: Keep | None, reading: Reading) -> None:
        def led_back() -> bool:
            is_end = reading.total is not None and reading.handed_over >= reading.total
            if is_end:
                self._outcome.note("the server's last page leads back to an earlier one")
            return is_end

        packer = self._packer(resource_type, keep is None)
        async with aclosing(pages_from(self._client, resource_type, first, led_back, packer)) as pages:
            async for page in pages:
                reading.pages += 1
                reading.is_full = self.manner.count and page.size >= self._config.page_size
                reading.told(page.total)
                self._take(resource_type, page, keep, reading)

    def _take(self, resource_type: str, page: SearchPage, keep: Keep | None, reading: Reading) -> None:
        """Takes one page to those that are written together: fewer and larger transactions are quicker."""
        pages = self._pending.setdefault(resource_type, Pages())
        if not pages.takes(page.packed, page.sound, page.found):
            self._write(resource_type)
            pages = self._pending[resource_type] = Pages()
            pages.takes(page.packed, page.sound, page.found)
        self._sort(resource_type, page, keep, reading, pages)
        if pages.size >= _AT_ONCE:
            self._write(resource_type)

    def write(self) -> None:
        """Writes the pages that wait, of whatever search.

        Raises:
            LedgerError: The database refused.
        """
        for resource_type in tuple(self._pending):
            self._write(resource_type)

    def _write(self, resource_type: str) -> None:
        pages = self._pending.pop(resource_type)
        if pages.size:
            self._put(resource_type, pages)

    def _sort(self, resource_type: str, page: SearchPage, keep: Keep | None, reading: Reading, pages: Pages) -> None:
        outcome, seen = self._outcome.of(resource_type), self.seen_of(resource_type)
        marks = marks_of([one.id or "" for one in (*page.packed, *page.sound)])
        reading.seen.add(marks)
        kept: Sequence[Resource] = page.sound
        if keep is not None:
            kept = [one for one in page.sound if keep(one, one.id or "")]
            marks = marks_of([one.id or "" for one in kept])
        seen.add(marks)
        pages.packed.extend(page.packed)
        pages.sound.extend(kept)
        before = len(pages.found)
        for item, resource_id in page.found:
            pages.found += self._taken(resource_type, item, resource_id, keep, reading)
        texts = {one.meta.lastUpdated for one in kept if one.meta is not None}
        self._note_versions(resource_type, texts.union([one.updated for one in page.packed]))
        found = [item.resource for item, _ in pages.found[before:] if item.resource is not None]
        self._note_versions(resource_type, {one.meta.lastUpdated for one in found if one.meta is not None})
        outcome.pages += 1
        outcome.read += len(page.packed) + len(kept) + len(pages.found) - before  # told again exactly at the end
        total = reading.total if keep is None else None
        self._progress(f"{self._config.name} {resource_type}", outcome.read, total)

    def _put(self, resource_type: str, pages: Pages) -> None:
        part = TypeOutcome()
        with self._ledger.begin() as connection:
            bad = self._store.put_pages(connection, resource_type, pages, part)
        self._set_aside.setdefault(resource_type, set()).update(bad)
        outcome = self._outcome.of(resource_type)
        outcome.new += part.new
        outcome.changed += part.changed

    def _taken(
        self, resource_type: str, item: Item, resource_id: str, keep: Keep | None, reading: Reading
    ) -> list[Found]:
        if resource_id:
            marks = marks_of((resource_id,))
            reading.seen.add(marks)
        else:
            reading.nameless[item.position] += 1
            item = _numbered(item, reading.nameless[item.position])
        if keep is not None and not keep(item.resource, resource_id):
            return []
        if resource_id:
            self.seen_of(resource_type).add(marks)
        else:
            self._nameless.setdefault(resource_type, set()).add(item.position)
        return [(item, resource_id)]

    def seen_of(self, resource_type: str) -> Seen:
        """What was handed over of a type and kept, in all searches."""
        return self.seen.setdefault(resource_type, Seen())

    def _note_versions(self, resource_type: str, texts: Iterable[str | None]) -> None:
        newest = self.newest.get(resource_type)
        for text in texts:
            moment = instant_of(text) if text else None
            if moment is not None and moment > (newest or _EARLIEST):
                newest = self.newest[resource_type] = moment

    def settle(self) -> None:
        """Brings the numbers of the outcome to what they are over all searches: different resources, each once."""
        for resource_type, outcome in self._outcome.types.items():
            seen = self.seen_of(resource_type)
            outcome.read = seen.count() + len(self._nameless.get(resource_type, ()))
            outcome.quarantined = len(self._set_aside.get(resource_type, ()))
            outcome.ids = seen.digest() if outcome.read else ""


def _numbered(item: Item, number: int) -> Item:
    """A resource without an id under a position of its own; those with the same content are numbered."""
    return item if number == 1 else msgspec.structs.replace(item, position=f"{item.position} ({number})")
