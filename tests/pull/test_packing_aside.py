"""What a process of its own makes of large files is what is made of them here, byte for byte. All data is synthetic."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.pull.test_bulk import SURVIVED, bulk, check_whole
from tests.pull.test_packing import BERLIN, BROKEN, ILL_TYPED, KINDS, packer, raw

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.errors import PullError
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.ledger.runs import start_run
from io_fhir_adapter.pull import packing_aside
from io_fhir_adapter.pull.bulk_files import part_of
from io_fhir_adapter.pull.bulk_ingest import Downloaded, Intake
from io_fhir_adapter.pull.bulk_manifest import ManifestFile
from io_fhir_adapter.pull.bulk_parts import read_ready
from io_fhir_adapter.pull.outcome import SourceOutcome
from io_fhir_adapter.pull.packing import Packer
from io_fhir_adapter.pull.packing_aside import Aside, Block
from io_fhir_adapter.pull.packing_worker import ANSWER, Frame, Stretch, pack, prefixed, read_prefixed
from io_fhir_adapter.pull.plain_text import blocks_of, is_compressed
from io_fhir_adapter.pull.store import FactStore
from io_fhir_adapter.sandbox.faults import Faults, PageFault

USUAL = sorted({*KINDS} - {"logical subject"})
NOT_THERE = [b"{", b"", b"\xff", b'{"resourceType":"Patient","id":"1"}', raw({"id": None}), raw({"id": 7})]
ODD = [raw(elements, "odd") for elements in (*BROKEN.values(), *ILL_TYPED.values())] + NOT_THERE


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """However little there is, it is given away, in stretches of a few lines, on every machine."""
    monkeypatch.setattr(packing_aside, "_LARGE", 1)
    monkeypatch.setattr(packing_aside, "_STRETCH", 2_000)
    monkeypatch.setattr(packing_aside, "_LEAVE", 0)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


def here(files: Iterable[Path], maker: Packer, step: int = 2_000) -> list[Block]:
    """What is made of the same stretches of files in this process."""
    made = []
    for path in files:
        starts = [0] if is_compressed(path) else list(range(0, path.stat().st_size, step))
        for start, end in zip(starts, [*starts[1:], None], strict=True):
            for block in blocks_of(path, start, end):
                packing = maker.pack_lines(block)
                made.append(Block(None, block) if packing is None else Block(packing, b""))
    return made


def ready(blocks: Iterable[Block]) -> list[Any]:
    """What comes of blocks: those made ready, those to be written whole, and those that are set aside."""
    parts = list(read_ready(blocks))
    return [[one for part in parts for one in getattr(part, name)] for name in ("packed", "sound", "broken")]


def there(files: list[Path], helper: Aside) -> list[Block]:
    """What a process makes of them."""
    for path in files:
        helper.complete(path)
    blocks = helper.blocks(files)
    assert blocks is not None
    made = list(blocks)
    assert helper._is_able  # else it was all done here
    return made


@settings(max_examples=25, deadline=None)
@given(st.text("ab\n", max_size=60).map(str.encode), st.integers(1, 9), st.integers(1, 30))
def test_every_line_is_in_one_stretch(
    tmp_path_factory: pytest.TempPathFactory, text: bytes, block: int, step: int
) -> None:
    path = tmp_path_factory.mktemp("files") / "text"
    path.write_bytes(text)
    starts = [0, *range(step, len(text), step)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("io_fhir_adapter.pull.plain_text._BLOCK", block)
        read = [list(blocks_of(path, *span)) for span in zip(starts, [*starts[1:], None], strict=True)]
    assert b"".join(map(b"".join, read)) == text
    assert all(block.endswith(b"\n") for stretch in read for block in stretch[:-1])


@pytest.mark.usefixtures("eager")
def test_every_block_is_what_it_is_here(tmp_path: Path) -> None:
    with closing(Aside(packer("his"))) as helper:

        @settings(max_examples=15, deadline=None)
        @given(
            st.lists(st.sampled_from(USUAL), max_size=30),
            st.lists(st.tuples(st.integers(0, 30), st.sampled_from(ODD)), max_size=3),
            st.booleans(),
        )
        def check(kinds: list[str], odd: list[tuple[int, bytes]], packed: bool) -> None:
            lines = [raw(KINDS[kind], f"id{number}") for number, kind in enumerate(kinds)]
            for place, line in odd:
                lines.insert(min(place, len(lines)), line)
            path = tmp_path / f"{len(list(tmp_path.iterdir()))}.ndjson"
            text = b"".join(line + b"\n" for line in lines) or b"\n"
            path.write_bytes(gzip.compress(text) if packed else text)
            assert ready(there([path], helper)) == ready(here([path], packer("his")))

        check()
    assert not list(tmp_path.glob("*.packed"))


@pytest.mark.usefixtures("eager")
def test_more_codes_than_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing_aside, "_REMEMBERED", 2)
    codes = [{"code": {"coding": [{"code": "5-501.a3" if number % 3 else f"x{number}"}]}} for number in range(20)]
    path = tmp_path / "one.ndjson"
    path.write_bytes(b"".join(raw(code, f"id{number}") + b"\n" for number, code in enumerate(codes)))
    with closing(Aside(packer())) as helper:
        made = there([path], helper)
    ready = [one for block in made if block.packing is not None for one in block.packing.packed]
    assert [one.mapped for one in ready] == [bool(number % 3) for number in range(20)]


def test_little_and_nameless_time_zones_are_left_to_who_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "one.ndjson"
    path.write_bytes(raw(KINDS["full"]) + b"\n")
    nameless = Packer("his", None, "", "", lambda _: (False, False))

    def is_taken(maker: Packer) -> bool:
        with closing(Aside(maker)) as helper:
            helper.complete(path)
            return helper.blocks([path]) is not None

    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert not is_taken(packer())
    monkeypatch.setattr(packing_aside, "_LARGE", 100)
    assert is_taken(packer())
    assert not is_taken(nameless)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert not is_taken(packer())


@pytest.mark.parametrize("where", ["one processor", "no name"])
@pytest.mark.usefixtures("eager")
def test_a_large_file_is_left_to_who_asks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    path = tmp_path / "one.ndjson"
    path.write_bytes(b"{}\n" * 5_000)
    if where == "one processor":
        monkeypatch.setattr(os, "cpu_count", lambda: 1)
    maker = packer() if where == "one processor" else Packer("his", None, "", "", lambda _: (False, False))
    with closing(Aside(maker)) as helper:
        helper.reached(path, 0)
        helper.reached(path, 9_000)
        helper.complete(path)
        assert helper.blocks([path]) is None


@pytest.mark.usefixtures("eager")
def test_it_begins_while_a_file_arrives_and_forgets_what_was_fetched_in_vain(tmp_path: Path) -> None:
    path = tmp_path / "one.ndjson"
    wrong, right = ([raw(KINDS["full"], f"{kind}{number}") + b"\n" for number in range(20)] for kind in "wr")
    with closing(Aside(packer())) as helper:
        for lines in (wrong, right):
            with part_of(path).open("wb") as out:
                helper.reached(path, 0)
                for line in lines:
                    out.write(line)
                    out.flush()
                    helper.reached(path, out.tell())
                out.write(b'{"half')
                out.flush()
                first = helper._told[path][0]
                assert helper._await(first.number)  # it has read the file under its first name
                helper._answered[first.number] = 0
                out.truncate(out.tell() - 6)
        part_of(path).replace(path)
        made = there([path], helper)
    ready = [one.id for block in made if block.packing is not None for one in block.packing.packed]
    assert ready == [f"r{number}" for number in range(20)]


def test_a_stretch_of_a_file_that_arrives(tmp_path: Path) -> None:
    path, into = tmp_path / "one.ndjson", tmp_path / "made"
    lines = [raw(KINDS["full"], f"id{number}") + b"\n" for number in range(3)]
    part_of(path).write_bytes(b"".join(lines) + b'{"half')
    stretch = Stretch(0, str(path), str(part_of(path)), 1, sum(map(len, lines)), str(into), 0)
    assert pack(packer(), stretch) == 0
    with into.open("rb") as frames:
        frame = msgspec.msgpack.decode(read_prefixed(frames) or b"", type=list)
        assert [row[0] for row in frame[0]] == ["id1", "id2"]
        assert read_prefixed(frames) == b""
        assert read_prefixed(frames) is None
    part_of(path).unlink()
    assert pack(packer(), stretch) == errno.ENOENT
    assert not into.exists()


@pytest.mark.usefixtures("eager")
def test_files_of_which_some_are_compressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing_aside, "_LARGE", 6_000)
    paths = [tmp_path / f"{number}.ndjson" for number in range(3)]
    texts = [b"".join(raw(KINDS["full"], f"{number}-{one}") + b"\n" for one in range(9)) for number in range(3)]
    paths[0].write_bytes(texts[0][:2_000])
    paths[1].write_bytes(texts[1][:2_000])
    paths[2].write_bytes(gzip.compress(texts[2], 0))
    with closing(Aside(packer())) as helper:
        assert ready(there(paths, helper)) == ready(here(paths, packer()))


@pytest.mark.usefixtures("eager")
def test_the_room_of_others_is_left_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing_aside, "_LEAVE", 1 << 60)
    path = tmp_path / "one.ndjson"
    path.write_bytes(b"".join(raw(KINDS["full"], f"id{number}") + b"\n" for number in range(9)))
    monkeypatch.delattr(Aside, "_made")
    with closing(Aside(packer())) as helper:
        assert ready(there([path], helper)) == ready(here([path], packer()))


@pytest.mark.usefixtures("eager")
def test_compressed_files_lie_unpacked_two_at_a_time(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.ndjson" for number in range(6)]
    for number, path in enumerate(paths):
        path.write_bytes(gzip.compress(raw(KINDS["full"], f"id{number}") + b"\n"))
    with closing(Aside(packer())) as helper:
        for path in paths:
            helper.complete(path)
        blocks = helper.blocks(paths)
        assert blocks is not None
        for number, block in enumerate(blocks):
            assert block.packing is not None
            assert [one.id for one in block.packing.packed] == [f"id{number}"]
            assert len(helper._told) == min(number + 2, 6)
    assert not list(tmp_path.glob("*.packed"))


class Pretended:
    """A process that says that the first stretch is done, or not."""

    def __init__(self, answers: bytes) -> None:
        self.stdin = BytesIO()
        self.stdout = BytesIO(answers)

    def kill(self) -> None:
        """Nothing to end."""

    def wait(self) -> None:
        """Nothing to wait for."""


@pytest.mark.usefixtures("eager")
def test_what_is_cut_off_is_never_taken_for_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "one.ndjson"
    path.write_bytes(b"x\n")
    made = prefixed(msgspec.msgpack.encode(Frame())) * 2 + prefixed(b"")
    done = ANSWER.pack(0, 0)

    def take(frames: bytes, answers: bytes) -> None:
        path.with_suffix(".0.packed").write_bytes(frames)
        monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: Pretended(answers))
        with closing(Aside(packer())) as helper:
            helper.complete(path)
            list(helper.blocks([path]) or ())
            assert helper._is_able == (answers == done)

    take(made, done)
    for length in range(len(made)):
        with pytest.raises(PullError, match="cannot be read back") as failed:
            take(made[:length], done)
        assert failed.value.transient
    for length in range(len(done)):
        take(b"", done[:length])  # it is made here


@pytest.mark.usefixtures("eager")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_what_the_disk_has_no_room_for_is_made_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stretches: list[int] = []
    read_here = Aside._read_here

    def noting(self: Aside, stretch: Stretch) -> Iterator[Block]:
        stretches.append(stretch.number)
        return read_here(self, stretch)

    monkeypatch.setattr(Aside, "_read_here", noting)
    path = tmp_path / "one.ndjson"
    lines = [raw(KINDS["full"], f"id{number}") + b"\n" for number in range(20)]
    path.write_bytes(b"".join(lines))
    path.with_suffix(".2000.packed").symlink_to("/dev/full")
    with closing(Aside(packer())) as helper:
        made = there([path], helper)
    assert ready(made) == ready(here([path], packer()))
    assert stretches == [1]


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("when", ["never starts", "dies as it starts", "dies after the first stretch"])
def test_what_a_process_does_not_do_is_done_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    paths = [tmp_path / "one.ndjson", tmp_path / "two.ndjson"]
    for path in paths:
        path.write_bytes(b"".join(raw(KINDS["full"], f"{path.stem}{number}") + b"\n" for number in range(20)))
    if when == "never starts":
        monkeypatch.setattr("sys.executable", str(tmp_path / "nothing"))
    if when == "dies as it starts":
        monkeypatch.setattr(subprocess, "Popen", Killed)
    with closing(Aside(packer())) as helper:
        for path in paths:
            helper.complete(path)
        blocks = helper.blocks(paths)
        assert (blocks is None) == (when != "dies after the first stretch")
        if blocks is not None:
            made = [next(blocks)]
            assert helper._process is not None
            assert helper._process.stdout is not None
            helper._process.kill()
            helper._process.stdout.close()
            helper._process.stdout = BytesIO()  # it did not come to answer again
            made += blocks
            assert ready(made) == ready(here(paths, packer()))
            assert helper._process is None
            assert helper.blocks(paths) is None


# --- a process, and a ledger ----------------------------------------------------------------------------------------


def taken(folder: Path, files: list[Downloaded], rules: Ruleset, *, aside: bool = False) -> tuple[list[list[Any]], Any]:
    """The tables of a ledger that took files, and what was told of them."""
    folder.mkdir()
    ledger = open_ledger(LedgerConfig(path=folder / "ledger.sqlite"))
    with ledger.begin() as connection:
        run = start_run(connection, datetime.now(UTC))
    outcome = SourceOutcome("s")
    store = FactStore("s", rules, BERLIN, run)
    intake = Intake(ledger, store, outcome, lambda *_: None)
    with closing(Aside(store.packer(ledger))) as helper:
        for one in files if aside else ():
            helper.complete(one.path)
        intake.take("Procedure", files, aside=helper)
        assert helper._is_able or not aside
    intake.settle()
    with ledger.read() as connection:
        rows = [
            sorted(map(repr, connection.exec_driver_sql(f"select * from {table}")))  # noqa: S608
            for table in ("facts", "quarantine", "stale")
        ]
    ledger.close()
    return rows, outcome.to_json()


@pytest.mark.usefixtures("eager")
def test_the_ledger_is_the_same_row_for_row(tmp_path: Path, kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    all_kinds = [raw(elements, kind) for kind, elements in (KINDS | BROKEN).items()]
    again = [raw(KINDS["period"], "full"), raw(KINDS["full"] | {"subject": None}, "R5")]
    ill = [raw(elements, kind) for kind, elements in ILL_TYPED.items()] + NOT_THERE
    files = []
    for number, lines in enumerate((all_kinds, again, ill, [raw(KINDS["full"], "bare")])):
        path = tmp_path / f"{number}.ndjson"
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        files.append(Downloaded(ManifestFile("", "Procedure"), path))
    made = [taken(tmp_path / "aside", files, kit.ruleset, aside=True)]
    made.append(taken(tmp_path / "here", files, kit.ruleset))
    monkeypatch.setattr(Packer, "pack_lines", lambda *_: None)
    made.append(taken(tmp_path / "whole", files, kit.ruleset))
    assert made[0] == made[1] == made[2]
    facts, quarantine, _ = made[0][0]
    assert len(facts) == len(KINDS) - 2  # a later version of two is broken
    assert len(quarantine) > len(BROKEN) + len(ILL_TYPED)


@pytest.mark.usefixtures("eager")
def test_a_pull_whose_process_dies_is_done_here(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", Killed)
    done = site.pull(strategy="bulk", bulk={"poll_min_s": 0, "poll_max_s": 0.01}, overlap_minutes=0)
    assert (done.error, done.complete) == ("", True)
    assert len(site.ids("Procedure")) == done.of("Procedure").read == 12


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(
    "name", [name for name, (faults, *_) in SURVIVED.items() if faults.bulk.count or "file" in name]
)
def test_a_fault_that_passes_leaves_no_trace(site: Any, name: str, asked_aside: list[int]) -> None:
    faults, of, notes = SURVIVED[name]
    site.switch(faults)
    outcome = bulk(site, of, retries=8)
    assert (outcome.error, outcome.notes, outcome.complete) == ("", notes, True)
    check_whole(site)
    assert outcome.types["Procedure"].read == 12
    assert bool(asked_aside) != faults.bulk.by_patient  # mixed files are read here


@pytest.mark.usefixtures("eager")
def test_nobody_writes_into_a_folder_that_is_removed(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    helpers: list[Aside] = []
    busy: list[bool] = []

    def noting(self: Aside, maker: Packer) -> None:
        make(self, maker)
        helpers.append(self)

    def closing_first(self: Aside) -> None:
        busy.append(self._process is not None)
        close(self)

    def removing(folder: Path) -> None:
        assert all(one._process is None for one in helpers)
        remove(folder)

    make, close, remove = Aside.__init__, Aside.close, shutil.rmtree
    monkeypatch.setattr(Aside, "__init__", noting)
    monkeypatch.setattr(Aside, "close", closing_first)
    monkeypatch.setattr(shutil, "rmtree", removing)
    gone = PageFault("gone", token="bulk-file", types=("Patient",))
    site.switch(Faults(page_faults=(gone,)))
    outcome = bulk(site, {"concurrency": 1})
    assert outcome.notes == ["the server's export had expired; it was made once more"]
    assert busy[0]
    check_whole(site)


@pytest.fixture
def asked_aside(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of stretches that were waited for and made ready."""
    numbers: list[int] = []
    wait = Aside._await

    def noting(self: Aside, number: int) -> bool:
        is_ready = wait(self, number)
        numbers.extend([number] * is_ready)
        return is_ready

    monkeypatch.setattr(Aside, "_await", noting)
    return numbers


class Killed(subprocess.Popen[bytes]):
    """A process that is killed as it starts."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.kill()
        self.wait()
