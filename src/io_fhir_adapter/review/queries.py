"""What a form wants read for its cases: SDC's ``application/x-fhir-query`` variables, and what they find.

Such a variable is a search with FHIRPath in double braces, as in
``Observation?patient={{%patient.id}}&date=ge{{%session.parameter.where(name='index-date').value - 90 days}}``.
A search names one type, the drawn patient, and perhaps codes and a window of time; everything else is for the form's
own FHIRPath. What a source gives is looked at again here, since not every server understands every search.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import lru_cache
from typing import Any, Final

from io_fhir_adapter.canonical_urls import DAY_OFFSET, END_DAY_OFFSET, HOUR_OFFSET
from io_fhir_adapter.errors import MappingError, ResourceError, ReviewError
from io_fhir_adapter.fhir.dates import is_full, local_day
from io_fhir_adapter.model import Lookup
from io_fhir_adapter.review.expressions import FHIR_QUERY, check_expression, evaluate, named_expressions
from io_fhir_adapter.review.generalise import day_offset

__all__ = ["RecordQuery", "as_found", "last_contact_in", "last_moment", "lookups_for", "record_queries"]

Json = dict[str, Any]
Token = tuple[str, str]
"""System and code; an empty system stands for any."""

_PATIENTS: Final = frozenset({"patient", "subject", "individual"})
_THE_PATIENT: Final = frozenset({"{{%patient.id}}", "Patient/{{%patient.id}}"})
_BOUND: Final = re.compile(r"(ge|le)\{\{(.+)\}\}")
_TYPE: Final = re.compile(r"[A-Z][A-Za-z]+")
_TOKENS: Final = frozenset({"code", "category", "class", "type", "status", "modality", "scope"})
"""Search parameters that ask for codes of the element of the same name."""
_DATES: Final = (
    "effectiveDateTime", "effectivePeriod", "effectiveInstant", "performedDateTime", "performedPeriod", "started",
    "period", "date", "dateTime", "onsetDateTime", "onsetPeriod", "recordedDate", "authoredOn", "created", "issued",
)  # fmt: skip
"""Where R4 resources say when; the first that can be read counts."""
_WRONG: Final = frozenset({"entered-in-error", "not-done", "cancelled", "rejected", "planned", "preparation"})
_OWN: Final = frozenset({DAY_OFFSET, END_DAY_OFFSET, HOUR_OFFSET})
_SEEN_ALIVE: Final = frozenset({"Encounter", "ImagingStudy", "MedicationAdministration", "Procedure"})


@dataclass(frozen=True, slots=True)
class RecordQuery:
    """One search of a form.

    Attributes:
        name: The variable that what is found becomes, as a Bundle.
        resource_type: What is searched for.
        patient_parameter: The search parameter that names the patient.
        date_parameter: That of the window, empty where there is none.
        first: FHIRPath of the window's first day, empty where it has no beginning.
        last: FHIRPath of its last day, empty where it has no end.
        tokens: Element and the codes that it may have; all of them must fit.
    """

    name: str
    resource_type: str
    patient_parameter: str
    date_parameter: str = ""
    first: str = ""
    last: str = ""
    tokens: tuple[tuple[str, tuple[Token, ...]], ...] = ()

    def fits(self, resource: Json) -> bool:
        """Whether a resource has the codes that are asked for."""
        return all(_has(resource.get(element), wanted) for element, wanted in self.tokens)


def record_queries(questionnaire: Json, where: str = "") -> list[RecordQuery]:
    """The searches of a form, in order.

    Args:
        questionnaire: The form.
        where: Its file or address, for messages.

    Raises:
        MappingError: A search asks for more than one type, for anybody else than the drawn patient, or in a way
            that is not provided.
    """
    return [
        _parsed(one.name, one.text, f"{where}, variable {one.name}")
        for one in named_expressions(questionnaire)
        if one.language == FHIR_QUERY
    ]


def _parsed(name: str, text: str, where: str) -> RecordQuery:
    resource_type, _, rest = text.partition("?")
    patient = date = ""
    bounds: dict[str, str] = {}
    tokens: list[tuple[str, tuple[Token, ...]]] = []
    for part in re.findall(r"(?:\{\{.*?\}\}|[^&])+", rest):  # an ampersand within braces belongs to its expression
        parameter, _, value = part.partition("=")
        bound = _BOUND.fullmatch(value)
        if parameter in _PATIENTS and value in _THE_PATIENT and not patient:
            patient = parameter
        elif bound is not None and date in ("", parameter) and bound[1] not in bounds:
            date = parameter
            bounds[bound[1]] = bound[2]
            check_expression(bound[2], where)
        elif parameter in _TOKENS and value and "{{" not in value:
            tokens.append((parameter, tuple(_token(one) for one in value.split(","))))
        else:
            raise _wrong(f"the search asks by {parameter!r} in a way that is not provided", where)
    if not _TYPE.fullmatch(resource_type) or not patient:
        raise _wrong("the search names no type or not the drawn patient", where)
    return RecordQuery(name, resource_type, patient, date, bounds.get("ge", ""), bounds.get("le", ""), tuple(tokens))


def _token(text: str) -> Token:
    system, bar, code = text.partition("|")
    return (system, code) if bar else ("", text)


def _wrong(what: str, where: str) -> MappingError:
    do = "write Type?patient={{%patient.id}} with code=system|code,... date=ge{{FHIRPath}} date=le{{FHIRPath}} at most"
    return MappingError(what, where=where, do=do, number=46)


def lookups_for(queries: Iterable[RecordQuery], patients: Iterable[str], index_date: str) -> list[Lookup]:
    """What a source is asked for one case: one search for each type, as wide as the form's searches together.

    Args:
        queries: The form's searches.
        patients: References of the patient's records.
        index_date: Full local date of the index session.
    """
    people = tuple(sorted(name for name in patients if "?" not in name))
    by_type: dict[tuple[str, str, str], list[RecordQuery]] = {}
    for query in queries:
        by_type.setdefault((query.resource_type, query.patient_parameter, query.date_parameter), []).append(query)
    return [
        Lookup(kind, people, patient, date, *_widest(alike, index_date), _codes(alike))
        for (kind, patient, date), alike in by_type.items()
    ]


def _widest(queries: Iterable[RecordQuery], index_date: str) -> tuple[str, str]:
    windows = [window for query in queries if (window := _window(query, index_date)) is not None]
    firsts, lasts = {first for first, _ in windows}, {last for _, last in windows}
    return ("" if "" in firsts else min(firsts, default=""), "" if "" in lasts else max(lasts, default=""))


def _codes(queries: Iterable[RecordQuery]) -> tuple[str, ...]:
    """The codes that these searches ask for together; none where one of them asks for any code."""
    found: set[str] = set()
    for query in queries:
        asked = dict(query.tokens).get("code")
        if asked is None:
            return ()
        found |= {f"{system}|{code}" if system else code for system, code in asked}
    return tuple(sorted(found))


def _window(query: RecordQuery, index_date: str) -> tuple[str, str] | None:
    """First and last day of a search's window; None where they cannot be told."""
    try:
        first, last = (_one_day(text, index_date) if text else "" for text in (query.first, query.last))
    except ReviewError:
        return None
    return first, last


