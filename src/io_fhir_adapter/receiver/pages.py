"""The page for the accreditation body: facilities, volumes, submissions. Read only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jinja2

from io_fhir_adapter.receiver.store import StoredSubmission

__all__ = ["PAGE_HEADERS", "Programme", "overview"]

PAGE_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_COUNTED: Final = ("numerator", "counted")
_ENVIRONMENT: Final = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Programme:
    """What the page needs to know of a programme: its title and the sessions that it asks for in a year."""

    title: str
    threshold: int


@dataclass(frozen=True)
class _Volume:
    """One row of the volumes: the newest submission of a facility for a programme and period."""

    facility: str
    programme: str
    period: str
    counted: int
    threshold: int | None
    cases: int
    received: str

    @property
    def share(self) -> int:
        """Percent of the threshold, at most 100."""
        return min(100, round(100 * self.counted / self.threshold)) if self.threshold else 0

    @property
    def reached(self) -> bool:
        return self.threshold is not None and self.counted >= self.threshold


def overview(submissions: list[StoredSubmission], programmes: Mapping[str, Programme]) -> str:
    """The page as HTML; every value from a submission is escaped."""
    newest = {(item.facility, item.programme, item.period_start, item.period_end): item for item in submissions}
    volumes = [_volume(item, programmes) for _, item in sorted(newest.items())]
    return _ENVIRONMENT.get_template("overview.html").render(
        volumes=volumes,
        submissions=list(reversed(submissions)),
        facilities=len({item.facility for item in submissions}),
        cases=sum(volume.cases for volume in volumes),
        titles={code: programme.title for code, programme in programmes.items()},
    )


def _volume(item: StoredSubmission, programmes: Mapping[str, Programme]) -> _Volume:
    populations = dict(item.populations)
    counted = next((populations[code] for code in _COUNTED if code in populations), 0)
    programme = programmes.get(item.programme)
    return _Volume(
        facility=item.facility,
        programme=programme.title if programme else item.programme,
        period=f"{item.period_start} – {item.period_end}",
        counted=counted,
        threshold=programme.threshold if programme else None,
        cases=item.cases,
        received=item.received,
    )
