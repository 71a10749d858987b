"""Checking code tables: every fault of every row, with file and line, where loading stops at the first.

What the loader refuses is an error here too; what it lets pass and a coder should look at is a warning.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import combinations, product
from math import prod
from pathlib import Path
from typing import Literal

from io_fhir_adapter.classify.globs import Glob, overlap, parse_glob
from io_fhir_adapter.classify.indications import load_diagnoses
from io_fhir_adapter.classify.places import load_body_sites
from io_fhir_adapter.classify.programme import load_programme
from io_fhir_adapter.classify.rules import load_categories, load_session_rules, load_techniques
from io_fhir_adapter.classify.systems import SystemNames, normalise_code
from io_fhir_adapter.classify.tables import AGENTS, APPROACHES, INDICATIONS, ROLES, SITES, CodeRow, GlobIndex
from io_fhir_adapter.classify.text import load_technique_words
from io_fhir_adapter.classify.workbench.rows import TableFile, TableRow, code_row, read_rows
from io_fhir_adapter.errors import MappingError

__all__ = ["Fault", "lint_rules", "lint_tables", "row_faults"]

_ANY = "?"
_EXPANDED = 512  # a pattern of sets alone stands for so many codes at most that each is looked at
_NEVER = "9999-12-31"
_WORDS: Mapping[str, frozenset[str]] = {
    "site": SITES, "approach": APPROACHES, "agent": AGENTS, "role": ROLES, "indication": INDICATIONS,
}  # fmt: skip

_DIGIT, _ALNUM, _PCS = "[0-9]", "[0-9a-z]", "[0-9A-HJ-NP-Z]"
_CAP = "[0-9A-Z]"
_CHOP_TAILS = (f".{_CAP}", f".{_CAP}{_CAP}")
_OPS_STEM = f"[1-9]-{_DIGIT}{_ALNUM}{_ALNUM}"
# What codes look like once they are brought to the tables' spelling, and the same in words.
_SHAPES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "icd10pcs": ((_PCS * 7,), "seven characters, digits and capitals without I and O"),
    "ops": (
        tuple(_OPS_STEM + tail for tail in ("", f".{_ALNUM}", f".{_ALNUM}{_ALNUM}")),
        "a digit, a hyphen, three characters and up to two behind a dot, in lower case",
    ),
    "snomed": (tuple(_DIGIT * length for length in range(6, 19)), "six to eighteen digits"),
    "cpt": ((_DIGIT * 4 + "[0-9A-Z]", "[A-Z]" + _DIGIT * 4), "five characters, four of them digits"),
    "opcs4": ((f"[A-Z]{_DIGIT * 2}", f"[A-Z]{_DIGIT * 2}.{_DIGIT}"), "a capital, two digits, a dot and a digit"),
    "chop": (
        tuple(
            f"Z{_DIGIT}[0-9A-Z]{tail}" for tail in ("", *_CHOP_TAILS, *(f".{_CAP * 2}{tail}" for tail in _CHOP_TAILS))
        ),
        "a Z and groups of two digits or capitals with dots between them",
    ),
    "ccam": (("[A-Z]" * 4 + _DIGIT * 3,), "four capitals and three digits"),
}
_SHAPE_GLOBS = {name: tuple(map(parse_glob, shapes)) for name, (shapes, _) in _SHAPES.items()}

# The check digit of SNOMED CT identifiers (Verhoeff): the dihedral group's table and the permutation by place.
_DIHEDRAL = tuple(
    tuple((a + b) % 5 if a < 5 and b < 5 else (a + b) % 5 + 5 if a < 5 else (a - b) % 5 + 5 if b < 5 else (a - b) % 5
          for b in range(10))
    for a in range(10)
)  # fmt: skip
_PERMUTED = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


@dataclass(frozen=True, slots=True)
class Fault:
    """One finding.

    Attributes:
        level: ``error`` (decisions would be wrong, or nothing loads) or ``warning``.
        kind: Stable word, such as ``unknown-word``; listed in the mapping handbook.
        place: File and line.
        text: What is wrong, and what to do.
    """

    level: Literal["error", "warning"]
    kind: str
    place: str
    text: str

    @classmethod
    def of(cls, kind: str, exc: MappingError, place: str = "") -> Fault:
        """An error of the loader as a finding."""
        text = f"{exc.what}; {exc.do}" if exc.do else exc.what
        return cls("error", kind, exc.where or place, text)


def lint_tables(
    tables: Sequence[TableFile],
    techniques: Iterable[str],
    today: date,
    codes: Mapping[str, Sequence[str]] | None = None,
) -> list[Fault]:
    """Everything that is wrong with tables, by file and line.

    Args:
        tables: What to check; a site's own tables are looked at apart from the shipped, as decisions do.
        techniques: The known technique words.
        today: Rows that ended before are said to have expired.
        codes: Short name of a code system to the codes that it has, as the tables write them.
    """
    words = frozenset(techniques)
    faults: list[Fault] = []
    groups: dict[tuple[bool, str], list[CodeRow]] = defaultdict(list)
    for table in tables:
        try:
            raw = read_rows(table.path, table.label)
        except MappingError as exc:
            faults.append(Fault.of("unreadable", exc, table.label))
            continue
        faults += [
            Fault("error", "columns", place, f"{text}; quote texts with a comma") for place, text in raw.misshapen
        ]
        for row in raw.rows:
            own = row_faults(row, table.system, words, today)
            faults += own
            if not any(fault.kind in {"unknown-word", "pattern", "date"} for fault in own):
                groups[table.site, table.system].append(code_row(row, table.system))
    for (_, system), rows in groups.items():
        faults += _ambiguous(rows)
        faults += _without_effect(rows, (codes or {}).get(system), today.isoformat())
    return sorted(faults, key=_by_place)


def lint_rules(folder: Path, programme: str) -> list[Fault]:
    """The first fault of the rules, words and programme of a mappings folder, and the first of its indications."""
    faults: list[Fault] = []

    def tried(load: Callable[[], object]) -> None:
        try:
            load()
        except MappingError as exc:
            faults.append(Fault.of("rules", exc))

    def rules() -> None:
        categories = load_categories(folder / "categories.csv")
        techniques = load_techniques(folder / "techniques.csv")
        load_session_rules(folder / "session-rules.yaml", techniques, categories)
        load_programme(programme, frozenset(categories))
        words = load_technique_words(folder / "technique-words.csv", techniques)
        load_body_sites(folder / "body-sites.csv", SystemNames.load(folder / "systems.csv"), words, techniques)

    tried(rules)
    tried(lambda: load_diagnoses(folder / "indications", SystemNames.load(folder / "systems.csv")))
    return faults


def row_faults(row: TableRow, system: str, techniques: frozenset[str], today: date) -> list[Fault]:
    """What is wrong with one row by itself."""
    return list(_row_faults(row, system, techniques, today))


def _row_faults(row: TableRow, system: str, techniques: frozenset[str], today: date) -> Iterator[Fault]:
    place = row.place
    cells = row.cells()
    for column, words in (("technique", techniques), *_WORDS.items()):
        if cells[column] not in words:
            text = f"{cells[column]!r} is no {column}; {_nearest(cells[column], words)}"
            yield Fault("error", "unknown-word", place, text)
    yield from _date_faults(row, today)
    try:
        glob = parse_glob(row.code)
    except MappingError as exc:
        yield Fault.of("pattern", exc, place)
    else:
        impossible = _impossible(glob, system)
        if impossible:
            yield Fault("error", "impossible", place, impossible)
    if not row.meaning:
        yield Fault("warning", "no-meaning", place, "what the code means is not said; say it in your own words")
    if not row.checked:
        yield Fault(
            "warning", "unchecked", place, "where the row was checked is not said; name the list and its edition"
        )


def _nearest(word: str, words: frozenset[str]) -> str:
    near = difflib.get_close_matches(word, sorted(words), n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"use one of: {', '.join(sorted(w for w in words if w))}"


def _date_faults(row: TableRow, today: date) -> Iterator[Fault]:
    days: dict[str, date] = {}
    for column in ("valid_from", "valid_to"):
        text = getattr(row, column)
        try:
            if text:
                days[column] = date.fromisoformat(text)
        except ValueError:
            yield Fault("error", "date", row.place, f"{column} {text!r} is no date; write it as 2025-12-31")
    begins, ends = days.get("valid_from"), days.get("valid_to")
    if begins and ends and ends < begins:
        yield Fault("error", "date", row.place, "the row ends before it begins; swap valid_from and valid_to")
    elif ends and ends < today:
        text = f"the row ended on {ends.isoformat()}; keep it for older records, and see that another follows it"
        yield Fault("warning", "expired", row.place, text)


def _impossible(glob: Glob, system: str) -> str:
    """Why no code of the system can match a pattern, or empty."""
    globs = _SHAPE_GLOBS.get(system)
    if globs is not None and not any(overlap(glob, shape) for shape in globs):
        return f"no code of {system} can match {glob.text!r}; they have {_SHAPES[system][1]}"
    if not glob.is_literal:
        return ""
    code = glob.prefix
    asked = normalise_code(system, code)
    if asked != code:
        return f"{code!r} is never asked for, because the data's codes are brought to the form {asked!r}; write that"
    if system == "snomed" and not _checks(code):
        return f"{code!r} fails SNOMED CT's check digit; compare it with the source, a spreadsheet may have changed it"
    return ""


def _checks(digits: str) -> bool:
    """Whether the last digit is the check digit of those before it."""
    total = 0
    for place, char in enumerate(reversed(digits)):
        value = int(char)
        for _ in range(place % 8):
            value = _PERMUTED[value]
        total = _DIHEDRAL[total][value]
    return total == 0


def _ambiguous(rows: Sequence[CodeRow]) -> Iterator[Fault]:
    """Every pair of rows that the loader would refuse to load together."""
    groups: dict[object, list[CodeRow]] = defaultdict(list)
    for row in rows:
        groups[row.glob.prefix if row.glob.is_literal else row.glob.specificity].append(row)
    for group in groups.values():
        for one, other in combinations(group, 2):
            short, long = sorted((one.glob.prefix, other.glob.prefix), key=len)
            if long.startswith(short) and overlap(one.glob, other.glob):
                try:
                    GlobIndex((one, other))
                except MappingError as exc:
                    yield Fault.of("ambiguous", exc)


def _without_effect(rows: Sequence[CodeRow], codes: Sequence[str] | None, today: str) -> Iterator[Fault]:
    """Rows that decide about no code: shadowed by more specific ones, or matching nothing in a list.

    What has expired need not be in a list, which is of today as a rule.
    """
    index = GlobIndex(_unambiguous(rows))
    if codes is not None:
        matched: dict[str, CodeRow] = {}  # rule → a more specific row that decides instead
        winners: set[str] = set()
        for code in codes:
            for rule, by in _deciding(index.match(code)):
                if by is None:
                    winners.add(rule)
                else:
                    matched.setdefault(rule, by)
        for row in rows:
            if row.rule in winners:
                continue
            if row.rule in matched:
                yield _shadowed(row, matched[row.rule], "in the list")
            elif not row.valid_to or row.valid_to >= today:
                yield Fault("warning", "matches-nothing", row.rule, f"{row.glob.text!r} matches no code in the list")
        return
    for row in rows:
        meant = _meant(row.glob)
        above = [dict(_deciding(index.match(code))).get(row.rule) for code in meant]
        by = next((other for other in above if other is not None), None)
        if by is not None and None not in above:
            yield _shadowed(row, by, "that it stands for")


def _shadowed(row: CodeRow, by: CodeRow, which: str) -> Fault:
    text = f"{row.glob.text!r} decides about no code {which}; more specific rows such as {by.rule} do"
    return Fault("warning", "shadowed", row.rule, text)


def _unambiguous(rows: Sequence[CodeRow]) -> list[CodeRow]:
    """The rows without the second of each ambiguous pair, which is reported apart."""
    refused = {fault.place for fault in _ambiguous(rows)}
    return [row for row in rows if row.rule not in refused]


def _deciding(matching: Sequence[CodeRow]) -> Iterator[tuple[str, CodeRow | None]]:
    """For each row that matches a code: None if it decides about it on some day, else a row that does so instead."""
    for place, row in enumerate(matching):
        above = matching[:place]
        starts = [row.valid_from or date.min.isoformat()]
        starts += [_day_after(other.valid_to) for other in above if other.valid_to and other.valid_to < _NEVER]
        decides = any(_valid(row, day) and not any(_valid(other, day) for other in above) for day in starts)
        yield row.rule, None if decides else above[0]


def _valid(row: CodeRow, day: str) -> bool:
    return row.valid_from <= day <= (row.valid_to or _NEVER)


def _day_after(day: str) -> str:
    return (date.fromisoformat(day) + timedelta(days=1)).isoformat()


def _meant(glob: Glob) -> list[str]:
    """The codes that a pattern stands for, where it names them; empty where anything may stand in some place."""
    if glob.open_tail or any(_ANY in place for place in glob.places):
        return []
    if prod(map(len, glob.places)) > _EXPANDED:
        return []
    return ["".join(chars) for chars in product(*(sorted(place) for place in glob.places))]


def _by_place(fault: Fault) -> tuple[str, int, str, str]:
    file, _, line = fault.place.rpartition(":")
    return (file, int(line), fault.kind, fault.text) if line.isdigit() else (fault.place, 0, fault.kind, fault.text)
