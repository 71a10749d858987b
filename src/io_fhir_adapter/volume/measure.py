"""The volume in FHIR's words: a `Measure` that says what is counted, a `MeasureReport` with one period's numbers.

Both are this project's proposal: no accreditation programme that we could read publishes either. The resources hold
R4 content and are built through the R4B models of fhir.resources, whose Measure and MeasureReport are the same.

Shape of both: group ``volume`` counts sessions (its initial population, in procedures, is what they were made from) and
is stratified by category, by month and by the reason of the decision; group ``completeness`` counts the procedures that
were read; group ``funnel`` says what was left after each step from one to the other and what was lost at it, which is
stratified by reason. A session belongs to exactly one stratum of each stratifier, so the strata sum to the group. The
report has each population that the Measure has, and no other: validators that know the Measure ask for that.
"""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol
from urllib.parse import quote
from zoneinfo import ZoneInfo

from io_fhir_adapter.canonical_urls import (
    BASE,
    CATEGORY_CODES,
    FACILITY_SYSTEM,
    VOLUME_REPORT_SYSTEM,
    code_system,
    structure_definition,
)
from io_fhir_adapter.errors import ConfigError
from io_fhir_adapter.volume.count import FUNNEL_STEPS, UNKNOWN_MONTH, Tally, Volume
from io_fhir_adapter.volume.period import Period

__all__ = [
    "MEASURE_VERSION",
    "ProgrammeFacts",
    "build_measure",
    "build_measure_report",
    "measure_url",
    "period_instants",
]

MEASURE_VERSION = "1.2.0"
"""Version of what the measure means; it changes when the meaning of a population does."""

_HL7_POPULATION = "http://terminology.hl7.org/CodeSystem/measure-population"
_HL7_IMPROVEMENT = "http://terminology.hl7.org/CodeSystem/measure-improvement-notation"
_HL7_MEASURE_TYPE = "http://terminology.hl7.org/CodeSystem/measure-type"
_GROUP = code_system("volume-group")
_POPULATION = code_system("volume-population")
_REASON = code_system("decision-reason")
_STRATIFIER = code_system("volume-stratifier")
_FUNNEL_STEP = code_system("funnel-step")
_FUNNEL_LOSS = code_system("funnel-loss")

_SESSION_POPULATIONS = {
    "review": "Sessions that a responsible person may add",
    "not-counted": "Sessions that do not count, for any reason",
}
_PROCEDURE_POPULATIONS = {
    "procedures": "Procedures in the period, any status",
    "completed": "Completed Procedures in the period",
    "known-system": "Completed Procedures coded in a system that has a code table",
    "mapped": "Completed Procedures with a row in the code tables",
    "undated": "Procedures whose date is too vague to be placed",
    "quarantined": "Procedures that could not be read",
}
_FUNNEL = {code: f"Left: {name}" for code, name in FUNNEL_STEPS.items()}
_LOST = {code: f"Lost at: {name}" for code, name in FUNNEL_STEPS.items() if code != "read"}
_STRATIFIERS = {
    "category": "Category of the session",
    "month": "Local calendar month of the session",
    "reason": "Reason of the decision on the session",
}
_FUNNEL_STRATIFIERS = {"lost-why": "Reason for which it was lost"}


class ProgrammeFacts(Protocol):
    """What a Measure needs to know of a programme."""

    @property
    def id(self) -> str:
        """Identifier of the programme, such as ``iasios``."""

    @property
    def title(self) -> str:
        """Its name for people."""

    @property
    def threshold(self) -> int:
        """Sessions that it asks for in a year."""


def measure_url(programme_id: str) -> str:
    """The canonical URL of a programme's measure, without its version."""
    return f"{BASE}/Measure/io-annual-volume-{programme_id}"


def period_instants(period: Period, time_zone: str) -> tuple[datetime, datetime]:
    """The first and the last second of a period in a time zone, with the offsets that hold there and then.

    Raises:
        ConfigError: The time zone is unknown.
    """
    try:
        zone = ZoneInfo(time_zone)
    except (KeyError, ValueError, OSError) as exc:
        raise ConfigError(
            f"unknown time zone {time_zone!r}", where="facility.time_zone", do="use a name such as Europe/Berlin"
        ) from exc
    after = date.fromisoformat(period.end) + timedelta(days=1)
    last = _midnight(after, zone).astimezone(UTC) - timedelta(seconds=1)
    return _midnight(date.fromisoformat(period.start), zone), last.astimezone(zone)


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    # By way of UTC, because clocks that go forward at midnight have no 00:00 on that day.
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC).astimezone(zone)


