"""Nothing that stands in a resource ends a run, and what comes of it is the same on every way. Data is synthetic."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.pull.hostile import KINDS, write_files
from tests.pull.test_packing import BERLIN

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.cli.main import run
from io_fhir_adapter.config import LedgerConfig
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.ledger.runs import start_run
from io_fhir_adapter.pull import packing_aside
from io_fhir_adapter.pull.bulk_ingest import Downloaded, Intake
from io_fhir_adapter.pull.bulk_manifest import ManifestFile
from io_fhir_adapter.pull.outcome import SourceOutcome
from io_fhir_adapter.pull.packing import Packer
from io_fhir_adapter.pull.packing_aside import Aside
from io_fhir_adapter.pull.store import FactStore

SEEDS = range(3)


def keep(name: str, subject: str) -> bool:
    """Some of them, as of those that stand behind Procedures."""
    return subject in {"Patient/1", "Patient/2"} or name.endswith("3")


def taken(folder: Path, files: dict[str, Path], rules: Ruleset, *, aside: bool = False) -> list[list[str]]:
    """What a ledger holds that took files of an export, with what stands behind Procedures of some patients."""
    folder.mkdir()
    ledger = open_ledger(LedgerConfig(path=folder / "ledger.sqlite"))
    with ledger.begin() as connection:
        number = start_run(connection, datetime.now(UTC))
    store = FactStore("s", rules, BERLIN, number)
    intake = Intake(ledger, store, SourceOutcome("s"), lambda *_: None)
    for kind in KINDS:
        path = Path(shutil.copy(files[kind], folder))
        with closing(Aside(store.packer(ledger))) as helper:
            if aside and kind == "Procedure":
                helper.complete(path)
            found = [Downloaded(ManifestFile("", kind), path)]
            intake.take(kind, found, None if kind == "Procedure" else keep, aside=helper)
            assert helper._is_able
    intake.settle()
    with ledger.read() as connection:
        rows = [
            sorted(map(repr, connection.exec_driver_sql(query)))
            for query in (
                # without data: of versions that differ in lastUpdated alone any may stand
                "select resource_type, id, patient, status, day, mapped, known_system, digest from facts",
                # damage within what is not kept may be passed over
                "select resource_type, position, reason, code from quarantine"
                " where resource_type = 'Procedure' or reason <> 'not valid JSON'",
            )
        ]
    ledger.close()
    return rows


@pytest.mark.parametrize("seed", SEEDS)
def test_an_export_comes_to_the_same_on_every_way(
    tmp_path: Path, kit: Any, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(packing_aside, "_LARGE", 1)
    monkeypatch.setattr(packing_aside, "_STRETCH", 20_000)
    monkeypatch.setattr(packing_aside, "_LEAVE", 0)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    files = write_files(tmp_path, seed, 400)
    made = [taken(tmp_path / "aside", files, kit.ruleset, aside=True)]
    monkeypatch.setattr("io_fhir_adapter.pull.plain_text._BLOCK", 3_000)
    made.append(taken(tmp_path / "here", files, kit.ruleset))
    monkeypatch.setattr(Packer, "pack_lines", lambda *_: None)
    monkeypatch.setattr("io_fhir_adapter.pull.bulk_parts._kept", lambda block, *_: block)
    monkeypatch.setattr("io_fhir_adapter.pull.plain_text._BLOCK", 50_000)
    made.append(taken(tmp_path / "whole", files, kit.ruleset))
    assert set(made[0][0]) ^ set(made[1][0]) == set(made[0][1]) ^ set(made[1][1]) == set()
    assert set(made[0][0]) ^ set(made[2][0]) == set(made[0][1]) ^ set(made[2][1]) == set()
    assert made[0] == made[1] == made[2]
    facts, quarantine = made[0]
    for kind in KINDS:
        assert sum(f"'{kind}'" in row for row in facts) > 3
        assert sum(f"'{kind}'" in row for row in quarantine) > 3


@pytest.mark.parametrize("seed", SEEDS)
def test_a_night_ends_well(tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    files = write_files(tmp_path, seed + 100, 400)
    config = tmp_path / "facility.yaml"
    document = {
        "facility": {"code": "S-001", "time_zone": "Europe/Berlin"},
        "sources": [{"name": "files", "kind": "files", "paths": [str(path) for path in files.values()]}],
        "ledger": {"path": str(tmp_path / "ledger.sqlite")},
        "output": {"folder": str(tmp_path / "out")},
    }
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    assert run(["run", "--config", str(config)]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    decided = sum(int(number) for number in re.findall(r"^(?:counted|review|not counted) +(\d+)", said, re.MULTILINE))
    assert decided > 5, said
