"""What a process of its own makes of large files is what is made of them here, byte for byte. All data is synthetic."""

from __future__ import annotations

import gzip
import os
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.pull.test_packing import BERLIN, BROKEN, ILL_TYPED, KINDS, packer, raw

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.errors import PullError
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.ledger.runs import start_run
from io_fhir_adapter.pull import bulk_ingest, packing_aside, plain_text
from io_fhir_adapter.pull.bulk_ingest import Downloaded, Intake
from io_fhir_adapter.pull.bulk_manifest import ManifestFile
from io_fhir_adapter.pull.outcome import SourceOutcome
from io_fhir_adapter.pull.packing import Packer
from io_fhir_adapter.pull.packing_aside import Block, blocks_from, is_worthwhile
from io_fhir_adapter.pull.packing_worker import Job, main
from io_fhir_adapter.pull.plain_text import blocks_of
from io_fhir_adapter.pull.seen import Seen, marks_of
from io_fhir_adapter.pull.store import FactStore

USUAL = sorted({*KINDS} - {"logical subject"})
NOT_THERE = [b"{", b"", b"\xff", b'{"resourceType":"Patient","id":"1"}', raw({"id": None}), raw({"id": 7})]
ODD = [raw(elements, "odd") for elements in (*BROKEN.values(), *ILL_TYPED.values())] + NOT_THERE


def here(files: Iterable[Path], maker: Packer) -> list[Block]:
    """What is made of files in this process."""
    made = []
    for path in files:
        for block in blocks_of(path):
            packing, seen = maker.pack_lines(block), Seen()
            if packing is None:
                made.append(Block(None, [], block))
            else:
                seen.add(marks_of([one.id for one in packing.packed]))
                made.append(Block(packing, seen.parts, b""))
    return made


def there(files: Iterable[Path], maker: Packer) -> list[Block]:
    """What a worker makes of them, by its own functions but in this process."""
    answers = BytesIO()
    assert maker.terms is not None
    job = Job(maker.terms, tuple(map(str, files)))
    main(BytesIO(msgspec.msgpack.encode(job)), answers)
    answers.seek(0)
    return [_listed(block) for block in blocks_from(maker, answers)]


def _listed(block: Block) -> Block:
    return block._replace(seen=list(block.seen))


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.sampled_from(USUAL), max_size=30),
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from(ODD)), max_size=3),
    st.booleans(),
)
def test_every_block_is_what_it_is_here(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str], odd: list[tuple[int, bytes]], packed: bool
) -> None:
    lines = [raw(KINDS[kind], f"id{number}") for number, kind in enumerate(kinds)]
    for place, line in odd:
        lines.insert(min(place, len(lines)), line)
    path = tmp_path_factory.mktemp("files") / "one.ndjson"
    text = b"".join(line + b"\n" for line in lines)
    path.write_bytes(gzip.compress(text) if packed else text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_text, "_BLOCK", 2_000)
        assert there([path], packer("his")) == here([path], packer("his"))


def test_numbers_of_codes_begin_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_text, "_BLOCK", 1)
    monkeypatch.setattr("io_fhir_adapter.pull.packing_worker.NUMBERS", 3)
    monkeypatch.setattr(packing_aside, "NUMBERS", 3)
    monkeypatch.setattr("io_fhir_adapter.pull.packing._REMEMBERED", 2)
    codes = [{"code": {"coding": [{"code": "5-501.a3" if number % 3 else f"x{number}"}]}} for number in range(20)]
    path = tmp_path / "one.ndjson"
    path.write_bytes(b"".join(raw(code, f"id{number}") + b"\n" for number, code in enumerate(codes)))
    made = there([path], packer())
    assert [block.packing.packed[0].mapped for block in made if block.packing is not None] == [
        bool(number % 3) for number in range(20)
    ]


def test_small_files_and_nameless_time_zones_are_read_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "one.ndjson"
    path.write_bytes(b"x" * 100)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert not is_worthwhile(packer(), [path])
    monkeypatch.setattr(packing_aside, "_LARGE", 100)
    assert is_worthwhile(packer(), [path])
    assert not is_worthwhile(Packer("his", None, "", "", lambda _: (False, False)), [path])
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert not is_worthwhile(packer(), [path])


