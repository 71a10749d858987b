"""The de-identification profile: an allow-list as data, read and checked."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.shipped import shipped_path

__all__ = [
    "AnswerRule",
    "CodeSystemRule",
    "How",
    "Profile",
    "Quasi",
    "RiskRule",
    "Rule",
    "Step",
    "load_profile",
]

How = Literal["keep", "fixed", "code-list", "age-band", "icd-group", "quarter", "day-offset", "token", "drop"]
Quasi = Literal["age", "sex", "tumour-group", "quarter"]
Step = Literal["widen-age", "drop-age", "drop-sex", "drop-tumour-group", "drop-quarter"]
Type = Literal["code", "Coding", "CodeableConcept", "Reference", "Identifier", "date"]

_TYPES: dict[str, frozenset[str]] = {
    "keep": frozenset({"code"}),
    "fixed": frozenset({"code"}),
    "code-list": frozenset({"Coding", "CodeableConcept"}),
    "icd-group": frozenset({"Coding", "CodeableConcept"}),
    "age-band": frozenset({"date"}),
    "quarter": frozenset({"date"}),
    "day-offset": frozenset({"date"}),
    "token": frozenset({"Reference", "Identifier"}),
    "drop": frozenset({"code"}),
}


class CodeSystemRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """A code system whose codes may leave: its URIs, and the shape (a regular expression) or list of its codes."""

    uris: tuple[str, ...]
    shape: str = ""
    codes: frozenset[str] = frozenset()

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(self.shape)

    def admits(self, code: str) -> bool:
        """Whether a code is one that this system can have."""
        return code in self.codes or bool(self.shape and self._pattern.fullmatch(code))


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"sources": "from"}):
    """How one element leaves; the meaning of ``how`` stands in the profile file.

    Attributes:
        how: One way, or several that each add something.
        type: The FHIR type of the element in what leaves; ``date`` for dates, dateTimes and Periods.
        many: Whether the element repeats.
        values: What ``keep`` keeps.
        value: What ``fixed`` writes.
        otherwise: What is written where nothing may be kept but the element is required.
        systems: Names of the code systems that ``code-list`` and ``icd-group`` take.
        refuse: Codes that stop the whole resource.
        target: Resource type that a reference points to.
        sources: Where the value stands in the source, if not under the element's own name.
    """

    how: How | tuple[How, ...]
    type: Type = "code"
    many: bool = False
    values: frozenset[str] = frozenset()
    value: Any = None
    otherwise: Any = None
    systems: tuple[str, ...] = ()
    refuse: frozenset[str] = frozenset()
    target: str = ""
    sources: tuple[str, ...] = ()

    @property
    def ways(self) -> tuple[How, ...]:
        """``how`` as a tuple."""
        return (self.how,) if isinstance(self.how, str) else self.how


class RiskRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How small a group of look-alikes a case may belong to, and what is made coarser where it is smaller.

    Attributes:
        k: At least so many patients of the frame share the case's age band, sex, category, tumour group and quarter.
        steps: What is generalised, in this order, until they do.
        answers: The form's items that say one of these, by linkId.
    """

    k: int
    steps: tuple[Step, ...]
    answers: dict[str, Quasi]


class AnswerRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of a completed form may leave.

    Attributes:
        elements: Elements of the QuestionnaireResponse itself, beside its items.
        values: Kinds of answers; codings only from the item's own options, strings only the case's own name.
        text: ``local``: what a person typed stays; ``ask``: it leaves once it was scanned and a person approved it.
    """

    elements: frozenset[str]
    values: frozenset[str]
    text: Literal["local", "ask"] = "local"


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """An allow-list: per resource type, element name to rule; what leaves of a form; how alike cases must be."""

    version: int
    name: str
    systems: dict[str, CodeSystemRule]
    resources: dict[str, dict[str, Rule]]
    answers: AnswerRule
    risk: RiskRule

    @property
    def shapes(self) -> tuple[re.Pattern[str], ...]:
        """The shapes of all codes that may leave, in any letter case."""
        return tuple(re.compile(system.shape, re.IGNORECASE) for system in self.systems.values() if system.shape)

    @property
    def public_words(self) -> frozenset[str]:
        """Every code, type and URI that the profile itself names, in lower case: published, so no identifier."""
        words = {word for system in self.systems.values() for word in (*system.codes, *system.uris)} | set(
            self.resources
        )
        for rules in self.resources.values():
            for rule in rules.values():
                words |= rule.values
        return frozenset(word.casefold() for word in words)


def load_profile(path: Path | None = None) -> Profile:
    """Read a profile, the shipped one where no path is given.

    Raises:
        MappingError: It cannot be read, has unknown keys, or rules that do not fit together.
    """
    source = path if path is not None else shipped_path("mappings", "deidentification.yaml")
    try:
        profile = msgspec.convert(yaml.safe_load(source.read_text(encoding="utf-8")), Profile)
    except (OSError, ValueError, yaml.YAMLError) as exc:
        raise MappingError(f"the profile cannot be used: {exc}", where=str(source), number=50) from exc
    for name, system in profile.systems.items():
        try:
            re.compile(system.shape)
        except re.error as exc:
            raise MappingError(
                "the shape is no regular expression", where=f"{source}, system {name}", number=51
            ) from exc
    for resource_type, rules in profile.resources.items():
        for element, rule in rules.items():
            _check(rule, profile, f"{source}, {resource_type}.{element}")
    if profile.risk.k < 1 or len(set(profile.risk.steps)) != len(profile.risk.steps):
        raise MappingError(
            "k is under 1, or a step stands twice", where=f"{source}, risk", do="correct the rule", number=53
        )
    return profile


def _check(rule: Rule, profile: Profile, where: str) -> None:
    problem = ""
    if any(rule.type not in _TYPES[way] for way in rule.ways) or not rule.ways:
        problem = f"a {rule.type} cannot leave in this way"
    elif any(name not in profile.systems for name in rule.systems):
        problem = "a code system is not described under `systems`"
    elif {"code-list", "icd-group"} & set(rule.ways) and not rule.systems:
        problem = "the rule names no code systems"
    elif "keep" in rule.ways and not rule.values:
        problem = "the rule lists no values to keep"
    elif "fixed" in rule.ways and rule.value is None:
        problem = "the rule has no value to write"
    elif rule.type == "Reference" and not rule.target:
        problem = "the rule names no target type"
    if problem:
        raise MappingError(problem, where=where, do="correct the rule", number=52)
