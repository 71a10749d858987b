"""Decides who has which planned session on which day, and what makes it awkward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from random import Random

from io_fhir_adapter.sandbox.recipes import RECIPES, Recipe
from io_fhir_adapter.sandbox.records import Person
from io_fhir_adapter.sandbox.times import FORMS

__all__ = ["PlannedSession", "schedule"]

_MARGIN_DAYS = 3
_FORM_POOL = tuple(form for form, share in zip(FORMS, (50, 12, 16, 16, 3, 3), strict=True) for _ in range(share))
_GENDERS = {"D25": "female", "N40": "male", "I86": "male"}
_MIDNIGHT = {4: "utc-day-differs", 9: "period-over-midnight"}
_AWKWARD = {14: "replaced-error", 17: "ordinary-work-same-day", 19: "versioned-reference"}
_EVERY = 20


@dataclass(frozen=True)
class PlannedSession:
    """One session before it is written down.

    ``form`` is a form of :mod:`times`; ``traits`` say what makes it special: ``two-systems``, ``a-day-apart``,
    ``utc-day-differs``, ``period-over-midnight``, ``year-end``, ``year-start``, ``replaced-error``,
    ``ordinary-work-same-day``, ``versioned-reference``, ``split-over-merged``, ``merged-record``,
    ``day-after-another``, ``resolved-tumour``, ``withdrawn-later`` (the tumour on record is), ``undated``.
    """

    recipe: Recipe
    person: Person
    day: date
    variant: str
    route: str
    form: str = "offset"
    minute: int = 600
    disease: str = ""
    traits: tuple[str, ...] = ()


def schedule(rng: Random, people: Sequence[Person], years: Sequence[int], scale: float) -> list[PlannedSession]:
    """Plans every session of these years.

    Args:
        rng: Source of chance.
        people: The patients; those with a profile have a tumour on record.
        years: Calendar years.
        scale: Size relative to a hospital of 1,500 patients; every recipe happens at least once a year.
    """
    planned: list[PlannedSession] = []
    for year in years:
        of_year: list[PlannedSession] = []
        for recipe in RECIPES:
            jitter = rng.choice((-1, 0, 0, 1)) if recipe.per_year >= 8 else 0
            wanted = max(1, round((recipe.per_year + jitter) * scale))
            of_year.extend(_sessions(rng, recipe, wanted, people, year))
        planned.extend(_make_awkward(of_year))
    planned.extend(_undated(rng, people, years))
    return planned


def _sessions(
    rng: Random, recipe: Recipe, wanted: int, people: Sequence[Person], year: int
) -> Iterator[PlannedSession]:
    before: PlannedSession | None = None
    pools = {disease: _candidates(recipe, people, disease) for disease in recipe.diseases or ("",)}
    for index in range(wanted):
        variant = recipe.variants[index % len(recipe.variants)]
        route = recipe.routes[index % len(recipe.routes)]
        disease = recipe.diseases[index % len(recipe.diseases)] if recipe.diseases else ""
        candidates = pools[disease]
        form = rng.choice(_FORM_POOL)
        session = PlannedSession(
            recipe, candidates[0], date(year, 1, 1), variant, route, form, rng.randint(450, 1020), disease
        )
        special = _special(recipe, index)
        if special == "day-after-another" and before is not None:
            after = date.fromordinal(before.day.toordinal() + 1)
            session = replace(session, person=before.person, day=after, traits=(special,))
        else:
            session = _place(rng, session, candidates, people, special)
        session.person.taken.add(session.day.toordinal())
        if "a-day-apart" in session.traits:
            session.person.taken.add(session.day.toordinal() + 1)
        yield session
        before = session


def _candidates(recipe: Recipe, people: Sequence[Person], disease: str) -> list[Person]:
    gender = _GENDERS.get(disease[:3], "")
    if recipe.profiles:
        found = [person for person in people if person.profile in recipe.profiles]
    else:
        found = [person for person in people if not person.profile]
    return [person for person in found if not gender or person.gender == gender]


def _special(recipe: Recipe, index: int) -> str:
    fixed = {
        ("microwave of the liver", 0): "year-end",
        ("microwave of the liver", 1): "year-start",
        ("chemoembolisation", 0): "split-over-merged",
        ("chemoembolisation with loaded particles", 0): "split-over-merged",
        ("radiofrequency of the liver", 0): "merged-record",
        ("destruction in the liver", 1): "day-after-another",
        ("liver ablation without any reason", 0): "resolved-tumour",
        ("laser of the liver", 0): "withdrawn-later",
    }
    if (recipe.name, index) in fixed:
        return fixed[(recipe.name, index)]
    if recipe.twin and index % 6 == 2:
        return "a-day-apart" if index % 12 == 2 else "two-systems"
    return ""


def _place(
    rng: Random, session: PlannedSession, candidates: list[Person], people: Sequence[Person], special: str
) -> PlannedSession:
    """Finds a patient and a day on which nothing else is near."""
    year = session.day.year
    first, last = date(year, 1, 2).toordinal(), date(year, 12, 30).toordinal()
    if special == "year-end":
        first = last = date(year, 12, 31).toordinal()
        session = replace(session, form="offset", minute=23 * 60 + 40, traits=(special,))
    elif special == "year-start":
        first = last = date(year, 1, 1).toordinal()
        session = replace(session, form="utc-day-differs", traits=(special, "utc-day-differs"))
    elif special in {"split-over-merged", "merged-record"}:
        candidates = [person for person in candidates if person.alias]
        session = replace(session, variant=session.recipe.variants[0], traits=(special,))
    elif special == "resolved-tumour":
        candidates = [person for person in people if person.profile == "resolved"]
        session = replace(session, traits=(special,))
    elif special == "withdrawn-later":
        candidates = [person for person in people if person.profile == "withdrawn"]
        session = replace(session, route="condition", traits=(special,))
    elif special in {"two-systems", "a-day-apart"}:
        traits = ("two-systems",) if special == "two-systems" else ("two-systems", "a-day-apart")
        session = replace(session, variant=session.recipe.variants[0], form="offset", traits=traits)
    while True:
        person, day = rng.choice(candidates), rng.randint(first, last)
        chosen = date.fromordinal(day)
        too_late = special == "a-day-apart" and chosen.month != date.fromordinal(day + 1).month
        if not too_late and person.free(day, _MARGIN_DAYS):
            return replace(session, person=person, day=chosen)


def _make_awkward(sessions: list[PlannedSession]) -> Iterator[PlannedSession]:
    """Gives every twentieth counted session without a trait the same kind of awkwardness."""
    plain = 0
    for session in sessions:
        if session.traits or session.recipe.decision != "counted":
            yield _named_form(session)
            continue
        turn = plain % _EVERY
        plain += 1
        if turn in _MIDNIGHT:
            yield _named_form(replace(session, form=_MIDNIGHT[turn]))
        elif turn in _AWKWARD:
            yield _named_form(replace(session, traits=(_AWKWARD[turn],)))
        else:
            yield _named_form(session)


def _named_form(session: PlannedSession) -> PlannedSession:
    if session.form in {"utc-day-differs", "period-over-midnight"} and session.form not in session.traits:
        return replace(session, traits=(*session.traits, session.form))
    return session


def _undated(rng: Random, people: Sequence[Person], years: Sequence[int]) -> Iterator[PlannedSession]:
    """Ablations whose date nobody wrote down, in no Encounter either."""
    recipe = next(recipe for recipe in RECIPES if recipe.name == "microwave of the liver")
    candidates = [person for person in people if person.profile in recipe.profiles]
    undated = replace(recipe, decision="not-counted", reason="undated")
    for form in ("absent", "missing", "absent"):
        yield PlannedSession(
            undated,
            rng.choice(candidates),
            date(rng.choice(years), 6, 1),
            "ops:5-501.a3",
            "reason-code",
            form,
            traits=("undated",),
        )