def test_a_process_that_is_killed_is_told_from_one_that_is_done(tmp_path: Path) -> None:
    path = tmp_path / "one.ndjson"
    path.write_bytes(raw(KINDS["full"]) + b"\n")
    answers = BytesIO()
    maker = packer()
    assert maker.terms is not None
    main(BytesIO(msgspec.msgpack.encode(Job(maker.terms, (str(path),)))), answers)
    whole = answers.getvalue()
    for length in range(len(whole)):
        with pytest.raises(PullError, match="ended before it was done") as failed:
            list(blocks_from(maker, BytesIO(whole[:length])))
        assert failed.value.transient


# --- a process, and a ledger ----------------------------------------------------------------------------------------


@pytest.fixture
def aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is large enough, on every machine."""
    monkeypatch.setattr(bulk_ingest, "is_worthwhile", lambda *_: True)


def taken(folder: Path, files: list[Downloaded], rules: Ruleset) -> tuple[list[list[Any]], Any]:
    """The tables of a ledger that took files, and what was told of them."""
    folder.mkdir()
    ledger = open_ledger(LedgerConfig(path=folder / "ledger.sqlite"))
    with ledger.begin() as connection:
        run = start_run(connection, datetime.now(UTC))
    outcome = SourceOutcome("s")
    intake = Intake(ledger, FactStore("s", rules, BERLIN, run), outcome, lambda *_: None)
    intake.take("Procedure", files)
    intake.settle()
    with ledger.read() as connection:
        rows = [
            sorted(map(repr, connection.exec_driver_sql(f"select * from {table}")))  # noqa: S608
            for table in ("facts", "quarantine", "stale")
        ]
    ledger.close()
    return rows, outcome.to_json()


@pytest.mark.usefixtures("aside")
def test_the_ledger_is_the_same_row_for_row(tmp_path: Path, kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    all_kinds = [raw(elements, kind) for kind, elements in (KINDS | BROKEN).items()]
    again = [raw(KINDS["period"], "full"), raw(KINDS["full"] | {"subject": None}, "R5")]
    ill = [raw(elements, kind) for kind, elements in ILL_TYPED.items()] + NOT_THERE
    files = []
    for number, lines in enumerate((all_kinds, again, ill, [raw(KINDS["full"], "bare")])):
        path = tmp_path / f"{number}.ndjson"
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        files.append(Downloaded(ManifestFile("", "Procedure"), path))
    made = [taken(tmp_path / "aside", files, kit.ruleset)]
    monkeypatch.setattr(bulk_ingest, "is_worthwhile", lambda *_: False)
    made.append(taken(tmp_path / "here", files, kit.ruleset))
    monkeypatch.setattr(Packer, "pack_lines", lambda *_: None)
    made.append(taken(tmp_path / "whole", files, kit.ruleset))
    assert made[0] == made[1] == made[2]
    facts, quarantine, _ = made[0][0]
    assert len(facts) == len(KINDS) - 2  # a later version of two is broken
    assert len(quarantine) > len(BROKEN) + len(ILL_TYPED)


@pytest.mark.usefixtures("aside")
def test_a_pull_whose_process_dies_fails_and_the_next_one_goes_on(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def pull() -> Any:
        return site.pull(strategy="bulk", bulk={"poll_min_s": 0, "poll_max_s": 0.01}, overlap_minutes=0)

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", Killed)
        failed = pull()
    assert "ended before it was done" in failed.error
    assert not failed.complete
    assert site.cursor() == ""
    assert site.ids("Procedure") == []
    done = pull()
    assert done.error == ""
    assert done.notes == ["an export that an earlier run had begun was gone on with"]
    assert len(site.ids("Procedure")) == done.of("Procedure").read == 12


class Killed(subprocess.Popen[bytes]):
    """A process that is killed as it starts."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.kill()
        self.wait()
