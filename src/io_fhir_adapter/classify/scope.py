"""Scope: whether a record is the service's own, by what it says of where it belongs.

The Procedure's own word comes before that of its Encounter: where one Procedure was done says more than where the
patient lay during the stay. A record is never taken to say no by keeping silent: what cannot be compared with what was
asked (another kind of reference, an identifier or coding of another system) leaves the question open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from io_fhir_adapter.config import ScopeConfig, ScopeRuleConfig
from io_fhir_adapter.model import Decision, EncounterFact, Mention, ProcedureFact, TrailStep
from io_fhir_adapter.trust.canonical import digest

__all__ = ["OUT_OF_SCOPE", "SCOPE_UNKNOWN", "Place", "Scope", "Standing", "decide_in_scope"]

OUT_OF_SCOPE: Final = "out-of-scope"
SCOPE_UNKNOWN: Final = "scope-unknown"

Place = Literal["inside", "outside", "unknown"]
_ACTOR: Final = "performer.actor"


@dataclass(frozen=True, slots=True)
class _Elements:
    """Which elements answer a question: the Procedure's, and the Encounter's beside them or only in their place.

    ``actor`` is how a literal performer.actor begins that speaks of the matter at all: an Organization may perform, and
    so may a Practitioner, who says nothing of an organization.
    """

    procedure: tuple[str, ...]
    encounter: tuple[str, ...]
    together: bool = False
    actor: str = ""

    def concerned(self, element: str, value: str) -> bool:
        """Whether a Procedure's element speaks of the matter, comparable or not."""
        return not element.endswith(_ACTOR) or value.startswith(self.actor)


_ELEMENTS: Final = {
    "organization": _Elements((_ACTOR, "performer.onBehalfOf"), ("serviceProvider",), actor="Organization/"),
    "location": _Elements(("location",), ("location.location",)),
    "practitioner_role": _Elements((_ACTOR, "performer.function"), ("participant",), actor="PractitionerRole/"),
    "performer": _Elements((_ACTOR,), ("participant",)),
    # The category of a Procedure and the service of its stay do not stand in for each other.
    "service_category": _Elements(("category",), ("serviceType",), together=True),
}
_PLACES: Final[dict[str, Place]] = {"review": "unknown", "include": "inside", "exclude": "outside"}


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one Procedure stands, and the step of the trail that says why."""

    place: Place
    step: TrailStep


@dataclass(frozen=True, slots=True)
class _Answer:
    """Yes, no or open (None), with the elements that were asked."""

    holds: bool | None
    elements: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Rule:
    name: str
    asks: tuple[tuple[str, str], ...]

    def answer(self, said: Callable[[str], _Said]) -> _Answer:
        """All that is asked must hold: one no is a no, whatever is open."""
        answers = [_compare(said(key), value) for key, value in self.asks]
        elements = tuple(dict.fromkeys(element for answer in answers for element in answer.elements))
        if any(answer.holds is False for answer in answers):
            return _Answer(False, elements)
        return _Answer(None if any(answer.holds is None for answer in answers) else True, elements)


@dataclass(frozen=True, slots=True)
class _Said:
    """What was found in the elements that answer one question: (element as people read it, value), nearest first."""

    elements: _Elements
    levels: tuple[tuple[tuple[str, str], ...], ...]


class Scope:
    """The rules of a site. Make it with :meth:`of`.

    Attributes:
        digest: Of all that decides; the order of the rules does not.
        when_unknown: What becomes of a record that leaves the question open.
    """

    def __init__(self, include: Sequence[_Rule], exclude: Sequence[_Rule], when_unknown: str) -> None:
        self.when_unknown = when_unknown
        self._include = tuple(include)
        self._exclude = tuple(exclude)
        self.digest = digest(
            {
                "include": sorted(sorted(map(list, rule.asks)) for rule in include),
                "exclude": sorted(sorted(map(list, rule.asks)) for rule in exclude),
                "when_unknown": when_unknown,
            }
        )

    @property
    def words(self) -> str:
        """What is asked for, in one sentence that names nobody."""
        parts = [
            f"{len(rules)} {'rule' if len(rules) == 1 else 'rules'} {verb}{'s' if len(rules) == 1 else ''}"
            for rules, verb in ((self._include, "include"), (self._exclude, "exclude"))
            if rules
        ]
        silent = {"review": "is left for review", "include": "is within", "exclude": "is outside"}[self.when_unknown]
        return f"The configuration limits the scope: {', '.join(parts)}; a record that does not say {silent}."

    @classmethod
    def of(cls, config: ScopeConfig) -> Scope | None:
        """The scope that a configuration asks for; None where it asks for none, and everything is the service's."""
        if not config.include and not config.exclude:
            return None
        return cls(_rules("include", config.include), _rules("exclude", config.exclude), config.when_unknown)

    def standing(self, fact: ProcedureFact, encounter: EncounterFact | None) -> Standing:
        """Where a Procedure stands.

        Args:
            fact: The Procedure.
            encounter: Its Encounter, if known.
        """

        def said(key: str) -> _Said:
            return _said(key, fact, encounter)

        named = f"Procedure/{fact.id}"
        out = [(rule, rule.answer(said)) for rule in self._exclude]
        for rule, answer in out:
            if answer.holds:
                return Standing("outside", _step(rule.name, f"{named} is excluded", answer.elements))
        into = [(rule, rule.answer(said)) for rule in self._include]
        hit = next(((rule, answer) for rule, answer in into if answer.holds), None)
        if into and all(answer.holds is False for _, answer in into):
            elements = _all_elements(into)
            return Standing("outside", _step("scope.include", f"{named} is none of those included", elements))
        open_out = [pair for pair in out if pair[1].holds is None]
        open_in = [pair for pair in into if pair[1].holds is None] if hit is None else []
        if open_out or open_in:
            place = _PLACES[self.when_unknown]
            asked = " or ".join(dict.fromkeys(key for rule, _ in [*open_out, *open_in] for key, _ in rule.asks))
            text = f"{named} and its Encounter do not say whether it is within ({asked}); taken as {place}"
            names = dict.fromkeys(rule.name.partition("[")[0] for rule, _ in [*open_out, *open_in])
            return Standing(place, TrailStep("scope", ", ".join(names), text))
        if hit is not None:
            return Standing("inside", _step(hit[0].name, f"{named} is included", hit[1].elements))
        return Standing("inside", _step("scope.exclude", f"{named} is not excluded", _all_elements(out)))


