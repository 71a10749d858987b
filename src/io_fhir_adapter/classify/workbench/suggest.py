"""Proposing rows for a site's own keys from their display texts; a person accepts them, nothing is taken by itself.

A display is read with the same words, negations and planning words as the text of a Procedure without a known code
(mappings/technique-words.csv). Where that finds nothing, words are taken for misspelt ones of that list, and last
the display is compared with the meanings of our own rows.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rapidfuzz import fuzz, process

from io_fhir_adapter.classify.category_cells import literal_pattern
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.classify.text import fold
from io_fhir_adapter.classify.workbench.exchange import category_alone
from io_fhir_adapter.classify.workbench.rows import TableRow
from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.model import Finding

__all__ = ["LocalCode", "Spellings", "Suggestion", "is_local", "load_spellings", "suggest_rows"]

_SITE_PREFIX = "site:"
_TOKEN = re.compile(r"[a-z0-9]+")
_SHORTEST = 7  # letters; shorter words are too near to others to be misspelt ones
_MISSPELT = 88.0  # ratio, of 100, from which a word is taken for a misspelt one
_MISSPELT_IN_PART = 93.0  # where a shorter word of the list stands in it, spelt right
_ALIKE = 80.0  # ratio from which a display is taken for the meaning of a row
# The score, of 100: how surely the technique was read, whether the site is known, how near one of our rows is.
_FOR_TECHNIQUE, _FOR_SITE, _FOR_ROW = 60, 20, 20
_FOR_MEANING_ALONE = 75
_OFF_FOR_CONFLICT = 20
_OFF_FOR_SPELLING = 0.05
# what the end of a compound says whose beginning is misspelt
_UNNAMED = frozenset({("ablation", "none"), ("embolisation", "none")})
_TELLING_AGENTS = frozenset({"cytostatic", "drug-loaded-particles", "radionuclide"})
_REFUSING = frozenset({"not-done", "not-what-follows"})


@dataclass(frozen=True, slots=True)
class LocalCode:
    """A code without a row: its system as written, the display that several patients share, how many Procedures."""

    system: str
    code: str
    display: str | None
    procedures: int


@dataclass(frozen=True, slots=True)
class Spellings:
    """How technique words are spelt: ``words`` that may be misspelt, and (tokens) of words that ``refuse``."""

    words: tuple[str, ...]
    refuse: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A proposed row for a code of a system; ``score`` (0 to 100) orders proposals and is no probability."""

    system: str
    row: TableRow
    score: int
    display: str
    procedures: int


@dataclass(frozen=True, slots=True)
class _Read:
    finding: Finding
    certainty: float  # 0 to 1
    conflict: bool


class _Alike(NamedTuple):
    score: float
    start: int
    end: int


def load_spellings(path: Path) -> Spellings:
    """The spellings in mappings/technique-words.csv.

    Raises:
        MappingError: The file cannot be read.
    """
    words: dict[str, None] = {}
    refuse: dict[tuple[str, ...], None] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            for row in csv.DictReader(handle):
                tokens = tuple(_TOKEN.findall(fold(row["word"])))
                if row["role"] in _REFUSING:
                    refuse[tokens] = None
                elif row["technique"] or row["site"]:
                    words.update(dict.fromkeys(token for token in tokens if len(token) >= _SHORTEST))
    except (OSError, UnicodeDecodeError, KeyError, csv.Error) as exc:
        raise MappingError(
            f"the technique words cannot be read ({type(exc).__name__})",
            where=path.name,
            do="save it as UTF-8 CSV",
            number=5,
        ) from exc
    return Spellings(tuple(words), tuple(refuse))


def is_local(system: str, ruleset: Ruleset) -> bool:
    """Whether a system is a site's own: no national or international one, and named at all."""
    name = ruleset.systems.name(system)
    return (not name or name.startswith(_SITE_PREFIX)) and bool(system) and not system.startswith("(")


def suggest_rows(
    codes: Iterable[LocalCode], rows: Sequence[TableRow], ruleset: Ruleset, spellings: Spellings
) -> list[Suggestion]:
    """Rows for local codes whose display says something, by system, the surest first.

    Args:
        codes: Codes without a row.
        rows: Our own rows, whose meanings displays are compared with.
        ruleset: Words and rules.
        spellings: Of the technique words.
    """
    meanings = [fold(row.meaning) for row in rows]
    found = []
    for code in codes:
        if code.code and code.display and is_local(code.system, ruleset):
            made = _row_for(code.code, code.display, rows, meanings, ruleset, spellings)
            if made is not None:
                found.append(Suggestion(code.system, *made, code.display, code.procedures))
    return sorted(found, key=lambda item: (item.system, -item.score, -item.procedures, item.row.code))


