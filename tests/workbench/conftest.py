"""Short ways to write tables; everything here is synthetic."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from io_fhir_adapter.classify.ruleset import Ruleset, load_ruleset
from io_fhir_adapter.classify.tables import COLUMNS
from io_fhir_adapter.classify.workbench.rows import TableFile


@cache
def _ruleset() -> Ruleset:
    return load_ruleset()


@pytest.fixture(scope="session")
def ruleset() -> Ruleset:
    return _ruleset()


class Tables:
    """Writes code tables into a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, *rows: str, name: str = "own.csv", system: str = "ops", site: bool = False) -> TableFile:
        """A table of rows such as ``5-501.53 microwave liver``; further cells by name, such as ``note=why``."""
        path = self.folder / name
        path.write_text("\n".join([",".join(COLUMNS), *map(self._line, rows)]) + "\n", encoding="utf-8")
        return TableFile(path, system, name, site)

    @staticmethod
    def _line(text: str) -> str:
        words = text.split()
        named = dict(word.split("=", 1) for word in words if "=" in word)
        plain = [word for word in words if "=" not in word]
        cells = {
            "code": plain[0],
            "technique": plain[1] if len(plain) > 1 else "microwave",
            "site": plain[2] if len(plain) > 2 else "liver",
            "approach": "percutaneous",
            "agent": "none",
            "role": "main",
            "indication": "expected",
            "meaning": "synthetic",
            "checked": "synthetic",
        }
        return ",".join({**cells, **named}.get(column, "") for column in COLUMNS)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path)
