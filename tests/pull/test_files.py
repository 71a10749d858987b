"""Reading files: every shape FHIR comes in, from anywhere, the good kept beside the broken. All data is synthetic."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest

from io_fhir_adapter.errors import InputError
from io_fhir_adapter.fhir.structs import Condition, Patient, Procedure
from io_fhir_adapter.pull.decode import Item
from io_fhir_adapter.pull.files import Block, InputFile, find_inputs, read_input


def procedure(number: int, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Procedure",
        "id": f"p{number}",
        "status": "completed",
        "subject": {"reference": "Patient/1"},
        **more,
    }


def line(resource: Any) -> bytes:
    return json.dumps(resource).encode() + b"\n"


def bundle(kind: str, *resources: dict[str, Any]) -> dict[str, Any]:
    return {
        "resourceType": "Bundle",
        "type": kind,
        "entry": [{"fullUrl": f"urn:uuid:u{n}", "resource": r} for n, r in enumerate(resources)],
    }


def read(path: Path) -> list[tuple[str, str, str, str]]:
    """Position, type, id and problem of everything in a file."""
    return [entry for source in find_inputs([str(path)]) for entry in flat(read_input(source), path)]


def flat(parts: Any, path: Path) -> list[tuple[str, str, str, str]]:
    found = []
    for part in parts:
        if isinstance(part, Block):
            found += [
                (f"{part.name}:{number}", part.resource_type, resource.id or "", "")
                for number, resource in enumerate(part.resources, start=part.first_line)
            ]
        else:
            name = (part.resource.id if part.resource is not None else "") or part.fallback_id
            found.append((part.position, part.resource_type, name, part.problem))
    return [(place.replace(str(path), path.name), kind, name, problem) for place, kind, name, problem in found]


def test_ndjson_is_read_in_blocks_with_its_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(b"".join(line(procedure(n)) for n in range(3)))
    (block,) = read_input(InputFile(path, "a"))
    assert isinstance(block, Block)
    assert (block.first_line, block.resource_type, len(block.resources)) == (1, "Procedure", 3)


def test_blank_broken_and_foreign_lines_leave_the_others_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(
        line(procedure(1))
        + b"\n"
        + b'{"resourceType":"Procedure",\n'
        + line(procedure(4, code="not a concept"))
        + line({"resourceType": "Observation", "id": "o"})
        + line({"id": "nothing"})
        + line({"resourceType": "Patient", "id": "x"})
        + b"\xff\xfe\n"
        + b"[]\n"
        + line(procedure(10)).rstrip()
    )
    assert read(path) == [
        ("a.ndjson:1", "Procedure", "p1", ""),
        ("a.ndjson:3", "", "", "not valid JSON"),
        ("a.ndjson:4", "Procedure", "", "Expected `object | null`, got `str` at $.code"),
        ("a.ndjson:5", "Observation", "", ""),
        ("a.ndjson:6", "", "", "no resourceType"),
        ("a.ndjson:7", "Patient", "x", ""),
        ("a.ndjson:8", "", "", "not valid JSON"),
        ("a.ndjson:9", "", "", "Expected `object`, got `array` at $"),
        ("a.ndjson:10", "Procedure", "p10", ""),
    ]


def test_reasons_never_repeat_what_the_resource_says(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(
        line(procedure(1, subject="Erika Mustermann"))
        + line(procedure(2, performedPeriod=["Mustermann"]))
        + b'{"resourceType":"Procedure","id":"Mustermann\n'
    )
    assert all("Mustermann" not in problem and problem for *_, problem in read(path))


@pytest.mark.parametrize("kind", ["transaction", "searchset", "collection", "history", "document"])
def test_bundles_of_every_kind(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "b.json"
    nested = bundle("collection", procedure(3))
    path.write_text(
        json.dumps(bundle(kind, procedure(1), {"resourceType": "Patient", "id": "x"}, nested, procedure(2, id=None)))
    )
    assert read(path) == [
        ("b.json entry 1", "Procedure", "p1", ""),
        ("b.json entry 2", "Patient", "x", ""),
        ("b.json entry 3 entry 1", "Procedure", "p3", ""),
        ("b.json entry 4", "Procedure", "u3", ""),
    ]


def test_bundles_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "b.ndjson"
    path.write_bytes(line(bundle("searchset", procedure(1))) + line(bundle("searchset", procedure(2), procedure(3))))
    assert [name for _, _, name, _ in read(path)] == ["p1", "p2", "p3"]


@pytest.mark.parametrize("indent", [None, 2])
def test_a_single_resource(tmp_path: Path, indent: int | None) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps(procedure(1), indent=indent))
    assert read(path) == [("one.json", "Procedure", "p1", "")]


def test_lines_under_another_name_are_found_to_be_lines(tmp_path: Path) -> None:
    path = tmp_path / "lines.json"
    path.write_bytes(line(procedure(1)) + line(procedure(2)))
    assert [name for _, _, name, _ in read(path)] == ["p1", "p2"]


def test_a_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(b"\xef\xbb\xbf" + line(procedure(1)).replace(b"\n", b"\r\n") + line(procedure(2)))
    assert [name for _, _, name, _ in read(path)] == ["p1", "p2"]


def test_unusual_line_separators_inside_a_text_do_not_move_the_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    odd = json.dumps(procedure(1, code={"text": "a\u2028b\u0085c"}), ensure_ascii=False).encode() + b"\n"
    path.write_bytes(odd + b"broken\n" + line(procedure(3)))
    assert [place for place, *_ in read(path)] == ["a.ndjson:1", "a.ndjson:2", "a.ndjson:3"]


def test_gzip_by_its_content_not_its_name(tmp_path: Path) -> None:
    for name in ("a.ndjson.gz", "b.ndjson"):
        (tmp_path / name).write_bytes(gzip.compress(line(procedure(1)) + line(procedure(2))))
        assert len(read(tmp_path / name)) == 2
    path = tmp_path / "c.json.gz"
    path.write_bytes(gzip.compress(json.dumps(bundle("collection", procedure(1))).encode()))
    assert len(read(path)) == 1


def test_damaged_gzip_keeps_what_stood_before_the_damage(tmp_path: Path) -> None:
    lines = b"".join(line(procedure(n, note=[{"text": str(hash((n, "x")))}])) for n in range(4_000))
    path = tmp_path / "a.ndjson.gz"
    data = gzip.compress(lines, mtime=0)
    for damaged in (data[: len(data) // 2], data[: len(data) - 4], data[: len(data) // 2] + b"\0" * 100):
        path.write_bytes(damaged)
        found: list[Block | Item] = []
        with pytest.raises(InputError, match="gzip data"):
            found.extend(read_input(InputFile(path, "a")))
        good = sum(len(part.resources) if isinstance(part, Block) else part.resource is not None for part in found)
        broken = sum(isinstance(part, Item) and bool(part.problem) for part in found)
        assert good > 1_000
        assert broken < 5, "the line that was cut, or the few that the damage turned to noise"


def test_a_damaged_gzip_bundle_is_refused_whole(tmp_path: Path) -> None:
    path = tmp_path / "b.json.gz"
    data = gzip.compress(json.dumps(bundle("collection", *[procedure(n) for n in range(500)])).encode())
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="gzip data"):
        list(read_input(InputFile(path, "b")))


def test_xml_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "p.xml"
    path.write_text('<?xml version="1.0"?><Procedure xmlns="http://hl7.org/fhir"/>')
    with pytest.raises(InputError, match="XML; convert it to FHIR JSON") as caught:
        read(path)
    assert "p.xml" in caught.value.sentence
    assert caught.value.exit_code == 1


def test_an_empty_file_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    for content in (b"", b"\n\n  \n"):
        path.write_bytes(content)
        assert read(path) == []


def test_broken_json_is_one_broken_resource(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"resourceType": "Procedure", "id": ')
    assert read(path) == [("a.json", "", "", "not valid JSON")]


def test_deep_nesting_is_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'{"resourceType":"Procedure","id":"1","extension":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    ((_, _, _, problem),) = read(path)
    assert problem


def test_lines_across_block_borders_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    long = "x" * 700_000
    path.write_bytes(b"".join(line(procedure(n, code={"text": long})) for n in range(5)))
    found = read(path)
    assert [name for _, _, name, _ in found] == [f"p{n}" for n in range(5)]
    assert [place for place, *_ in found] == [f"a.ndjson:{n}" for n in range(1, 6)]


def test_folders_are_searched_and_hidden_and_other_files_left_out(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    for name in ("b.ndjson", "a.json", "inner/c.ndjson.gz", "inner/d.xml", ".hidden.json", "inner/readme.txt"):
        (tmp_path / name).write_bytes(line(procedure(1)))
    found = [Path(source.name).name for source in find_inputs([str(tmp_path)])]
    assert found == ["a.json", "b.ndjson", "c.ndjson.gz", "d.xml"]
    assert [Path(source.name).name for source in find_inputs([str(tmp_path / "**" / "*.ndjson*"), str(tmp_path)])] == [
        "b.ndjson", "c.ndjson.gz", "a.json", "d.xml",
    ]  # fmt: skip


def test_what_names_nothing_is_refused(tmp_path: Path) -> None:
    for argument in (str(tmp_path), str(tmp_path / "absent.json"), str(tmp_path / "*.json")):
        with pytest.raises(InputError) as caught:
            find_inputs([argument])
        assert argument in caught.value.sentence


def test_stdin_plain_and_gzipped() -> None:
    (source,) = find_inputs(["-"])
    assert source == InputFile(None, "stdin")
    data = line(procedure(1)) + line({"resourceType": "Condition", "id": "c"})
    for content in (data, gzip.compress(data, mtime=0)):
        kinds: list[type] = []
        for part in read_input(source, io.BytesIO(content)):
            kinds += [type(r) for r in part.resources] if isinstance(part, Block) else [type(part.resource)]
        assert kinds == [Procedure, Condition]


def test_an_item_says_what_it_is() -> None:
    parts = list(
        read_input(InputFile(None, "stdin"), io.BytesIO(json.dumps({"resourceType": "Patient", "id": "x"}).encode()))
    )
    assert isinstance(parts[0], Item)
    assert isinstance(parts[0].resource, Patient)


def test_a_directory_given_as_a_file_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        list(read_input(InputFile(tmp_path, "x")))
