"""Reading the text of a Procedure that no code table knows: technique words with negation and planning.

The words are data (mappings/technique-words.csv), for German, English and French. A text never makes a session
count; it proposes a category that a responsible person looks at.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from io_fhir_adapter.classify.csv_table import read_table
from io_fhir_adapter.classify.tables import AGENTS, APPROACHES, INDICATIONS, ROLES, SITES
from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.model import Finding

__all__ = ["COLUMNS", "TEXT_CODE", "WORD_ROLES", "TechniqueWords", "fold", "load_technique_words"]

COLUMNS = (
    "word", "language", "match", "technique", "site", "approach", "agent", "role", "indication", "needs", "note",
)  # fmt: skip
TEXT_CODE = "text"
_NOT_DONE, _NOT_WHAT_FOLLOWS, _TUMOUR = "not-done", "not-what-follows", "tumour"
WORD_ROLES = ROLES | {_NOT_DONE, _NOT_WHAT_FOLLOWS, _TUMOUR}
_MATCHES = frozenset({"word", "start", "part"})
_LANGUAGES = frozenset({"de", "en", "fr", "any"})
_NEEDS = frozenset({"", "place"})
_REACH = 3  # words that a "no" or "after" reaches forward
_AFTERTHOUGHT = 1  # further words in a clause that only says what became of the one before it
_CACHE_LIMIT = 50_000
_LONGEST = 1_000  # characters of a text that are read
_NONE, _DRUG = "none", "drug"  # say nothing alone
# What other disciplines do as well; a bare word of these is read with the clauses beside it.
_SHARED = frozenset({"radiofrequency", "laser", "cryotherapy", "electroporation", "chemical", "ablation"})

# A full stop ends a clause behind a word, not behind an abbreviation such as "A." or "Z.n.".
_CLAUSES = re.compile(r"[;\n|]|,(?=\s)|(?<=[a-z0-9]{3})\.(?=\s)")
_TOKEN = re.compile(r"[a-z0-9]+")
_LETTERS = str.maketrans({"ß": "ss", "œ": "oe", "æ": "ae", "ø": "o", "ł": "l"})
_UMLAUTS = re.compile(r"([aou])e")


def fold(text: str) -> str:
    """Lower case without accents; ``ä`` and ``ae`` become the same."""
    plain = text.lower()
    if not plain.isascii():
        parted = unicodedata.normalize("NFKD", plain.translate(_LETTERS))
        plain = "".join(char for char in parted if not unicodedata.combining(char))
    return _UMLAUTS.sub(r"\1", plain)


@dataclass(frozen=True, slots=True)
class _Word:
    """One row: what a word or phrase says."""

    tokens: tuple[str, ...]
    match: str
    technique: str
    site: str
    approach: str
    agent: str
    role: str
    indication: str
    needs_place: bool
    rule: str

    @property
    def length(self) -> int:
        return sum(map(len, self.tokens))

    def at(self, tokens: Sequence[str], start: int) -> bool:
        """Whether the word stands at that place."""
        *head, last = self.tokens
        end = start + len(head)
        if end >= len(tokens) or list(tokens[start:end]) != head:
            return False
        if self.match == "part":
            return last in tokens[end]
        return tokens[end].startswith(last) if self.match == "start" else tokens[end] == last

    def finding(self) -> Finding:
        return Finding(
            technique=self.technique,
            site=self.site,
            approach=self.approach or "unspecified",
            agent=self.agent or _NONE,
            role=self.role or "main",
            indication=self.indication or "expected",
            system="",
            code=TEXT_CODE,
            rule=self.rule,
        )


@dataclass(slots=True)
class _Clause:
    """What stands in one clause: techniques with their place, and what is said of them."""

    length: int
    techniques: list[tuple[int, _Word]] = field(default_factory=list)
    marks: list[tuple[int, _Word]] = field(default_factory=list)

    def has(self, role: str) -> bool:
        return any(word.role == role for _, word in self.marks)

    @property
    def is_afterthought(self) -> bool:
        """Whether it only says what became of the clause before it: "TACE, wurde abgebrochen"."""
        said = sum(len(word.tokens) for _, word in self.marks if word.role in {_NOT_DONE, "planning"})
        return not self.techniques and said > 0 and self.length - said <= _AFTERTHOUGHT

    @property
    def is_bare(self) -> bool:
        """Whether it names an energy that other disciplines use too, and neither an organ nor a tumour."""
        named = {word.technique for _, word in self.techniques}
        return bool(named) and named <= _SHARED and not self.place and not self.has(_TUMOUR)

    @property
    def is_other_disease(self) -> bool:
        """Whether it says nothing but another disease: "Laserablation, Vena saphena"."""
        said = {word.technique for _, word in self.techniques}
        return said == {_NONE} and not self.has(_NOT_WHAT_FOLLOWS)

    @property
    def place(self) -> str:
        """The site that the longest word names, the first of equals."""
        places = [word for _, word in self.marks if word.site]
        return max(places, key=lambda word: word.length).site if places else ""

    @property
    def approach(self) -> str:
        """The way in; one that is none of ours is the one to know of."""
        ways = sorted(
            {word.approach for _, word in self.marks if word.approach}, key=lambda way: (way == "percutaneous", way)
        )
        return ways[0] if ways else ""


class TechniqueWords:
    """Finds technique words in texts. Make it with :func:`load_technique_words`."""

    def __init__(self, words: Iterable[_Word]) -> None:
        self._anywhere: list[_Word] = []
        self._by_token: dict[str, list[_Word]] = defaultdict(list)
        self._by_start: dict[str, list[_Word]] = defaultdict(list)
        whole: set[str] = set()
        parts: set[str] = set()
        for word in words:
            first, single = word.tokens[0], len(word.tokens) == 1
            if single and word.match == "part":
                self._anywhere.append(word)
            elif single and word.match == "start":
                self._by_start[first[:3]].append(word)
            else:
                self._by_token[first].append(word)
            if word.technique not in {"", _NONE, _DRUG}:
                (parts if single and word.match == "part" else whole).add(first)
        # Most texts hold no word of a treatment; one search says so.
        self._any = re.compile(rf"\b(?:{_either(whole)})|{_either(parts)}")
        self._in_token: dict[str, list[_Word]] = {}
        self._known: dict[str, tuple[Finding, ...]] = {}

    def findings(self, texts: Iterable[str]) -> tuple[Finding, ...]:
        """What the texts of one Procedure say was done or planned, in a stable order; empty where nothing is said.

        What was not done, and what is done for another disease, is nothing.
        """
        text = "\n".join(text for text in texts if text)[:_LONGEST]
        if not text:
            return ()
        known = self._known.get(text)
        if known is None:
            if len(self._known) >= _CACHE_LIMIT:
                self._known.clear()
            known = self._known[text] = self._read(fold(text))
        return known

    def place(self, text: str) -> str:
        """The one site that a text such as the name of a body site names, else empty."""
        tokens = _TOKEN.findall(fold(text[:_LONGEST]))
        sites = {word.site for _, word in self._words_in(tokens) if word.site and not word.technique}
        return sites.pop() if len(sites) == 1 else ""

    def _read(self, text: str) -> tuple[Finding, ...]:
        if self._any.search(text) is None:
            return ()
        clauses: list[_Clause] = []
        for part in _CLAUSES.split(text):
            tokens = _TOKEN.findall(part)
            if not tokens:
                continue
            clause = self._clause(tokens)
            if clause.is_afterthought and clauses:
                clauses[-1].marks += [(0, word) for _, word in clause.marks if word.role != _NOT_WHAT_FOLLOWS]
            else:
                clauses.append(clause)
        others = [clause.is_other_disease for clause in clauses]
        found = [
            finding
            for number, clause in enumerate(clauses)
            if not (clause.is_bare and any(others[max(number - 1, 0) : number + 2]))
            for finding in _said(clause)
        ]
        if all(finding.role == "add-on" for finding in found):
            return ()
        return tuple(sorted(set(found), key=lambda item: (item.technique, item.agent, item.rule)))

    def _clause(self, tokens: Sequence[str]) -> _Clause:
        clause = _Clause(len(tokens))
        techniques: list[tuple[int, _Word]] = []
        marks: list[tuple[int, _Word]] = []
        for start, word in self._words_in(tokens):
            (techniques if word.technique else marks).append((start, word))
        # A mark inside a longer one is none: "Niere" in "Nebenniere", "nicht" in "nicht-kleinzellig".
        clause.marks = [item for item in marks if not any(_inside(item, other) for other in marks)]
        # The longest word wins: "chemoembolisation" is no "embolisation".
        taken: set[int] = set()
        for start, word in sorted(techniques, key=lambda item: (-item[1].length, item[0], item[1].rule)):
            span = set(range(start, start + len(word.tokens)))
            if taken.isdisjoint(span):
                taken |= span
                clause.techniques.append((start, word))
            elif word.technique == _NONE and not any(_inside((start, word), other) for other in clause.techniques):
                # another disease in one compound with a technique: "Saphenalaserablation", "Myomembolisation"
                clause.techniques.append((start, word))
        return clause

    def _words_in(self, tokens: Sequence[str]) -> list[tuple[int, _Word]]:
        found: list[tuple[int, _Word]] = []
        for start, token in enumerate(tokens):
            found += [(start, word) for word in self._parts_of(token)]
            candidates = [*self._by_token.get(token, ()), *self._by_start.get(token[:3], ())]
            found += [(start, word) for word in candidates if word.at(tokens, start)]
        return found

    def _parts_of(self, token: str) -> list[_Word]:
        """The words that stand anywhere in a token; remembered, because texts share their words."""
        known = self._in_token.get(token)
        if known is None:
            if len(self._in_token) >= _CACHE_LIMIT:
                self._in_token.clear()
            known = self._in_token[token] = [word for word in self._anywhere if word.tokens[0] in token]
        return known


def _either(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=lambda word: (-len(word), word))) or r"(?!)"


def _inside(item: tuple[int, _Word], other: tuple[int, _Word]) -> bool:
    (start, word), (begin, longer) = item, other
    within = begin <= start and start + len(word.tokens) <= begin + len(longer.tokens)
    return within and word.length < longer.length and " ".join(word.tokens) in " ".join(longer.tokens)


def _said(clause: _Clause) -> list[Finding]:
    """The findings of one clause, with what the clause says of them."""
    if clause.has(_NOT_DONE):
        return []
    barred = [start for start, word in clause.marks if word.role == _NOT_WHAT_FOLLOWS]
    place, tumour = clause.place, clause.has(_TUMOUR)
    words = [
        word
        for start, word in clause.techniques
        if not any(0 < start - bar <= _REACH for bar in barred) and (place or tumour or not word.needs_place)
    ]
    if not tumour and any(word.technique == _NONE for word in words):
        return []
    role = next((mark for mark in ("planning", "revision") if clause.has(mark)), "")
    return [_with(word.finding(), place, role, clause.approach) for word in words if word.technique != _NONE]


def _with(finding: Finding, place: str, role: str, approach: str) -> Finding:
    return Finding(
        technique=finding.technique,
        site=finding.site or (place if finding.role != "add-on" else ""),
        approach=approach or finding.approach,
        agent=finding.agent,
        role=role if role and finding.role == "main" else finding.role,
        indication=finding.indication,
        system=finding.system,
        code=finding.code,
        rule=finding.rule,
    )


def load_technique_words(path: Path, techniques: Mapping[str, object]) -> TechniqueWords:
    """Reads mappings/technique-words.csv.

    Raises:
        MappingError: A column or word is wrong, or a word stands twice; file and line are named.
    """
    words: dict[tuple[object, ...], _Word] = {}
    for place, cells in read_table(path, COLUMNS, "the technique words", path.name):
        word = _word(cells, techniques, place)
        # one spelling in two languages is one row; a second one would never be reached
        key = (word.tokens, bool(word.technique), word.role if not word.technique else "", word.site != "")
        if key in words:
            raise MappingError("the word stands twice", where=word.rule, do=f"keep it or {words[key].rule}", number=4)
        words[key] = word
    return TechniqueWords(words.values())


def _word(cells: Mapping[str, str], techniques: Mapping[str, object], rule: str) -> _Word:
    vocabulary = {
        "language": _LANGUAGES,
        "match": _MATCHES,
        "technique": {"", *techniques},
        "site": SITES,
        "approach": APPROACHES | {""},
        "agent": AGENTS | {""},
        "role": WORD_ROLES | {""},
        "indication": INDICATIONS | {""},
        "needs": _NEEDS,
    }
    for column, known in vocabulary.items():
        if cells[column] not in known:
            raise MappingError(
                f"{cells[column]!r} is no {column}",
                where=rule,
                do=f"use one of: {', '.join(sorted(word for word in known if word))}",
                number=6,
            )
    tokens = tuple(_TOKEN.findall(fold(cells["word"])))
    says = cells["technique"] or cells["site"] or cells["approach"] or cells["role"]
    if not tokens or not says:
        raise MappingError("the row has no word, or says nothing", where=rule, do="fill it or delete it", number=6)
    return _Word(
        tokens,
        cells["match"],
        cells["technique"],
        cells["site"],
        cells["approach"],
        cells["agent"],
        cells["role"],
        cells["indication"],
        cells["needs"] == "place",
        rule,
    )
