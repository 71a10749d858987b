"""Looking through the decisions: which there are, and of each why it became what it is.

Nobody sees here whose a decision is, but for a reviewer who asks for it, decision by decision; each look is written
into the audit.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from http import HTTPStatus
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from io_fhir_adapter.classify.recorded import CodeRead, codes_read, text_read
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.fhir.references import id_of
from io_fhir_adapter.ledger.audit import note
from io_fhir_adapter.ledger.explored import (
    UNDATED,
    Alike,
    Chosen,
    Listed,
    decision_at,
    handle_key,
    listed,
    procedures_behind,
    tally_alike,
    with_record,
)
from io_fhir_adapter.look.walls import RefusedError
from io_fhir_adapter.model import Decision, Finding, ProcedureFact
from io_fhir_adapter.serve.language import language_of, translator
from io_fhir_adapter.serve.pages.explorer_words import Names, steps_in
from io_fhir_adapter.serve.pages.view import View
from io_fhir_adapter.serve.pages.wording import Translate, day_in, number_in, reason_words_in, worded
from io_fhir_adapter.serve.people import Person, Role

__all__ = ["SEES_DECISIONS", "explorer_router"]

SEES_DECISIONS: Final[tuple[Role, ...]] = ("viewer", "reviewer", "approver")
"""Who looks at decisions; an administrator runs the service and sees no patient's treatment."""
_ON_A_PAGE: Final = 50
_STATES: Final = ("counted", "review", "not-counted")
_WHOLE_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_YEAR: Final = re.compile(rf"\d{{4}}|{UNDATED}|")
_CODE: Final = re.compile(r"[a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class Record:
    """A Procedure of a session: what it is called, and what is known of it."""

    name: str
    source: str
    status: str
    day: str
    codes: list[CodeRead]
    text: tuple[Finding, ...]


def explorer_router(view: View) -> APIRouter:
    """The pages."""
    router = APIRouter()
    _add_list(router, view)
    _add_one(router, view)
    return router


def _add_list(router: APIRouter, view: View) -> None:
    web = view.web
    reader, reviewer = Depends(web.person(*SEES_DECISIONS)), Depends(web.person("reviewer"))

    def shown(request: Request, person: Person, chosen: Chosen, page: int, *, lost: bool = False) -> Response:
        language = language_of(request)
        t, key = translator(language), handle_key(web.ledger)
        with web.ledger.read() as connection:
            tally = tally_alike(connection)
            total = sum(one.number for one in tally if one.fits(chosen))
            pages = max(1, -(-total // _ON_A_PAGE))
            page = min(max(page, 1), pages)
            rows = listed(connection, chosen, key, first=(page - 1) * _ON_A_PAGE, most=_ON_A_PAGE) if total else []
        status = HTTPStatus.NOT_FOUND if lost else HTTPStatus.OK
        return web.render(
            request, "decisions.html", person, status, chosen=chosen, rows=rows, total=total, page=page, pages=pages,
            states=_states(tally, chosen), any_state=_address(replace(chosen, decision="")),
            years=_years(tally, chosen), any_year=_address(replace(chosen, year="")),
            categories=_options(tally, chosen, "category", lambda code: _title(view, t, code, language)),
            reasons=_options(tally, chosen, "reason", lambda code: reason_words_in(t, code)),
            narrowed=chosen != Chosen(), first=(page - 1) * _ON_A_PAGE,
            before=_address(chosen, page - 1) if page > 1 else "",
            after=_address(chosen, page + 1) if page < pages else "",
            number=lambda value: number_in(language, value), day=lambda date: _day(t, language, date), path_of=_path,
            title=lambda code: _title(view, t, code, language), reason=lambda code: reason_words_in(t, code),
            may_find=person.has("reviewer"), lost=lost, none=not tally,
        )  # fmt: skip

    @router.get("/decisions")
    def decisions(
        request: Request,
        person: Person = reader,
        year: str = "",
        category: str = "",
        decision: str = "",
        reason: str = "",
        page: int = 1,
    ) -> Response:
        return shown(request, person, _chosen(year, category, decision, reason), page)

    @router.post("/decisions/find")
    def find(
        request: Request, record: Annotated[str, Form(max_length=300)], person: Person = reviewer
    ) -> Response:  # fmt: skip
        key, sources = handle_key(web.ledger), [source.name for source in web.config.sources]
        with web.ledger.read() as connection:
            found = with_record(connection, key, id_of(record.strip()), sources)
        with web.ledger.begin() as connection:
            note(
                connection, at=web.now(), agent=person.account, role=person.role_text, action="R",
                entity=f"Decision/{found[0].handle}" if found else "Decision",
                detail="looked for by the id of a record" + ("" if found else ", not found"),
            )  # fmt: skip
        if found:
            return RedirectResponse(_path(found[0]), HTTPStatus.SEE_OTHER)
        return shown(request, person, Chosen(), 1, lost=True)


def _add_one(router: APIRouter, view: View) -> None:
    web = view.web
    reader, reviewer = Depends(web.person(*SEES_DECISIONS)), Depends(web.person("reviewer"))

    def shown(request: Request, person: Person, date: str, handle: str, *, named: bool) -> Response:
        language = language_of(request)
        t, key, rules = translator(language), handle_key(web.ledger), view.ruleset
        with web.ledger.read() as connection:
            decision = decision_at(connection, key, date, handle)
            if decision is None:
                raise RefusedError(HTTPStatus.NOT_FOUND, "decision_gone")
            facts = procedures_behind(connection, decision, (source.name for source in web.config.sources))
        words = {
            "category": lambda code: _title(view, t, code, language), "day": lambda day: _day(t, language, day),
        }  # fmt: skip
        names = Names(decision.procedures, lambda number: t("decisions.record", number=number), open=named)
        return web.render(
            request, "decision.html", person, decision=decision, named=named, names=names, language=language,
            steps=steps_in(t, decision.trail, names, words),
            records=[_record(rules, fact, names) for fact in sorted(facts, key=_in_order)],
            missing=len(decision.procedures) - len({fact.id for fact in facts}),
            title=lambda code: _title(view, t, code, language), reason=reason_words_in(t, decision.reason),
            why=worded(t, f"decisions.why.{decision.reason}", ""), day=_day(t, language, decision.date), said=_said,
            word=lambda group, code: worded(t, f"decisions.{group}.{code}", code),
            identity=f"/decisions/{date}/{handle}/identity",
            may_name=person.has("reviewer") and not named, like=_address(_like(decision)),
        )  # fmt: skip

    @router.get("/decisions/{date}/{handle}")
    def decision(request: Request, date: str, handle: str, person: Person = reader) -> Response:
        return shown(request, person, date, handle, named=False)

    @router.post("/decisions/{date}/{handle}/identity")
    def identity(request: Request, date: str, handle: str, person: Person = reviewer) -> Response:
        page = shown(request, person, date, handle, named=True)
        with web.ledger.begin() as connection:
            note(
                connection, at=web.now(), agent=person.account, role=person.role_text, action="R",
                entity=f"Decision/{handle}", detail="identity",
            )  # fmt: skip
        return page


def _chosen(year: str, category: str, decision: str, reason: str) -> Chosen:
    """What the address asks for; a part that cannot be meant asks for anything."""
    return Chosen(
        year if _YEAR.fullmatch(year) else "",
        category if _CODE.fullmatch(category) else "",
        decision if decision in _STATES else "",
        reason if _CODE.fullmatch(reason) else "",
    )


def _address(chosen: Chosen, page: int = 1) -> str:
    asked = {name: value for name, value in asdict(chosen).items() if value} | ({"page": page} if page > 1 else {})
    return f"/decisions?{urlencode(asked)}" if asked else "/decisions"


def _path(one: Listed) -> str:
    return f"/decisions/{one.date or UNDATED}/{one.handle}"


def _tallied(tally: list[Alike], chosen: Chosen, part: str) -> Counter[str]:
    """One part's values with their numbers among what the other parts ask for."""
    found: Counter[str] = Counter()
    for one in tally:
        if one.fits(chosen, but=part):
            found[getattr(one, part)] += one.number
    return found


def _states(tally: list[Alike], chosen: Chosen) -> list[dict[str, Any]]:
    """The three states: number, share in per cent, and the address that narrows to it."""
    found = _tallied(tally, chosen, "decision")
    whole = found.total() or 1
    return [
        {
            "state": state, "number": found[state], "share": round(100 * found[state] / whole, 2),
            "on": chosen.decision == state,
            "address": _address(replace(chosen, decision="" if chosen.decision == state else state)),
        }
        for state in _STATES
    ]  # fmt: skip


def _years(tally: list[Alike], chosen: Chosen) -> list[tuple[str, int, str]]:
    found = _tallied(tally, chosen, "year")
    return [(year, found[year], _address(replace(chosen, year=year))) for year in sorted(found, key=_late_first)]


def _late_first(year: str) -> int:
    return 0 if year == UNDATED else -int(year)


def _options(
    tally: list[Alike], chosen: Chosen, part: str, title: Callable[[str], str]
) -> list[tuple[str, str, int]]:  # fmt: skip
    """Code, title and number, the most first; what is chosen is there even where nothing is left of it."""
    found = _tallied(tally, chosen, part)
    if wanted := getattr(chosen, part):
        found[wanted] += 0
    return [(code, title(code), number) for code, number in sorted(found.items(), key=lambda item: (-item[1], item[0]))]


def _title(view: View, t: Translate, code: str, language: str) -> str:
    return worded(t, f"decisions.category.{code}", "") or view.title(code, language)


def _day(t: Translate, language: str, date: str) -> str:
    if not date:
        return t("decisions.undated")
    return day_in(language, date) if _WHOLE_DAY.fullmatch(date) else date


def _like(decision: Decision) -> Chosen:
    return Chosen(decision.date[:4] or UNDATED, decision.category, decision.decision, decision.reason)


def _in_order(fact: ProcedureFact) -> tuple[str, str, str]:
    return fact.day, fact.source, fact.id


def _record(rules: Ruleset, fact: ProcedureFact, names: Names) -> Record:
    return Record(
        names.of(f"Procedure/{fact.id}"), fact.source, fact.status, fact.day,
        codes_read(fact, rules), text_read(fact, rules),
    )  # fmt: skip


def _said(finding: Finding) -> str:
    """What a row says, in the tables' own words."""
    agent = finding.agent if finding.agent not in ("none", "unspecified") else ""
    approach = finding.approach if finding.approach != "unspecified" else ""
    role = finding.role if finding.role != "main" else ""
    return ", ".join(part for part in (finding.technique, finding.site, approach, agent, role) if part)
