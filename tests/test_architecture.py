"""The walls of the house: who may import whom."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter import configuration
from importlinter.application import use_cases

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "io_fhir_adapter"
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
SQL_ROOMS = ("ledger", "receiver")


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def imports(module: ast.Module) -> Iterator[tuple[str, str]]:
    """(module, name) of every import, wherever in the file it stands; the name is empty for a whole module."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)


def test_every_import_contract_is_kept(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    configuration.configure()
    kept = use_cases.lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None, no_logo=True)
    assert kept, capsys.readouterr().out


def test_every_room_has_its_place() -> None:
    layers = next(contract for contract in CONTRACTS if contract["id"] == "rooms")["layers"]
    placed = {name.strip(" ()") for layer in layers for name in layer.split("|")}
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert placed == rooms - {"__init__"}


def test_the_architecture_page_names_every_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = [path for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    names = [f"`{path.name}`" if path.suffix else f"`{path.name}/`" for path in rooms if path.stem != "__init__"]
    assert [name for name in sorted(names) if name not in page] == []


def test_only_the_ledger_and_the_receivers_store_write_sql() -> None:
    strangers = {"sqlalchemy", "alembic", "sqlite3", "psycopg"}
    found = [
        (name, module, what)
        for name, tree in modules()
        if not name.startswith(SQL_ROOMS)
        for module, what in imports(tree)
        # the type of the transaction that the ledger hands out is a word that all may say
        if module.partition(".")[0] in strangers and (module, what) != ("sqlalchemy", "Connection")
    ]
    assert found == []


def test_imports_are_absolute() -> None:
    relative = [
        name
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]
    assert relative == []
