"""De-identified copies, built from an allow-list: what the profile does not name is never looked at.

A copy is a new resource. Ids and references are tokens that only the facility can undo, dates become
quarters and day offsets, codes are checked against the shape of their system, displays and texts stay behind.
"""

from __future__ import annotations

import hashlib
import hmac
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import Any

import msgspec

from io_fhir_adapter.canonical_urls import AGE_BAND, BASE, DAY_OFFSET, END_DAY_OFFSET, PATIENT_TOKEN, QUARTER
from io_fhir_adapter.errors import ResourceError, ReviewError
from io_fhir_adapter.fhir.dates import local_day
from io_fhir_adapter.fhir.references import reference_key
from io_fhir_adapter.fhir.structs import Reference
from io_fhir_adapter.review.generalise import age_band, day_offset, icd_group, quarter
from io_fhir_adapter.review.profile import Profile, Rule
from io_fhir_adapter.trust.canonical import canonical_json

__all__ = ["DeidContext", "deidentify"]

Json = dict[str, Any]

_URLS = uuid.uuid5(uuid.NAMESPACE_URL, BASE)
_YEAR_LENGTH = 4


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
        dropped: Counts what was dropped, such as ``Procedure.extension``; added to by :func:`deidentify`.
    """

    key: bytes = field(repr=False)
    token: str
    patient: str = field(repr=False)
    index_date: str = field(repr=False)
    category: str
    included: frozenset[str] = field(default=frozenset(), repr=False)
    zone: tzinfo = UTC
    dropped: Counter[str] = field(default_factory=Counter, compare=False)

    def resource_token(self, reference: str) -> str:
        """The id under which a resource leaves: the patient's token, or one made from it and the reference."""
        if reference == self.patient:
            return self.token
        return hmac.new(self.key, canonical_json([self.token, reference]), hashlib.sha256).hexdigest()

    def url(self, reference: str) -> str:
        """The case-local ``urn:uuid:`` of a resource, for Bundle.entry.fullUrl and references."""
        return f"urn:uuid:{uuid.uuid5(_URLS, self.resource_token(reference))}"


def deidentify(resource: Json, profile: Profile, context: DeidContext) -> Json:
    """A new, de-identified resource with the elements that the profile names and nothing else.

    Args:
        resource: R4 JSON of a type that the profile describes; it is not changed.
        profile: The allow-list.
        context: The case that the resource belongs to.

    Raises:
        ReviewError: The profile has no rules for the type, the resource belongs to another patient, carries a
            modifierExtension, or a value that the profile refuses. The message holds no value of the resource.
    """
    kind = resource.get("resourceType")
    rules = profile.resources.get(kind) if isinstance(kind, str) else None
    if not isinstance(kind, str) or rules is None:
        raise ReviewError("the profile has no rules for the type of a resource", do="leave it out", number=20)
    reference = _own_reference(resource, kind, context)
    _inspect(resource, kind, context)
    copy: Json = {"resourceType": kind, "id": context.resource_token(reference)}
    extensions: list[Json] = []
    for element, rule in rules.items():
        for way in rule.ways:
            if rule.type == "date":
                extensions += _dated(way, _days(resource, element, rule, context), context)
                continue
            value = _leaving(way, resource.get(element), rule, profile, context, f"{kind}.{element}")
            if value not in (None, [], {}):
                copy[element] = value
    if extensions:
        copy["extension"] = extensions
    return copy


def _own_reference(resource: Json, kind: str, context: DeidContext) -> str:
    """``Type/id`` of the resource, after making sure that it is about the case's patient."""
    identity = resource.get("id")
    if not isinstance(identity, str) or not identity:
        raise ReviewError(f"a {kind} of the case has no id", do="leave it out", number=21)
    own = f"{kind}/{identity}"
    if kind == "Patient":
        about = context.patient if "?" in context.patient else own
    else:
        about = _key(resource.get("subject"), "Patient")
    if about != context.patient:
        raise ReviewError(f"a {kind} belongs to another patient than the case", do="leave it out", number=22)
    return own if kind != "Patient" else context.patient


def _key(value: Any, kind: str) -> str:
    try:
        return reference_key(msgspec.convert(value, Reference), kind)
    except msgspec.ValidationError:
        return ""


