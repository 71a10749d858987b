"""Session rules: from the findings of one session to its categories (mappings/session-rules.yaml)."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from io_fhir_adapter.classify.indications import KINDS
from io_fhir_adapter.classify.tables import AGENTS, APPROACHES, ROLES, SITES
from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.model import Finding
from io_fhir_adapter.strict_yaml import fault_of, load_yaml

__all__ = [
    "CategoryFinding",
    "SessionContext",
    "SessionRules",
    "Technique",
    "load_categories",
    "load_session_rules",
    "load_techniques",
]

_ABLATION = "ablation"
_TECHNIQUE_COLUMNS = ("technique", "category", "family", "route_matters", "meaning")
_CATEGORY_COLUMNS = ("code", "title", "axis")
_TEXTS = ("id", "category", "meaning", "stated", "followed_by", "review")
_RULE_KEYS = frozenset(
    {"id", "category", "meaning", "needs", "absorbs", "unless", "stated", "followed_by", "within_days", "review"}
)


@dataclass(frozen=True, slots=True)
class Technique:
    """A technique word: the category it gives alone, and whether it must be seen to be percutaneous."""

    name: str
    category: str
    family: str
    route_matters: bool


@dataclass(frozen=True, slots=True)
class CategoryFinding:
    """One category found in a session, by which rule, from which findings.

    ``review`` is the reason for which a person must look even where everything else speaks for counting, or empty.
    """

    category: str
    rule: str
    meaning: str
    findings: tuple[Finding, ...]
    review: str = ""


def _nothing_stated(_: Sequence[Finding]) -> frozenset[str]:
    return frozenset()


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What a rule may ask beyond the findings of the session.

    Attributes:
        stated_kinds: Given findings, the kinds of the diagnoses stated as reason for their Procedures.
        days_until: Category to the number of days until the patient's next session of it.
    """

    stated_kinds: Callable[[Sequence[Finding]], frozenset[str]] = _nothing_stated
    days_until: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Clause:
    technique: frozenset[str]
    site: frozenset[str]
    agent: frozenset[str]
    role: frozenset[str]
    approach: frozenset[str]

    def met_by(self, finding: Finding) -> bool:
        return (
            (not self.technique or finding.technique in self.technique)
            and (not self.site or finding.site in self.site)
            and (not self.agent or finding.agent in self.agent)
            and (not self.role or finding.role in self.role)
            and (not self.approach or finding.approach in self.approach)
        )


@dataclass(frozen=True, slots=True)
class _Rule:
    id: str
    category: str
    meaning: str
    needs: tuple[_Clause, ...]
    absorbs: tuple[_Clause, ...]
    unless: tuple[_Clause, ...]
    stated: str
    followed_by: str
    within_days: int
    review: str
    place: str

    @property
    def asks(self) -> bool:
        """Whether it asks for more than the findings."""
        return bool(self.stated or self.followed_by)

    def met_by(self, findings: Sequence[Finding], techniques: frozenset[str]) -> bool:
        """Whether the findings alone meet it; ``techniques`` are theirs, which rules most rules out at once."""
        for clause in self.needs:
            if clause.technique and techniques.isdisjoint(clause.technique):
                return False
        return all(map(partial(_met, findings), self.needs)) and not any(map(partial(_met, findings), self.unless))

    def applies_in(self, context: SessionContext, findings: Sequence[Finding]) -> bool:
        """Whether what it asks for beyond the findings is so."""
        if self.followed_by and not 0 < context.days_until.get(self.followed_by, 0) <= self.within_days:
            return False
        if not self.stated:
            return True
        needed = [finding for finding in findings if any(clause.met_by(finding) for clause in self.needs)]
        return self.stated in context.stated_kinds(needed)

    def uses(self, finding: Finding) -> bool:
        """Whether it names the finding and uses it up."""
        return any(clause.met_by(finding) for clause in (*self.needs, *self.absorbs))


def _met(findings: Sequence[Finding], clause: _Clause) -> bool:
    return any(map(clause.met_by, findings))


