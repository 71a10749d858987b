"""How one element leaves: each rule of a profile made into a function once, so that resources pass at speed.

A function looks at its own element of the source and nowhere else. Lists and objects that it gives are new.
"""

from __future__ import annotations

import hmac
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import Any, Final

import msgspec

from io_fhir_adapter.canonical_urls import AGE_BAND, BASE, DAY_OFFSET, END_DAY_OFFSET, PATIENT_TOKEN, QUARTER
from io_fhir_adapter.errors import ResourceError, ReviewError
from io_fhir_adapter.fhir.dates import local_day
from io_fhir_adapter.fhir.references import normalise
from io_fhir_adapter.review.generalise import age_band, day_offset, icd_group, quarter
from io_fhir_adapter.review.profile import CodeSystemRule, Profile, Rule

__all__ = ["DeidContext", "Element", "element_of", "key_of"]

Json = dict[str, Any]

_URLS: Final = uuid.uuid5(uuid.NAMESPACE_URL, BASE)
_YEAR_LENGTH: Final = 4


@dataclass(frozen=True)
class DeidContext:
    """What is needed to de-identify the resources of one case; local only.

    Attributes:
        key: The facility's secret key.
        token: The patient's token in the commitment.
        patient: The patient's reference in the source.
        index_date: Full local date of the index session.
        category: Category code of the index session.
        included: References of the resources that leave with the case; links to anything else are dropped.
        zone: The facility's time zone.
        dropped: Counts what was dropped, such as ``Procedure.extension``; added to by de-identifying.
    """

    key: bytes = field(repr=False)
    token: str
    patient: str = field(repr=False)
    index_date: str = field(repr=False)
    category: str
    included: frozenset[str] = field(default=frozenset(), repr=False)
    zone: tzinfo = UTC
    dropped: Counter[str] = field(default_factory=Counter, compare=False)
    _tokens: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    _links: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def resource_token(self, reference: str) -> str:
        """The id under which a resource leaves: the patient's token, or one made from it and the reference."""
        made = self._tokens.get(reference)
        if made is None:
            said = msgspec.json.encode([self.token, reference])
            made = hmac.digest(self.key, said, "sha256").hex() if reference != self.patient else self.token
            self._tokens[reference] = made
        return made

    def url(self, reference: str) -> str:
        """The case-local ``urn:uuid:`` of a resource, for Bundle.entry.fullUrl and references."""
        made = self._links.get(reference)
        if made is None:
            made = self._links[reference] = f"urn:uuid:{uuid.uuid5(_URLS, self.resource_token(reference))}"
        return made


Leaving = Callable[[Json, DeidContext], Any]


@dataclass(frozen=True, slots=True)
class Element:
    """One element of what leaves.

    Attributes:
        name: Its name.
        dated: Whether it leaves as extensions, since it was a date.
        leaving: Takes the source resource and the case; gives the value, or the list of extensions, or nothing.
    """

    name: str
    dated: bool
    leaving: Leaving


def element_of(kind: str, name: str, rule: Rule, profile: Profile) -> list[Element]:
    """The rule of one element as functions, one for each of its ways.

    Args:
        kind: The resource type.
        name: The element's name.
        rule: How it leaves.
        profile: Gives the code systems.
    """
    where = f"{kind}.{name}"
    if rule.type == "date":
        return [Element(name, True, _dated(rule.ways, rule.sources or (name,)))]
    made: list[Element] = []
    for way in rule.ways:
        if way == "keep":
            made.append(Element(name, False, _kept(name, rule, where)))
        elif way == "fixed":
            made.append(Element(name, False, _fixed(rule.value)))
        elif way in ("code-list", "icd-group"):
            made.append(Element(name, False, _coded(name, rule, profile, where, grouped=way == "icd-group")))
        elif way == "token":
            made.append(Element(name, False, _token if rule.type == "Identifier" else _linked(name, rule)))
    return made


def key_of(value: Any, kind: str) -> str:
    """The key of a Reference as JSON, as :func:`~io_fhir_adapter.fhir.references.reference_key` gives it."""
    if not isinstance(value, dict):
        return ""
    literal = value.get("reference")
    if isinstance(literal, str):
        key = normalise(literal, kind)
        if key:
            return key
    identifier = value.get("identifier")
    if isinstance(identifier, dict) and isinstance(identifier.get("value"), str) and identifier["value"]:
        system = identifier.get("system")
        return f"{kind}?identifier={system if isinstance(system, str) else ''}|{identifier['value']}"
    return ""


def _refused(where: str) -> ReviewError:
    return ReviewError("the value of an element stops the resource", where=where, do="leave it out", number=24)


