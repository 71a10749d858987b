"""The pages of a search: fetched one after the other, links taken as they are, and opened into resources."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec

from io_fhir_adapter.errors import PullError
from io_fhir_adapter.fhir.references import id_of, normalise
from io_fhir_adapter.fhir.structs import (
    Bundle,
    BundleEntry,
    BundleLink,
    BundleSearch,
    Condition,
    Encounter,
    Header,
    Patient,
    Procedure,
    ProcedureSketch,
)
from io_fhir_adapter.ledger.packed_form import PackedProcedure
from io_fhir_adapter.pull.decode import Item, Resource, decode_resource, has_resource
from io_fhir_adapter.pull.mending import mended
from io_fhir_adapter.pull.packing import Packer
from io_fhir_adapter.transport.client import Answer, FhirClient

__all__ = ["Found", "Page", "SearchPage", "circle", "parse_searchset", "search_pages", "searchset_of", "with_packed"]

T = TypeVar("T")
Found = tuple[Item, str]

_BUNDLE: Final = msgspec.json.Decoder(Bundle, strict=False)  # some write a total as text
_HEADER: Final = msgspec.json.Decoder(Header)
_MAX_PAGES = 1_000_000
_MOST: Final = 10**12
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_DIGEST_SHOWN = 12
_LEFT_OUT: Final = frozenset(
    {"transient", "lock-error", "no-store", "exception", "timeout", "incomplete", "throttled", "too-costly"}
)
"""Codes of an issue, of those that FHIR has, by which a server says that it could not give everything."""


class _Issue(msgspec.Struct, gc=False):
    severity: str | None = None
    code: str | None = None


class _Outcome(msgspec.Struct, gc=False):
    """An OperationOutcome, as far as it says whether something is missing."""

    issue: list[_Issue] | None = None


class _SoundEntry(msgspec.Struct, Generic[T], gc=False):
    resource: T
    search: BundleSearch | None = None


class _SoundBundle(msgspec.Struct, Generic[T], gc=False):
    """A searchset in which everything is of one type and in order: decoded in one go."""

    resourceType: Literal["Bundle"]
    total: int | None = None
    link: list[BundleLink] | None = None
    entry: list[_SoundEntry[T]] | None = None


_SOUND: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    "Procedure": msgspec.json.Decoder(_SoundBundle[Procedure]),
    "Patient": msgspec.json.Decoder(_SoundBundle[Patient]),
    "Condition": msgspec.json.Decoder(_SoundBundle[Condition]),
    "Encounter": msgspec.json.Decoder(_SoundBundle[Encounter]),
}
_SKETCHES: Final = msgspec.json.Decoder(_SoundBundle[ProcedureSketch])
_OUTCOMES: Final = msgspec.json.Decoder(_Outcome)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a search: what matched, how many the server says match in all, and where it goes on.

    ``next_link`` is empty on the last page; ``url`` is the page's own address, which relative links start from.
    """

    items: Sequence[T]
    total: int | None
    next_link: str
    url: str


@dataclass(frozen=True, slots=True)
class SearchPage:
    """One page of a search as the pull reads it.

    Attributes:
        sound: Its resources, where all of them are of the type asked for and have an id.
        found: Otherwise every entry with its id as far as one can be read.
        packed: Procedures made ready for the ledger; ``sound`` are then the others. See :func:`with_packed`.
        total: How many the server says match in all.
        next_link: Where it goes on, empty on the last page.
        self_link: What the server says that it searched for, empty where it does not say.
        url: The page's own address, which relative links start from.
        where: For messages.
        sketches: Procedures as far as they were decoded, of a page of which nothing was made yet.
        answer: What they were decoded from.
    """

    sound: Sequence[Resource]
    found: Sequence[Found]
    total: int | None
    next_link: str
    self_link: str
    url: str
    where: str = field(default="", compare=False)
    packed: Sequence[PackedProcedure] = ()
    sketches: Sequence[ProcedureSketch] = ()
    answer: Answer | None = None

    @property
    def size(self) -> int:
        """How many resources it holds, or entries where not all are sound."""
        return len(self.packed) + len(self.sound) + len(self.sketches) or len(self.found)

    @property
    def mark(self) -> int:
        """What tells it from other pages: how many it holds, and which are its first and its last."""
        ends = [one.id or "" for kind in (self.packed, self.sound, self.sketches) for one in (*kind[:1], *kind[-1:])]
        ends += [resource_id or item.position for item, resource_id in (*self.found[:1], *self.found[-1:])]
        return hash((self.size, *ends))

    @property
    def resources(self) -> Sequence[Resource | ProcedureSketch]:
        """Every resource that could be decoded, as far as it was."""
        return self.sketches or self.sound or [item.resource for item, _ in self.found if item.resource is not None]

    @property
    def items(self) -> Sequence[Found]:
        """Every entry with its id, sound or not."""
        if self.found or not self.sound:
            return self.found
        return [
            (Item(f"{self.where} entry {number}", resource.__class__.__name__, resource), resource.id or "")
            for number, resource in enumerate(self.sound, start=1)
        ]


