"""Counting: decisions in, one year's volume out.

Only tallies are kept, so memory depends on the number of days, categories and reasons, never on the number of
decisions; and since every tally is a sum, the order of the decisions changes nothing.

Two units must not be mixed up: *procedures* are single source Procedures (tallied by `SeenCounter`),
*sessions* are what is counted (tallied by `VolumeCounter`). The funnel shows both and names the unit of each step.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Literal

from io_fhir_adapter.model import Decision
from io_fhir_adapter.volume.period import Period
from io_fhir_adapter.volume.seen import Seen, SeenCounter

__all__ = [
    "FUNNEL_STEPS",
    "UNKNOWN_MONTH",
    "FunnelStep",
    "Period",
    "Seen",
    "SeenCounter",
    "Tally",
    "Volume",
    "VolumeCounter",
]

UNKNOWN_MONTH = "unknown"
"""The month of sessions whose date is no finer than a year."""

_NOT_IO = "none"
_KINDS = {"counted": 0, "review": 1, "not-counted": 2}
_INDICATION_REASONS = frozenset({"no-tumour-indication", "other-disease", "indication-not-found"})
_CATEGORY_REASONS = frozenset({"category-not-counted", "category-for-review", "planning-only"})
_SCOPE_REASONS = frozenset({"out-of-scope", "scope-unknown"})
_UNDATED = "undated"
_PROCEDURE_STEPS = {
    "read": "read",
    "in-period": "in the period",
    "completed": "completed",
    "mapped": "with a row in the code tables",
}
_SESSION_STEPS = {
    "in-scope": "in scope",
    "io-category": "with an IO category",
    "counting-category": "in a category that counts",
    "indication": "indication found",
    "dated": "dated within the period",
    "counted": "counted",
}
FUNNEL_STEPS: Mapping[str, str] = {**_PROCEDURE_STEPS, **_SESSION_STEPS}
"""Code of every step of the funnel to what is left after it, in order; ``in-scope`` only where a scope is asked for."""


@dataclass(frozen=True)
class Tally:
    """Sessions by what became of them."""

    counted: int = 0
    review: int = 0
    not_counted: int = 0

    @property
    def total(self) -> int:
        """All sessions of this tally."""
        return self.counted + self.review + self.not_counted

    def plus(self, other: Tally) -> Tally:
        """The sum of both."""
        return Tally(self.counted + other.counted, self.review + other.review, self.not_counted + other.not_counted)

    def to_json(self) -> dict[str, int]:
        """``{"counted", "review", "not-counted"}``."""
        return {"counted": self.counted, "review": self.review, "not-counted": self.not_counted}


@dataclass(frozen=True)
class FunnelStep:
    """One step on the way from what was read to what counts.

    Attributes:
        code: Stable name of the step, of `FUNNEL_STEPS`.
        name: What is left after this step, in plain words.
        unit: ``procedures`` or ``sessions``.
        count: How many are left.
        lost: How many fell out at this step.
        why: Reason code (or FHIR status, or ``quarantined``, ``undated``, ``other-period``) and number, most
            frequent first; the numbers sum to ``lost``.
    """

    code: str
    name: str
    unit: Literal["procedures", "sessions"]
    count: int
    lost: int
    why: tuple[tuple[str, int], ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the reasons as an object of numbers."""
        return {
            "code": self.code,
            "name": self.name,
            "unit": self.unit,
            "count": self.count,
            "lost": self.lost,
            "why": dict(self.why),
        }