class SessionRules:
    """The ordered rules and the categories that single techniques give.

    Attributes:
        techniques: The technique words.
        looks_ahead: The categories whose later sessions some rule asks about.
        ahead_techniques: The techniques that a session of such a category has at least one of.
    """

    _REMEMBERED = 50_000

    def __init__(self, rules: Sequence[_Rule], techniques: dict[str, Technique]) -> None:
        self._rules = tuple(rules)
        self.techniques = techniques
        self.looks_ahead = frozenset(rule.followed_by for rule in rules if rule.followed_by)
        self.ahead_techniques = frozenset(
            technique
            for rule in rules
            if rule.category in self.looks_ahead
            for clause in rule.needs
            for technique in clause.technique
        ) | {name for name, technique in techniques.items() if technique.category in self.looks_ahead}
        self._known: dict[tuple[Finding, ...], tuple[CategoryFinding, ...]] = {}

    def categories(self, findings: Sequence[Finding], context: SessionContext) -> tuple[CategoryFinding, ...]:
        """The categories of a session, in the order of the rules.

        Sessions of the same codes are many; what depends on the findings alone is remembered.

        Args:
            findings: The usable findings, in a stable order.
            context: What is stated as reason, and what follows on later days.
        """
        key = tuple(findings)
        known = self._known.get(key)
        if known is not None:
            return known
        found, by_findings_alone = self._apply(findings, context)
        if by_findings_alone:
            if len(self._known) >= self._REMEMBERED:
                self._known.clear()
            self._known[key] = found
        return found

    def _apply(self, findings: Sequence[Finding], context: SessionContext) -> tuple[tuple[CategoryFinding, ...], bool]:
        left = list(findings)
        found: list[CategoryFinding] = []
        by_findings_alone = True
        techniques = frozenset(finding.technique for finding in left)
        for rule in self._rules:
            if not rule.met_by(left, techniques):
                continue
            if rule.asks:
                by_findings_alone = False
                if not rule.applies_in(context, left):
                    continue
            used = tuple(finding for finding in left if rule.uses(finding))
            found.append(CategoryFinding(rule.category, rule.place, rule.meaning, used, rule.review))
            left = [finding for finding in left if finding not in used]
            techniques = frozenset(finding.technique for finding in left)
        found += self._singles(left)
        return tuple(self._with_energy(found)), by_findings_alone

    def _singles(self, findings: Iterable[Finding]) -> list[CategoryFinding]:
        """What no rule used, technique by technique."""
        singles: dict[str, list[Finding]] = {}
        for finding in findings:
            category = self.techniques[finding.technique].category
            if category and finding.role in {"main", "planning"}:
                singles.setdefault("planning" if finding.role == "planning" else category, []).append(finding)
        return [
            CategoryFinding(category, "techniques.csv", "", tuple(members)) for category, members in singles.items()
        ]

    def _with_energy(self, found: list[CategoryFinding]) -> list[CategoryFinding]:
        """An ablation without energy joins one of the same organ whose energy another code names."""
        unnamed = next((item for item in found if item.category == self.techniques[_ABLATION].category), None)
        if unnamed is None:
            return found
        for index, item in enumerate(found):
            same = [finding for finding in unnamed.findings if _same_organ(finding, item.findings)]
            if item is unnamed or self.techniques[item.findings[0].technique].family != _ABLATION or not same:
                continue
            joined = list(found)
            joined[index] = replace(item, findings=(*item.findings, *same))
            rest = tuple(finding for finding in unnamed.findings if finding not in same)
            place = joined.index(unnamed)
            joined[place : place + 1] = [replace(unnamed, findings=rest)] if rest else []
            return joined
        return found


def _same_organ(one: Finding, others: Sequence[Finding]) -> bool:
    return any(not one.site or not other.site or one.site == other.site for other in others)


def load_techniques(path: Path) -> dict[str, Technique]:
    """Reads mappings/techniques.csv.

    Raises:
        MappingError: A column or a row is wrong, or a technique stands twice; file and line are named.
    """
    found: dict[str, Technique] = {}
    for where, row in _records(path, _TECHNIQUE_COLUMNS, "the techniques").items():
        if row["route_matters"] not in {"yes", "no"}:
            raise MappingError(
                f"{row['route_matters']!r} under route_matters is neither yes nor no", where=where, number=8
            )
        found[row["technique"]] = Technique(
            row["technique"], row["category"], row["family"], row["route_matters"] == "yes"
        )
    return found


def load_categories(path: Path) -> dict[str, str]:
    """Reads mappings/categories.csv: category code to title, in the order of the contract.

    Raises:
        MappingError: A column or a row is wrong, or a category stands twice; file and line are named.
    """
    return {row["code"]: row["title"] for row in _records(path, _CATEGORY_COLUMNS, "the categories").values()}


def _records(path: Path, columns: Sequence[str], what: str) -> dict[str, dict[str, str]]:
    """The rows of a small table by the place where each stands; the first column tells them apart."""
    found: dict[str, dict[str, str]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle)
            if tuple(reader.fieldnames or ()) != tuple(columns):
                raise MappingError(
                    f"the columns are not those of {what}",
                    where=f"{path.name}:1",
                    do=f"the first line must read {','.join(columns)}",
                    number=8,
                )
            for record in reader:
                where = f"{path.name}:{reader.line_num}"
                if None in record or None in record.values():
                    raise MappingError(
                        "the row has too many or too few columns", where=where, do="quote texts that hold a comma",
                        number=8,
                    )  # fmt: skip
                if not record[columns[0]] or any(row[columns[0]] == record[columns[0]] for row in found.values()):
                    raise MappingError(
                        f"{record[columns[0]]!r} stands twice or is empty", where=where, do="keep one row", number=8
                    )
                found[where] = record
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise MappingError(
            f"{what} cannot be read ({type(exc).__name__})", where=path.name, do="save it as UTF-8 CSV", number=8
        ) from exc
    return found