def build_measure(programme: ProgrammeFacts) -> dict[str, Any]:
    """The R4 Measure of a programme's annual volume; draft and experimental, because it is a proposal."""
    volume = [
        _criteria(
            "initial-population",
            _HL7_POPULATION,
            "Completed Procedures in the period, of all kinds",
            "Procedure?status=completed",
        ),
        _criteria(
            "numerator",
            _HL7_POPULATION,
            "Sessions that count: one patient, one local calendar day, a category that counts",
        ),
        *(_criteria(code, _POPULATION, text) for code, text in _SESSION_POPULATIONS.items()),
    ]
    return _checked({
        "resourceType": "Measure",
        "id": f"io-annual-volume-{programme.id}",
        "text": _narrative(
            f"Annual volume of interventional-oncology procedures ({programme.title}), a proposal."
        ),
        "url": measure_url(programme.id),
        "version": MEASURE_VERSION,
        "name": "IOAnnualVolume",
        "title": f"Annual volume of interventional-oncology procedures ({programme.title})",
        "status": "draft",
        "experimental": True,
        "publisher": "io-fhir-adapter",
        "description": (
            "Counts interventional-oncology sessions of one period and facility. This Measure is a proposal of "
            f"the io-fhir-adapter project, not a publication of {programme.title}. The programme asks for "
            f"{programme.threshold} a year; what counts, per category, is set in the programme file whose "
            "digest the report carries. Every population of the group volume besides the initial one counts "
            "sessions; the reasons of the decisions are strata, coded in "
            f"{_REASON}. The group funnel has what is left after each step, procedures first and then "
            f"sessions, and what was lost at it, coded in {_FUNNEL_LOSS} and stratified by reason; a step that "
            "was not asked for has no count."
        ),
        "type": [_concept(_HL7_MEASURE_TYPE, "structure")],
        "improvementNotation": _concept(_HL7_IMPROVEMENT, "increase"),
        "group": [
            {
                "code": _concept(_GROUP, "volume", "Volume"),
                "population": volume,
                "stratifier": _stratified_by(_STRATIFIERS),
            },
            {
                "code": _concept(_GROUP, "completeness", "Completeness of what was read"),
                "population": [
                    _criteria(code, _POPULATION, text) for code, text in _PROCEDURE_POPULATIONS.items()
                ],
            },
            {
                "code": _concept(_GROUP, "funnel", "From procedures read to sessions counted"),
                "population": [
                    *(_criteria(code, _FUNNEL_STEP, text) for code, text in _FUNNEL.items()),
                    *(_criteria(_lost(code), _FUNNEL_LOSS, text) for code, text in _LOST.items()),
                ],
                "stratifier": _stratified_by(_FUNNEL_STRATIFIERS),
            },
        ],
    })  # fmt: skip


def build_measure_report(
    volume: Volume,
    *,
    programme_id: str,
    facility_code: str,
    facility_name: str,
    time_zone: str,
    produced: datetime,
    ruleset_digest: str,
) -> dict[str, Any]:
    """The R4 summary MeasureReport of one volume.

    The same facility, programme and period always get the same identifier and id, so that a later report replaces
    an earlier one.

    Args:
        volume: What was counted.
        programme_id: The programme it was counted for.
        facility_code: The code that the programme gave to the facility.
        facility_name: Its name for people.
        time_zone: IANA name; the period's borders carry its offsets.
        produced: When the numbers were made; must know its time zone.
        ruleset_digest: Digest of the code tables, rules and programme used.

    Raises:
        ConfigError: The time zone is unknown.
        ValueError: ``produced`` has no time zone.
    """
    if produced.tzinfo is None:
        msg = "the time of production needs a time zone"
        raise ValueError(msg)
    start, end = period_instants(volume.period, time_zone)
    key = ":".join(
        quote(part, safe="") for part in (programme_id, facility_code, volume.period.start, volume.period.end)
    )
    return _checked({
        "resourceType": "MeasureReport",
        "id": f"io-volume-{hashlib.sha256(key.encode()).hexdigest()[:24]}",
        "text": _narrative(
            f"{facility_name}, {volume.period.label}: {volume.counted} sessions counted of {volume.threshold} "
            f"asked for, {volume.review} for review, {volume.not_counted} not counted."
        ),
        "extension": [
            {"url": structure_definition("volume-threshold"), "valueInteger": volume.threshold},
            {"url": structure_definition("ruleset-digest"), "valueString": ruleset_digest},
        ],
        "identifier": [{"system": VOLUME_REPORT_SYSTEM, "value": key}],
        "status": "complete",
        "type": "summary",
        "measure": f"{measure_url(programme_id)}|{MEASURE_VERSION}",
        "date": produced.isoformat(timespec="seconds"),
        "reporter": {
            "type": "Organization",
            "identifier": {"system": FACILITY_SYSTEM, "value": facility_code},
            "display": facility_name,
        },
        "period": {"start": start.isoformat(), "end": end.isoformat()},
        "improvementNotation": _concept(_HL7_IMPROVEMENT, "increase"),
        "group": [_volume_group(volume), _completeness_group(volume), _funnel_group(volume)],
    })  # fmt: skip


def _volume_group(volume: Volume) -> dict[str, Any]:
    tally = Tally(volume.counted, volume.review, volume.not_counted)
    return {
        "code": _concept(_GROUP, "volume", "Volume"),
        "population": [
            _population("initial-population", _HL7_POPULATION, volume.seen.completed),
            *_session_populations(tally),
        ],
        "stratifier": [
            _strata(
                "category",
                {
                    code: (_concept(CATEGORY_CODES, code) | {"text": code}, tally)
                    for code, tally in volume.by_category.items()
                },
            ),
            _strata("month", {month: (_month(month), tally) for month, tally in volume.by_month.items()}),
            _strata("reason", {code: (_reason(code), tally) for code, tally in _by_reason(volume).items()}),
        ],
    }


