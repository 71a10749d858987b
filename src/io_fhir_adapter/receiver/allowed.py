"""The published allow-list of a submission: which elements may come, and what form their values must have.

Two files say it: ``mappings/deidentification.yaml`` what may leave of a case, ``mappings/submission.yaml`` all else.
Both are read here anew, with other eyes than the sender's; whatever they do not name is refused with its path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final

import yaml

from io_fhir_adapter.canonical_urls import AGE_BAND, DAY_OFFSET, END_DAY_OFFSET, QUARTER
from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.receiver.wire import Issue
from io_fhir_adapter.shipped import shipped_path
from io_fhir_adapter.strict_yaml import load_yaml

__all__ = ["allowed_issues"]

Json = Mapping[str, Any]
Fault = Callable[[Any, frozenset[str]], str | None]

_NOT_LISTED: Final = "is not an element that a submission may hold"
_NOT_ADMITTED: Final = "the value has not the published form"
_LINK: Final = re.compile(r"urn:uuid:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_YEAR: Final = re.compile(r"[12][0-9]{3}")
_GROUP: Final = re.compile(r"[A-Z][0-9][0-9A-Z]")
_CATEGORY: Final = "[a-z][a-z0-9-]{0,39}"
_DAYS: Final = 40_000
"""No offset from a session is longer than a life."""
_NEVER: Final = frozenset(
    {
        "contained", "text", "reference", "contact", "author", "reviewer", "endorser", "editor", "subjectReference",
        "valueReference", "valueAttachment", "valueAnnotation", "valueHumanName", "valueAddress", "valueContactPoint",
        "valueSignature", "valueIdentifier", "initialAttachment",
    }
)  # fmt: skip
_CHARACTERS: Final = re.compile(r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*")


@dataclass(frozen=True, slots=True)
class _Node:
    """What may stand in one place.

    Attributes:
        fault: Judges the whole value: None where it may come, else the path below at which it may not.
        children: Else the elements that an object may have.
        extensions: The extensions that it may have, by URL.
        once: Whether the element, which repeats in FHIR, stands exactly once here.
    """

    fault: Fault | None = None
    children: Mapping[str, _Node] = field(default_factory=dict)
    extensions: Mapping[str, _Node] = field(default_factory=dict)
    once: bool = False


@dataclass(frozen=True, slots=True)
class _Codes:
    """A code system whose codes may come."""

    shape: re.Pattern[str] | None
    codes: frozenset[str]

    def admits(self, code: str) -> bool:
        return code in self.codes or bool(self.shape and self.shape.fullmatch(code))


def allowed_issues(resource: Json, place: str, words: frozenset[str] = frozenset()) -> Iterator[Issue]:
    """Everything in a resource that the allow-list does not name, or that has not the form it asks for.

    Args:
        resource: A valid resource of a type that a submission may hold, or the Bundle without its entries.
        place: Its FHIRPath, such as ``Bundle.entry[3].resource``.
        words: The texts of the Measure in the same Bundle, which its report may repeat.
    """
    shown = {name: value for name, value in resource.items() if name != "resourceType"}
    yield from _walk(_resources()[resource["resourceType"]], shown, place, words)


def _walk(node: _Node, value: Any, place: str, words: frozenset[str]) -> Iterator[Issue]:
    if isinstance(value, list):
        if node.once and len(value) != 1:
            yield Issue("business-rule", "stands exactly once here", place)
        for index, item in enumerate(value):
            yield from _walk(node, item, f"{place}[{index}]", words)
    elif node.fault is not None:
        below = node.fault(value, words)
        if below is not None:
            yield Issue("business-rule", _NOT_ADMITTED, place + below)
    elif not isinstance(value, dict):
        yield Issue("business-rule", _NOT_ADMITTED, place)
    else:
        for name, item in value.items():
            if name in node.children:
                yield from _walk(node.children[name], item, f"{place}.{name}", words)
            elif name == "extension" and node.extensions:
                yield from _extended(node, item, f"{place}.extension", words)
            else:
                yield Issue("business-rule", _NOT_LISTED, f"{place}.{name}")


def _extended(node: _Node, extensions: list[dict[str, Any]], place: str, words: frozenset[str]) -> Iterator[Issue]:
    seen: set[str] = set()
    for index, extension in enumerate(extensions):
        url = str(extension.get("url"))
        if url not in node.extensions or url in seen:
            yield Issue("business-rule", _NOT_LISTED, f"{place}[{index}]")
            continue
        seen.add(url)
        said = {name: value for name, value in extension.items() if name != "url"}
        yield from _walk(node.extensions[url], said, f"{place}[{index}]", words)


# The forms of single values.


def _matching(pattern: str) -> Fault:
    compiled = re.compile(pattern)
    return lambda value, _: None if isinstance(value, str) and compiled.fullmatch(value) else ""


def _one_of(values: frozenset[str]) -> Fault:
    return lambda value, _: None if isinstance(value, str) and value in values else ""


def _boolean(value: Any, _: frozenset[str]) -> str | None:
    return None if isinstance(value, bool) else ""


def _number(largest: float) -> Fault:
    """A number up to so much: one with more digits may name somebody."""

    def fault(value: Any, _: frozenset[str]) -> str | None:
        return None if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= largest else ""

    return fault


def _count(value: Any, _: frozenset[str]) -> str | None:
    return None if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else ""


def _offset(value: Any, _: frozenset[str]) -> str | None:
    return None if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _DAYS else ""


def _defined(value: Any, words: frozenset[str]) -> str | None:
    return None if isinstance(value, str) and value in words else ""


def _definition(value: Any, words: frozenset[str]) -> str | None:
    """A part of a form: its first element that could carry a person or a document."""
    if isinstance(value, str):
        return None if _CHARACTERS.fullmatch(value) else ""
    inner: Iterator[tuple[str, Any]] = iter(())
    if isinstance(value, list):
        inner = ((f"[{index}]", item) for index, item in enumerate(value))
    elif isinstance(value, dict):
        inner = ((f".{name}", item) for name, item in value.items())
    for below, item in inner:
        # The text of an item or a concept is a string; a narrative is an object.
        if below[1:] in _NEVER and not (below == ".text" and isinstance(item, str)):
            return below
        further = _definition(item, words)
        if further is not None:
            return below + further
    return None


def _reference(value: Any, _: frozenset[str]) -> str | None:
    if not isinstance(value, dict):
        return ""
    strange = next((name for name in value if name != "reference"), None)
    if strange is not None:
        return f".{strange}"
    return None if _LINK.fullmatch(str(value.get("reference"))) else ".reference"


def _coding(systems: Mapping[str, _Codes], *, versions: bool = False, otherwise: Any = None) -> Fault:
    """A Coding of one of the systems: system and code, and a year as version where ``versions``."""
    known = {"system", "code", *(("version",) if versions else ())}

    def fault(value: Any, _: frozenset[str]) -> str | None:
        if not isinstance(value, dict):
            return ""
        if otherwise is not None and value == otherwise:
            return None
        strange = next((name for name in value if name not in known), None)
        if strange is not None:
            return f".{strange}"
        codes = systems.get(str(value.get("system")))
        if codes is None:
            return ".system"
        if not codes.admits(str(value.get("code"))):
            return ".code"
        return None if _YEAR.fullmatch(str(value.get("version", "2000"))) else ".version"

    return fault


def _identifier(values: Mapping[str, re.Pattern[str]]) -> Fault:
    """An Identifier of one of the systems, with the form that its values have."""

    def fault(value: Any, _: frozenset[str]) -> str | None:
        if not isinstance(value, dict):
            return ""
        strange = next((name for name in value if name not in ("system", "value")), None)
        if strange is not None:
            return f".{strange}"
        shape = values.get(str(value.get("system")))
        if shape is None:
            return ".system"
        return None if shape.fullmatch(str(value.get("value"))) else ".value"

    return fault


_BUILT_IN: Final[Mapping[str, Fault]] = {
    "boolean": _boolean,
    "count": _count,
    "reference": _reference,
    "defined": _defined,
    "definition": _definition,
}


# Reading the two files.


@lru_cache(maxsize=1)
def _resources() -> Mapping[str, _Node]:
    """What may come of each resource type.

    Raises:
        MappingError: One of the files is missing or does not fit.
    """
    leaving, coming = _document("deidentification.yaml"), _document("submission.yaml")
    try:
        reading = _Reading(coming, frozenset(leaving["answers"]["values"]))
        cases = {kind: _case(rules, leaving["systems"], reading) for kind, rules in leaving["resources"].items()}
        return {**cases, **{kind: reading.node(said) for kind, said in coming["resources"].items()}}
    except (KeyError, TypeError, ValueError, AttributeError, re.error) as exc:
        raise MappingError(
            f"the allow-list of submissions cannot be used: {type(exc).__name__}",
            where="mappings/submission.yaml",
            do="install the package again",
            number=54,
        ) from exc


def _document(name: str) -> Any:
    path = shipped_path("mappings", name)
    try:
        return load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as exc:
        raise MappingError(
            "the allow-list of submissions cannot be read",
            where=str(path),
            do="install the package again",
            number=55,
        ) from exc


class _Reading:
    """The words of ``submission.yaml`` made into nodes; what stands under `shared` is made once and may hold itself."""

    def __init__(self, document: Json, answers: frozenset[str]) -> None:
        self.forms: Json = document["forms"]
        self.identifiers: Json = document["identifiers"]
        self.codings = {name: _systems([said]) for name, said in document["codings"].items()}
        below: Json = document["shared"]["answers"]
        given = {name: said for name, said in below["answer"].items() if name in answers or name == "item"}
        self.shared: Json = {**document["shared"], "answers": {**below, "answer": given}}
        self._made: dict[str, _Node] = {}

    def node(self, said: Any) -> _Node:
        if isinstance(said, list):
            return _Node(_one_of(frozenset(said)))
        return self._named(*said.split()) if isinstance(said, str) else self._filled(said, {}, {})

    def _filled(self, said: Json, children: dict[str, _Node], extensions: dict[str, _Node]) -> _Node:
        made = _Node(children=children, extensions=extensions)
        for name, inner in said.items():
            if name == "extension" and isinstance(inner, dict):
                extensions.update({url: self.node(value) for url, value in inner.items()})
            else:
                children[name] = self.node(inner)
        return made

    def _named(self, head: str, *names: str) -> _Node:
        if head.startswith("@"):
            return self._shared(head[1:])
        if head == "identifier":
            return _Node(_identifier({self.identifiers[name]["system"]: self._form_of(name) for name in names}))
        if head in ("coding", "concept"):
            coding = _Node(_coding({uri: codes for name in names for uri, codes in self.codings[name].items()}))
            return coding if head == "coding" else _Node(children={"coding": coding})
        if head == "number":
            return _Node(_number(float(names[0])))
        return _Node(_BUILT_IN[head] if head in _BUILT_IN else _matching(self.forms[head]))

    def _shared(self, name: str) -> _Node:
        if name not in self._made:
            children: dict[str, _Node] = {}
            self._made[name] = _Node(children=children)
            self._filled(self.shared[name], children, {})
        return self._made[name]

    def _form_of(self, identifier: str) -> re.Pattern[str]:
        return re.compile(self.forms[self.identifiers[identifier]["value"]])


def _systems(described: Iterable[Json]) -> dict[str, _Codes]:
    """The URIs of code systems, each with its codes."""
    return {
        uri: _Codes(re.compile(said["shape"]) if "shape" in said else None, frozenset(said.get("codes", ())))
        for said in described
        for uri in said["uris"]
    }


def _case(rules: Json, systems: Json, reading: _Reading) -> _Node:
    """What may come of a resource of a case: what the rules let leave, and its one identifier."""
    children = {"identifier": replace(reading.node("identifier entry"), once=True)}
    extensions: dict[str, _Node] = {}
    for name, rule in rules.items():
        ways = rule["how"] if isinstance(rule["how"], list) else [rule["how"]]
        for way in ways:
            if way in _OF_DATES:
                extensions |= _OF_DATES[way]
            elif way != "drop":
                children[name] = _left(way, rule, systems, reading)
    return _Node(children=children, extensions=extensions)


def _left(way: str, rule: Json, systems: Json, reading: _Reading) -> _Node:
    """What an element may be after it left in one way."""
    otherwise = rule.get("otherwise")
    if way == "keep":
        return _Node(_one_of(frozenset(rule["values"]) | ({otherwise} if otherwise else set())))
    if way == "fixed":
        return _fixed(rule["value"])
    if way == "token":
        return replace(reading.node("identifier patient"), once=True) if rule["type"] == "Identifier" else _LINKED
    known = _systems(systems[name] for name in rule["systems"])
    if way == "icd-group":
        known = {uri: _Codes(_GROUP, frozenset()) for uri in known}
    coding = _Node(_coding(known, versions=True, otherwise=otherwise))
    return coding if rule["type"] == "Coding" else _Node(children={"coding": coding})


def _fixed(value: Any) -> _Node:
    """The value itself, in which ``{category}`` stands for the code of a category."""
    if isinstance(value, dict):
        return _Node(children={name: _fixed(inner) for name, inner in value.items()})
    if isinstance(value, list):
        return replace(_fixed(value[0]), once=True)
    return _Node(_matching(re.escape(str(value)).replace(re.escape("{category}"), _CATEGORY)))


_LINKED: Final = _Node(_reference)
_OF_DATES: Final[Mapping[str, Mapping[str, _Node]]] = {
    "age-band": {AGE_BAND: _Node(children={"valueCode": _Node(_matching("<18|18-[35]9|[4-8]0-[4-8]9|[89]0[+]"))})},
    "quarter": {QUARTER: _Node(children={"valueCode": _Node(_matching("[12][0-9]{3}-Q[1-4]"))})},
    "day-offset": {url: _Node(children={"valueInteger": _Node(_offset)}) for url in (DAY_OFFSET, END_DAY_OFFSET)},
}
