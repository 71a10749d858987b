"""The case-review form filled from what was pulled, with the source of each answer and the reason of each gap.

The Questionnaire carries the logic (SDC ``variable`` and ``initialExpression``); this module gives its expressions
four things to read, as the form's launch contexts name them, and what its searches found:

* ``%patient``: the drawn Patient;
* ``%encounter``: the Encounter of the index session;
* ``%session``: a Parameters resource with what the adapter itself knows, see :func:`.case_input.session_facts`;
* ``%record``: a collection Bundle of the session's Procedures, Encounters and Conditions;
* the name of each of the form's own searches: a collection Bundle of what it found, the earliest first, see
  :mod:`.queries`.

What comes back holds coded answers from the form's own options, numbers and the adapter's own words;
never a text, a date or an address of the record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from io_fhir_adapter.canonical_urls import ABSENCE_OF, CASE_IDENTIFIER, PREFILL_NEEDS
from io_fhir_adapter.errors import ReviewError
from io_fhir_adapter.fhir.references import normalise
from io_fhir_adapter.review import forms
from io_fhir_adapter.review.case_input import CaseInput, index_encounter, session_facts
from io_fhir_adapter.review.enabling import asked_items, enabled_only
from io_fhir_adapter.review.expressions import evaluate, evaluate_variable, plain, variables_of
from io_fhir_adapter.review.queries import record_queries
from io_fhir_adapter.review.telling import said_by

__all__ = ["CaseInput", "Prefilled", "prefill"]

Json = dict[str, Any]

_UNIT_OPTION: Final = "http://hl7.org/fhir/StructureDefinition/questionnaire-unitOption"
_LARGEST: Final = 9_999
"""Days, hours and counts have fewer digits than what names a person, such as a case number or a date."""
_LARGEST_QUANTITY: Final = 1_000_000
_NUMBERS: Final = frozenset({"integer", "decimal", "quantity"})


@dataclass(frozen=True)
class Prefilled:
    """A form filled as far as the record allows.

    Attributes:
        response: The QuestionnaireResponse, in progress, with answers only.
        sources: Answered linkId to the references it was read from, separated by spaces. Local only.
        missing: Unanswered linkId (of an enabled item) to the reason.
        unasked: How many of the missing have no expression: they are a person's to answer, or another resource's.
    """

    response: Json
    sources: dict[str, str] = field(repr=False)
    missing: dict[str, str]
    unasked: int = 0

    @property
    def share(self) -> float:
        """The share of enabled items that have an answer, from 0 to 1."""
        answered = len(self.sources)
        return answered / (answered + len(self.missing)) if answered else 0.0

    @property
    def known_share(self) -> float:
        """The same share among the items that the form asks the record at all, not a person."""
        asked = len(self.sources) + len(self.missing) - self.unasked
        return len(self.sources) / asked if asked else 0.0


class _Unanswered(Exception):  # noqa: N818 - not an error: the item stays open, with a reason
    """Why one item gets no answer."""


def prefill(questionnaire: Json, case: CaseInput) -> Prefilled:
    """Fill a form for one case.

    Args:
        questionnaire: As :func:`io_fhir_adapter.review.forms.load_questionnaire` gives it.
        case: What to fill it from.

    An expression that the record breaks leaves its item open; it never ends the form.
    """
    searches = {query.name: query.resource_type for query in record_queries(questionnaire)}
    environment = _environment(questionnaire, case, searches)
    codes = (parameter.get("valueCode") for parameter in environment["session"]["parameter"])
    own_words = frozenset({case.pseudonym or case.token, *filter(None, codes)})
    filling = _Filling(case, environment, dict(forms.variables(questionnaire)), searches, own_words)
    response: Json = {
        "resourceType": "QuestionnaireResponse",
        "identifier": {"system": CASE_IDENTIFIER, "value": case.pseudonym or case.token},
        "questionnaire": forms.canonical(questionnaire),
        "status": "in-progress",
    }
    if case.subject:
        response["subject"] = {"reference": case.subject}
    filled = filling.below(questionnaire, shown=True)
    if filled:
        response["item"] = filled
    if any(forms.expression_of(item, forms.ENABLE_WHEN_EXPRESSION) for item in forms.items(questionnaire)):
        filling.drop_disabled(questionnaire, response)
    return Prefilled(response, filling.sources, filling.missing, filling.unasked)


class _Filling:
    """The state of filling one form: answers so far, their sources, and what is missing."""

    def __init__(
        self,
        case: CaseInput,
        environment: Mapping[str, Any],
        variables: Mapping[str, str],
        searches: Mapping[str, str],
        own_words: frozenset[str],
    ) -> None:
        self.case = case
        self.environment = environment
        self.variables = variables
        self.searches = searches
        self.own_words = own_words
        self.answers: dict[str, list[Any]] = {}
        self.sources: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        self.unasked = 0

    def below(self, node: Json, *, shown: bool) -> list[Json]:
        """The response items for the items below a node, without the empty ones."""
        filled = (self.one(item, shown=shown) for item in node.get("item", ()))
        return [item for item in filled if item is not None]

    def one(self, item: Json, *, shown: bool) -> Json | None:
        """The response item for one Questionnaire item, None where it has nothing to say."""
        shown = shown and forms.enabled(item, self.answers)
        if item["type"] == "display":
            return None
        if item["type"] == "group":
            inner = self.below(item, shown=shown)
            return {"linkId": item["linkId"], "item": inner} if inner else None
        values = self.answer(item) if shown else []
        inner = self.below(item, shown=shown and bool(values))
        if not values:
            return None
        answers = [dict(value) for value in values]
        if inner:
            answers[0]["item"] = inner
        return {"linkId": item["linkId"], "answer": answers}

    def drop_disabled(self, questionnaire: Json, response: Json) -> None:
        """Takes out of a filled response what an ``enableWhenExpression``, which reads all of it, does not ask."""
        kept = enabled_only(questionnaire, response.pop("item", []))
        if kept:
            response["item"] = kept
        asked = asked_items(questionnaire, response)
        self.sources = {link: source for link, source in self.sources.items() if link in asked}
        gone = {link for link in self.missing if link not in asked}
        self.unasked -= sum(
            1 for item in forms.items(questionnaire) if item["linkId"] in gone and forms.expression_of(item) is None
        )
        self.missing = {link: why for link, why in self.missing.items() if link in asked}

    def answer(self, item: Json) -> list[Json]:
        """The ``answer`` elements of one enabled question; notes the source, or why there is none."""
        link = item["linkId"]
        absence = forms.extensions(item, ABSENCE_OF)
        if absence and forms.expression_of(item) is None:
            return []
        try:
            values = self.values(item)
        except _Unanswered as exc:
            if not absence:
                self.missing[link] = str(exc)
            return []
        if absence:  # why there is no value is an answer to the question that has none
            self.missing.pop(str(absence[0].get("valueString")), None)
        self.answers[link] = [_value(value) for value in values]
        self.sources[link] = self.source(item)
        return values

    def values(self, item: Json) -> list[Json]:
        """The answers that the item's expression gives, in the item's own type."""
        expression = forms.expression_of(item)
        if expression is None:
            self.unasked += 1
            raise _Unanswered(self.why_not_asked(item))
        unknown = [name for name in variables_of(expression) if name not in {*self.environment, *self.variables}]
        if unknown:
            raise _Unanswered(f"the form reads %{unknown[0]}, which is not provided")
        try:
            raw = [value for value in evaluate(expression, self.environment) if value is not None and value != ""]
        except ReviewError as exc:
            raise _Unanswered("the record holds something here that cannot be read") from exc
        if not raw:
            raise _Unanswered(self.why_empty(expression))
        if len(raw) > 1 and not item.get("repeats"):
            raise _Unanswered("the record holds several values and one is asked for")
        if item["type"] in _NUMBERS and "age" in said_by(expression, self.variables):
            raise _Unanswered("an age in years or a year of birth stays local")
        return [self.typed(item, value) for value in raw]

    def typed(self, item: Json, value: Any) -> Json:
        """One value as an ``answer`` element of the item's type."""
        kind = item["type"]
        if kind in ("choice", "open-choice"):
            return {"valueCoding": _choice(item, value)}
        if kind == "boolean" and isinstance(value, bool):
            return {"valueBoolean": value}
        if kind in ("integer", "decimal") and _is_number(value, whole=kind == "integer"):
            return {"valueInteger" if kind == "integer" else "valueDecimal": _small(value, _LARGEST)}
        if kind == "quantity":
            return {"valueQuantity": _quantity(item, value)}
        if kind in ("string", "text"):
            if str(value) in self.own_words:
                return {"valueString": str(value)}
            raise _Unanswered("texts of the record stay local")
        if kind in ("date", "dateTime", "time", "url", "attachment", "reference"):
            raise _Unanswered(f"a {kind} of the record stays local")
        raise _Unanswered(f"the record's value is no {kind}")

    def why_not_asked(self, item: Json) -> str:
        """Why an item without an expression is open."""
        needs = [str(extension.get("valueCode")) for extension in forms.extensions(item, PREFILL_NEEDS)]
        return self.absent(needs, every=True) or "for the reviewer to answer"

    def absent(self, kinds: Iterable[str], *, every: bool) -> str:
        """Which of some resource types the source does not give, and why; empty where it gives all of them.

        ``every`` asks whether it gives none of them.
        """
        kinds = list(dict.fromkeys(kinds))
        why = [(self.case.absent[kind], kind) for kind in kinds if kind in self.case.absent]
        if not why or (every and len(why) < len(kinds)):
            return ""
        reasons = {reason: [kind for other, kind in why if other == reason] for reason, _ in why}
        return "; ".join(f"{reason} by this source: {', '.join(named)}" for reason, named in reasons.items())

    def why_empty(self, expression: str) -> str:
        """Why an expression gave nothing: the first thing it reads that is not there."""
        read = self.reads(expression, through=lambda _: True)
        for context, kind in (("encounter", "Encounter"), ("patient", "Patient")):
            if context in read and not self.environment[context]:
                return self.absent([kind], every=True) or f"no {kind} linked"
        kinds = [self.searches[name] for name in read if name in self.searches]
        none = self.absent(kinds, every=True) if set(read) <= {*self.searches, *self.variables} else ""
        some = self.absent(kinds, every=False)
        return none or (f"not recorded; {some}" if some else "not recorded")

    def source(self, item: Json) -> str:
        """The references of the resources that the item's expression reads through its variables."""

        def no_resource(name: str) -> bool:
            values = _as_list(self.environment.get(name, []))
            return bool(values) and not any(map(_reference, values))

        names = self.reads(forms.expression_of(item) or "", through=no_resource)
        found = [_reference(value) for name in names for value in _as_list(self.environment.get(name, []))]
        return " ".join(dict.fromkeys(filter(None, found))) or " ".join(self.case.decision.procedures)

    def reads(self, expression: str, through: Callable[[str], bool]) -> list[str]:
        """The names that an expression reads, and what is read by those of its variables that ``through`` admits."""
        names = list(variables_of(expression))
        for name in names:  # grows while it is walked
            if name in self.variables and through(name):
                names += [inner for inner in variables_of(self.variables[name]) if inner not in names]
        return names


