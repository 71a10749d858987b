"""Diagnoses: what kind of disease a code names, in which organ, and whether it explains a procedure."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from io_fhir_adapter.classify.csv_table import read_table
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
        "bleeding", "fracture", "obstruction", "symptom", "other",
    }
)  # fmt: skip
_PLAUSIBLE_COLUMNS = ("site", "explained_by", "on_record", "note")
_ANY = "any"
_NOTHING = "none"
_CACHE_LIMIT = 200_000


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What one diagnosis code says; ``organ`` is empty where it names none."""

    kind: str
    organ: str
    system: str
    code: str
    rule: str


@dataclass(frozen=True, slots=True)
class _Plausible:
    """Organs whose tumours explain a procedure at a site; ``on_record`` where nobody stated them as its reason.

    ``none`` under ``on_record`` is an organ that no disease has.
    """

    explained_by: frozenset[str]
    on_record: frozenset[str]


_EXPLAINS_ALL = _Plausible(frozenset({_ANY}), frozenset({_ANY}))


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
        self, systems: SystemNames, tables: Mapping[str, GlobIndex[_Row]], plausible: Mapping[str, _Plausible]
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

    def explains(self, diagnosis: Diagnosis, sites: Iterable[str], *, stated: bool = True) -> bool:
        """Whether a disease of that organ can be the reason for a procedure at any of these sites.

        A disease or site whose organ is not named excludes nothing. A metastasis explains every site where it was
        stated as the reason; merely on record it must fit like any other.
        """
        if not diagnosis.organ or (stated and diagnosis.kind == "metastasis"):
            return True
        return any(_fits(diagnosis.organ, self._at(site).explained_by) for site in sites or ("",))

    def fits_on_record(self, diagnosis: Diagnosis, sites: Iterable[str]) -> bool:
        """Whether a disease that nobody stated as the reason is the likely one at any of these sites.

        Where most of the treated have no tumour there, as in the spine, a tumour of another organ that is merely on
        record proves nothing.
        """
        if not diagnosis.organ:
            return True
        return any(_fits(diagnosis.organ, self._at(site).on_record) for site in sites or ("",))

    def names_organ(self, diagnosis: Diagnosis, sites: Iterable[str]) -> bool:
        """Whether the disease lies in an organ that the table names for one of these sites, not just in any."""
        return any(diagnosis.organ == site or diagnosis.organ in self._at(site).on_record for site in sites)

    def _at(self, site: str) -> _Plausible:
        return self._plausible.get(site, _EXPLAINS_ALL)


def _fits(organ: str, organs: frozenset[str]) -> bool:
    return _ANY in organs or organ in organs


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
    rows = read_table(path, COLUMNS, "the indication table", f"indications/{path.name}")
    return [_row(cells, place) for place, cells in rows]


def _row(cells: Mapping[str, str], rule: str) -> _Row:
    if cells["kind"] not in KINDS or cells["organ"] not in SITES:
        raise MappingError(
            f"{cells['kind']!r} is no kind of diagnosis or {cells['organ']!r} no organ",
            where=rule,
            do=f"use one of the kinds {', '.join(sorted(KINDS))} and a site of the code tables",
            number=6,
        )
    try:
        glob = parse_glob(cells["code"])
    except MappingError as exc:
        raise MappingError(exc.what, where=rule, do=exc.do, number=3) from exc
    return _Row(glob, cells["kind"], cells["organ"], rule)


def _plausible(path: Path) -> dict[str, _Plausible]:
    shown = f"indications/{path.name}"
    found: dict[str, _Plausible] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle)
            if tuple(reader.fieldnames or ()) != _PLAUSIBLE_COLUMNS:
                raise MappingError(
                    "the columns are not those of the table of plausible organs",
                    where=f"{shown}:1",
                    do=f"the first line must read {','.join(_PLAUSIBLE_COLUMNS)}",
                    number=5,
                )
            for record in reader:
                where = f"{shown}:{reader.line_num}"
                site, organs, on_record = (
                    record["site"],
                    frozenset((record["explained_by"] or "").split()),
                    frozenset((record["on_record"] or "").split()),
                )
                strange = sorted(({site} | organs | on_record) - SITES - {_ANY, _NOTHING})
                if strange or not organs or site in found:
                    raise MappingError(
                        f"{strange[0]!r} is no organ" if strange else "the site stands twice or names no organ",
                        where=where,
                        do="write each site once, with organs parted by blanks, or any",
                        number=6,
                    )
                found[site] = _Plausible(organs, on_record or organs)
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise MappingError(
            f"the table of plausible organs cannot be read ({type(exc).__name__})", where=shown, number=5
        ) from exc
    return found
