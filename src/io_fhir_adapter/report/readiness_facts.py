"""What readiness rests on, as plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from io_fhir_adapter.report.standards import Tally
from io_fhir_adapter.volume.count import Volume

__all__ = ["CaseWork", "Facts", "GroupCount", "Standing", "Year"]


@dataclass(frozen=True, slots=True)
class GroupCount:
    """One of the body's groups in one year.

    Attributes:
        id: Of the group, empty for categories that belong to none.
        title: The body's name for it.
        done: Sessions that nothing speaks against, whether or not the programme counts their category.
        open: Sessions for review.
    """

    id: str
    title: str
    done: int
    open: int


@dataclass(frozen=True, slots=True)
class Year:
    """The volume of one calendar year up to a day.

    Attributes:
        label: Such as ``2025``.
        counted: Counted without anyone's judgement.
        review: A responsible person may add them.
        threshold: What is asked for.
        days: Length of the year in days.
        gone: Days of it that are past, at most ``days``.
        so_far: Counted in the days that are past.
        groups: The body's groups, in its order.
    """

    label: str
    counted: int
    review: int
    threshold: int
    days: int
    gone: int
    so_far: int
    groups: tuple[GroupCount, ...] = ()

    @classmethod
    def of(cls, volume: Volume, as_of: date, groups: tuple[GroupCount, ...] = ()) -> Year:
        """The year of a volume as it stands on a day."""
        period = volume.period
        gone = (as_of - date.fromisoformat(period.start)).days + 1
        so_far = max((running for day, running in volume.cumulative if day <= as_of.isoformat()), default=0)
        return cls(
            period.label, volume.counted, volume.review, volume.threshold, period.days,
            max(0, min(gone, period.days)), so_far, groups,
        )  # fmt: skip

    @property
    def possible(self) -> int:
        """Counted and for review together."""
        return self.counted + self.review

    @property
    def ended(self) -> bool:
        """Whether all its days are past."""
        return self.gone >= self.days

    @property
    def projected(self) -> int | None:
        """What a straight line through the days past comes to by the year's end; None where none is past."""
        return self.so_far * self.days // self.gone if self.gone else None

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "year": self.label, "counted": self.counted, "review": self.review, "possible": self.possible,
            "threshold": self.threshold, "days": self.days, "days-past": self.gone, "counted-so-far": self.so_far,
            "projected": None if self.ended else self.projected,
            "groups": [asdict(group) for group in self.groups],
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class CaseWork:
    """How far the case review of a year is.

    Attributes:
        period: The year.
        frame: Patients who could be drawn.
        drawn: Cases in the sample; 0 where the nonce is awaited.
        prefilled: Of those, with a pre-filled form.
        signed: Of those, signed by a reviewer.
        approved: What an approver said last of the sealed submission, in words; empty where nothing was said.
        verdict: What the accreditation body said last of it, in words; empty where nothing was said.
    """

    period: str
    frame: int
    drawn: int
    prefilled: int
    signed: int
    approved: str = ""
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """What only people know; a date is None where it is not known."""

    approved: date | None = None
    enrolled: date | None = None
    accredited: date | None = None


@dataclass(frozen=True)
class Facts:
    """All that readiness rests on.

    Attributes:
        as_of: The local date.
        running: The year that is under way.
        last: The year before it.
        core: Core requirements as answered, None where the programme has no standards.
        extended: The same of the extended ones.
        answered_at: When the self-assessment was taken, empty where there is none.
        cases: The case review of the year that is due, None where nothing was drawn.
        standing: What people know.
        empty: Whether the ledger holds no Procedure at all.
        read_at: When the last complete run ended, empty where none did.
    """

    as_of: date
    running: Year
    last: Year
    core: Tally | None = None
    extended: Tally | None = None
    answered_at: str = ""
    cases: CaseWork | None = None
    standing: Standing = Standing()
    empty: bool = False
    read_at: str = ""