def _choice(item: Json, value: Any) -> Json:
    code, system = (value.get("code"), value.get("system") or "") if isinstance(value, dict) else (str(value), "")
    option = forms.option_for(item, code, system) if isinstance(code, str) else None
    if option is None:
        raise _Unanswered("the record's value has no answer option")
    return option


def _quantity(item: Json, value: Any) -> Json:
    quantity = _mapping(value)
    number, code = quantity.get("value"), quantity.get("code")
    units = [extension["valueCoding"] for extension in forms.extensions(item, _UNIT_OPTION)]
    unit = next((unit for unit in units if unit["code"] == code and unit["system"] == quantity.get("system")), None)
    if unit is None or not _is_number(number):
        raise _Unanswered("the record's value has no unit of this form")
    return {
        "value": _small(number, _LARGEST_QUANTITY),
        "unit": unit["display"],
        "system": unit["system"],
        "code": unit["code"],
    }


def _is_number(value: Any, *, whole: bool = False) -> bool:
    return isinstance(value, int if whole else int | float | Decimal) and not isinstance(value, bool)


def _small(value: Any, most: int) -> int | float:
    """A number as JSON has it."""
    if abs(value) > most:
        raise _Unanswered("a number as large as that stays local: it may name somebody")
    return float(value) if isinstance(value, Decimal) else value