def _rules(kind: str, rules: Iterable[ScopeRuleConfig]) -> list[_Rule]:
    return [_Rule(f"scope.{kind}[{number}]", rule.asks) for number, rule in enumerate(rules)]


def _step(rule: str, text: str, elements: Iterable[str]) -> TrailStep:
    """The step names rule and element, not what stands there: that may be a person."""
    return TrailStep("scope", rule, f"{text}, by {', '.join(elements)}")


def _all_elements(answers: Iterable[tuple[_Rule, _Answer]]) -> list[str]:
    return list(dict.fromkeys(element for _, answer in answers for element in answer.elements))


def _said(key: str, fact: ProcedureFact, encounter: EncounterFact | None) -> _Said:
    elements = _ELEMENTS[key]
    own = _named("Procedure", fact.mentions, elements.procedure)
    stay = _named("Encounter", encounter.mentions, elements.encounter) if encounter is not None else ()
    return _Said(elements, (own + stay,) if elements.together else (own, stay))


def _named(resource: str, mentions: Iterable[Mention], elements: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((f"{resource}.{found.element}", found.value) for found in mentions if found.element in elements)


def _compare(said: _Said, value: str) -> _Answer:
    """Whether the nearest level that speaks of the matter names the value; open where it does so in another form."""
    kind = _kind(value)
    for level in said.levels:
        comparable = [(element, found) for element, found in level if _kind(found) == kind]
        hits = tuple(dict.fromkeys(element for element, found in comparable if found == value))
        if comparable:
            return _Answer(bool(hits), hits or tuple(dict.fromkeys(element for element, _ in comparable)))
        if any(said.elements.concerned(element, found) for element, found in level):
            break
    return _Answer(None)


def _kind(value: str) -> str:
    """What a value can be compared with: the system of an identifier or coding, the type of a literal reference."""
    system, bar, _ = value.partition("|")
    return system + bar if bar else value.partition("/")[0]


_RANK: Final = {"counted": 0, "review": 1, "not-counted": 2}
_Facts = tuple[ProcedureFact, ...]


def decide_in_scope(
    facts: _Facts, standing: Callable[[ProcedureFact], Standing], decide: Callable[[_Facts], Decision]
) -> Decision:
    """The decision on one session, of which parts may lie outside the scope.

    What is inside decides. Where that alone would not count, and what leaves the question open would, a person must
    say; and where only what is outside would, the session is lost to the scope, and says so.

    Args:
        facts: All Procedures of the session.
        standing: Where each of them stands.
        decide: The decision on some of them, scope aside.
    """
    standings = _with_parents(facts, [standing(fact) for fact in facts])
    steps = tuple(found.step for found in standings)
    inside = tuple(fact for fact, found in zip(facts, standings, strict=True) if found.place == "inside")
    ours = tuple(fact for fact, found in zip(facts, standings, strict=True) if found.place != "outside")
    chosen = decide(inside) if inside else None
    if len(ours) > len(inside):
        likely = decide(ours)
        if chosen is None or _RANK[likely.decision] < _RANK[chosen.decision]:
            chosen = _changed(likely, "review", SCOPE_UNKNOWN) if likely.decision == "counted" else likely
    if len(ours) < len(facts) and (chosen is None or chosen.decision == "not-counted"):
        whole = decide(facts)
        if chosen is None or whole.decision != "not-counted":
            chosen = _changed(whole, "not-counted", OUT_OF_SCOPE)
    assert chosen is not None  # noqa: S101 - a session has at least one Procedure
    return msgspec.structs.replace(chosen, trail=(*chosen.trail[:1], *steps, *chosen.trail[1:]))


def _with_parents(facts: _Facts, standings: Sequence[Standing]) -> list[Standing]:
    """A part that leaves the question open stands where the Procedure stands that it is part of."""
    by_reference = {
        (fact.source, f"Procedure/{fact.id}"): found
        for fact, found in zip(facts, standings, strict=True)
        if found.place != "unknown"
    }
    found = []
    for fact, own in zip(facts, standings, strict=True):
        parents = (by_reference.get((fact.source, parent)) for parent in fact.part_of)
        parent = next((known for known in parents if known is not None), None)
        if own.place != "unknown" or parent is None:
            found.append(own)
            continue
        text = f"Procedure/{fact.id} says nothing of it and stands with {fact.part_of[0]}, which it is part of"
        found.append(Standing(parent.place, TrailStep("scope", parent.step.rule, text)))
    return found


def _changed(decision: Decision, kind: Literal["review", "not-counted"], reason: str) -> Decision:
    last = TrailStep("decision", "scope", f"{kind}: {reason}; without the scope {decision.decision}: {decision.reason}")
    trail = (*decision.trail[:-1], last)
    return msgspec.structs.replace(decision, decision=kind, reason=reason, trail=trail)