def _kept(name: str, rule: Rule, where: str) -> Leaving:
    values, refuse, otherwise = rule.values, rule.refuse, rule.otherwise

    def kept(resource: Json, _: DeidContext) -> Any:
        value = resource.get(name)
        if isinstance(value, str):
            if value in refuse:
                raise _refused(where)
            if value in values:
                return value
        return otherwise

    return kept


def _fixed(value: Any) -> Leaving:
    written: dict[str, bytes] = {}

    def fixed(_: Json, context: DeidContext) -> Any:
        text = written.get(context.category)
        if text is None:
            text = written[context.category] = msgspec.json.encode(_with_category(value, context.category))
        return msgspec.json.decode(text)  # the quickest way to a copy that nobody shares

    return fixed


def _with_category(value: Any, category: str) -> Any:
    if isinstance(value, dict):
        return {name: _with_category(inner, category) for name, inner in value.items()}
    if isinstance(value, list):
        return [_with_category(inner, category) for inner in value]
    return value.replace("{category}", category) if isinstance(value, str) else value


def _coded(name: str, rule: Rule, profile: Profile, where: str, *, grouped: bool) -> Leaving:
    systems: dict[str, CodeSystemRule] = {}
    for system in reversed(rule.systems):
        systems |= dict.fromkeys(profile.systems[system].uris, profile.systems[system])
    concept, refuse, otherwise = rule.type == "CodeableConcept", rule.refuse, rule.otherwise

    def coding_of(coding: Any) -> Json | None:
        """System and code of a coding that may leave; the version too where it is a year."""
        if not isinstance(coding, dict):
            return None
        uri, code, version = coding.get("system"), coding.get("code"), coding.get("version")
        if not isinstance(uri, str) or not isinstance(code, str):
            return None
        system = systems.get(uri)
        if system is None or not system.admits(code):
            return None
        if code in refuse:
            raise _refused(where)
        leaving = icd_group(code) if grouped else code
        if not leaving:
            return None
        if isinstance(version, str) and len(version) == _YEAR_LENGTH and version.isascii() and version.isdigit():
            return {"system": uri, "version": version, "code": leaving}
        return {"system": uri, "code": leaving}

    def coded(resource: Json, _: DeidContext) -> Any:
        value = resource.get(name)
        found = value.get("coding") if concept and isinstance(value, dict) else [value]
        codings: list[Json] = []
        for coding in found if isinstance(found, list) else ():
            kept = coding_of(coding)
            if kept is not None and kept not in codings:
                codings.append(kept)
        if not codings:
            return otherwise
        return {"coding": codings} if concept else codings[0]

    return coded


def _token(_: Json, context: DeidContext) -> Any:
    return [{"system": PATIENT_TOKEN, "value": context.token}]


def _linked(name: str, rule: Rule) -> Leaving:
    target, many = rule.target, rule.many

    def link_to(value: Any, context: DeidContext) -> Json | None:
        key = key_of(value, target)
        leaves = key and (key == context.patient or key in context.included)
        return {"reference": context.url(key)} if leaves else None

    def linked(resource: Json, context: DeidContext) -> Any:
        value = resource.get(name)
        if not isinstance(value, list):
            link = link_to(value, context)
            return [link] if many and link else link
        links: list[Json] = []
        for item in value:
            link = link_to(item, context)
            if link is not None and link not in links:
                links.append(link)
        return links if many else next(iter(links), None)

    return linked


def _dated(ways: tuple[str, ...], sources: tuple[str, ...]) -> Leaving:
    """The extensions that a date leaves as."""

    def dated(resource: Json, context: DeidContext) -> list[Json]:
        start, end = _days(resource, sources, context)
        extensions: list[Json] = []
        for way in ways:
            if way == "age-band" and (band := age_band(start, context.index_date)):
                extensions.append({"url": AGE_BAND, "valueCode": band})
            elif way == "quarter" and (period := quarter(start)):
                extensions.append({"url": QUARTER, "valueCode": period})
            elif way == "day-offset":
                for url, day in ((DAY_OFFSET, start), (END_DAY_OFFSET, end)):
                    offset = day_offset(day, context.index_date) if day else None
                    if offset is not None:
                        extensions.append({"url": url, "valueInteger": offset})
        return extensions

    return dated


def _days(resource: Json, sources: tuple[str, ...], context: DeidContext) -> tuple[str, str]:
    """First and last local day of the first source element that holds a date that can be read."""
    for name in sources:
        value = resource.get(name)
        if value is None:
            continue
        start, end = (value.get("start"), value.get("end")) if isinstance(value, dict) else (value, None)
        days = _day(start, context), _day(end, context)
        if days[0] or days[1]:
            return days
    return "", ""


def _day(value: Any, context: DeidContext) -> str:
    try:
        return local_day(value, context.zone) if isinstance(value, str) else ""
    except ResourceError:
        return ""
