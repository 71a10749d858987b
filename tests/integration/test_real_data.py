"""Public FHIR sets that hold no interventional oncology: everything is read, nothing is counted.

The sets are no part of the project; without them these tests are skipped.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from io_fhir_adapter.classify.ruleset import Ruleset, load_ruleset
from io_fhir_adapter.engine.local import classify_files, count_files
from io_fhir_adapter.engine.scan import Scan
from io_fhir_adapter.errors import InputError
from io_fhir_adapter.model import Decision
from io_fhir_adapter.pull.files import find_inputs
from io_fhir_adapter.volume.count import Period

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
PROCEDURES = {
    "synthea-bulk-10": 2056,
    "synthea-bundles-40": 414,
    "mii-kds-testdata": 98,
    "us-core-examples": 2,
    "uk-core-procedure": 0,
    "fhir-test-cases": 1,
}

pytestmark = [
    pytest.mark.skipif(not DATA.is_dir(), reason="the public data sets are absent"),
    pytest.mark.xdist_group("real-data"),  # each set is read once
]


@cache
def rules() -> Ruleset:
    return load_ruleset()


def classified(arguments: Sequence[str | Path], stdin: Any = None) -> tuple[Scan, list[Decision]]:
    with classify_files(find_inputs([str(a) for a in arguments]), rules(), stdin=stdin) as (scan, decisions):
        return scan, list(decisions)


@cache
def whole(name: str) -> tuple[Scan, list[Decision]]:
    return classified([DATA / name])


def resources(value: Any) -> Iterator[dict[str, Any]]:
    """Every resource in a parsed file, Bundles opened."""
    if isinstance(value, dict) and value.get("resourceType") == "Bundle":
        for entry in value.get("entry", ()):
            yield from resources(entry.get("resource"))
    elif isinstance(value, dict) and "resourceType" in value:
        yield value


def parsed(path: Path) -> Iterator[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ndjson":
        for line in text.splitlines():
            yield from resources(json.loads(line))
    elif path.suffix == ".json":
        yield from resources(json.loads(text))


@pytest.mark.parametrize("name", PROCEDURES)
def test_every_procedure_is_read_file_by_file(name: str) -> None:
    scan, _ = whole(name)
    assert scan.procedures_read == PROCEDURES[name]
    for report in scan.files:
        path = Path(report.name)
        if path.suffix != ".xml":
            assert report.procedures == sum(r["resourceType"] == "Procedure" for r in parsed(path)), path.name


@pytest.mark.parametrize("name", PROCEDURES)
def test_nothing_is_counted_and_nothing_is_for_review(name: str) -> None:
    _, decisions = whole(name)
    assert {decision.decision for decision in decisions} <= {"not-counted"}


@pytest.mark.parametrize("name", PROCEDURES)
def test_no_year_has_a_volume(name: str) -> None:
    _, decisions = whole(name)
    years = sorted({decision.date[:4] for decision in decisions if decision.date})
    for year in years or ["2025"]:
        volume = count_files(find_inputs([str(DATA / name)]), rules(), Period.year(year)).volume
        assert (volume.counted, volume.review) == (0, 0)


def test_what_a_row_matches_is_what_a_coder_would_expect() -> None:
    """One biopsy of the breast; the rest are look-alikes: heart, surgery, radiotherapy, systemic chemotherapy."""
    found: Counter[tuple[str, str, str]] = Counter()
    for name in PROCEDURES:
        found.update((d.category, d.reason, f.technique) for d in whole(name)[1] for f in d.findings)
    assert {key[0] for key in found} == {"none", "biopsy"}
    assert found["biopsy", "category-not-counted", "biopsy"] == 1
    assert {key for key in found if key[0] == "none"} == {("none", "look-alike", "none")}


def test_unmapped_codes_are_listed_with_their_number() -> None:
    scan, _ = whole("synthea-bulk-10")
    first = scan.unmapped[0]
    assert (first.system, first.code, first.known_system) == ("http://snomed.info/sct", "265764009", True)
    total = sum(entry.codings for entry in scan.unmapped)
    assert total == 2056 - 1, "every coding but that of the biopsy"
    assert [entry.codings for entry in scan.unmapped] == sorted((e.codings for e in scan.unmapped), reverse=True)
    foreign = [entry for entry in whole("mii-kds-testdata")[0].unmapped if not entry.known_system]
    assert foreign, "codes of systems without a table are listed apart"
    assert whole("mii-kds-testdata")[0].without_code == 8


def test_what_is_broken_is_named_by_place_and_reason() -> None:
    scan, _ = whole("synthea-bulk-10")
    assert [(Path(q.position).name, q.reason) for q in scan.quarantined] == [
        (f"log.ndjson:{line}", "no resourceType") for line in (1, 2, 3, 4)
    ]
    scan, _ = whole("fhir-test-cases")
    places = {Path(q.position).name: q.reason for q in scan.quarantined}
    assert places["_expected.json"] == "Expected `object`, got `array` at $"
    assert scan.quarantined_total == len(scan.quarantined)


def test_xml_is_refused_in_one_sentence_a_file() -> None:
    scan, decisions = whole("uk-core-procedure")
    assert len(scan.files) == 24
    assert all("is XML; convert it to FHIR JSON" in report.refused for report in scan.files)
    assert decisions == []


def test_the_same_procedures_singly_and_in_bundles_are_one_each() -> None:
    scan, decisions = whole("mii-kds-testdata")
    listed = [reference for decision in decisions for reference in decision.procedures]
    assert len(listed) == len(set(listed)) < scan.procedures_read
    assert scan.seen.procedures + scan.seen.undated == len(
        {
            r["id"]
            for path in (DATA / "mii-kds-testdata").glob("*.json")
            for r in parsed(path)
            if r["resourceType"] == "Procedure"
        }
    )


def key(decisions: Sequence[Decision]) -> list[tuple[str, str, str, str, tuple[str, ...]]]:
    return [(d.patient, d.date, d.category, d.reason, d.procedures) for d in decisions]


def test_packing_changes_nothing(tmp_path: Path) -> None:
    """Plain, gzipped, split, as Bundles, as single files, from a glob and from stdin."""
    source = DATA / "synthea-bulk-10"
    files = [
        path
        for path in sorted(source.glob("*.ndjson"))
        if path.name.split(".")[0] in {"Procedure", "Condition", "Encounter"}
    ]
    if not files:
        files = [path for path in sorted(source.glob("*.ndjson")) if path.name != "log.ndjson"]
    expected = key(classified(files)[1])
    assert expected
    zipped, split, mixed = tmp_path / "zipped", tmp_path / "split", tmp_path / "mixed"
    for folder in (zipped, split, mixed):
        folder.mkdir()
    everything: list[bytes] = []
    for path in files:
        lines = path.read_bytes().splitlines(keepends=True)
        everything += lines
        (zipped / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        for part in range(3):
            (split / f"{path.stem}-{part}.ndjson").write_bytes(b"".join(lines[part::3]))
    half = len(everything) // 2
    entries = [{"resource": json.loads(line)} for line in everything[:half]]
    (mixed / "first.json").write_text(json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}))
    (mixed / "last.json").write_bytes(everything[-1])
    (mixed / "rest.ndjson").write_bytes(b"".join(reversed(everything[half:])))
    assert key(classified([zipped])[1]) == expected
    assert key(classified([split])[1]) == expected
    assert key(classified([mixed])[1]) == expected
    assert key(classified([zipped / "*.gz"])[1]) == expected
    assert key(classified(["-"], stdin=io.BytesIO(b"".join(everything)))[1]) == expected
    assert key(classified(["-"], stdin=io.BytesIO(gzip.compress(b"".join(everything), mtime=0)))[1]) == expected
    assert key(classified([split, zipped])[1]) == expected, "what is read twice is seen once"


def test_counting_sees_what_classifying_sees() -> None:
    scan, decisions = whole("synthea-bulk-10")
    years = sorted({d.date[:4] for d in decisions})
    seen = [
        count_files(find_inputs([str(DATA / "synthea-bulk-10")]), rules(), Period.year(year)).volume.seen
        for year in years
    ]
    assert sum(item.procedures for item in seen) == scan.seen.procedures
    assert {item.quarantined for item in seen} == {0}


def test_a_folder_without_fhir_is_refused(tmp_path: Path) -> None:
    shutil.copy(DATA / "INDEX.md", tmp_path)
    with pytest.raises(InputError, match=r"no \.json or \.ndjson"):
        find_inputs([str(tmp_path)])