@lru_cache(maxsize=4096)
def _one_day(expression: str, index_date: str) -> str:
    day = {"name": "index-date", "valueDate": index_date}
    found = evaluate(expression, {"session": {"resourceType": "Parameters", "parameter": [day]}})
    if len(found) != 1 or not is_full(str(found[0])):
        raise ReviewError("a window of the Questionnaire has no day", number=11)
    return str(found[0])


def as_found(
    queries: Iterable[RecordQuery],
    resources: Iterable[Json],
    index_date: str,
    zone: tzinfo,
    ended: datetime | None = None,
) -> dict[str, tuple[Json, ...]]:
    """What each search really found: within its window, not in error, from the earliest to the latest.

    Each is a copy that says how far it is from the index session: the extensions ``day-offset`` and
    ``end-day-offset`` (local days) and, where the resource was issued, ``hour-offset``.

    Args:
        queries: The form's searches.
        resources: What the source gave.
        index_date: Full local date of the index session.
        zone: The facility's time zone.
        ended: When the session ended, where that is known to the minute.
    """
    by_type: dict[str, list[tuple[str, str, Json]]] = {}
    for resource in resources:
        if resource.get("status") not in _WRONG:
            first, last = _days(resource, zone)
            placed = _placed(resource, first, last, index_date, ended)
            by_type.setdefault(str(resource.get("resourceType")), []).append((first, last, placed))
    found: dict[str, tuple[Json, ...]] = {}
    for query in queries:
        window = _window(query, index_date)
        among = by_type.get(query.resource_type, ()) if window is not None else ()
        kept = [one for one in among if window and _within(query, window, one) and query.fits(one[2])]
        kept.sort(key=lambda one: (one[0], str(one[2].get("id", ""))))
        found[query.name] = tuple(resource for _, _, resource in kept)
    return found


