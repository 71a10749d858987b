"""Mapping coverage: what the tables know of the codes in the sources, what they lack, and taking proposed rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from io_fhir_adapter.classify.ruleset import Ruleset, rules_for
from io_fhir_adapter.classify.workbench.exchange import category_alone
from io_fhir_adapter.classify.workbench.rows import TableRow, code_row
from io_fhir_adapter.classify.workbench.site import is_shipped, table_for, take_rows
from io_fhir_adapter.classify.workbench.suggest import is_local
from io_fhir_adapter.config import SiteTableConfig
from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.ledger.audit import note
from io_fhir_adapter.look.language import decimal_in
from io_fhir_adapter.look.walls import RefusedError
from io_fhir_adapter.report.nightly import UnmappedCode
from io_fhir_adapter.serve.language import language_of, translator
from io_fhir_adapter.serve.pages.coverage_seen import Proposal, Seen, SeenCodes
from io_fhir_adapter.serve.pages.view import View
from io_fhir_adapter.serve.pages.wording import number_in
from io_fhir_adapter.serve.people import Person

__all__ = ["coverage_router"]

_ON_A_PAGE: Final = 50
_SHOWN: Final = ("local", "other", "mapped")
_SHORT: Final = 24  # of a digest, as the audit shows it elsewhere
_CHECKED: Final = "accepted on the page of the mapping coverage, {day}"


@dataclass(frozen=True, slots=True)
class Line:
    """A code without a row as the page shows it.

    Attributes:
        code: The code.
        proposal: The proposed row, None where there is none.
        category: The category that the proposed row alone would make.
        waits: Whether the tables have a row by now, which the next night asks.
        table: The site's own table that a row would go into, None where there is none to write to.
    """

    code: UnmappedCode
    proposal: Proposal | None
    category: str
    waits: bool
    table: SiteTableConfig | None


def coverage_router(view: View) -> APIRouter:
    """The pages."""
    router = APIRouter()
    web, codes = view.web, SeenCodes(view)

    def page(request: Request, person: Person, show: str, number: int, *, problem: str = "", done: int = 0) -> Response:
        language = language_of(request)
        t, seen = translator(language), codes.now()
        if seen is None:
            response = web.render(request, "coverage.html", person, seen=None)
            response.headers["Refresh"] = "4"
            return response
        fresh, broken = _fresh(view)
        groups: dict[str, Sequence[Any]] = {
            "local": [code for code in seen.open if is_local(code.system, seen.rules)],
            "other": [code for code in seen.open if not is_local(code.system, seen.rules)],
            "mapped": seen.mapped,
        }
        chosen = show if show in _SHOWN else "local"
        pages = max(1, -(-len(groups[chosen]) // _ON_A_PAGE))
        number = min(max(number, 1), pages)
        part = groups[chosen][(number - 1) * _ON_A_PAGE : number * _ON_A_PAGE]
        lines = [] if chosen == "mapped" else [_line(view, seen, fresh, code) for code in part]
        may_accept = person.has("administrator")
        return web.render(
            request, "coverage.html", person, HTTPStatus.UNPROCESSABLE_ENTITY if problem else HTTPStatus.OK,
            seen=seen, coverage=seen.coverage, show=chosen, lines=lines, mapped=part if chosen == "mapped" else (),
            groups={name: len(found) for name, found in groups.items()}, problem=problem, broken=broken, done=done,
            changed=fresh is not None and seen.decided not in ("", fresh.digest), page=number, pages=pages,
            before=_address(chosen, number - 1) if number > 1 else "",
            after=_address(chosen, number + 1) if number < pages else "", address=_address,
            number=lambda value: number_in(language, value), share=_share,
            percent=_percent(language), may_accept=may_accept,
            acceptable=may_accept and any(line.proposal and line.table and not line.waits for line in lines),
            lacking=sorted({line.code.system for line in lines if line.proposal and line.table is None}),
            name=lambda system: seen.rules.systems.name(system) or system,
            title=lambda code: t("coverage.no_treatment") if code in ("", "none") else view.title(code, language),
        )  # fmt: skip

    @router.get("/coverage")
    def coverage(
        request: Request,
        person: Person = Depends(web.person()),  # noqa: B008
        show: str = "local",
        page_number: Annotated[int, Query(alias="page")] = 1,
        done: int = 0,
    ) -> Response:
        return page(request, person, show, page_number, done=done)

    @router.post("/coverage/accept")
    def accept(
        request: Request,
        person: Person = Depends(web.person("administrator")),  # noqa: B008
        row: Annotated[list[str] | None, Form()] = None,
        page_number: Annotated[int, Form(alias="page")] = 1,
    ) -> Response:
        t, seen = translator(language_of(request)), codes.now()
        by_token = {one.token: one for one in seen.proposals.values()} if seen is not None else {}
        wanted = [by_token.get(token) for token in row or ()]
        chosen = [one for one in wanted if one is not None]
        if not chosen or len(chosen) < len(wanted) or seen is None:
            key = "stale" if wanted else "nothing_chosen"
            return page(request, person, "local", page_number, problem=t(f"coverage.problem.{key}"))
        try:
            _take(view, person, seen, chosen)
        except MappingError as exc:
            return page(request, person, "local", page_number, problem=exc.sentence)
        return RedirectResponse(f"/coverage?done={len(chosen)}&page={page_number}", HTTPStatus.SEE_OTHER)

    return router


def _take(view: View, person: Person, seen: Seen, chosen: Sequence[Proposal]) -> None:
    """Writes accepted rows, table by table; the ledger's only writer meanwhile, so that two at once lose no row."""
    web, today = view.web, view.today
    by_table: dict[SiteTableConfig, list[TableRow]] = {}
    for one in chosen:
        table = table_for(web.config, seen.rules, one.suggestion.system)
        if table is None:
            raise RefusedError(HTTPStatus.CONFLICT)
        row = replace(one.suggestion.row, checked=_CHECKED.format(day=today.isoformat()))
        by_table.setdefault(table, []).append(row)
    for table, rows in by_table.items():
        with web.ledger.begin() as connection:
            taken = take_rows(table, rows, today)
            note(
                connection, at=web.now(), agent=person.account, role=person.role_text, action="U",
                entity=f"Mappings/{table.file.name}",
                detail=f"rows accepted: {len(rows)}; now {taken.after[:_SHORT]}, before {taken.before[:_SHORT]}; "
                + ", ".join(row.code for row in rows),
            )  # fmt: skip


