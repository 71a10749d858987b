"""Asking a server only for Procedures whose codes the tables may know, where the site wants that.

It is for complete readings of very large servers. What changed is read whatever its codes are: a Procedure whose code
was corrected to one without a row would else stay as it was. Every use is told, and so is every server that cannot be
asked so; then everything is read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from sqlalchemy import Connection

from io_fhir_adapter.classify.enumerate import AskedSystem, asked_systems, digest_of
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.config import FhirSourceConfig
from io_fhir_adapter.errors import TransportError
from io_fhir_adapter.fhir.structs import Procedure, ProcedureSketch
from io_fhir_adapter.ledger.runs import cursor, move_cursor
from io_fhir_adapter.model import ProcedureFact
from io_fhir_adapter.pull.batches import escaped
from io_fhir_adapter.pull.decode import Resource
from io_fhir_adapter.pull.list_size import USUAL_LIST
from io_fhir_adapter.pull.outcome import SourceOutcome
from io_fhir_adapter.pull.reading import Pairs, SearchReader
from io_fhir_adapter.pull.searchset import SearchPage
from io_fhir_adapter.pull.sliced import side_by_side

__all__ = ["CodeFilter"]

_STATE: Final = "code-filter"
_HUGE: Final = 1_000_000  # Procedures; fewer are read whole in minutes
_NOT_TAKEN: Final = frozenset({HTTPStatus.BAD_REQUEST, 405, 422, HTTPStatus.NOT_IMPLEMENTED})
_NOBODYS: Final = "urn:uuid:00000000-0000-4000-8000-000000000000"
"""A code system that no resource can be of: a server that finds some of it does not search by code."""
_PROBES: Final = 10
_SHORT: Final = 1_500  # characters of a search that is not posted
_ALL: Final[tuple[Pairs, ...]] = ((),)


class _NotUsed(Exception):  # noqa: N818 - a way out, not a failure
    """The server does not search by code; the text says how that showed."""


@dataclass(frozen=True, slots=True)
class _Share:
    """What the server has of one URI: how many Procedures, None where it does not say, and a code of one of them."""

    system: AskedSystem
    uri: str
    total: int | None
    example: str


class CodeFilter:
    """The code filter of one source in one pull.

    Args:
        config: The source.
        reader: Reads single searches.
        outcome: Takes notes.
        ruleset: Says which codes matter.
    """

    def __init__(
        self, config: FhirSourceConfig, reader: SearchReader, outcome: SourceOutcome, ruleset: Ruleset
    ) -> None:
        self._config = config
        self._reader = reader
        self._outcome = outcome
        self._systems = asked_systems(ruleset) if config.code_filter != "off" else ()
        self._digest = digest_of(self._systems) if self._systems else ""
        self._asked: dict[str, frozenset[str] | None] | None = None

    def begin(self, connection: Connection) -> bool:
        """Tells of an earlier reading by code; whether everything has to be read, because it asked for other codes."""
        used = cursor(connection, self._config.name, _STATE)
        if not used:
            return False
        if used != self._digest:
            self._outcome.note("everything was read again: other codes are asked for than last time")
            return True
        self._outcome.note(
            "when everything was last read, only codes that the tables may know were asked for (code_filter): "
            "of other Procedures, and of codes without a row, only what changed since is on record"
        )
        return False

    def end(self, connection: Connection, run: int) -> None:
        """Writes down, with the end of a complete reading, whether codes were asked for, and which."""
        value = self._digest if self._asked is not None else ""
        if value or cursor(connection, self._config.name, _STATE):
            move_cursor(connection, self._config.name, _STATE, value, run)

    @property
    def looked_for(self) -> Callable[[ProcedureFact], bool] | None:
        """Says of a Procedure on record whether this reading would have found it; None where it asked for all."""
        return self._would_find if self._asked is not None else None

    def _would_find(self, fact: ProcedureFact) -> bool:
        asked = self._asked or {}
        return any(
            code.system in asked and ((codes := asked[code.system]) is None or code.code in codes)
            for code in fact.codes
        )

    async def searches(self, pairs: Pairs) -> tuple[Pairs, ...]:
        """The parameters of the searches by which everything is to be read; one without any where all codes are.

        Args:
            pairs: What else is asked for.

        Raises:
            PullError: An answer is no searchset.
            TransportError: The server does not answer.
        """
        if not self._systems or not await self._is_wanted(pairs):
            return _ALL
        try:
            shares = await self._shares(pairs)
            searches = [search for share in shares for search in await self._of(share, pairs)]
        except _NotUsed as exc:
            self._outcome.note(f"{exc}; Procedures of all codes were read")
            return _ALL
        names = sorted({_shown(share.system, self._codes_of(share.uri)) for share in shares})
        self._outcome.note(
            f"only Procedures with codes that the tables may know were asked for (code_filter): {'; '.join(names)}. "
            "Codes of other systems and texts without a code are not seen, and not in the numbers of this report"
        )
        return tuple(searches)

    def _codes_of(self, uri: str) -> Collection[str] | None:
        return (self._asked or {}).get(uri)

    async def _is_wanted(self, pairs: Pairs) -> bool:
        if self._config.code_filter == "on":
            return True
        total = (await self._reader.open("Procedure", (*pairs, ("_summary", "count")), count=1)).total
        return total is not None and total > _HUGE

    async def _shares(self, pairs: Pairs) -> list[_Share]:
        """The URIs of which the server has Procedures.

        Raises:
            _NotUsed: It does not search by code system.
        """
        try:
            nobodys = await self._open(f"{_NOBODYS}|", pairs)
        except TransportError as exc:
            if exc.status not in _NOT_TAKEN:
                raise
            raise _NotUsed("the server refuses to search Procedures by code") from exc
        if nobodys.resources or nobodys.total:
            raise _NotUsed("the server does not search Procedures by code")
        found: list[_Share] = []
        asked: dict[str, frozenset[str] | None] = {}

        async def look(system: AskedSystem, uri: str) -> None:
            page = await self._open(f"{escaped(uri)}|", pairs)
            present = self._check(page, uri, None)
            asked[uri] = None
            if page.resources or page.found or page.total:
                found.append(_Share(system, uri, page.total, max(present, default="")))

        await side_by_side([look(system, uri) for system in self._systems for uri in system.uris])
        if not found:
            raise _NotUsed("the server finds no Procedure of any code system in the tables")
        self._asked = asked
        return sorted(found, key=lambda share: (share.system.name, share.uri))

    async def _of(self, share: _Share, pairs: Pairs) -> list[Pairs]:
        """The searches that find what matters of one URI: all of it, or its codes where that is much."""
        whole: list[Pairs] = [(("code", f"{escaped(share.uri)}|"),)]
        codes = share.system.codes
        is_small = share.total is not None and share.total <= self._config.slice_size
        if not codes or is_small:
            return whole
        try:
            is_taken = await self._takes_lists(share.uri, codes, pairs) and await self._reads_to_the_end(share, pairs)
        except TransportError as exc:
            if exc.status is None:
                raise
            is_taken = False
        if not is_taken:
            self._outcome.note("the server does not take lists of codes; all codes of a system are asked for")
            return whole
        if self._asked is not None:
            self._asked[share.uri] = frozenset(codes)
        return [(("code", ",".join(group)),) for group in self._groups(share.uri, codes)]

    def _groups(self, uri: str, codes: Sequence[str]) -> list[list[str]]:
        """The codes of a URI as tokens, so many at a time as one search may name."""
        tokens = [f"{escaped(uri)}|{escaped(code)}" for code in codes]
        usual = self._config.batch_size or USUAL_LIST
        size = usual if self._reader.manner.posts else max(1, _SHORT // (1 + max(map(len, tokens))))
        return [tokens[start : start + size] for start in range(0, len(tokens), size)]

    async def _takes_lists(self, uri: str, codes: Sequence[str], pairs: Pairs) -> bool:
        """Whether the server reads a list of codes as one; where that cannot be seen, a few are asked for singly.

        Raises:
            _NotUsed: It does not search by code.
        """
        wanted = frozenset(codes)
        seen: set[str] = set()
        for group in self._groups(uri, codes):
            page = await self._list(group, pairs)
            try:
                present = self._check(page, uri, wanted)
            except _NotUsed:
                if not self._reader.posts("Procedure", (("code", ",".join(group)), *pairs)):
                    raise
                self._reader.refuse_posts()  # it may be the form that is not read
                return await self._takes_lists(uri, codes, pairs)
            if len(present) > 1:
                return True
            seen |= present
        for code in [code for code in codes if code not in seen][:_PROBES]:
            page = await self._open(f"{escaped(uri)}|{escaped(code)}", pairs)
            if page.resources or page.total:
                return False
        return True

    async def _reads_to_the_end(self, share: _Share, pairs: Pairs) -> bool:
        """Whether a list of as many codes as may be asked for is read to its end, where a code of a Procedure is."""
        if not share.example:
            return True  # what there is cannot be read; nothing can show it
        length = max(len(group) for group in self._groups(share.uri, share.system.codes))
        known = f"{escaped(share.uri)}|{escaped(share.example)}"
        others = [f"{_NOBODYS}|{number}" for number in range(1, length)]
        page = await self._open(",".join([*others, known]), pairs)
        return bool(page.resources or page.total)

    async def _list(self, tokens: Iterable[str], pairs: Pairs) -> SearchPage:
        return await self._reader.open("Procedure", (("code", ",".join(tokens)), *pairs))

    async def _open(self, token: str, pairs: Pairs) -> SearchPage:
        return await self._reader.open("Procedure", (("code", token), *pairs), count=1)

    def _check(self, page: SearchPage, uri: str, codes: Collection[str] | None) -> set[str]:
        """The codes of a URI that are on a page.

        Raises:
            _NotUsed: Something on it has none that was asked for.
        """
        present: set[str] = set()
        for resource in page.resources:
            found = _codes(resource, uri)
            if not found or (codes is not None and found.isdisjoint(codes)):
                raise _NotUsed("the server does not search Procedures by code")
            present |= found if codes is None else found & set(codes)
        return present


def _codes(resource: Resource | ProcedureSketch, uri: str) -> set[str]:
    """The codes of a Procedure in the system with that URI."""
    if not isinstance(resource, Procedure) or resource.code is None:
        return set()
    return {coding.code or "" for coding in resource.code.coding or () if coding.system == uri}


def _shown(system: AskedSystem, codes: Collection[str] | None) -> str:
    if codes is not None:
        return f"{system.name} by its {len(codes):,} codes"
    return f"all of {system.name}" + (f" ({system.why})" if system.why else "")
