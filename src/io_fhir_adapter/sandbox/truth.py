"""The ground truth that the sandbox hospital publishes about itself.

It is summed up from what the generator planned; nothing here classifies anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Answer", "CaseTruth", "GroundTruth", "SessionTruth", "UnmappedCode", "YearTruth", "sum_up"]

Answer = str | int | bool | tuple[float, str] | tuple[str, ...]
"""A true answer: a code, a number, a boolean, a value with its unit, or the codes of a repeating item, sorted."""


@dataclass(frozen=True)
class CaseTruth:
    """What is true of one session that may be drawn.

    Attributes:
        patient: Reference of the patient who survives all merges.
        date: Local date of the session.
        answers: True answers by linkId of the case-review form, as far as the hospital knows them.
    """

    patient: str
    date: str
    answers: Mapping[str, Answer]


@dataclass(frozen=True)
class SessionTruth:
    """One planned session.

    Attributes:
        patient: Reference of the patient who survives all merges, such as ``Patient/pat-0001``.
        date: Local date in the hospital's time zone, empty if it is not recorded anywhere.
        category: What was done, ``none`` for what is not interventional oncology. A session of shared codes that is
            refused for its indication keeps the category of its codes.
        decision: ``counted``, ``review`` or ``not-counted``.
        reason: Reason code of the decision.
        procedures: Sorted references of its Procedures; where some are completed, of those alone.
        kind: Name of the recipe that it was made from.
        route: How the indication is recorded: ``reason-code``, ``reason-reference``, ``encounter``, ``condition``
            or ``none``.
        traits: What makes it special, such as ``two-systems`` or ``utc-day-differs``.
    """

    patient: str
    date: str
    category: str
    decision: str
    reason: str
    procedures: tuple[str, ...]
    kind: str
    route: str
    traits: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {
            "patient": self.patient,
            "date": self.date,
            "category": self.category,
            "decision": self.decision,
            "reason": self.reason,
            "procedures": list(self.procedures),
            "kind": self.kind,
            "route": self.route,
            "traits": list(self.traits),
        }


@dataclass(frozen=True)
class UnmappedCode:
    """A local code that nobody has mapped, and how many Procedures carry it (alone)."""

    system: str
    code: str
    count: int

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {"system": self.system, "code": self.code, "count": self.count}


@dataclass(frozen=True)
class YearTruth:
    """What is true of one calendar year in the hospital's time zone.

    ``not_counted`` is the number of planned sessions (real ones and look-alikes) that do not count; ordinary
    hospital work, which does not count either, is not in it. Months are written ``2025-03``.
    ``unmapped`` lists the codes of Procedures dated in this year, the most frequent first.
    """

    year: int
    sessions: tuple[SessionTruth, ...]
    counted: int
    review: int
    not_counted: int
    counted_by_category: Mapping[str, int]
    counted_by_month: Mapping[str, int]
    review_by_category: Mapping[str, int]
    not_counted_by_reason: Mapping[str, int]
    eligible_patients: tuple[str, ...]
    unmapped: tuple[UnmappedCode, ...]

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {
            "year": self.year,
            "counted": self.counted,
            "review": self.review,
            "not_counted": self.not_counted,
            "counted_by_category": dict(self.counted_by_category),
            "counted_by_month": dict(self.counted_by_month),
            "review_by_category": dict(self.review_by_category),
            "not_counted_by_reason": dict(self.not_counted_by_reason),
            "eligible_patients": list(self.eligible_patients),
            "unmapped": [code.to_json() for code in self.unmapped],
            "sessions": [session.to_json() for session in self.sessions],
        }


@dataclass(frozen=True)
class GroundTruth:
    """What is true of the whole hospital.

    Attributes:
        procedures_total: Procedures that a full pull is served, broken ones included.
        procedures_broken: Broken ones among them.
        resources: Number of good resources by type.
        broken: Broken resources of every type, by reason.
        years: The truth of each year, by year.
        undated: Planned sessions that have no date anywhere.
        unmapped: Unmapped codes over all time, the most frequent first.
        without_code: Good Procedures that carry no coding at all.
    """

    procedures_total: int
    procedures_broken: int
    resources: Mapping[str, int]
    broken: Mapping[str, int]
    years: Mapping[int, YearTruth]
    undated: tuple[SessionTruth, ...]
    unmapped: tuple[UnmappedCode, ...]
    without_code: int

    @property
    def sessions(self) -> tuple[SessionTruth, ...]:
        """Every planned session: year by year, then those without a date."""
        return (*(session for year in self.years.values() for session in year.sessions), *self.undated)

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values, as the sandbox server publishes them."""
        return {
            "procedures_total": self.procedures_total,
            "procedures_broken": self.procedures_broken,
            "resources": dict(self.resources),
            "broken": dict(self.broken),
            "years": {str(year): truth.to_json() for year, truth in self.years.items()},
            "undated": [session.to_json() for session in self.undated],
            "unmapped": [code.to_json() for code in self.unmapped],
            "without_code": self.without_code,
        }


def sum_up(
    *,
    sessions: Iterable[SessionTruth],
    unmapped: Iterable[tuple[str, str, str]],
    years: Iterable[int],
    resources: Mapping[str, int],
    broken: Iterable[tuple[str, str]],
    without_code: int,
) -> GroundTruth:
    """Sums the plans up.

    Args:
        sessions: Every planned session.
        unmapped: (system, code, local date) of every Procedure whose only coding nobody has mapped.
        years: The calendar years of the hospital.
        resources: Number of good resources by type.
        broken: (resource type, reason) of every broken resource.
        without_code: Good Procedures that carry no coding.
    """
    ordered = sorted(sessions, key=lambda session: (session.date, session.patient, session.procedures))
    codes = list(unmapped)
    faults = list(broken)
    lost = sum(kind == "Procedure" for kind, _ in faults)
    return GroundTruth(
        procedures_total=resources.get("Procedure", 0) + lost,
        procedures_broken=lost,
        resources=dict(sorted(resources.items())),
        broken=_tally(reason for _, reason in faults),
        years={year: _sum_up_year(year, ordered, codes) for year in years},
        undated=tuple(session for session in ordered if not session.date),
        unmapped=_rank(codes),
        without_code=without_code,
    )


def _sum_up_year(year: int, ordered: list[SessionTruth], codes: list[tuple[str, str, str]]) -> YearTruth:
    sessions = tuple(session for session in ordered if session.date.startswith(str(year)))
    counted = [session for session in sessions if session.decision == "counted"]
    review = [session for session in sessions if session.decision == "review"]
    rest = [session for session in sessions if session.decision == "not-counted"]
    return YearTruth(
        year=year,
        sessions=sessions,
        counted=len(counted),
        review=len(review),
        not_counted=len(rest),
        counted_by_category=_tally(session.category for session in counted),
        counted_by_month=_tally(session.date[:7] for session in counted),
        review_by_category=_tally(session.category for session in review),
        not_counted_by_reason=_tally(session.reason for session in rest),
        eligible_patients=tuple(sorted({session.patient for session in counted})),
        unmapped=_rank([code for code in codes if code[2].startswith(str(year))]),
    )


def _tally(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _rank(codes: list[tuple[str, str, str]]) -> tuple[UnmappedCode, ...]:
    counts = Counter((system, code) for system, code, _ in codes)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(UnmappedCode(system, code, count) for (system, code), count in ranked)
