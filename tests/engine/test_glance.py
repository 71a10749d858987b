"""A look at blocks in a glance says the same as line after line looked at whole, broken lines included. Synthetic."""

from __future__ import annotations

import io
import json
import random
import tracemalloc
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from io_fhir_adapter.classify.ruleset import Ruleset, load_ruleset
from io_fhir_adapter.engine import tally
from io_fhir_adapter.engine.distinct import DistinctTally
from io_fhir_adapter.engine.local import Counted, count_files
from io_fhir_adapter.fhir.dates import tomorrow, zone
from io_fhir_adapter.pull import files
from io_fhir_adapter.pull.files import InputFile
from io_fhir_adapter.volume.count import Period

OPS = "http://fhir.de/CodeSystem/bfarm/ops"
YEAR = Period.year("2025")
MISSING = object()
# Of another type: a block that holds one is decoded line by line, every Procedure of it whole
OTHER = b'{"resourceType":"Observation"}\n'


@cache
def rules() -> Ruleset:
    return load_ruleset()


def count(data: bytes, zone_name: str | None = None) -> Counted:
    tz = zone(zone_name) if zone_name else None
    return count_files([InputFile(None, "in")], rules(), YEAR, stdin=io.BytesIO(data), tz=tz)


def outcome(counted: Counted, lines_before: int = 0) -> dict[str, Any]:
    scan = counted.scan
    return {
        "volume": counted.volume,
        "unmapped": scan.unmapped,
        "without_code": scan.without_code,
        "read": scan.procedures_read,
        "quarantined": [
            (int(entry.position.partition(":")[2]) - lines_before, entry.resource_type, entry.reason)
            for entry in scan.quarantined
        ],
        "damaged": [report.damaged for report in scan.files],
    }


def line(resource: dict[str, Any]) -> bytes:
    return json.dumps({key: value for key, value in resource.items() if value is not MISSING}).encode() + b"\n"


def coding(code: str, **more: Any) -> dict[str, Any]:
    return {"coding": [{"system": OPS, "code": code, **more}]}


TIMES = [
    "",
    "",
    "T08:30:00+01:00",
    "T08:30:00+01:00",
    "T23:30:00Z",
    "T00:10:00-11:00",
    " 10:00",
    "T25:00:00Z",
    "x10",
    "T",
]
DAYS = [
    "2025-03-14", "2025-03-14", "2024-12-31", "2025-01-01", "2025-12-31", "2026-01-02", "2025", "2025-06", "2025-02-30",
    "2023-05-05", "2025-W11-5", "0001-01-01", "9999-12-31", tomorrow(),
]  # fmt: skip
CONCEPTS = [
    *(coding(code) for code in ("5-501.a3", "8-836.ka", "9-999", "9-999", "9-998")),
    coding("9-999", display="CT-gesteuerte Mikrowellenablation der Leber"),
    {"coding": [{"system": OPS, "code": "9-999"}, {"code": "x"}, {"system": "", "code": "y"}, {"system": OPS}, {}]},
    {"text": "Ablation"}, {"coding": []}, {}, None, "ablation", {"coding": [{"code": 5}]}, MISSING,
]  # fmt: skip
GOOD: dict[str, Any] = {
    "resourceType": "Procedure", "id": "g", "status": "completed", "code": coding("9-999"),
    "subject": {"reference": "Patient/1"}, "performedDateTime": "2025-03-14T08:30:00+01:00",
}  # fmt: skip
BROKEN = [
    b'{"resourceType":"Procedure",\n', b"\xff\n", b"[]\n", b'{"resourceType":"Procedure","id":"\xff"}\n', OTHER,
    line({**GOOD, "id": 3}), line({**GOOD, "performedDateTime": 7}), line({**GOOD, "performedPeriod": "always"}),
]  # fmt: skip


def moment(rng: random.Random) -> str | None:
    return rng.choice([None, "", "always", *[rng.choice(DAYS) + rng.choice(TIMES)] * 9])


def period(rng: random.Random) -> dict[str, Any] | None:
    return rng.choice([None, {}, *[{"start": moment(rng), "end": moment(rng)}] * 4])


