"""What a year's report says does not change with what is read of other years."""

from __future__ import annotations

from dataclasses import replace

from io_fhir_adapter.volume.count import Period, Seen, VolumeCounter

SEEN = Seen(
    procedures=90, completed=80, by_status={"completed": 80, "not-done": 10}, mapped=20, known_system=70,
    quarantined=3, undated=2, outside=5,
)  # fmt: skip


def test_procedures_of_other_periods_are_left_out_and_all_else_stays() -> None:
    counter = VolumeCounter(Period.year("2025"), 150, {})
    volume = counter.result(SEEN)
    read, in_period, *others = volume.alone().funnel
    assert (read.count, in_period.count, in_period.lost) == (95, 90, 5)
    assert in_period.why == (("quarantined", 3), ("undated", 2))
    assert others == list(volume.funnel[2:])
    assert replace(volume.alone(), seen=volume.seen, funnel=volume.funnel) == volume
    assert counter.result(replace(SEEN, outside=500)).alone() == volume.alone()