@dataclass(frozen=True)
class Volume:
    """The volume of one period.

    Attributes:
        period: The period counted.
        threshold: Sessions that the programme asks for.
        seen: Tallies over the procedures read.
        counted: Sessions that count without anyone's judgement; eligibility is claimed on these alone.
        review: Sessions that a responsible person may add.
        not_counted: All other sessions of the period.
        unplaced: Sessions with an IO category whose date is too vague to be placed in or out of the period; in no
            other number here but the funnel, where they fall out.
        not_counted_by_reason: Reason code to number, in the order of the codes.
        review_by_reason: The same for ``review``.
        by_category: Category to tally, in the order of the codes; ``none`` holds what is not IO.
        by_month: Every month of the period to tally, and ``unknown`` where a date is no finer than a year.
        by_month_category: Month to category to tally, only where there is something.
        cumulative: (ISO date, counted up to and including it), ascending. A date known by month or year
            only is placed at the end of what it may be: nothing is claimed before it is certain.
        funnel: The steps, procedures first. Sessions begin with those of the period and the unplaced.
    """

    period: Period
    threshold: int
    seen: Seen
    counted: int
    review: int
    not_counted: int
    unplaced: int
    not_counted_by_reason: dict[str, int]
    review_by_reason: dict[str, int]
    by_category: dict[str, Tally]
    by_month: dict[str, Tally]
    by_month_category: dict[str, dict[str, Tally]]
    cumulative: tuple[tuple[str, int], ...]
    funnel: tuple[FunnelStep, ...]

    @property
    def possible(self) -> int:
        """Counted and for review together: the most that this period can come to."""
        return self.counted + self.review

    @property
    def sessions(self) -> int:
        """All sessions of the period."""
        return self.counted + self.review + self.not_counted

    def alone(self) -> Volume:
        """The same without what was read of other periods: it says nothing of this one, and grows every night."""
        seen = replace(self.seen, outside=0)
        sessions = (step for step in self.funnel if step.unit == "sessions")
        return replace(self, seen=seen, funnel=(*_procedure_steps(seen), *sessions))

    @property
    def reached(self) -> bool:
        """Whether the counted sessions alone reach the threshold."""
        return self.counted >= self.threshold

    @property
    def reached_on(self) -> str:
        """The ISO date on which the threshold was reached, or empty."""
        return next((day for day, running in self.cumulative if running >= self.threshold), "")

    def to_json(self) -> dict[str, Any]:
        """The whole volume as JSON values."""
        return {
            "period": {"start": self.period.start, "end": self.period.end, "label": self.period.label},
            "threshold": self.threshold,
            "reached": self.reached,
            "counted": self.counted,
            "review": self.review,
            "possible": self.possible,
            "not-counted": self.not_counted,
            "sessions": self.sessions,
            "unplaced": self.unplaced,
            "not-counted-by-reason": dict(self.not_counted_by_reason),
            "review-by-reason": dict(self.review_by_reason),
            "by-category": {name: tally.to_json() for name, tally in self.by_category.items()},
            "by-month": {month: tally.to_json() for month, tally in self.by_month.items()},
            "by-month-category": {
                month: {name: tally.to_json() for name, tally in row.items()}
                for month, row in self.by_month_category.items()
            },
            "cumulative": [[day, running] for day, running in self.cumulative],
            "seen": {
                "read": self.seen.read,
                "procedures": self.seen.procedures,
                "completed": self.seen.completed,
                "by-status": dict(self.seen.by_status),
                "known-system": self.seen.known_system,
                "mapped": self.seen.mapped,
                "quarantined": self.seen.quarantined,
                "undated": self.seen.undated,
                "outside": self.seen.outside,
            },
            "funnel": [step.to_json() for step in self.funnel],
        }


