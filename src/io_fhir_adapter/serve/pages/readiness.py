"""How far the facility is from its seal: each requirement with its state and the evidence for it, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Final

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from io_fhir_adapter.classify.programme import Programme, shipped_programmes
from io_fhir_adapter.engine.standing import facts_under
from io_fhir_adapter.report.readiness import FOR_NEXT, Readiness, Requirement, State, readiness_of, years_later
from io_fhir_adapter.report.readiness_facts import Facts, Year
from io_fhir_adapter.report.standards import Tally
from io_fhir_adapter.serve.language import language_of, translator
from io_fhir_adapter.serve.pages.figures import Figures, Years
from io_fhir_adapter.serve.pages.view import View
from io_fhir_adapter.serve.pages.wording import Translate, day_in, number_in
from io_fhir_adapter.serve.people import Person

__all__ = ["Card", "Step", "cards_of", "readiness_router", "readiness_with"]

_LINKS: Final = {"core": "/standards", "case-review": "/cases"}
_APPLIES: Final = {
    "training site": "training", "centre": "centre", "individual certification, level 2": "individual",
}  # fmt: skip
_STATUSES: Final = frozenset({"enrolled", "accredited", "excellence"})


@dataclass(frozen=True, slots=True)
class Card:
    """One requirement as pages show it.

    Attributes:
        id: Its name.
        title: In the language of the page.
        state: How it stands.
        value: How many there are, None where it is no number.
        possible: The same with what people may add.
        wanted: How many are asked for, None where that is not known.
        unit: What is counted, in words.
        says: The evidence, a sentence each.
        years: The years behind it, where it is counted by year.
        source: Where the body says so.
        note: What to know about the source; as the programme's data say it, in English.
        link: The page where it is worked on, empty where there is none.
    """

    id: str
    title: str
    state: State
    value: int | None
    possible: int | None
    wanted: int | None
    unit: str
    says: tuple[str, ...]
    years: tuple[Year, ...]
    source: str
    note: str
    link: str

    def share(self, number: int | None) -> float:
        """A number in per cent of the card's bar, on which what is asked for lies at nine tenths or less."""
        full = max(self.possible or 0, self.value or 0, (self.wanted or 0) / 0.9) or 1
        return round(100 * (number or 0) / full, 2)


@dataclass(frozen=True, slots=True)
class Step:
    """A status on the programme's way, and whether it is ``reached``, the ``next`` one, ``later`` or ``unknown``."""

    title: str
    place: str
    text: str


def readiness_router(view: View, figures: Figures) -> APIRouter:
    """The page."""
    router = APIRouter()

    @router.get("/readiness")
    def readiness(
        request: Request,
        person: Person = Depends(view.web.person()),  # noqa: B008
        programme: str = "",
    ) -> Response:
        language = language_of(request)
        own = view.ruleset.programme.id
        known = dict.fromkeys((own, *shipped_programmes()))
        chosen = programme if programme in known else own
        years = figures.years(chosen)
        if years is None:
            response = view.web.render(
                request, "counting.html", person, programmes=known, chosen=chosen, own=own, title="readiness.title"
            )
            response.headers["Refresh"] = "4"
            return response
        facts, found = readiness_with(view, years)
        return view.web.render(
            request, "readiness.html", person, programmes=known, chosen=chosen, own=own, found=found, facts=facts,
            cards=list(cards_of(translator(language), language, years.rules.programme, facts, found)),
            steps=list(_steps(translator(language), language, years.rules.programme, facts, found)),
            groups=[(group, facts.last.groups[place]) for place, group in enumerate(facts.running.groups)],
            number=lambda value: number_in(language, value), today=day_in(language, facts.as_of.isoformat()),
            cycle=years.rules.programme.cycle.years if years.rules.programme.cycle is not None else 0,
        )  # fmt: skip

    return router


def readiness_with(view: View, years: Years) -> tuple[Facts, Readiness]:
    """Everything that readiness rests on, with years that were counted already."""
    programme = years.rules.programme
    with view.web.ledger.read() as connection:
        facts = facts_under(
            connection, view.web.config, years.rules, years.today, (years.running, years.last),
            configured=programme.id == view.ruleset.programme.id,
        )  # fmt: skip
    return facts, readiness_of(programme, facts)


def cards_of(t: Translate, language: str, programme: Programme, facts: Facts, found: Readiness) -> Iterator[Card]:
    """The requirements in words."""
    says: dict[str, Callable[[], Iterator[str]]] = {
        "approval": lambda: _told(t, language, facts.standing.approved, "approved"),
        "enrolment": lambda: _told(t, language, facts.standing.enrolled, "enrolled"),
        "volume": lambda: _volume(t, language, facts, found),
        "core": lambda: _core(t, language, facts),
        "case-review": lambda: _cases(t, language, programme, facts),
    }
    for one in found.requirements:
        group = one.id.startswith("group-")
        yield Card(
            one.id,
            _group_title(t, one) if group else t(f"readiness.name.{one.id}"),
            one.state,
            one.value,
            one.possible if group or one.id == "volume" else None,
            one.wanted,
            t(f"readiness.unit.{'sessions' if group else one.id}") if one.value is not None else "",
            tuple(_group(t, language, one, facts) if group else says[one.id]()),
            (facts.running, facts.last) if one.id == "volume" and not facts.empty else (),
            one.source,
            one.note,
            _LINKS.get(one.id, ""),
        )


