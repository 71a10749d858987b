"""One posted answer in the type that its item asks for: the form's own options, bounded numbers, plain texts, days.

What does not fit is refused with a reason that never holds the value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from typing import Any, Final

from io_fhir_adapter.review.forms import extensions, option_for

__all__ = ["NotTaken", "same_answer", "typed"]

Json = dict[str, Any]

_MIN_VALUE: Final = "http://hl7.org/fhir/StructureDefinition/minValue"
_MAX_VALUE: Final = "http://hl7.org/fhir/StructureDefinition/maxValue"
_UNITS: Final = (
    "http://hl7.org/fhir/StructureDefinition/questionnaire-unitOption",
    "http://hl7.org/fhir/StructureDefinition/questionnaire-unit",
)
_LARGEST: Final = 9_999
"""As for pre-filled numbers: a number with more digits may name somebody."""
_LARGEST_QUANTITY: Final = 1_000_000
_LONGEST: Final[Mapping[str, int]] = {"string": 255, "text": 4_000, "url": 255}
"""Where the form says nothing."""
_DATE: Final = re.compile(r"\d{4}(-\d{2}(-\d{2})?)?", re.ASCII)
_DATE_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?(Z|[+-]\d{2}:\d{2})", re.ASCII)
_TIME: Final = re.compile(r"\d{2}:\d{2}(:\d{2})?", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class NotTaken(Exception):  # noqa: N818 - not an error: it becomes part of one
    """Why one answer cannot be taken, in words that hold nothing of it."""


def typed(item: Json, answer: Any) -> Json | None:
    """The ``answer`` element of one posted answer, without items of its own; None where it holds no value.

    Args:
        item: The Questionnaire item.
        answer: Anything.

    Raises:
        NotTaken: It is not of the item's type, none of its options, or out of bounds.
    """
    if not isinstance(answer, dict):
        raise NotTaken("is no answer")
    given = {name: value for name, value in answer.items() if name.startswith("value") and value is not None}
    if len(given) > 1:
        raise NotTaken("has several values in one answer")
    if not given:
        return None
    name, value = next(iter(given.items()))
    kind = item["type"]
    if kind in ("choice", "open-choice"):
        return _choice(item, name, value)
    reader = _READERS.get(kind)
    if reader is None:
        raise NotTaken(f"is a {kind}, which is not taken here")
    expected, read = reader
    if name != expected:
        raise NotTaken(f"is no {kind}")
    made = read(item, value)
    return {expected: made} if made is not None else None


def same_answer(one: Json, other: Json) -> bool:
    """Whether two clean answers say the same."""
    return {name: value for name, value in one.items() if name != "item"} == {
        name: value for name, value in other.items() if name != "item"
    }


def _choice(item: Json, name: str, value: Any) -> Json | None:
    if name == "valueCoding" and isinstance(value, dict):
        code, system = value.get("code"), value.get("system") or ""
        option = option_for(item, code, system) if isinstance(code, str) and isinstance(system, str) else None
        if option is not None:
            return {name: option}
        # forms write an option without a code as a Coding with its words as the display
        words = value.get("display") if code is None else None
        if any("valueString" in option and option["valueString"] == words for option in item.get("answerOption", ())):
            return {"valueString": words}
    elif name in ("valueString", "valueInteger", "valueDate", "valueTime") and not isinstance(value, bool):
        for option in item.get("answerOption", ()):
            if name in option and type(option[name]) is type(value) and option[name] == value:
                return {name: option[name]}
    if item["type"] == "open-choice" and name == "valueString":
        text = _text(item, value)
        return {name: text} if text is not None else None
    raise NotTaken("is none of the options")


def _boolean(_item: Json, value: Any) -> bool:
    if not isinstance(value, bool):
        raise NotTaken("is no boolean")
    return value


def _integer(item: Json, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise NotTaken("is no whole number")
    return int(_bounded(item, value, _LARGEST))


def _decimal(item: Json, value: Any) -> int | float:
    return _bounded(item, value, _LARGEST)


def _bounded(item: Json, value: Any, most: int) -> int | float:
    """The number, between what the form names as its bounds, or else what pre-filled numbers may be."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise NotTaken("is no number")
    low, high = _bound(item, _MIN_VALUE, -most), _bound(item, _MAX_VALUE, most)
    if not low <= value <= high:
        raise NotTaken(f"is not between {low} and {high}")
    return value


