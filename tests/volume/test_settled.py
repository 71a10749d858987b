"""What deciding knows and reading cannot: Procedures set aside, and those taken for completed."""

from __future__ import annotations

from io_fhir_adapter.volume.count import Period, Seen, SeenCounter
from io_fhir_adapter.volume.settled import after_deciding

YEAR = Period.year("2025")
RECORDS = (
    ("2025-03-14", "completed"), ("2025-03-15", "completed"), ("2025-03-16", "not-done"), ("2025-03-17", "in-progress"),
    ("2025-03-18", "in-progress"), ("2024-12-31", "completed"), ("", "completed"),
)  # fmt: skip


def seen(records: tuple[tuple[str, str], ...], quarantined: int = 0) -> Seen:
    counter = SeenCounter(YEAR)
    for day, status in records:
        counter.add(day, status, known_system=True, mapped=True)
    counter.quarantine(quarantined)
    return counter.result()


def test_what_is_set_aside_is_tallied_as_quarantined_and_as_nothing_else() -> None:
    for number in range(len(RECORDS) + 1):
        kept, aside = RECORDS[number:], RECORDS[:number]
        assert after_deciding(seen(RECORDS, 2), YEAR, aside, []) == seen(kept, 2 + number)


def test_what_has_ended_is_tallied_as_completed() -> None:
    found = after_deciding(seen(RECORDS), YEAR, [], ["2025-03-17", "2024-05-01", ""])
    assert found.by_status == {"completed": 3, "in-progress": 1, "not-done": 1}
    assert (found.completed, found.mapped, found.known_system, found.read) == (3, 3, 3, len(RECORDS))


def test_a_status_that_fhir_does_not_know_is_found_again() -> None:
    other = Seen(1, 0, {"other": 1}, 0, 0, 0, 0)
    assert after_deciding(other, YEAR, [("2025-03-14", "strange")], []).by_status == {}