def procedure(rng: random.Random) -> dict[str, Any]:
    """Every element has the JSON type it should have, if it is there, for only such are looked at in a glance."""
    return {
        **GOOD,
        "id": rng.choice([*"abcdefghijklmnopqrst", "", None, MISSING]),
        "status": rng.choice(["completed", "completed", "not-done", "aborted", "unheard-of", "", None, MISSING]),
        "notDone": rng.choice([MISSING, MISSING, True, False, None]),
        "code": rng.choice(CONCEPTS),
        "subject": rng.choice([*[{"reference": "Patient/1"}, {"reference": "Patient/2"}] * 4, None, MISSING]),
        "performedDateTime": rng.choice([MISSING, moment(rng), moment(rng)]),
        "performedPeriod": rng.choice([MISSING, period(rng)]),
        "occurrenceDateTime": rng.choice([MISSING, MISSING, moment(rng)]),
        "occurrencePeriod": rng.choice([MISSING, MISSING, period(rng)]),
        "reasonCode": [coding("C22.0")],
    }


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Blocks of a few lines, so that later ones meet what earlier ones have taught."""
    with monkeypatch.context() as patch:
        patch.setattr(files, "_HEAD", 1_500)
        patch.setattr(files, "_BLOCK", 1_500)
        yield patch


@pytest.mark.parametrize("zone_name", [None, "Europe/Berlin", "Pacific/Auckland"])
@pytest.mark.parametrize("kind", ["whole", "with broken lines"])
def test_a_glance_says_the_same_as_a_look_at_the_whole(
    zone_name: str | None, kind: str, small_blocks: pytest.MonkeyPatch
) -> None:
    rng = random.Random(f"{zone_name} {kind}")
    drawn = []
    for _ in range(60):
        lines = [line(procedure(rng)) for _ in range(rng.randrange(1, 60))]
        lines += rng.choices([b"\n", b" \n"], k=rng.randrange(2))
        lines += rng.choices(BROKEN, k=rng.randrange(3)) if kind != "whole" else []
        rng.shuffle(lines)
        drawn.append(line(GOOD) + b"".join(lines))
    at_a_glance = [outcome(count(data, zone_name)) for data in drawn]
    small_blocks.undo()
    for data, found in zip(drawn, at_a_glance, strict=True):
        assert found == outcome(count(OTHER + data, zone_name), lines_before=1), data.decode(errors="replace")


@pytest.mark.parametrize("codes", [("8-836.ka", "9-999"), ("9-999", "8-836.ka"), ("9-999", "8-836.ka", "9-999")])
def test_of_several_versions_in_one_block_the_last_one_holds(codes: tuple[str, ...]) -> None:
    data = b"".join(line({**GOOD, "code": coding(code)}) for code in codes)
    seen = count(data).volume.seen
    assert (seen.procedures, seen.mapped) == (1, int(codes[-1] == "8-836.ka"))


def test_what_is_remembered_stays_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"".join(
        line(
            {**GOOD, "id": str(n), "code": coding(f"9-{n % 700}"), "performedDateTime": f"2025-03-14T08:30:00.{n:06d}Z"}
        )
        for n in range(6_000)
    )
    expected = outcome(count(data))
    monkeypatch.setattr(tally, "_LIMIT", 100)
    assert outcome(count(data)) == expected
    assert {entry.codings for entry in expected["unmapped"]} == {8, 9}


@pytest.mark.parametrize("number", [999, 300_000])
def test_distinct_keys_are_counted_with_their_last_flags_in_memory_and_on_disk(number: int) -> None:
    with DistinctTally() as distinct:
        distinct.extend(range(number), (key % 3 for key in range(number)))
        assert distinct.result() == {0: number // 3, 1: number // 3, 2: number // 3}
        distinct.extend(range(30), [9] * 30)
        assert distinct.result() == {0: number // 3 - 10, 1: number // 3 - 10, 2: number // 3 - 10, 9: 30}


def test_keys_that_share_a_bucket_are_counted_a_part_at_a_time() -> None:
    number = 300_000
    keys = [key * 256 - number * 128 for key in range(number)]  # of either sign, and alike in their last bits
    with DistinctTally() as distinct:
        distinct.extend(keys, [1] * number)
        distinct.extend(keys[:1000], [2] * 1000)
        tracemalloc.start()
        assert distinct.result() == {1: number - 1000, 2: 1000}
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 12 << 20  # all of them at once would take 30 MiB