def _inspect(resource: Json, kind: str, context: DeidContext) -> None:
    """Count the extensions that stay behind; refuse modifier extensions, which change what the rest means.

    Contained resources are counted but not looked into.
    """
    pending: list[Any] = [resource]
    extensions = 0
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending += node
        if not isinstance(node, dict):
            continue
        for name, value in node.items():
            if name == "modifierExtension" and value:
                raise ReviewError(
                    f"a {kind} carries a modifierExtension, which may change its meaning", do="leave it out", number=23
                )
            if name == "extension" and value:
                extensions += len(value) if isinstance(value, list) else 1
            if name != "contained" and isinstance(value, dict | list):
                pending.append(value)
    if extensions:
        context.dropped[f"{kind}.extension"] += extensions
    if resource.get("contained"):
        context.dropped[f"{kind}.contained"] += 1


def _leaving(way: str, value: Any, rule: Rule, profile: Profile, context: DeidContext, where: str) -> Any:
    """What an element that is no date leaves as, None for nothing."""
    if way == "keep":
        if isinstance(value, str) and value in rule.refuse:
            raise _refused(where)
        return value if isinstance(value, str) and value in rule.values else rule.otherwise
    if way == "fixed":
        return _with_category(rule.value, context.category)
    if way in ("code-list", "icd-group"):
        return _coded(way, value, rule, profile, where)
    if way == "token":
        if rule.type == "Identifier":
            return [{"system": PATIENT_TOKEN, "value": context.token}]
        return _references(value, rule, context)
    return None


def _refused(where: str) -> ReviewError:
    return ReviewError("the value of an element stops the resource", where=where, do="leave it out", number=24)


def _with_category(value: Any, category: str) -> Any:
    if isinstance(value, dict):
        return {name: _with_category(inner, category) for name, inner in value.items()}
    if isinstance(value, list):
        return [_with_category(inner, category) for inner in value]
    return value.replace("{category}", category) if isinstance(value, str) else value


def _coded(way: str, value: Any, rule: Rule, profile: Profile, where: str) -> Any:
    found = value.get("coding") if isinstance(value, dict) and rule.type == "CodeableConcept" else [value]
    codings: list[Json] = []
    for coding in found if isinstance(found, list) else ():
        kept = _coding(way, coding, rule, profile, where)
        if kept is not None and kept not in codings:
            codings.append(kept)
    if not codings:
        return rule.otherwise
    return {"coding": codings} if rule.type == "CodeableConcept" else codings[0]


def _coding(way: str, coding: Any, rule: Rule, profile: Profile, where: str) -> Json | None:
    """System and code of a coding that may leave; the version too where it is a year."""
    uri, code = (coding.get("system"), coding.get("code")) if isinstance(coding, dict) else (None, None)
    if not isinstance(uri, str) or not isinstance(code, str):
        return None
    system = profile.system_of(rule.systems, uri)
    if system is None or not system.admits(code):
        return None
    if code in rule.refuse:
        raise _refused(where)
    leaving = icd_group(code) if way == "icd-group" else code
    if not leaving:
        return None
    version = coding.get("version")
    if isinstance(version, str) and len(version) == _YEAR_LENGTH and version.isascii() and version.isdigit():
        return {"system": uri, "version": version, "code": leaving}
    return {"system": uri, "code": leaving}


def _references(value: Any, rule: Rule, context: DeidContext) -> Any:
    keys = [_key(item, rule.target) for item in (value if isinstance(value, list) else [value])]
    links = [
        {"reference": context.url(key)}
        for key in dict.fromkeys(keys)
        if key and (key == context.patient or key in context.included)
    ]
    if rule.many:
        return links
    return links[0] if links else None


def _days(resource: Json, element: str, rule: Rule, context: DeidContext) -> tuple[str, str]:
    """First and last local day of the first source element that holds a date that can be read."""
    for name in rule.sources or (element,):
        value = resource.get(name)
        start, end = (value.get("start"), value.get("end")) if isinstance(value, dict) else (value, None)
        days = _day(start, context), _day(end, context)
        if any(days):
            return days
    return "", ""


def _day(value: Any, context: DeidContext) -> str:
    try:
        return local_day(value, context.zone) if isinstance(value, str) else ""
    except ResourceError:
        return ""


def _dated(way: str, days: tuple[str, str], context: DeidContext) -> list[Json]:
    """The extensions that a date leaves as."""
    start, end = days
    if way == "age-band":
        band = age_band(start, context.index_date)
        return [{"url": AGE_BAND, "valueCode": band}] if band else []
    if way == "quarter":
        period = quarter(start)
        return [{"url": QUARTER, "valueCode": period}] if period else []
    offsets = (
        (DAY_OFFSET, day_offset(start, context.index_date)),
        (END_DAY_OFFSET, day_offset(end, context.index_date)),
    )
    return [{"url": url, "valueInteger": offset} for url, offset in offsets if offset is not None]
