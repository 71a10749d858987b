"""The pages of a search: a snapshot of its matches, and the opaque tokens that lead from page to page.

A token is good as long as its search is remembered (the most recent ones are), always gives the same page, and says
nothing about offsets, so that a client cannot make up its own.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from urllib.parse import urlencode

import msgspec

from io_fhir_adapter.sandbox.faults import Faults
from io_fhir_adapter.sandbox.replies import FHIR_JSON, Reply, outcome
from io_fhir_adapter.sandbox.search import Query
from io_fhir_adapter.sandbox.store import Row, SandboxStore, instant

__all__ = ["Cursor", "Pages", "Search", "bundle"]

_KEY_LENGTH = 16
_STRANGE = [
    msgspec.json.encode({"resource": outcome("information", "informational", "42 ms")}),
    msgspec.json.encode({"resource": {"resourceType": "Organization", "id": "strange"}, "search": {"mode": "include"}}),
]


@dataclass(frozen=True)
class Cursor:
    """A place in a search: the offset of its first match, and the number of the page, from 1."""

    offset: int = 0
    page: int = 1


@dataclass(frozen=True)
class Search:
    """A search whose pages can be fetched: the rows as they were when it began."""

    query: Query
    rows: list[Row]
    size: int
    warning: str = ""
    key: str = field(default_factory=lambda: secrets.token_hex(_KEY_LENGTH // 2))
    cursors: dict[str, Cursor] = field(default_factory=dict)

    def token(self, cursor: Cursor) -> str:
        """The opaque token of a page; the same one each time it is asked for."""
        tail = hashlib.blake2b(f"{self.key}/{cursor.offset}/{cursor.page}".encode(), digest_size=8).hexdigest()
        self.cursors[tail] = cursor
        return self.key + tail


class Pages:
    """The searches that are remembered: the most recent ones.

    Args:
        most: How many at a time.
        most_rows: How many rows they may hold together.
    """

    def __init__(self, most: int = 512, most_rows: int = 10_000_000) -> None:
        self._most = most
        self._most_rows = most_rows
        self._rows = 0
        self._searches: OrderedDict[str, Search] = OrderedDict()

    def keep(self, search: Search) -> None:
        """Remember a search that has further pages; the oldest ones are forgotten when there are too many."""
        self._searches[search.key] = search
        self._rows += len(search.rows)
        while len(self._searches) > 1 and (len(self._searches) > self._most or self._rows > self._most_rows):
            self.forget(next(iter(self._searches)))

    def find(self, token: str) -> tuple[Search, Cursor] | None:
        """The search and the place that a token stands for, or None if it is unknown or expired."""
        search = self._searches.get(token[:_KEY_LENGTH])
        cursor = search.cursors.get(token[_KEY_LENGTH:]) if search else None
        if search is None or cursor is None:
            return None
        self._searches.move_to_end(search.key)
        return search, cursor

    def forget(self, key: str) -> None:
        """Let a search expire."""
        search = self._searches.pop(key, None)
        self._rows -= len(search.rows) if search else 0


def _following(search: Search, cursor: Cursor, end: int, faults: Faults) -> Cursor | None:
    """Where ``next`` leads, or None on the last page."""
    limit = min(len(search.rows), faults.max_results or len(search.rows))
    if cursor.page == faults.empty_page:
        return Cursor(cursor.offset, cursor.page + 1)
    if end >= limit:
        return None
    if faults.next_links == "endless":
        return Cursor(0, cursor.page + 1)
    if faults.next_links == "loop" and cursor.page > 1:
        return cursor
    repeated = min(faults.duplicate_entries, max(0, end - cursor.offset - 1))
    return Cursor(end - repeated, cursor.page + 1)


def _next_url(search: Search, cursor: Cursor, origin: str, base_path: str, faults: Faults) -> str:
    if faults.next_links == "query":  # beside the type's path, where the base reads it too
        return f"?_getpages={search.token(cursor)}"
    prefix = {"relative": "", "foreign": faults.foreign_origin}.get(faults.next_links, origin)
    padding = f"&_pad={'x' * faults.next_padding}" if faults.next_padding else ""
    fragment = "#more" if faults.next_links == "fragment" else ""
    return f"{prefix}{base_path}?_getpages={search.token(cursor)}{padding}{fragment}"


def _end(search: Search, cursor: Cursor, faults: Faults) -> int:
    return min(cursor.offset + search.size, len(search.rows), faults.max_results or len(search.rows))


def _total(search: Search, cursor: Cursor, faults: Faults) -> dict[str, int]:
    wish = search.query.total
    if faults.total == "counts":
        shown = not search.size
    else:
        shown = faults.total == "always" if wish is None else faults.total != "never" and wish != "none"
    total = min(len(search.rows), faults.total_at_most or len(search.rows)) + faults.total_off_by
    total += faults.total_grows * (cursor.page - 1)
    if faults.total == "page":
        shown, total = True, len(search.rows[cursor.offset : _end(search, cursor, faults)])
    return {"total": total} if shown else {}


def _entry(lead: bytes, row: Row, mode: bytes) -> bytes:
    opening = lead if row.id else b"{"
    return b"".join((opening, row.head, row.body, b',"search":{"mode":"', mode, b'"}}'))


def bundle(
    search: Search, cursor: Cursor, store: SandboxStore, faults: Faults, *, origin: str, base_path: str
) -> Reply:
    """One page as a searchset Bundle.

    Args:
        search: The search.
        cursor: Which page.
        store: Where included resources come from.
        faults: What is switched on.
        origin: Scheme and host that the client used.
        base_path: The path of the FHIR base.
    """
    query, base = search.query, origin + base_path
    end = _end(search, cursor, faults)
    rows = search.rows[cursor.offset : end] if search.size and cursor.page != faults.empty_page else []
    lead = f'{{"fullUrl":"{base}'.encode()
    entries = [_entry(lead, row, b"match") for row in rows]
    if query.includes:
        entries += [_entry(lead, row, b"include") for row in store.included(query, rows, base)]
    if faults.strange_entries:
        entries += _STRANGE
    if faults.left_out:
        left_out = outcome("error", faults.left_out, "not everything could be given")
        entries.append(msgspec.json.encode({"resource": left_out, "search": {"mode": "outcome"}}))
    if search.warning and cursor.page == 1:
        warning = outcome("warning", "not-supported", search.warning)
        entries.append(msgspec.json.encode({"resource": warning, "search": {"mode": "outcome"}}))
    links = [{"relation": "self", "url": f"{base}/{query.resource_type}?{urlencode(query.used)}".rstrip("?")}]
    following = _following(search, cursor, end, faults) if search.size else None
    if following is not None:
        links.append({"relation": "next", "url": _next_url(search, following, origin, base_path, faults)})
    head = {
        "resourceType": "Bundle",
        "id": f"{search.key}-{cursor.page}",
        "meta": {"lastUpdated": instant(store.now())},
        "type": "searchset",
        **_total(search, cursor, faults),
        "link": links,
    }
    body = msgspec.json.encode(head)
    if entries:
        body = b"".join((body[:-1], b',"entry":[', b",".join(entries), b"]}"))
    return Reply(200, body, {"Content-Type": FHIR_JSON}, cursor.page, query.resource_type, search.key)