def _completeness_group(volume: Volume) -> dict[str, Any]:
    seen = volume.seen
    numbers = {
        "procedures": seen.procedures,
        "completed": seen.completed,
        "known-system": seen.known_system,
        "mapped": seen.mapped,
        "undated": seen.undated,
        "quarantined": seen.quarantined,
    }
    return {
        "code": _concept(_GROUP, "completeness", "Completeness of what was read"),
        "population": [
            _population(code, _POPULATION, numbers[code], text) for code, text in _PROCEDURE_POPULATIONS.items()
        ],
    }


def _funnel_group(volume: Volume) -> dict[str, Any]:
    steps = {step.code: step for step in volume.funnel}
    populations = []
    why: dict[str, dict[str, int]] = {}
    for code, text in _FUNNEL.items():
        step = steps.get(code)
        populations.append(_population(code, _FUNNEL_STEP, step.count if step else None, text))
        if code in _LOST:
            populations.append(_population(_lost(code), _FUNNEL_LOSS, step.lost if step else None, _LOST[code]))
        for reason, number in step.why if step else ():
            why.setdefault(reason, {})[_lost(code)] = number
    strata = [
        (_reason(reason), [_population(code, _FUNNEL_LOSS, number) for code, number in numbers.items()])
        for reason, numbers in why.items()
    ]
    return {
        "code": _concept(_GROUP, "funnel", "From procedures read to sessions counted"),
        "population": populations,
        "stratifier": [_stratifier("lost-why", _FUNNEL_STRATIFIERS, strata)],
    }


def _lost(step: str) -> str:
    """Code of the population of what was lost at a step."""
    return f"lost-at-{step}"


def _by_reason(volume: Volume) -> dict[str, Tally]:
    """What became of the sessions, by the reason of the decision."""
    rows = {"counted": Tally(counted=volume.counted)} if volume.counted else {}
    for reason, number in volume.not_counted_by_reason.items():
        rows[reason] = rows.get(reason, Tally()).plus(Tally(not_counted=number))
    for reason, number in volume.review_by_reason.items():
        rows[reason] = rows.get(reason, Tally()).plus(Tally(review=number))
    return rows


def _stratified_by(stratifiers: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {"code": _concept(_STRATIFIER, code, text), "criteria": _expression(text)} for code, text in stratifiers.items()
    ]


def _session_populations(tally: Tally) -> list[dict[str, Any]]:
    return [
        _population("numerator", _HL7_POPULATION, tally.counted),
        _population("review", _POPULATION, tally.review, _SESSION_POPULATIONS["review"]),
        _population("not-counted", _POPULATION, tally.not_counted, _SESSION_POPULATIONS["not-counted"]),
    ]


def _strata(code: str, rows: Mapping[str, tuple[dict[str, Any], Tally]]) -> dict[str, Any]:
    return _stratifier(code, _STRATIFIERS, [(value, _session_populations(tally)) for value, tally in rows.values()])


def _stratifier(
    code: str, known: Mapping[str, str], rows: Iterable[tuple[dict[str, Any], list[dict[str, Any]]]]
) -> dict[str, Any]:
    strata = [{"value": value, "population": populations} for value, populations in rows]
    return {"code": [_concept(_STRATIFIER, code, known[code])], **({"stratum": strata} if strata else {})}


def _month(month: str) -> dict[str, Any]:
    return {"text": "month not known" if month == UNKNOWN_MONTH else month}


def _reason(code: str) -> dict[str, Any]:
    return _concept(_REASON, code) | {"text": code}


def _population(code: str, system: str, count: int | None, display: str = "") -> dict[str, Any]:
    return {"code": _concept(system, code, display), **({"count": count} if count is not None else {})}


def _criteria(code: str, system: str, text: str, query: str = "") -> dict[str, Any]:
    return {"code": _concept(system, code), "description": text, "criteria": _expression(text, query)}


def _expression(text: str, query: str = "") -> dict[str, Any]:
    if query:
        return {"language": "application/x-fhir-query", "expression": query}
    return {"language": "text/plain", "expression": text}


def _concept(system: str, code: str, display: str = "") -> dict[str, Any]:
    coding = {"system": system, "code": code}
    return {"coding": [coding | {"display": display} if display else coding]}


def _narrative(text: str) -> dict[str, str]:
    div = f'<div xmlns="http://www.w3.org/1999/xhtml"><p>{html.escape(text)}</p></div>'
    return {"status": "generated", "div": div}


def _checked(resource: dict[str, Any]) -> dict[str, Any]:
    """A resource as the model of its type writes it."""
    # The models take a tenth of a second and nine MiB, and most who count build none.
    from fhir.resources.R4B import get_fhir_model_class  # noqa: PLC0415

    model = get_fhir_model_class(resource["resourceType"]).model_validate(resource)
    checked: dict[str, Any] = json.loads(model.model_dump_json())
    return checked