def _row_for(
    code: str, display: str, rows: Sequence[TableRow], meanings: Sequence[str], ruleset: Ruleset, spellings: Spellings
) -> tuple[TableRow, int] | None:
    text = fold(display)
    read = _read(display, text, ruleset, spellings)
    if read is None:
        return None if _refused(text, spellings) else _by_meaning(code, text, rows, meanings, ruleset)
    finding = read.finding
    near, nearness = _nearest(text, finding, rows, meanings)
    score = _FOR_TECHNIQUE * read.certainty + _FOR_ROW * nearness
    score += _FOR_SITE if finding.site or finding.technique == "none" else 0
    score -= _OFF_FOR_CONFLICT if read.conflict else 0
    note = f"proposed from its display by {finding.rule}"
    note += f"; see also {near.place}" if near is not None else ""
    note += "; the display names more than one treatment" if read.conflict else ""
    indication = near.indication if near is not None else finding.indication
    if indication == "implied" and finding.agent not in _TELLING_AGENTS:
        indication = "expected"  # our row's code names a tumour; the display of another code need not
    return _row(code, finding, indication, note, ruleset), max(0, round(score))


def _read(display: str, text: str, ruleset: Ruleset, spellings: Spellings) -> _Read | None:
    """What a display says was done, with how surely it was read."""
    said, certainty = ruleset.words.findings([display]), 1.0
    if all((finding.technique, finding.agent) in _UNNAMED for finding in said):
        respelt, likeness = _respelt(text, spellings)
        better = ruleset.words.findings([respelt]) if likeness < 1 else ()
        said, certainty = (better, likeness) if better else (said, certainty)
    if not said:
        return None
    order = ruleset.category_order
    by_category: dict[str, Finding] = {}
    for finding in said:
        by_category.setdefault(category_alone(finding, ruleset.rules), finding)
    treatments = sorted((name for name in by_category if name not in {"", "none"}), key=lambda name: order[name])
    first = treatments[0] if treatments else next(iter(by_category))
    return _Read(by_category[first], certainty, len(treatments) > 1)


def _respelt(text: str, spellings: Spellings) -> tuple[str, float]:
    """The text with words that look misspelt put right, and the lowest likeness among them; 1 where there is none."""
    likeness = 1.0
    parts = []
    for token in text.split():
        spelt_right = max((len(word) for word in spellings.words if word in token), default=0)
        best = None
        for word in spellings.words:
            if spelt_right < len(word) <= len(token) + 1:
                # a part of the word may be right, as in "mikrowelenablation"
                alike = _alike(word, token, _MISSPELT_IN_PART if spelt_right else _MISSPELT)
                if alike is not None and (best is None or alike.score > best[0].score):
                    best = alike, word
        if best is None:
            parts.append(token)
            continue
        alike, word = best
        parts.append(f"{token[: alike.start]}{word}{token[alike.end :]}")
        likeness = min(likeness, alike.score / 100 - _OFF_FOR_SPELLING)
    return " ".join(parts), likeness


def _alike(word: str, token: str, cutoff: float) -> _Alike | None:
    """Where in a token a word stands, if it does so misspelt."""
    if len(word) > len(token):
        whole = fuzz.ratio(word, token, score_cutoff=cutoff)
        return _Alike(whole, 0, len(token)) if whole else None
    part = fuzz.partial_ratio_alignment(word, token, score_cutoff=cutoff)
    return _Alike(part.score, part.dest_start, part.dest_end) if part is not None and part.score < 100 else None


def _refused(text: str, spellings: Spellings) -> bool:
    tokens = _TOKEN.findall(text)
    return any(
        tuple(tokens[start : start + len(words)]) == words
        for words in spellings.refuse
        for start in range(len(tokens) - len(words) + 1)
    )


def _nearest(
    text: str, finding: Finding, rows: Sequence[TableRow], meanings: Sequence[str]
) -> tuple[TableRow | None, float]:
    """Of our rows that say the same the one whose meaning is nearest, and how near (0 to 1)."""
    same = [place for place, row in enumerate(rows) if (row.technique, row.agent) == (finding.technique, finding.agent)]
    same = same or [place for place, row in enumerate(rows) if row.technique == finding.technique]
    there = [place for place in same if rows[place].site == finding.site]
    best = process.extractOne(text, {place: meanings[place] for place in there or same}, scorer=fuzz.token_set_ratio)
    return (rows[best[2]], best[1] / 100) if best is not None else (None, 0.0)


def _by_meaning(
    code: str, text: str, rows: Sequence[TableRow], meanings: Sequence[str], ruleset: Ruleset
) -> tuple[TableRow, int] | None:
    best = process.extractOne(text, meanings, scorer=fuzz.token_sort_ratio, score_cutoff=_ALIKE)
    if best is None:
        return None
    like = rows[best[2]]
    finding = Finding(like.technique, like.site, like.approach, like.agent, like.role, like.indication, "", "", "")
    note = f"proposed because its display is like the meaning of {like.place}"
    return _row(code, finding, like.indication, note, ruleset), round(_FOR_MEANING_ALONE * best[1] / 100)


def _row(code: str, finding: Finding, indication: str, note: str, ruleset: Ruleset) -> TableRow:
    """The proposed row: not checked by anybody, its meaning in our words."""
    category = category_alone(finding, ruleset.rules)
    what = ruleset.categories.get(category, finding.technique) if category != "none" else "no treatment of ours"
    meaning = f"{what}, {finding.site}" if finding.site and category != "none" else what
    return TableRow(
        literal_pattern(code), finding.technique, finding.site, finding.approach, finding.agent, finding.role,
        indication, meaning=meaning, note=note,
    )  # fmt: skip
