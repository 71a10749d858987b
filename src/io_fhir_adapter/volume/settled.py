"""The tallies of what was read, put right by what only deciding could know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from io_fhir_adapter.model import status_name
from io_fhir_adapter.volume.count import Seen
from io_fhir_adapter.volume.period import Period

__all__ = ["after_deciding"]


def after_deciding(seen: Seen, period: Period, aside: Iterable[tuple[str, str]], ended: Iterable[str]) -> Seen:
    """The tallies with what only deciding could know.

    Args:
        seen: As tallied while reading.
        period: Whose tallies they are.
        aside: (day, status) of Procedures with a row in the code tables that were set aside, since the patient cannot
            have been alive on their date; they become quarantined.
        ended: Days of Procedures with a row that are ``in-progress`` and that the programme takes for completed.
    """
    status = Counter(seen.by_status)
    completed, mapped, known = seen.completed, seen.mapped, seen.known_system
    undated, outside, quarantined = seen.undated, seen.outside, seen.quarantined
    for day, name in aside:
        quarantined += 1
        place = period.place(day)
        undated -= place == "unplaced"
        outside -= place == "outside"
        if place == "inside":
            status[status_name(name)] -= 1
            done = name == "completed"
            completed, mapped, known = completed - done, mapped - done, known - done
    for day in ended:
        if period.place(day) == "inside":
            status["in-progress"] -= 1
            status["completed"] += 1
            completed, mapped, known = completed + 1, mapped + 1, known + 1
    by_status = {name: number for name, number in sorted(status.items()) if number}
    return Seen(sum(by_status.values()), completed, by_status, mapped, known, quarantined, undated, outside)
