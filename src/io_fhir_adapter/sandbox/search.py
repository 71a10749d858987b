"""FHIR R4 search, as pure functions: what a query asks for, and what of a resource it is compared with.

Dates become ranges (see periods.py), so that partial dates and periods compare as R4 says. Tokens and references become
exact keys, so that the store can look them up instead of walking through every resource.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from functools import cache
from typing import Any, Literal

from io_fhir_adapter.sandbox.periods import COMPARISONS, Range, implicit_range, period_range

__all__ = [
    "PARAMETERS",
    "Criterion",
    "Include",
    "Key",
    "Parameter",
    "Query",
    "QueryError",
    "date_range",
    "is_partial",
    "keys",
    "parameters_for",
    "parse_query",
    "references",
    "split_prefix",
]

Key = tuple[str | None, str | None]
"""A token as (system, code) or a reference as (None, ``Patient/1``); None where the query does not say."""

_COMMA = re.compile(r"(?<!\\),")
_BAR = re.compile(r"(?<!\\)\|")
_ESCAPE = re.compile(r"\\([,|$\\])")


class QueryError(ValueError):
    """A query that the server refuses with 400; ``code`` is an OperationOutcome issue type."""

    def __init__(self, diagnostics: str, code: str = "invalid") -> None:
        super().__init__(diagnostics)
        self.code = code


@dataclass(frozen=True)
class Parameter:
    """A search parameter: its kind, the elements it looks at, and for references the types it may lead to."""

    kind: Literal["token", "date", "reference"]
    paths: tuple[str, ...]
    targets: tuple[str, ...] = ()


_PATIENT = Parameter("reference", ("subject",), ("Patient",))
_SUBJECT = Parameter("reference", ("subject",), ("Patient", "Group"))
_ENCOUNTER = Parameter("reference", ("encounter",), ("Encounter",))

COMMON: Mapping[str, Parameter] = {
    "_id": Parameter("token", ("id",)),
    "_lastUpdated": Parameter("date", ("meta.lastUpdated",)),
    "identifier": Parameter("token", ("identifier",)),
}
PARAMETERS: Mapping[str, Mapping[str, Parameter]] = {
    "Procedure": {
        "code": Parameter("token", ("code",)),
        "status": Parameter("token", ("status",)),
        "category": Parameter("token", ("category",)),
        "date": Parameter("date", ("performedDateTime", "performedPeriod")),
        "patient": _PATIENT,
        "subject": _SUBJECT,
        "encounter": _ENCOUNTER,
        "performer": Parameter("reference", ("performer.actor",), ("Practitioner", "Organization", "Patient")),
        "part-of": Parameter("reference", ("partOf",), ("Procedure", "Observation")),
        "reason-code": Parameter("token", ("reasonCode",)),
        "reason-reference": Parameter("reference", ("reasonReference",), ("Condition", "Procedure", "Observation")),
    },
    "Patient": {
        "active": Parameter("token", ("active",)),
        "gender": Parameter("token", ("gender",)),
        "birthdate": Parameter("date", ("birthDate",)),
        "link": Parameter("reference", ("link.other",), ("Patient",)),
        "organization": Parameter("reference", ("managingOrganization",), ("Organization",)),
    },
    "Encounter": {
        "status": Parameter("token", ("status",)),
        "class": Parameter("token", ("class",)),
        "date": Parameter("date", ("period",)),
        "patient": _PATIENT,
        "subject": _SUBJECT,
        "diagnosis": Parameter("reference", ("diagnosis.condition",), ("Condition", "Procedure")),
        "service-provider": Parameter("reference", ("serviceProvider",), ("Organization",)),
    },
    "Condition": {
        "code": Parameter("token", ("code",)),
        "category": Parameter("token", ("category",)),
        "clinical-status": Parameter("token", ("clinicalStatus",)),
        "verification-status": Parameter("token", ("verificationStatus",)),
        "onset-date": Parameter("date", ("onsetDateTime", "onsetPeriod")),
        "recorded-date": Parameter("date", ("recordedDate",)),
        "patient": _PATIENT,
        "subject": _SUBJECT,
        "encounter": _ENCOUNTER,
    },
    "Practitioner": {"active": Parameter("token", ("active",))},
    "Organization": {
        "active": Parameter("token", ("active",)),
        "partof": Parameter("reference", ("partOf",), ("Organization",)),
    },
}
_EFFECTIVE = Parameter("date", ("effectiveDateTime", "effectivePeriod"))
CLINICAL: Mapping[str, Mapping[str, Parameter]] = {
    kind: {"patient": _PATIENT, "subject": _SUBJECT, **own}
    for kind, own in {
        "Observation": {"code": Parameter("token", ("code",)), "date": _EFFECTIVE},
        "DiagnosticReport": {"code": Parameter("token", ("code",)), "date": _EFFECTIVE},
        "ImagingStudy": {"started": Parameter("date", ("started",))},
        "MedicationAdministration": {"effective-time": _EFFECTIVE},
        "DocumentReference": {"type": Parameter("token", ("type",)), "date": Parameter("date", ("date",))},
    }.items()
} | {
    "Consent": {
        "patient": Parameter("reference", ("patient",), ("Patient",)),
        "date": Parameter("date", ("dateTime",)),
    },
    "AdverseEvent": {"subject": _SUBJECT, "date": Parameter("date", ("date",))},
}
"""Parameters of types that a server only offers where it holds some."""


@cache
def parameters_for(resource_type: str) -> Mapping[str, Parameter]:
    """The search parameters of a type: the common ones and its own."""
    return {**COMMON, **PARAMETERS.get(resource_type, {}), **CLINICAL.get(resource_type, {})}


# --- what a resource is found by ---------------------------------------------------------------------------------


def _collect(node: Any, path: Sequence[str], found: list[Any]) -> None:
    """All values at a path, through lists; whatever has another shape than FHIR says is passed over."""
    if isinstance(node, list):
        for item in node:
            _collect(item, path, found)
    elif not path:
        if node is not None:
            found.append(node)
    elif isinstance(node, dict):
        below = node.get(path[0])
        if below is not None:
            _collect(below, path[1:], found)


@cache
def _steps(paths: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(path.split(".")) for path in paths)


def _elements(resource: Any, parameter: Parameter) -> list[Any]:
    found: list[Any] = []
    for path in _steps(parameter.paths):
        _collect(resource, path, found)
    return found


def _token_keys(value: Any) -> Iterator[Key]:
    if isinstance(value, bool):
        value = "true" if value else "false"
    if isinstance(value, dict):
        if isinstance(value.get("coding"), list):
            for coding in value["coding"]:
                yield from _token_keys(coding)
            return
        system, code = value.get("system"), value.get("value", value.get("code"))
    else:
        system, code = None, value
    if not isinstance(code, str):
        return
    if isinstance(system, str) and system:
        yield (system, None)
    else:
        system = ""
    yield (None, code)
    yield (system, code)


def references(resource: Any, parameter: Parameter) -> Iterator[str]:
    """The references that a parameter looks at, without their version; absolute ones stay absolute."""
    for value in _elements(resource, parameter):
        if isinstance(value, dict) and isinstance(value.get("reference"), str):
            text = value["reference"].split("/_history/", 1)[0]
            if text.rpartition("/")[0].rpartition("/")[2] in parameter.targets or text.startswith("urn:"):
                yield text


def keys(resource: Any, parameter: Parameter) -> set[Key]:
    """The keys that a resource is found by through a token or reference parameter."""
    if parameter.kind == "reference":
        return {(None, text) for text in references(resource, parameter)}
    return {key for value in _elements(resource, parameter) for key in _token_keys(value)}


def date_range(resource: Any, parameter: Parameter, zone: tzinfo = UTC) -> Range | None:
    """The range of a date parameter; None, which never matches, where it is missing or spelled wrongly."""
    for value in _elements(resource, parameter):
        try:
            return period_range(value, zone) if isinstance(value, dict) else implicit_range(value, zone)
        except (ValueError, TypeError):
            continue
    return None


# --- what a query asks for ---------------------------------------------------------------------------------------


def is_partial(text: str) -> bool:
    """Whether a date, with or without prefix, says less than a day: ``ge2025-03``."""
    return len(split_prefix(text)[1]) < len("2025-03-01")


def split_prefix(text: str) -> tuple[str, str]:
    """The comparison prefix (``eq`` where none is written) and the date behind it.

    Raises:
        QueryError: The prefix is none that this server knows.
    """
    if text[:2] in COMPARISONS:
        return text[:2], text[2:]
    if text[:1].isalpha():
        raise QueryError(f"the prefix {text[:2]!r} is not supported", "not-supported")
    return "eq", text


@dataclass(frozen=True)
class Criterion:
    """One parameter of a query: a resource matches with any of ``keys``, or with any of ``dates`` (prefix, range).

    ``missing`` says of a date instead that it is not there (True) or is (False).
    """

    name: str
    keys: tuple[Key, ...] = ()
    dates: tuple[tuple[str, Range], ...] = ()
    missing: bool | None = None


@dataclass(frozen=True)
class Include:
    """``_include=Type:parameter[:target]``."""

    parameter: Parameter
    target: str


@dataclass(frozen=True)
class Query:
    """A search as the server understood it; ``used`` is what its self link shows, ``unknown`` what it left out."""

    resource_type: str
    criteria: tuple[Criterion, ...]
    includes: tuple[Include, ...]
    sort: tuple[tuple[str, bool], ...]
    count: int | None
    total: str | None
    used: tuple[tuple[str, str], ...]
    unknown: tuple[str, ...]


def _unescape(text: str) -> str:
    return _ESCAPE.sub(r"\1", text)


def _token_key(text: str) -> Key:
    parts = [_unescape(part) for part in _BAR.split(text, maxsplit=1)]
    if len(parts) == 1:
        return None, parts[0]
    if not parts[1]:
        return parts[0], None
    return parts[0], parts[1]


def _reference_keys(text: str, targets: Iterable[str], base: str) -> list[Key]:
    text = _unescape(text).split("/_history/", 1)[0].removeprefix(f"{base}/")
    if "/" not in text and not text.startswith("urn:"):
        return [(None, form) for target in targets for form in (f"{target}/{text}", f"{base}/{target}/{text}")]
    return [(None, text)] if ":" in text else [(None, text), (None, f"{base}/{text}")]


def _criterion(
    name: str, modifier: str, parameter: Parameter, value: str, *, base: str, zone: tzinfo, lists: bool, most: int
) -> Criterion:
    if modifier == "missing" and parameter.kind == "date" and value in ("true", "false"):
        return Criterion(name, missing=value == "true")
    if modifier and not (parameter.kind == "reference" and modifier in parameter.targets):
        raise QueryError(f"the modifier {modifier!r} of {name!r} is not supported", "not-supported")
    alternatives = [part for part in (_COMMA.split(value) if lists else [value]) if part][: most or None]
    if parameter.kind == "token":
        return Criterion(name, keys=tuple(_token_key(part) for part in alternatives))
    if parameter.kind == "reference":
        targets = (modifier,) if modifier else parameter.targets
        found = [key for part in alternatives for key in _reference_keys(part, targets, base)]
        return Criterion(name, keys=tuple(found))
    dates: list[tuple[str, Range]] = []
    for part in alternatives:
        prefix, text = split_prefix(part)
        try:
            dates.append((prefix, implicit_range(text, zone)))
        except ValueError as exc:
            raise QueryError(f"{name}: {exc}; is a + in the query not written as %2B?", "value") from exc
    return Criterion(name, dates=tuple(dates))


def _include(value: str, resource_type: str, known: Mapping[str, Parameter]) -> tuple[Include, ...] | None:
    if value == "*":
        return tuple(Include(one, "") for one in known.values() if one.kind == "reference")
    source, _, rest = value.partition(":")
    name, _, target = rest.partition(":")
    parameter = known.get(name)
    if source != resource_type or parameter is None or parameter.kind != "reference":
        return None
    return (Include(parameter, target),)


def _sort(value: str, known: Mapping[str, Parameter]) -> tuple[tuple[str, bool], ...] | None:
    rules = [(part.removeprefix("-"), part.startswith("-")) for part in value.split(",") if part]
    sortable = all(name == "_id" or (name in known and known[name].kind == "date") for name, _ in rules)
    return tuple(rules) if rules and sortable else None


def _count(value: str) -> int:
    if not value.isascii() or not value.isdigit():
        raise QueryError(f"_count: {value!r} is no whole number", "value")
    return int(value)


def parse_query(
    resource_type: str,
    pairs: Iterable[tuple[str, str]],
    *,
    base: str = "",
    zone: tzinfo = UTC,
    unsupported: Collection[str] = (),
    lists: bool = True,
    most: int = 0,
) -> Query:
    """Understand a search.

    Args:
        resource_type: The type searched.
        pairs: Names and values, decoded, in the order they came.
        base: The server's base URL; absolute references below it are its own.
        zone: The server's time zone.
        unsupported: Parameters to treat as unknown although this server could use them.
        lists: Whether a comma separates values; else it is part of one.
        most: So many values of a list are looked at; 0 for all.

    Raises:
        QueryError: A value or a modifier cannot be used.
    """
    known = {name: one for name, one in parameters_for(resource_type).items() if name not in unsupported}
    criteria: list[Criterion] = []
    includes: tuple[Include, ...] = ()
    sort: tuple[tuple[str, bool], ...] = ()
    count: int | None = None
    total: str | None = None
    used: list[tuple[str, str]] = []
    unknown: list[str] = []
    for name, value in pairs:
        plain, _, modifier = name.partition(":")
        understood = name not in unsupported
        if not value or name == "_format":
            continue
        if not understood:
            pass
        elif plain in known:
            criteria.append(
                _criterion(plain, modifier, known[plain], value, base=base, zone=zone, lists=lists, most=most)
            )
        elif name == "_count":
            count = _count(value)
        elif name == "_summary" and value == "count":
            count = 0
        elif name == "_total" and value in ("none", "estimate", "accurate"):
            total = value
        elif name == "_include" and (more := _include(value, resource_type, known)) is not None:
            includes += more
        elif name == "_sort" and (rules := _sort(value, known)) is not None:
            sort += rules
        else:
            understood = False
        if understood:
            used.append((name, value))
        else:
            unknown.append(name)
    return Query(resource_type, tuple(criteria), includes, sort, count, total, tuple(used), tuple(unknown))