def load_session_rules(path: Path, techniques: dict[str, Technique], categories: dict[str, str]) -> SessionRules:
    """Reads mappings/session-rules.yaml.

    Raises:
        MappingError: A rule names an unknown word or stands twice, or a technique gives a category that does not
            exist; the rule is named.
    """
    strange = next((one for one in techniques.values() if one.category and one.category not in categories), None)
    if strange is not None:
        raise MappingError(
            f"{strange.category!r} is no category",
            where=f"techniques.csv:{strange.name}",
            do="see categories.csv",
            number=8,
        )
    try:
        document = load_yaml(path.read_text(encoding="utf-8"))
        entries = document["rules"]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as exc:
        fault, where = fault_of(exc, path.name)
        what = fault or f"the session rules cannot be read ({type(exc).__name__})"
        raise MappingError(what, where=where, do="correct it there", number=8) from exc
    if not isinstance(entries, list):
        raise MappingError("rules is no list", where=path.name, do="write one entry per rule", number=8)
    rules = [_rule(entry, path.name, techniques, categories) for entry in entries]
    twice = next((rule for number, rule in enumerate(rules) if rule.id in {one.id for one in rules[:number]}), None)
    if twice is not None:
        raise MappingError("the id stands twice", where=twice.place, do="give every rule an id of its own", number=8)
    return SessionRules(rules, techniques)


def _rule(entry: Any, file: str, techniques: dict[str, Technique], categories: dict[str, str]) -> _Rule:
    if not isinstance(entry, dict) or not entry.get("id") or not entry.get("needs"):
        raise MappingError("a rule lacks its id or its needs", where=file, do="give every rule both", number=8)
    place = f"{file}:{entry['id']}"
    unknown = sorted(set(entry) - _RULE_KEYS)
    if unknown:
        raise MappingError(
            f"{unknown[0]!r} is no element of a rule", where=place, do=f"use {', '.join(sorted(_RULE_KEYS))}", number=8
        )
    for key in _TEXTS:
        if not isinstance(entry.get(key, ""), str):
            raise MappingError(f"{key} is no text", where=place, do="write one word or sentence", number=8)
    if "stated" in entry and entry["stated"] not in KINDS:
        raise MappingError(
            f"{entry['stated']!r} is no kind of diagnosis", where=place, do=f"use {', '.join(sorted(KINDS))}", number=8
        )
    for category in (entry.get("category"), entry.get("followed_by", "none")):
        if category not in categories:
            raise MappingError(f"{category!r} is no category", where=place, do="see categories.csv", number=8)
    days = entry.get("within_days", 0)
    if type(days) is not int or bool(entry.get("followed_by")) != (days > 0):
        raise MappingError(
            "followed_by and within_days go together", where=place, do="give a category and whole days", number=8
        )
    return _Rule(
        id=entry["id"],
        category=entry["category"],
        meaning=entry.get("meaning", ""),
        needs=_clauses(entry, "needs", techniques, place),
        absorbs=_clauses(entry, "absorbs", techniques, place),
        unless=_clauses(entry, "unless", techniques, place),
        stated=entry.get("stated", ""),
        followed_by=entry.get("followed_by", ""),
        within_days=days,
        review=entry.get("review", ""),
        place=place,
    )


def _clauses(entry: dict[str, Any], key: str, techniques: dict[str, Technique], place: str) -> tuple[_Clause, ...]:
    items = entry.get(key, [])
    if not isinstance(items, list) or not all(isinstance(item, dict) and item for item in items):
        raise MappingError(f"{key} is no list of clauses", where=place, do="write - {technique: …}", number=8)
    return tuple(_clause(item, techniques, place) for item in items)


def _clause(item: dict[str, Any], techniques: dict[str, Technique], place: str) -> _Clause:
    vocabulary = {"technique": set(techniques), "site": SITES, "agent": AGENTS, "role": ROLES, "approach": APPROACHES}
    words: dict[str, frozenset[str]] = {}
    for key, value in item.items():
        if key not in vocabulary:
            raise MappingError(f"{key!r} is no element of a finding", where=place, number=8)
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not listed or not all(isinstance(word, str) for word in listed):
            raise MappingError(f"{key} is neither a word nor a list of words", where=place, number=8)
        words[key] = frozenset(listed)
        strange = words[key] - frozenset(vocabulary[key])
        if strange:
            raise MappingError(f"{sorted(strange)[0]!r} is no {key}", where=place, number=8)
    return _Clause(
        words.get("technique", frozenset()),
        words.get("site", frozenset()),
        words.get("agent", frozenset()),
        words.get("role", frozenset()),
        words.get("approach", frozenset()),
    )