def _fresh(view: View) -> tuple[Ruleset | None, str]:
    """The rules as the files are now, or what is wrong with them."""
    try:
        return rules_for(view.web.config), ""
    except MappingError as exc:
        return None, exc.sentence


def _line(view: View, seen: Seen, fresh: Ruleset | None, code: UnmappedCode) -> Line:
    proposal = seen.proposals.get((code.system, code.code))
    table = table_for(view.web.config, seen.rules, code.system)
    category = ""
    if proposal is not None:
        finding = code_row(proposal.suggestion.row, seen.rules.systems.name(code.system)).finding
        category = category_alone(finding, seen.rules.rules)
    waits = fresh is not None and bool(code.code) and bool(fresh.entry(code.system, code.code).rows)
    return Line(code, proposal, category, waits, None if table is None or is_shipped(table) else table)


def _share(part: int, whole: int) -> float:
    return round(100 * part / whole, 1) if whole else 0.0


def _percent(language: str) -> Callable[[int, int], str]:
    """The same as it is read in a language."""
    return lambda part, whole: decimal_in(_share(part, whole), language)


def _address(show: str, page: int = 1) -> str:
    asked = ({"show": show} if show != "local" else {}) | ({"page": str(page)} if page > 1 else {})
    return f"/coverage?{urlencode(asked)}" if asked else "/coverage"