def searchset_of(answer: Answer, where: str) -> Bundle:
    """The Bundle in an answer, its resources still raw.

    Raises:
        PullError: The body is no Bundle. Where it is no FHIR at all, a proxy's page or cut off, that may pass.
    """
    try:
        bundle = _bundle(answer.body)
    except _UNREADABLE as exc:
        what = "a page that ends early or is damaged" if answer.is_json else "a page that is no FHIR, maybe a sign-in"
        raise PullError(
            f"the server sent {what}",
            where=where,
            do="check auth, the proxies in between and the server's log",
            number=2,
            transient=True,
        ) from exc
    if bundle.resourceType != "Bundle":
        raise PullError(
            "the server answered a search with something else than a Bundle",
            where=where,
            do="check the base URL",
            number=2,
        )
    return bundle


def _bundle(body: bytes) -> Bundle:
    try:
        return _BUNDLE.decode(body)
    except _UNREADABLE:
        other = mended(body)
        if other is None:
            raise
    return _BUNDLE.decode(other)


def _link(bundle: Any, relation: str) -> str:
    return next((link.url for link in bundle.link or () if link.relation == relation and link.url), "")


def parse_searchset(answer: Answer, where: str, resource_type: str = "", *, sketched: bool = False) -> SearchPage:
    """One page out of an answer.

    Args:
        answer: As it came.
        where: For messages.
        resource_type: What was asked for: an entry whose own type cannot be read is taken for a broken one of it.
        sketched: Whether :func:`with_packed` follows, where it is kept: Procedures are then decoded no further than
            that needs.

    Returns:
        Every resource with its id as far as one can be read; those with none get a ``position`` made of their
        content, which stays the same on whatever page they come.

    Raises:
        PullError: The body is no searchset Bundle: a login page, an OperationOutcome, cut off.
    """
    page = _sketched(answer, where) if sketched else None
    return page or _parsed(answer, where, resource_type)


def with_packed(page: SearchPage, packer: Packer) -> SearchPage:
    """A page whose Procedures are made ready for the ledger, as far as they are written in the usual way."""
    if page.answer is None:
        return page
    packing = packer.pack(page.sketches)
    if packing is None:
        return _parsed(page.answer, page.where, "Procedure")
    links = page.next_link, page.self_link
    return SearchPage(packing.others, (), page.total, *links, page.url, page.where, packing.packed)


def _parsed(answer: Answer, where: str, resource_type: str) -> SearchPage:
    sound = _all_sound(answer, where, resource_type)
    if sound is not None:
        return sound
    bundle = searchset_of(answer, where)
    items = [_item(entry, number, where, resource_type) for number, entry in enumerate(bundle.entry or (), start=1)]
    found = [item for item in items if item is not None]
    return SearchPage((), found, _total(bundle.total), _link(bundle, "next"), _link(bundle, "self"), answer.url, where)


def _sketched(answer: Answer, where: str) -> SearchPage | None:
    try:
        bundle = _SKETCHES.decode(answer.body)
    except _UNREADABLE:
        return None
    sketches = []
    for entry in bundle.entry or ():
        if entry.search is not None and not _is_match(entry):
            return None
        sketches.append(entry.resource)
    links = _link(bundle, "next"), _link(bundle, "self")
    return SearchPage((), (), _total(bundle.total), *links, answer.url, where, sketches=sketches, answer=answer)