def _environment(questionnaire: Json, case: CaseInput, searches: Iterable[str]) -> dict[str, Any]:
    encounter = index_encounter(case)
    environment: dict[str, Any] = {
        "patient": case.patient or [],
        "encounter": _with_plain_references(encounter) if encounter else [],
        "session": session_facts(case),
        "record": _collection([*case.procedures, *case.encounters, *case.conditions]),
        **{name: _collection(case.found.get(name, ())) for name in searches},
    }
    for name, expression in forms.variables(questionnaire):
        # A variable that this record breaks stays undefined: only the items that read it stay open.
        with suppress(ReviewError):
            environment[name] = evaluate_variable(expression, environment)
    return environment


def _collection(resources: Iterable[Json]) -> Json:
    entries = [{"resource": _with_plain_references(resource)} for resource in resources]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


def _with_plain_references(node: Any) -> Any:
    """A copy in which each literal reference reads ``Type/id``, so that expressions can join on it."""
    if isinstance(node, dict):
        return {
            name: normalise(value, "Condition") or value
            if name == "reference" and isinstance(value, str)
            else _with_plain_references(value)
            for name, value in node.items()
        }
    return [_with_plain_references(value) for value in node] if isinstance(node, list) else node


def _mapping(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _as_list(value: Any) -> list[Any]:
    return [plain(item) for item in value] if isinstance(value, list) else [value]


def _reference(value: Any) -> str:
    """``Type/id`` of a resource; empty for everything else, also for ``%session`` and ``%record``."""
    if isinstance(value, dict) and value.get("id") and value.get("resourceType") not in (None, "Parameters", "Bundle"):
        return f"{value['resourceType']}/{value['id']}"
    return ""


def _value(element: Json) -> Any:
    return next((value for name, value in element.items() if name.startswith("value")), None)