def _within(query: RecordQuery, window: tuple[str, str], placed: tuple[str, str, Json]) -> bool:
    """Whether it overlaps the window; what has no full date is in no window."""
    if not query.date_parameter:
        return True
    (first, last, _), (opens, closes) = placed, window
    return is_full(first) and (not closes or first <= closes) and (not opens or max(first, last) >= opens)


def _has(value: Any, wanted: Collection[Token]) -> bool:
    """Whether a code, Coding, CodeableConcept, or one of a list of them, is among the wanted."""
    if isinstance(value, list):
        return any(_has(one, wanted) for one in value)
    if isinstance(value, str):
        return ("", value) in wanted or any(code == value for _, code in wanted)
    if not isinstance(value, dict):
        return False
    if "coding" in value:
        return _has(value["coding"], wanted)
    code = value.get("code")
    return ("", code) in wanted or (value.get("system"), code) in wanted


def last_contact_in(found: Mapping[str, tuple[Json, ...]], zone: tzinfo) -> str:
    """The last local day on which, as the searches show, something was done with the patient; empty where none."""
    days = [
        _days(resource, zone)[0]
        for resources in found.values()
        for resource in resources
        if resource.get("resourceType") in _SEEN_ALIVE
    ]
    return max((day for day in days if is_full(day)), default="")


def _placed(resource: Json, first: str, last: str, index_date: str, ended: datetime | None) -> Json:
    found = {
        DAY_OFFSET: day_offset(first, index_date),
        END_DAY_OFFSET: day_offset(last, index_date),
        HOUR_OFFSET: _hours(resource.get("issued"), ended),
    }
    theirs = resource.get("extension")
    kept = [one for one in theirs if isinstance(one, dict)] if isinstance(theirs, list) else []
    extensions = [one for one in kept if one.get("url") not in _OWN]
    extensions += [{"url": url, "valueInteger": number} for url, number in found.items() if number is not None]
    return {**resource, "extension": extensions}


def _days(resource: Json, zone: tzinfo) -> tuple[str, str]:
    for element in _DATES:
        value = resource.get(element)
        start, end = (value.get("start"), value.get("end")) if isinstance(value, dict) else (value, value)
        first, last = _day(start, zone), _day(end, zone)
        if first or last:
            return first, last
    return "", ""


def _day(value: Any, zone: tzinfo) -> str:
    try:
        return local_day(value, zone) if isinstance(value, str) else ""
    except ResourceError:
        return ""


def _hours(issued: Any, ended: datetime | None) -> int | None:
    """Whole hours from the end of the session."""
    moment = _moment(issued)
    return None if moment is None or ended is None else int((moment - ended).total_seconds() // 3600)


def last_moment(procedures: Iterable[Json]) -> datetime | None:
    """When the last of some Procedures ended; None where none of them says the time."""
    ends = []
    for procedure in procedures:
        period = procedure.get("performedPeriod")
        ends.append(_moment(procedure.get("performedDateTime")))
        ends.append(_moment(period.get("end") or period.get("start")) if isinstance(period, dict) else None)
    return max((end for end in ends if end is not None), default=None)


def _moment(value: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None else None
