"""Diagnoses: what kind of disease a code names, in which organ, and whether it explains a procedure."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from io_fhir_adapter.classify.globs import Glob, parse_glob
from io_fhir_adapter.classify.systems import SystemNames, normalise_code
from io_fhir_adapter.classify.tables import SITES, GlobIndex
from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.model import Code

__all__ = ["COLUMNS", "KINDS", "Diagnosis", "DiagnosisTables", "load_diagnoses"]

COLUMNS = ("code", "kind", "organ", "meaning", "checked", "note")
KINDS = frozenset(
    {
        "malignant", "metastasis", "in-situ", "uncertain", "benign", "history",
        "bleeding", "fracture", "obstruction", "other",
    }
)  # fmt: skip
_ANY = "any"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What one diagnosis code says; ``organ`` is empty where it names none."""

    kind: str
    organ: str
    system: str
    code: str
    rule: str


@dataclass(frozen=True, slots=True)
class _Row:
    glob: Glob
    kind: str
    organ: str
    rule: str
    valid_from: str = ""
    valid_to: str = ""


class DiagnosisTables:
    """Classifies diagnosis codes and judges whether a disease explains a procedure at a site."""

    def __init__(
        self, systems: SystemNames, tables: Mapping[str, GlobIndex[_Row]], plausible: Mapping[str, frozenset[str]]
    ) -> None:
        self._systems = systems
        self._tables = tables
        self._plausible = plausible
        self._cache: dict[tuple[str, str], Diagnosis | None] = {}

    def diagnose(self, code: Code) -> Diagnosis | None:
        """What the code says, None for a system or code that no table knows."""
        key = (code.system, code.code)
        if key not in self._cache:
            if len(self._cache) > _CACHE_LIMIT:
                self._cache.clear()
            self._cache[key] = self._look_up(code)
        return self._cache[key]

    def _look_up(self, code: Code) -> Diagnosis | None:
        system = self._systems.name(code.system)
        table = self._tables.get(system)
        if table is None:
            return None
        normal = normalise_code(system, code.code)
        rows = table.match(normal)
        return Diagnosis(rows[0].kind, rows[0].organ, system, normal, rows[0].rule) if rows else None

    def explains(self, diagnosis: Diagnosis, sites: Iterable[str]) -> bool:
        """Whether a disease of that organ can be the reason for a procedure at any of these sites.

        A metastasis explains most sites; an organ or site that is not named excludes nothing.
        """
        if not diagnosis.organ or diagnosis.kind == "metastasis":
            return True
        for site in sites or ("",):
            allowed = self._plausible.get(site, frozenset({_ANY}))
            if not site or _ANY in allowed or diagnosis.organ in allowed:
                return True
        return False


_CACHE_LIMIT = 200_000


def load_diagnoses(folder: Path, systems: SystemNames) -> DiagnosisTables:
    """Reads the indication tables of a mappings folder.

    Raises:
        MappingError: A column, word or pattern is wrong; file and line are named.
    """
    tables: dict[str, GlobIndex[_Row]] = {}
    for path in sorted(folder.glob("*.csv")):
        if path.name == "plausible.csv":
            continue
        tables[path.stem] = GlobIndex(_rows(path))
    return DiagnosisTables(systems, tables, _plausible(folder / "plausible.csv"))


def _rows(path: Path) -> list[_Row]:
    rows: list[_Row] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise MappingError(
                    "the columns are not those of an indication table",
                    where=f"indications/{path.name}:1",
                    do=f"the first line must read {','.join(COLUMNS)}",
                    number=5,
                )
            for record in reader:
                rule = f"indications/{path.name}:{reader.line_num}"
                kind, organ = (record["kind"] or "").strip(), (record["organ"] or "").strip()
                if kind not in KINDS or organ not in SITES:
                    raise MappingError(
                        f"{kind!r} is no kind of diagnosis or {organ!r} no organ",
                        where=rule,
                        do=f"use one of the kinds {', '.join(sorted(KINDS))} and a site of the code tables",
                        number=6,
                    )
                rows.append(_Row(parse_glob((record["code"] or "").strip()), kind, organ, rule))
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise MappingError(
            f"the indication table cannot be read ({type(exc).__name__})", where=f"indications/{path.name}", number=5
        ) from exc
    return rows


def _plausible(path: Path) -> dict[str, frozenset[str]]:
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            return {row["site"]: frozenset(row["explained_by"].split()) for row in csv.DictReader(handle)}
    except (OSError, KeyError) as exc:
        raise MappingError("the table of plausible organs cannot be read", where=f"indications/{path.name}") from exc