def _told(t: Translate, language: str, day: date | None, key: str) -> Iterator[str]:
    yield t(f"readiness.{key}", day=day_in(language, day.isoformat())) if day else t("readiness.untold", entry=key)


def _volume(t: Translate, language: str, facts: Facts, found: Readiness) -> Iterator[str]:
    if facts.empty:
        yield t("readiness.empty")
        return
    running = facts.running
    if running.projected is not None and not running.ended:
        yield t(
            "readiness.pace", year=running.label, gone=running.gone, days=running.days,
            so_far=number_in(language, running.so_far), projected=number_in(language, running.projected),
        )  # fmt: skip
    if next(one.state for one in found.requirements if one.id == "volume") == "person":
        yield t("readiness.decide")


def _core(t: Translate, language: str, facts: Facts) -> Iterator[str]:
    core: Tally | None = facts.core
    if core is None or not facts.answered_at:
        yield t("readiness.not_answered")
        return
    parts = {"met": core.met, "partly-met": core.partly, "not-met": core.not_met, "not-applicable": core.not_applicable}
    said = [f"{many} {t(f'standards.answers.{name}')}" for name, many in parts.items() if many]
    said += [t("readiness.open", number=core.total - core.answered)] if core.answered < core.total else []
    yield t("readiness.answered", day=day_in(language, facts.answered_at[:10]), parts=", ".join(said))


def _cases(t: Translate, language: str, programme: Programme, facts: Facts) -> Iterator[str]:
    work = facts.cases
    if work is None:
        yield t("readiness.nothing_drawn")
        return
    frame = number_in(language, work.frame)
    if not work.drawn:
        yield t("readiness.committed", period=work.period, frame=frame)
        return
    yield t(
        "readiness.drawn", period=work.period, drawn=work.drawn, wanted=programme.sample.size, frame=frame,
        prefilled=work.prefilled, signed=work.signed,
    )  # fmt: skip
    if work.drawn < programme.sample.size:
        yield t("readiness.short")
    if not work.signed and work.prefilled:
        yield t("readiness.to_sign")


def _group_title(t: Translate, one: Requirement) -> str:
    applies = t(f"readiness.applies.{_APPLIES[one.applies_to]}") if one.applies_to in _APPLIES else one.applies_to
    place = t("readiness.group", group=one.group) if one.group else t("readiness.all_groups")
    return f"{place}, {applies}"


def _group(t: Translate, language: str, one: Requirement, facts: Facts) -> Iterator[str]:
    for year in (facts.running, facts.last):
        of = [group for group in year.groups if group.id and one.group in ("", group.id)]
        yield t(
            "readiness.group_year", year=year.label, done=number_in(language, sum(group.done for group in of)),
            open=number_in(language, sum(group.open for group in of)),
        )  # fmt: skip
    if one.wanted is None:
        yield t("readiness.not_found")


def _steps(t: Translate, language: str, programme: Programme, facts: Facts, found: Readiness) -> Iterator[Step]:
    """The statuses that the programme names, in its order; none where it names others than those known here."""
    titles = {status.id: status.title for status in programme.statuses}
    if not titles.keys() >= _STATUSES:
        return
    standing = facts.standing
    days = {"enrolled": standing.enrolled or standing.accredited, "accredited": standing.accredited, "excellence": None}
    following = "accredited" if standing.accredited is None else "excellence"
    missing = [t(f"readiness.name.{one.id}") for one in found.requirements if one.id in FOR_NEXT and one.state != "met"]
    for name, day in days.items():
        if day is not None:
            told = name == "accredited" or standing.enrolled is not None
            yield Step(
                titles[name], "reached", t("readiness.since", day=day_in(language, day.isoformat())) if told else ""
            )
        elif name == "enrolled":
            yield Step(titles[name], "unknown", t("readiness.unknown_enrolled"))
        else:
            lacking = t("readiness.missing", what=", ".join(missing)) if missing else t("readiness.ready")
            text = lacking if name == "accredited" else _towards(t, language, programme, missing, facts)
            yield Step(titles[name], "next" if name == following else "later", text)


def _towards(t: Translate, language: str, programme: Programme, missing: list[str], facts: Facts) -> str:
    """When the last status can be asked for, and what an accredited facility lacks for it then."""
    if programme.cycle is None:
        return ""
    rule, since = t("readiness.only_later", years=programme.cycle.years), facts.standing.accredited
    if since is None:
        return rule
    due = years_later(since, programme.cycle.years)
    if facts.as_of < due:
        return f"{rule} {t('readiness.not_before', day=day_in(language, due.isoformat()))}"
    extended = facts.extended
    open_ones = extended.total - extended.met - extended.not_applicable if extended is not None else 0
    lacking = missing + ([t("readiness.extended", number=open_ones)] if open_ones else [])
    return t("readiness.missing", what=", ".join(lacking)) if lacking else t("readiness.ready")
