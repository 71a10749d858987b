"""Code tables: CSV files that a clinical coder edits, loaded strictly and asked quickly.

A table is one file per code system; columns are documented in the mapping handbook. Loading refuses unknown
words, malformed patterns and two rows that are equally specific for one code, naming file and line.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import combinations
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from io_fhir_adapter.classify.csv_table import read_table
from io_fhir_adapter.classify.globs import Glob, overlap, parse_glob
from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.model import Finding

__all__ = [
    "AGENTS",
    "APPROACHES",
    "COLUMNS",
    "INDICATIONS",
    "ROLES",
    "SITES",
    "CodeRow",
    "GlobIndex",
    "load_code_table",
    "read_row",
]

COLUMNS = (
    "code", "technique", "site", "approach", "agent", "role", "indication",
    "valid_from", "valid_to", "meaning", "checked", "note",
)  # fmt: skip
APPROACHES = frozenset({"percutaneous", "external", "open", "laparoscopic", "endoscopic", "unspecified"})
AGENTS = frozenset(
    {
        "none", "cytostatic", "drug-loaded-particles", "radionuclide", "alcohol", "oily-contrast",
        "particles", "coils", "liquid", "plug", "cement", "unspecified",
    }
)  # fmt: skip
ROLES = frozenset({"main", "add-on", "planning", "revision"})
INDICATIONS = frozenset({"implied", "expected", "required"})
SITES = frozenset(
    {
        "", "liver", "lung", "kidney", "adrenal", "pancreas", "spleen", "bone", "spine", "prostate", "breast",
        "thyroid", "parathyroid", "uterus", "ovary", "testis", "brain", "nerve", "skin", "soft-tissue", "lymph-node",
        "pleura", "peritoneum", "bile-duct", "urinary-tract", "stomach", "bowel", "oesophagus", "bladder", "head-neck",
        "heart", "airway", "vessel", "vena-cava", "portal-vein", "hepatic-artery", "visceral-arteries", "renal-artery",
        "pelvic-arteries", "thoracic-vessels", "extremity", "other",
    }
)  # fmt: skip


class HasGlob(Protocol):
    """Anything with a pattern, a validity and the place it was written."""

    @property
    def glob(self) -> Glob: ...
    @property
    def rule(self) -> str: ...
    @property
    def valid_from(self) -> str: ...
    @property
    def valid_to(self) -> str: ...


RowT = TypeVar("RowT", bound=HasGlob)


@dataclass(frozen=True, slots=True)
class CodeRow:
    """One row of a code table; ``finding`` is what it says, with the pattern in place of the code."""

    glob: Glob
    finding: Finding
    valid_from: str
    valid_to: str
    rule: str


class GlobIndex(Generic[RowT]):
    """Finds the rows that match a code, most specific first, without looking at every row.

    Raises:
        MappingError: Two rows are equally specific for one code at one time.
    """

    _PREFIX = 3

    def __init__(self, rows: Iterable[RowT]) -> None:
        self._literal: dict[str, list[RowT]] = defaultdict(list)
        self._by_prefix: dict[str, list[RowT]] = defaultdict(list)
        self._regexes: dict[str, re.Pattern[str]] = {}
        patterns: list[RowT] = []
        for row in rows:
            if row.glob.is_literal:
                self._refuse_twins(row, self._literal[row.glob.prefix])
                self._literal[row.glob.prefix].append(row)
            else:
                patterns.append(row)
        self._refuse_ambiguity(patterns)
        for row in patterns:
            self._by_prefix[row.glob.prefix[: self._PREFIX]].append(row)

    @property
    def globs(self) -> tuple[Glob, ...]:
        """The patterns of all rows."""
        literals = [row.glob for rows in self._literal.values() for row in rows]
        return (*literals, *(row.glob for rows in self._by_prefix.values() for row in rows))

    def match(self, code: str) -> tuple[RowT, ...]:
        """All rows that match, most specific first."""
        found = list(self._literal.get(code, ()))
        patterns: list[RowT] = []
        for length in range(min(self._PREFIX, len(code)) + 1):
            patterns += [row for row in self._by_prefix.get(code[:length], ()) if self._regex(row.glob).match(code)]
        patterns.sort(key=lambda row: row.glob.specificity, reverse=True)
        return (*found, *patterns)

    def _regex(self, glob: Glob) -> re.Pattern[str]:
        """Compiled when first asked for: most patterns of a table meet no code of a run."""
        found = self._regexes.get(glob.text)
        if found is None:
            found = self._regexes[glob.text] = glob.regex()
        return found

    def _refuse_twins(self, row: RowT, others: Sequence[RowT]) -> None:
        for other in others:
            if _same_time(row, other):
                _ambiguous(other, row)

    def _refuse_ambiguity(self, rows: Sequence[RowT]) -> None:
        groups: dict[tuple[int, int, int], list[RowT]] = defaultdict(list)
        for row in rows:
            groups[row.glob.specificity].append(row)
        for group in groups.values():
            buckets: dict[str, list[RowT]] = defaultdict(list)
            for row in group:
                buckets[row.glob.prefix[: self._PREFIX]].append(row)
            names = sorted(buckets)
            for index, name in enumerate(names):
                for one, other in combinations(buckets[name], 2):
                    if _same_time(one, other) and overlap(one.glob, other.glob):
                        _ambiguous(one, other)
                # a shorter literal start can overlap a longer one that continues it
                for longer in names[index + 1 :]:
                    if not (longer.startswith(name) or len(name) < self._PREFIX):
                        continue
                    for one in buckets[name]:
                        for other in buckets[longer]:
                            if _same_time(one, other) and overlap(one.glob, other.glob):
                                _ambiguous(one, other)


def _same_time(one: HasGlob, other: HasGlob) -> bool:
    starts = max(one.valid_from, other.valid_from)
    ends = min(one.valid_to or "9999", other.valid_to or "9999")
    return starts <= ends


def _ambiguous(one: HasGlob, other: HasGlob) -> None:
    raise MappingError(
        f"{other.glob.text!r} and {one.glob.text!r} ({one.rule}) are equally specific for some code",
        where=other.rule,
        do="make one of them more specific, or give them separate validity",
        number=4,
    )


def load_code_table(
    path: Path, system: str, techniques: Mapping[str, object], label: str | None = None
) -> list[CodeRow]:
    """Reads one table.

    Args:
        path: The CSV file.
        system: Short name of its code system.
        techniques: The known technique words.
        label: How rules name the file, its last two path parts when omitted.

    Raises:
        MappingError: A column, word, pattern or date is wrong; file and line are named.
    """
    shown = label or "/".join(path.parts[-2:])
    rows = read_table(path, COLUMNS, "the code table", shown)
    return [read_row(cells, system, techniques, place) for place, cells in rows]


def read_row(cells: Mapping[str, str], system: str, techniques: Mapping[str, object], rule: str) -> CodeRow:
    """One row, column to text without surrounding space.

    Raises:
        MappingError: A word, the pattern or a date is wrong; ``rule`` says where it stands.
    """
    _known(cells["technique"], techniques, "technique", rule)
    _known(cells["site"], SITES, "site", rule)
    _known(cells["approach"], APPROACHES, "approach", rule)
    _known(cells["agent"], AGENTS, "agent", rule)
    _known(cells["role"], ROLES, "role", rule)
    _known(cells["indication"], INDICATIONS, "indication", rule)
    try:
        glob = parse_glob(cells["code"])
    except MappingError as exc:
        raise MappingError(exc.what, where=rule, do=exc.do, number=3) from exc
    finding = Finding(
        technique=cells["technique"],
        site=cells["site"],
        approach=cells["approach"],
        agent=cells["agent"],
        role=cells["role"],
        indication=cells["indication"],
        system=system,
        code=cells["code"],
        rule=rule,
    )
    valid_from, valid_to = _day(cells["valid_from"], rule), _day(cells["valid_to"], rule)
    if valid_from and valid_to and valid_to < valid_from:
        raise MappingError("the row ends before it begins", where=rule, do="swap valid_from and valid_to", number=6)
    return CodeRow(glob, finding, valid_from, valid_to, rule)


def _day(text: str, rule: str) -> str:
    try:
        return text and date.fromisoformat(text).isoformat()
    except ValueError as exc:
        raise MappingError(f"{text!r} is no date", where=rule, do="write it as 2025-12-31", number=6) from exc


def _known(word: str, words: Iterable[str], column: str, rule: str) -> None:
    if word not in words:
        raise MappingError(
            f"{word!r} is no {column}",
            where=rule,
            do=f"use one of: {', '.join(sorted(w for w in words if w))}",
            number=6,
        )
