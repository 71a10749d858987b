"""An export in a folder as a source: read each night, written where something changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from io_fhir_adapter.config import FilesSourceConfig, LedgerConfig
from io_fhir_adapter.ledger.database import Ledger, open_ledger
from io_fhir_adapter.ledger.facts import every_procedure, quarantined
from io_fhir_adapter.ledger.intake import stale_patients
from io_fhir_adapter.ledger.runs import start_run
from io_fhir_adapter.pull.from_files import pull_files
from io_fhir_adapter.pull.outcome import SourceOutcome


class Folder:
    """A folder of files and a ledger."""

    def __init__(self, path: Path, ledger: Ledger, kit: Any) -> None:
        self.path = path
        self.ledger = ledger
        self.kit = kit

    def write(self, name: str, *resources: dict[str, Any] | str) -> None:
        lines = [resource if isinstance(resource, str) else json.dumps(resource) for resource in resources]
        (self.path / name).write_text("\n".join(lines))

    def pull(self) -> SourceOutcome:
        with self.ledger.begin() as connection:
            run = start_run(connection, datetime.now(UTC))
        config = FilesSourceConfig(name="f", kind="files", paths=(str(self.path),))
        return pull_files(config, self.ledger, self.kit.ruleset, UTC, run, lambda *_: None)

    def statuses(self) -> dict[str, str]:
        with self.ledger.read() as connection:
            return {fact.id: fact.status for fact in every_procedure(connection)}

    def set_aside(self) -> list[str]:
        with self.ledger.read() as connection:
            return [entry.position.removeprefix(f"{self.path}/") for entry in quarantined(connection)]


@pytest.fixture
def folder(tmp_path: Path, kit: Any) -> Iterator[Folder]:
    (tmp_path / "export").mkdir()
    ledger = open_ledger(LedgerConfig(path=tmp_path / "ledger.sqlite"))
    yield Folder(tmp_path / "export", ledger, kit)
    ledger.close()


def test_a_second_reading_writes_nothing(folder: Folder) -> None:
    kit = folder.kit
    folder.write("Procedure.ndjson", kit.procedure("p1"), kit.procedure("p2", "b"), kit.procedure("p1"))
    folder.write("other.ndjson", kit.condition("c"), kit.person("a"), {"resourceType": "Observation", "id": "o"})
    outcome = folder.pull()
    assert outcome.error == ""
    found = {kind: (types.read, types.new, types.unchanged) for kind, types in outcome.types.items()}
    assert found == {"Procedure": (3, 2, 1), "Condition": (1, 1, 0), "Patient": (1, 1, 0)}
    assert outcome.complete
    again = folder.pull()
    assert sum(types.new + types.changed for types in again.types.values()) == 0
    with folder.ledger.read() as connection:
        assert stale_patients(connection) == {"Patient/a", "Patient/b"}


@pytest.mark.parametrize("names", [("1.ndjson", "2.ndjson"), ("2.ndjson", "1.ndjson")])
def test_the_newest_version_stands_in_whatever_file(folder: Folder, names: tuple[str, str]) -> None:
    kit = folder.kit
    folder.write(names[0], kit.procedure("p", meta={"lastUpdated": "2025-02-01T00:00:00Z"}, status="stopped"))
    folder.write(names[1], kit.procedure("p", meta={"lastUpdated": "2025-01-01T00:00:00Z"}))
    for _ in range(2):
        assert folder.pull().error == ""
        assert folder.statuses() == {"p": "stopped"}
    assert folder.pull().types["Procedure"].changed == 0


def test_what_is_broken_is_set_aside_until_it_is_gone(folder: Folder) -> None:
    kit = folder.kit
    folder.write("a.ndjson", kit.procedure("p"), "{cut", kit.procedure("q", status=5), kit.procedure("r", subject=None))
    outcome = folder.pull()
    assert outcome.error == ""
    assert folder.statuses() == {"p": "completed"}
    assert sorted(folder.set_aside()) == ["Procedure/r", "a.ndjson:2", "a.ndjson:3"]
    folder.write("a.ndjson", kit.procedure("p"), kit.procedure("q"))
    folder.pull()
    assert folder.set_aside() == []
    assert folder.statuses() == {"p": "completed", "q": "completed"}


def test_a_folder_without_procedures_is_no_source(folder: Folder) -> None:
    folder.write("a.ndjson", folder.kit.person("a"))
    outcome = folder.pull()
    assert outcome.error.startswith("source f: the files hold no Procedure")
    assert not outcome.complete


def test_a_file_that_cannot_be_read_ends_the_pull_and_keeps_what_was_read(folder: Folder) -> None:
    folder.write("a.ndjson", folder.kit.procedure("p"))
    folder.write("b.xml", "<Bundle/>")
    outcome = folder.pull()
    assert "b.xml: the file is XML" in outcome.error
    assert folder.statuses() == {"p": "completed"}
