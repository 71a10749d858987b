"""Session rules: from the findings of one session to its categories (mappings/session-rules.yaml)."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from io_fhir_adapter.classify.tables import AGENTS, ROLES, SITES
from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.model import Finding

__all__ = ["CategoryFinding", "SessionRules", "Technique", "load_categories", "load_session_rules", "load_techniques"]


@dataclass(frozen=True, slots=True)
class Technique:
    """A technique word: the category it gives alone, and whether it must be seen to be percutaneous."""

    name: str
    category: str
    family: str
    route_matters: bool


@dataclass(frozen=True, slots=True)
class CategoryFinding:
    """One category found in a session, by which rule, from which findings."""

    category: str
    rule: str
    meaning: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class _Clause:
    technique: frozenset[str]
    site: frozenset[str]
    agent: frozenset[str]
    role: frozenset[str]

    def met_by(self, finding: Finding) -> bool:
        return (
            (not self.technique or finding.technique in self.technique)
            and (not self.site or finding.site in self.site)
            and (not self.agent or finding.agent in self.agent)
            and (not self.role or finding.role in self.role)
        )


@dataclass(frozen=True, slots=True)
class _Rule:
    id: str
    category: str
    meaning: str
    needs: tuple[_Clause, ...]
    absorbs: tuple[_Clause, ...]
    stated: str
    place: str


class SessionRules:
    """The ordered rules and the categories that single techniques give."""

    def __init__(self, rules: Sequence[_Rule], techniques: dict[str, Technique]) -> None:
        self._rules = tuple(rules)
        self.techniques = techniques

    def categories(self, findings: Sequence[Finding], stated_kinds: frozenset[str]) -> list[CategoryFinding]:
        """The categories of a session, in the order of the rules.

        Args:
            findings: The usable findings, in a stable order.
            stated_kinds: Kinds of the diagnoses stated as reason (``bleeding`` switches a rule on).
        """
        left = list(findings)
        found: list[CategoryFinding] = []
        for rule in self._rules:
            if rule.stated and rule.stated not in stated_kinds:
                continue
            if not all(any(clause.met_by(finding) for finding in left) for clause in rule.needs):
                continue
            clauses = (*rule.needs, *rule.absorbs)
            used = [finding for finding in left if any(clause.met_by(finding) for clause in clauses)]
            found.append(CategoryFinding(rule.category, rule.place, rule.meaning, tuple(used)))
            left = [finding for finding in left if finding not in used]
        singles: dict[str, list[Finding]] = {}
        for finding in left:
            technique = self.techniques[finding.technique]
            if technique.category and finding.role in {"main", "planning"}:
                category = "planning" if finding.role == "planning" else technique.category
                singles.setdefault(category, []).append(finding)
        for category, members in singles.items():
            found.append(CategoryFinding(category, "techniques.csv", "", tuple(members)))
        return found


def load_techniques(path: Path) -> dict[str, Technique]:
    """Reads mappings/techniques.csv."""
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            return {
                row["technique"]: Technique(
                    row["technique"], row["category"], row["family"], row["route_matters"] == "yes"
                )
                for row in csv.DictReader(handle)
            }
    except (OSError, KeyError, csv.Error) as exc:
        raise MappingError(f"the techniques cannot be read ({type(exc).__name__})", where=path.name, number=8) from exc


def load_categories(path: Path) -> dict[str, str]:
    """Reads mappings/categories.csv: category code to title, in the order of the contract."""
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            return {row["code"]: row["title"] for row in csv.DictReader(handle)}
    except (OSError, KeyError, csv.Error) as exc:
        raise MappingError(f"the categories cannot be read ({type(exc).__name__})", where=path.name, number=8) from exc


def load_session_rules(path: Path, techniques: dict[str, Technique], categories: dict[str, str]) -> SessionRules:
    """Reads mappings/session-rules.yaml.

    Raises:
        MappingError: A rule names an unknown word; the rule is named.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        entries = document["rules"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as exc:
        raise MappingError(
            f"the session rules cannot be read ({type(exc).__name__})", where=path.name, number=8
        ) from exc
    rules = []
    for entry in entries:
        place = f"{path.name}:{entry.get('id', '?')}"
        unknown = set(entry) - {"id", "category", "meaning", "needs", "absorbs", "stated"}
        if unknown or entry.get("category") not in categories:
            raise MappingError(
                f"the rule has an unknown key or category ({', '.join(sorted(unknown)) or entry.get('category')})",
                where=place,
                number=8,
            )
        rules.append(
            _Rule(
                id=entry["id"],
                category=entry["category"],
                meaning=entry.get("meaning", ""),
                needs=tuple(_clause(item, techniques, place) for item in entry["needs"]),
                absorbs=tuple(_clause(item, techniques, place) for item in entry.get("absorbs", ())),
                stated=entry.get("stated", ""),
                place=place,
            )
        )
    return SessionRules(rules, techniques)


def _clause(item: dict[str, Any], techniques: dict[str, Technique], place: str) -> _Clause:
    vocabulary = {"technique": set(techniques), "site": SITES, "agent": AGENTS, "role": ROLES}
    words: dict[str, frozenset[str]] = {}
    for key, value in item.items():
        if key not in vocabulary:
            raise MappingError(f"{key!r} is no element of a finding", where=place, number=8)
        words[key] = frozenset([value] if isinstance(value, str) else value)
        strange = words[key] - frozenset(vocabulary[key])
        if strange:
            raise MappingError(f"{sorted(strange)[0]!r} is no {key}", where=place, number=8)
    return _Clause(
        words.get("technique", frozenset()),
        words.get("site", frozenset()),
        words.get("agent", frozenset()),
        words.get("role", frozenset()),
    )
