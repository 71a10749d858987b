"""What is kept of the lines of an export, whichever way they are read. All data is synthetic."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from io_fhir_adapter.errors import PullError
from io_fhir_adapter.pull.bulk_manifest import ManifestFile
from io_fhir_adapter.pull.bulk_parts import Downloaded, Part, read_parts

WANTED = {"reference": "Patient/1"}
OTHER = {"reference": "Patient/2"}


def line(name: Any, subject: Any, kind: str = "Condition", **elements: Any) -> str:
    return json.dumps({"resourceType": kind, "id": name, "subject": subject, **elements})


def keep(name: str, subject: str) -> bool:
    return subject == "Patient/1" or name == "always"


def read(folder: Path, text: str | bytes, kind: str = "Condition") -> list[Part]:
    path = folder / "file"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return list(read_parts(Downloaded(ManifestFile("", kind), path), kind, keep=keep))


def kept(folder: Path, *lines: str, kind: str = "Condition") -> tuple[list[str | None], list[str]]:
    """Ids of what is sound, and what is said of the rest."""
    parts = read(folder, "".join(f"{one}\n" for one in lines), kind)
    said = [f"{one.resource_id}: {one.item.problem}" for part in parts for one in part.broken]
    return [one.id for part in parts for one in part.sound], said


ILL = line("x", OTHER, code=7)  # has the block gone through line by line


@pytest.mark.parametrize("beside", [[], [ILL]])
def test_only_what_is_wanted(tmp_path: Path, beside: list[str]) -> None:
    lines = [line("a", WANTED), line("b", OTHER), line("always", None), "", line("d", WANTED), *beside]
    assert kept(tmp_path, *lines) == (["a", "always", "d"], [])


def test_patients_are_wanted_by_their_own_reference(tmp_path: Path) -> None:
    lines = [line(name, None, "Patient") for name in ("1", "2")]
    assert kept(tmp_path, *lines, kind="Patient") == (["1"], [])
    broken = line("1", None, "Patient", gender=7)
    assert kept(tmp_path, broken, line("2", None, "Patient", gender=7), kind="Patient")[1] == [
        "1: Expected `str | null`, got `int` at $.gender"
    ]


def test_what_is_wanted_is_told_whatever_is_wrong_with_it(tmp_path: Path) -> None:
    sound, said = kept(tmp_path, line(7, WANTED), line(None, WANTED), line("a", WANTED, code=7), line(7, OTHER))
    assert sound == []
    assert sorted(one.partition(":")[0] for one in said) == ["", "", "a"]


def test_the_last_version_counts(tmp_path: Path) -> None:
    broken, good = line("a", WANTED, code=7), line("a", WANTED)
    assert kept(tmp_path, broken, good) == (["a"], [])
    assert kept(tmp_path, good, broken)[0] == []


def test_values_that_do_not_lie_one_in_a_line(tmp_path: Path) -> None:
    two, over = line("a", WANTED) + line("b", OTHER), json.dumps({"resourceType": "Condition", "id": "c"}, indent=0)
    for lines in ([two], [over], [two, over], [line("b", OTHER), two, over]):
        parts = read(tmp_path, "\n".join(lines) + "\n")
        assert {one.id for part in parts for one in part.sound} <= {"a"}
    assert kept(tmp_path, line("b", OTHER), line("a", WANTED)) == (["a"], [])


def test_a_damaged_file_ends_in_a_sentence(tmp_path: Path) -> None:
    packed = gzip.compress(f"{line('a', WANTED)}\n".encode() * 10_000)
    for text in (packed[: len(packed) // 2], packed[:40] + b"?" * 40 + packed[80:]):
        with pytest.raises(PullError, match="cannot be kept"):
            read(tmp_path, text)