def _bound(item: Json, url: str, otherwise: int) -> int | float:
    for extension in extensions(item, url):
        for name, value in extension.items():
            if name.startswith("value") and isinstance(value, int | float) and not isinstance(value, bool):
                return value
    return otherwise


def _quantity(item: Json, value: Any) -> Json:
    if not isinstance(value, dict):
        raise NotTaken("is no quantity")
    number = _bounded(item, value.get("value"), _LARGEST_QUANTITY)
    units = [extension.get("valueCoding", {}) for url in _UNITS for extension in extensions(item, url)]
    if not units:
        return {"value": number}
    said = {name: value.get(name) for name in ("code", "system", "unit") if value.get(name)}
    fitting = [
        unit
        for unit in units
        if ("code" in said and said["code"] == unit.get("code") and said.get("system") in (None, unit.get("system")))
        or ("code" not in said and said.get("unit") in (unit.get("display"), unit.get("code")))
    ]
    if not said and len(units) == 1:
        fitting = units
    if not fitting:
        raise NotTaken("has none of the form's units")
    unit = fitting[0]
    parts = {"unit": unit.get("display"), "system": unit.get("system"), "code": unit.get("code")}
    return {"value": number, **{name: part for name, part in parts.items() if part is not None}}


def _text(item: Json, value: Any) -> str | None:
    if not isinstance(value, str):
        raise NotTaken("is no text")
    text = _CONTROL.sub("", value.replace("\r\n", "\n")).strip()
    longest = item.get("maxLength")
    most = longest if isinstance(longest, int) and longest > 0 else _LONGEST.get(item["type"], _LONGEST["string"])
    if len(text) > most:
        raise NotTaken(f"is longer than {most} characters")
    return text or None


def _uri(item: Json, value: Any) -> str | None:
    text = _text(item, value)
    if text is not None and any(character.isspace() for character in text):
        raise NotTaken("is no address")
    return text


def _moment(pattern: re.Pattern[str], parse: Callable[[str], object], what: str) -> Callable[[Json, Any], str]:
    def read(_item: Json, value: Any) -> str:
        try:
            if isinstance(value, str) and pattern.fullmatch(value):
                parse(value)
                return value
        except ValueError as exc:
            raise NotTaken(f"is no {what}") from exc
        raise NotTaken(f"is no {what}")

    return read


def _to_the_second(read: Callable[[Json, Any], str]) -> Callable[[Json, Any], str]:
    """FHIR has no time without seconds; browsers do."""
    return lambda item, value: read(item, value) + ":00" * (len(value) == len("00:00"))


def _parse_date(text: str) -> date:
    return date.fromisoformat(text + "0001-01-01"[len(text) :])


def _parse_date_time(text: str) -> object:
    return _parse_date(text) if _DATE.fullmatch(text) else datetime.fromisoformat(text)


_READERS: Final[Mapping[str, tuple[str, Callable[[Json, Any], Any]]]] = {
    "boolean": ("valueBoolean", _boolean),
    "integer": ("valueInteger", _integer),
    "decimal": ("valueDecimal", _decimal),
    "quantity": ("valueQuantity", _quantity),
    "string": ("valueString", _text),
    "text": ("valueString", _text),
    "url": ("valueUri", _uri),
    "date": ("valueDate", _moment(_DATE, _parse_date, "date")),
    "dateTime": (
        "valueDateTime",
        _moment(re.compile(f"{_DATE.pattern}|{_DATE_TIME.pattern}", re.ASCII), _parse_date_time, "date and time"),
    ),
    "time": ("valueTime", _to_the_second(_moment(_TIME, time.fromisoformat, "time"))),
}
