"""What a form wants read for its cases: SDC's ``application/x-fhir-query`` variables, and what they find.

Such a variable is a search with FHIRPath in double braces, as in
``Observation?patient={{%patient.id}}&date=ge{{%session.parameter.where(name='index-date').value - 90 days}}``.
A search names one type, the drawn patient, and at most one window of time; everything else is for the form's own
FHIRPath. What is found is looked at again here, since not every server understands every window.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any, Final

from io_fhir_adapter.canonical_urls import DAY_OFFSET, END_DAY_OFFSET, HOUR_OFFSET
from io_fhir_adapter.errors import MappingError, ResourceError, ReviewError
from io_fhir_adapter.fhir.dates import is_full, local_day
from io_fhir_adapter.model import Lookup
from io_fhir_adapter.review.expressions import FHIR_QUERY, check_expression, evaluate, named_expressions
from io_fhir_adapter.review.generalise import day_offset

__all__ = ["RecordQuery", "as_found", "last_moment", "lookup_of", "record_queries"]

Json = dict[str, Any]

_PATIENTS: Final = frozenset({"patient", "subject", "individual"})
_THE_PATIENT: Final = frozenset({"{{%patient.id}}", "Patient/{{%patient.id}}"})
_BOUND: Final = re.compile(r"(ge|le)\{\{(.+)\}\}")
_TYPE: Final = re.compile(r"[A-Z][A-Za-z]+")
_DATES: Final = (
    "effectiveDateTime", "effectivePeriod", "effectiveInstant", "performedDateTime", "performedPeriod", "started",
    "period", "date", "dateTime", "onsetDateTime", "onsetPeriod", "recordedDate", "authoredOn", "created", "issued",
)  # fmt: skip
"""Where R4 resources say when; the first that can be read counts."""
_WRONG: Final = frozenset({"entered-in-error", "not-done", "cancelled", "rejected", "planned", "preparation"})
_OWN: Final = frozenset({DAY_OFFSET, END_DAY_OFFSET, HOUR_OFFSET})


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
    """

    name: str
    resource_type: str
    patient_parameter: str
    date_parameter: str = ""
    first: str = ""
    last: str = ""


def record_queries(questionnaire: Json, where: str = "") -> list[RecordQuery]:
    """The searches of a form, in order.

    Args:
        questionnaire: The form.
        where: Its file or address, for messages.

    Raises:
        MappingError: A search asks for more than one type, for anybody else than the drawn patient, or for what is
            no window of time.
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
    for part in _parts(rest):
        parameter, _, value = part.partition("=")
        bound = _BOUND.fullmatch(value)
        if parameter in _PATIENTS and value in _THE_PATIENT and not patient:
            patient = parameter
        elif bound is not None and date in ("", parameter) and bound[1] not in bounds:
            date = parameter
            bounds[bound[1]] = bound[2]
            check_expression(bound[2], where)
        else:
            raise _wrong(f"the search asks by {parameter!r} in a way that is not provided", where)
    if not _TYPE.fullmatch(resource_type) or not patient:
        raise _wrong("the search names no type or not the drawn patient", where)
    return RecordQuery(name, resource_type, patient, date, bounds.get("ge", ""), bounds.get("le", ""))


def _parts(text: str) -> list[str]:
    """The parameters of a search; an ampersand within braces belongs to its expression."""
    return re.findall(r"(?:\{\{.*?\}\}|[^&])+", text)


def _wrong(what: str, where: str) -> MappingError:
    do = "write Type?patient={{%patient.id}} with at most date=ge{{FHIRPath}} and date=le{{FHIRPath}}"
    return MappingError(what, where=where, do=do, number=46)


def lookup_of(query: RecordQuery, patients: Iterable[str], index_date: str) -> Lookup | None:
    """The search of one case; None where the form's window cannot be told for it.

    Args:
        query: The form's search.
        patients: References of the patient's records.
        index_date: Full local date of the index session.
    """
    day = {"name": "index-date", "valueDate": index_date}
    environment = {"session": {"resourceType": "Parameters", "parameter": [day]}}
    try:
        first, last = (_one_day(text, environment) if text else "" for text in (query.first, query.last))
    except ReviewError:
        return None
    people = tuple(sorted(name for name in patients if "?" not in name))
    return Lookup(query.resource_type, people, query.patient_parameter, query.date_parameter, first, last)


def _one_day(expression: str, environment: Mapping[str, Any]) -> str:
    found = [str(value) for value in evaluate(expression, environment)]
    if len(found) != 1 or not is_full(found[0]):
        raise ReviewError("a window of the Questionnaire has no day", number=11)
    return found[0]


def as_found(
    lookup: Lookup, resources: Iterable[Json], index_date: str, zone: tzinfo, ended: datetime | None = None
) -> tuple[Json, ...]:
    """What a search really found: within its window, not in error, from the earliest to the latest.

    Each is a copy that says how far it is from the index session: the extensions ``day-offset`` and
    ``end-day-offset`` (local days) and, where the resource was issued, ``hour-offset``.

    Args:
        lookup: The search.
        resources: What the source gave for it.
        index_date: Full local date of the index session.
        zone: The facility's time zone.
        ended: When the session ended, where that is known to the minute.
    """
    kept: list[tuple[str, str, Json]] = []
    for resource in resources:
        if resource.get("status") in _WRONG:
            continue
        first, last = _days(resource, zone)
        if lookup.date_parameter and not _within(lookup, first, last):
            continue
        kept.append((first, str(resource.get("id", "")), _placed(resource, first, last, index_date, ended)))
    return tuple(resource for _, _, resource in sorted(kept, key=lambda one: one[:2]))


def _within(lookup: Lookup, first: str, last: str) -> bool:
    """Whether it overlaps the window; what has no full date is in no window."""
    if not is_full(first):
        return False
    return (not lookup.last or first <= lookup.last) and (not lookup.first or max(first, last) >= lookup.first)


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