def _total(total: int | None) -> int | None:
    """What a server says, unless no hospital has as many: some write the highest number that they know."""
    return total if total is None or total <= _MOST else None


def _is_match(entry: _SoundEntry[Any]) -> bool:
    return entry.search is None or entry.search.mode in {None, "match"}


def _all_sound(answer: Answer, where: str, resource_type: str) -> SearchPage | None:
    decoder = _SOUND.get(resource_type)
    try:
        bundle = decoder.decode(answer.body) if decoder is not None else None
    except _UNREADABLE:
        return None  # looked at entry by entry
    if bundle is None:
        return None
    sound = []
    for entry in bundle.entry or ():
        if not entry.resource.id or not _is_match(entry):
            return None
        sound.append(entry.resource)
    return SearchPage(sound, (), _total(bundle.total), _link(bundle, "next"), _link(bundle, "self"), answer.url, where)


def _item(entry: BundleEntry, number: int, where: str, resource_type: str) -> tuple[Item, str] | None:
    mode = entry.search.mode if entry.search is not None else None
    if mode == "outcome":
        _refuse_part(entry, where)
        return None
    place = f"{where} entry {number}"
    url_id = id_of(normalise(entry.fullUrl, resource_type))
    if not has_resource(entry):
        return Item(place, resource_type, None, url_id, "the entry holds no resource"), url_id
    item = decode_resource(entry.resource, place, url_id)
    if item.resource_type == "OperationOutcome":
        _refuse_part(entry, where)
        return None
    if mode == "include" and item.resource_type != resource_type:
        return None
    own_id = item.resource.id if item.resource is not None else _readable_id(entry.resource)
    resource_id = own_id or url_id
    if not resource_id:
        digest = hashlib.sha256(bytes(entry.resource)).hexdigest()[:_DIGEST_SHOWN]
        place = f"without an id, content {digest}"
    if resource_type and item.resource_type != resource_type:
        problem = item.problem or "of a type that was not asked for"
        return Item(place, resource_type, None, resource_id, problem), resource_id
    return Item(place, item.resource_type, item.resource, resource_id, item.problem), resource_id


def _refuse_part(entry: BundleEntry, where: str) -> None:
    """Looks whether the outcome among the entries of a page says that the page is not all there is.

    Remarks on the search itself, such as a parameter that is not known, are no reason: what was found shows that.

    Raises:
        PullError: It does.
    """
    try:
        issues = _OUTCOMES.decode(entry.resource).issue or () if has_resource(entry) else ()
    except _UNREADABLE:
        return
    if any(one.severity == "fatal" or (one.severity != "information" and one.code in _LEFT_OUT) for one in issues):
        raise PullError(
            "the server says that it could not give everything that it was asked for",
            where=where,
            do="run again; if it persists, lower page_size or concurrency, or see the server's log",
            number=39,
            transient=True,
        )


def _readable_id(data: msgspec.Raw) -> str:
    try:
        return _HEADER.decode(data).id or ""
    except _UNREADABLE:
        return ""


async def search_pages(
    client: FhirClient,
    resource_type: str,
    params: Mapping[str, str] | Sequence[tuple[str, str]],
    parse: Callable[[Answer, str], Page[T]],
) -> AsyncIterator[Page[T]]:
    """All pages of a search.

    Args:
        client: The server's client.
        resource_type: What is searched for.
        params: The search's parameters.
        parse: Makes a page of an answer and of a place for messages.

    Raises:
        PullError: A page is no searchset, or the links run in a circle.
        TransportError: The server does not answer or refuses.
    """
    target, asked = resource_type, params
    seen: set[str] = set()
    for number in range(1, _MAX_PAGES):
        where = f"{client.base_url}/{resource_type} page {number}"
        page = await client.read(target, lambda answer, where=where: parse(answer, where), asked)  # type: ignore[misc]
        yield page
        if not page.next_link:
            return
        target, asked = client.resolve(page.next_link, base=page.url), {}
        if target in seen:
            raise circle(where)
        seen.add(target)
    raise PullError("the search does not end", where=f"{client.base_url}/{resource_type}", number=3)


def circle(where: str) -> PullError:
    """The error for links that lead back to where they came from."""
    what = "the server's next links run in a circle"
    return PullError(what, where=where, do="report this to the server's vendor", number=3)