class VolumeCounter:
    """Adds decisions up.

    Args:
        period: Sessions outside it are ignored.
        threshold: What the programme asks for.
        counts: Category to ``yes``, ``no`` or ``review``, from the programme; only the funnel needs it.
        scoped: Whether a scope was asked for; the funnel then shows what it left out, be it nothing.
    """

    def __init__(self, period: Period, threshold: int, counts: Mapping[str, str], *, scoped: bool = False) -> None:
        self._period = period
        self._threshold = threshold
        self._counts = counts
        self._cells: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        self._days: Counter[str] = Counter()
        self._reasons: dict[str, Counter[str]] = {"counted": Counter(), "review": Counter(), "not-counted": Counter()}
        self._scoped = scoped
        self._lost: dict[str, Counter[str]] = {code: Counter() for code in _SESSION_STEPS}
        self._unplaced = 0

    def add(self, decision: Decision, number: int = 1) -> None:
        """Add a decision, or so many of the same date, category, decision and reason; of another period nothing."""
        place = self._period.place(decision.date)
        if place == "outside":
            return
        if place == "unplaced":
            if decision.category != _NOT_IO:
                self._unplaced += number
                survives = decision.decision == "counted"
                step, reason = ("dated", _UNDATED) if survives else (self._lost_at(decision), decision.reason)
                self._lost[step][reason] += number
            return
        day, kind = decision.date, decision.decision
        month = day[:7] if len(day) >= 7 else UNKNOWN_MONTH
        self._cells[month, decision.category][_KINDS[kind]] += number
        self._reasons[kind][decision.reason] += number
        if kind == "counted":
            self._days[self._period.latest(day)] += number
        else:
            self._lost[self._lost_at(decision)][decision.reason] += number

    def _lost_at(self, decision: Decision) -> str:
        if decision.reason in _SCOPE_REASONS:
            return "in-scope"
        if decision.category == _NOT_IO:
            return "io-category"
        if decision.reason in _CATEGORY_REASONS or self._counts.get(decision.category, "no") != "yes":
            return "counting-category"
        if decision.reason in _INDICATION_REASONS:
            return "indication"
        return "dated" if decision.reason == _UNDATED else "counted"

    def result(self, seen: Seen) -> Volume:
        """The volume so far, beside what was seen of the procedures."""
        months = [*self._period.months(), UNKNOWN_MONTH]
        cells = {key: Tally(*numbers) for key, numbers in sorted(self._cells.items())}
        grid: dict[str, dict[str, Tally]] = {month: {} for month in months}
        by_category: dict[str, Tally] = {}
        for (month, category), tally in cells.items():
            grid[month][category] = tally
            by_category[category] = by_category.get(category, Tally()).plus(tally)
        by_month = {month: _sum(row.values()) for month, row in grid.items()}
        if not by_month[UNKNOWN_MONTH].total:
            del by_month[UNKNOWN_MONTH]
        total = _sum(by_category.values())
        days = sorted(self._days.items())
        return Volume(
            period=self._period,
            threshold=self._threshold,
            seen=seen,
            counted=total.counted,
            review=total.review,
            not_counted=total.not_counted,
            unplaced=self._unplaced,
            not_counted_by_reason=dict(sorted(self._reasons["not-counted"].items())),
            review_by_reason=dict(sorted(self._reasons["review"].items())),
            by_category=dict(sorted(by_category.items())),
            by_month=by_month,
            by_month_category={month: row for month, row in grid.items() if row},
            cumulative=tuple(zip((day for day, _ in days), accumulate(number for _, number in days), strict=True)),
            funnel=(*_procedure_steps(seen), *self._session_steps(total.total + self._unplaced)),
        )

    def _session_steps(self, sessions: int) -> Iterable[FunnelStep]:
        left = sessions
        for code, why in self._lost.items():
            if code == "in-scope" and not self._scoped and not why:
                continue
            left -= why.total()
            yield FunnelStep(code, _SESSION_STEPS[code], "sessions", left, why.total(), _ranked(why))


def _procedure_steps(seen: Seen) -> Iterable[FunnelStep]:
    elsewhere = {"other-period": seen.outside, "undated": seen.undated, "quarantined": seen.quarantined}
    unfinished = {status: number for status, number in seen.by_status.items() if status != "completed"}
    rowless = {"no-io-code": seen.known_system - seen.mapped, "unmapped": seen.completed - seen.known_system}
    for code, count, why in (
        ("read", seen.read, {}),
        ("in-period", seen.procedures, elsewhere),
        ("completed", seen.completed, unfinished),
        ("mapped", seen.mapped, rowless),
    ):
        yield FunnelStep(code, _PROCEDURE_STEPS[code], "procedures", count, sum(why.values()), _ranked(why))


def _ranked(why: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(
        sorted(((code, number) for code, number in why.items() if number), key=lambda pair: (-pair[1], pair[0]))
    )


def _sum(tallies: Iterable[Tally]) -> Tally:
    total = Tally()
    for tally in tallies:
        total = total.plus(tally)
    return total
