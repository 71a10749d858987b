from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from fhir.resources.R4B.measure import Measure
from fhir.resources.R4B.measurereport import MeasureReport
from tests.second_validator import r4

from io_fhir_adapter.errors import ConfigError
from io_fhir_adapter.model import Decision
from io_fhir_adapter.volume.count import Period, Seen, Volume, VolumeCounter
from io_fhir_adapter.volume.measure import build_measure, build_measure_report, period_instants


@dataclass(frozen=True)
class Programme:
    id: str = "iasios"
    title: str = "IASIOS"
    threshold: int = 150


def volume(days: tuple[str, ...] = ("2025-01-31", "2025-03", "2025"), *, scoped: bool = False) -> Volume:
    counter = VolumeCounter(Period.year("2025"), 150, {"tace": "yes", "biliary": "review"}, scoped=scoped)
    for day in days:
        counter.add(Decision("s", "Patient/1", day, "tace", "counted", "counted"))
    if days:
        counter.add(Decision("s", "Patient/1", "2025-05-05", "biliary", "review", "category-for-review"))
        counter.add(Decision("s", "Patient/2", "2025-05-05", "none", "not-counted", "unmapped"))
        counter.add(Decision("s", "Patient/2", "2025-06-05", "none", "not-counted", "look-alike"))
    return counter.result(Seen(10, 9, {"completed": 9, "not-done": 1}, 4, 6, 1, 1))


def report(of: Volume | None = None, **changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "programme_id": "iasios",
        "facility_code": "DEMO|1",
        "facility_name": "Haus <b>&</b> Söhne",
        "time_zone": "Europe/Berlin",
        "produced": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "ruleset_digest": "sha256:00",
    }
    return build_measure_report(of or volume(), **(arguments | changes))


def counts(populations: list[dict[str, Any]]) -> dict[str, int]:
    return {population["code"]["coding"][0]["code"]: population["count"] for population in populations}


def test_the_report_says_the_volume_as_populations() -> None:
    group, completeness, _ = report()["group"]
    assert counts(group["population"]) == {
        "initial-population": 9,
        "numerator": 3,
        "review": 1,
        "not-counted": 2,
    }
    reasons = group["stratifier"][2]["stratum"]
    assert {one["value"]["text"]: counts(one["population"]) for one in reasons} == {
        "counted": {"numerator": 3, "review": 0, "not-counted": 0},
        "unmapped": {"numerator": 0, "review": 0, "not-counted": 1},
        "look-alike": {"numerator": 0, "review": 0, "not-counted": 1},
        "category-for-review": {"numerator": 0, "review": 1, "not-counted": 0},
    }
    assert counts(completeness["population"])["quarantined"] == 1


def test_the_strata_sum_to_the_population() -> None:
    group = report()["group"][0]
    whole = counts(group["population"])
    kinds = [stratifier["code"][0]["coding"][0]["code"] for stratifier in group["stratifier"]]
    assert kinds == ["category", "month", "reason"]
    for stratifier in group["stratifier"]:
        strata = [counts(stratum["population"]) for stratum in stratifier["stratum"]]
        for code in ("numerator", "review", "not-counted"):
            assert sum(stratum[code] for stratum in strata) == whole[code]
    months = [stratum["value"]["text"] for stratum in group["stratifier"][1]["stratum"]]
    assert months[0] == "2025-01"
    assert months[-1] == "month not known"


@pytest.mark.parametrize("of", [volume(), volume(())])
def test_report_and_measure_are_valid(of: Volume) -> None:
    made, measure = report(of), build_measure(Programme())
    assert MeasureReport.model_validate(made).type == "summary"
    assert Measure.model_validate(measure).experimental is True
    assert made["measure"] == f"{measure['url']}|{measure['version']}"


@pytest.mark.interop
@pytest.mark.xdist_group("fhircraft")
def test_a_second_validator_agrees() -> None:
    models = r4()
    models.MeasureReport.model_validate(report())
    models.MeasureReport.model_validate(report(volume(())))
    models.Measure.model_validate(build_measure(Programme()))


@pytest.mark.parametrize("of", [volume(), volume(scoped=True), volume(())])
def test_the_report_has_the_populations_and_stratifiers_of_the_measure_and_no_others(of: Volume) -> None:
    for asked, given in zip(build_measure(Programme())["group"], report(of)["group"], strict=True):
        assert asked["code"] == given["code"]
        populations = [population["code"]["coding"][0]["code"] for population in asked["population"]]
        assert sorted(population["code"]["coding"][0]["code"] for population in given["population"]) == sorted(
            populations
        )
        assert len(set(populations)) == len(populations)
        for stratifier in given.get("stratifier", []):
            assert stratifier["code"] in [[one["code"]] for one in asked["stratifier"]]
            inside = (one for stratum in stratifier.get("stratum", []) for one in stratum["population"])
            assert {one["code"]["coding"][0]["code"] for one in inside} <= set(populations)


def test_the_funnel_says_what_is_left_and_what_was_lost_at_each_step_and_why() -> None:
    group = report()["group"][2]
    assert group["code"]["coding"][0]["code"] == "funnel"
    assert [
        (population["code"]["coding"][0]["code"], population.get("count")) for population in group["population"]
    ] == [
        ("read", 12), ("in-period", 10), ("lost-at-in-period", 2), ("completed", 9), ("lost-at-completed", 1),
        ("mapped", 4), ("lost-at-mapped", 5), ("in-scope", None), ("lost-at-in-scope", None),
        ("io-category", 4), ("lost-at-io-category", 2), ("counting-category", 3), ("lost-at-counting-category", 1),
        ("indication", 3), ("lost-at-indication", 0), ("dated", 3), ("lost-at-dated", 0),
        ("counted", 3), ("lost-at-counted", 0),
    ]  # fmt: skip
    (why,) = group["stratifier"]
    assert [(stratum["value"]["text"], counts(stratum["population"])) for stratum in why["stratum"]] == [
        ("quarantined", {"lost-at-in-period": 1}), ("undated", {"lost-at-in-period": 1}),
        ("not-done", {"lost-at-completed": 1}), ("unmapped", {"lost-at-mapped": 3, "lost-at-io-category": 1}),
        ("no-io-code", {"lost-at-mapped": 2}), ("look-alike", {"lost-at-io-category": 1}),
        ("category-for-review", {"lost-at-counting-category": 1}),
    ]  # fmt: skip


def test_the_same_facility_programme_and_period_get_the_same_identity() -> None:
    later = report(volume(("2025-02-02",)), produced=datetime(2026, 5, 5, tzinfo=UTC), facility_name="Other name")
    assert (report()["id"], report()["identifier"]) == (later["id"], later["identifier"])
    others: list[dict[str, Any]] = [{"facility_code": "DEMO:1"}, {"programme_id": "degir"}]
    for other in others:
        assert report(**other)["identifier"] != report()["identifier"]
        assert report(**other)["id"] != report()["id"]


def test_parts_of_the_identity_cannot_run_into_each_other() -> None:
    assert report(programme_id="a", facility_code="b:c")["id"] != report(programme_id="a:b", facility_code="c")["id"]


@pytest.mark.parametrize(
    ("zone", "period", "start", "end"),
    [
        ("Europe/Berlin", Period.year("2025"), "2025-01-01T00:00:00+01:00", "2025-12-31T23:59:59+01:00"),
        ("Australia/Sydney", Period.year("2025"), "2025-01-01T00:00:00+11:00", "2025-12-31T23:59:59+11:00"),
        ("America/New_York", Period.year("2024"), "2024-01-01T00:00:00-05:00", "2024-12-31T23:59:59-05:00"),
        (
            "Europe/Berlin",
            Period("2025-07-01", "2026-02-28", "x"),
            "2025-07-01T00:00:00+02:00",
            "2026-02-28T23:59:59+01:00",
        ),
        # The clocks of Beirut went from 24:00 to 01:00 into 26 March 2017: that day had no midnight.
        (
            "Asia/Beirut",
            Period("2017-03-26", "2017-03-26", "x"),
            "2017-03-26T01:00:00+03:00",
            "2017-03-26T23:59:59+03:00",
        ),
    ],
)
def test_the_borders_carry_the_offsets_of_the_zone(zone: str, period: Period, start: str, end: str) -> None:
    assert [moment.isoformat() for moment in period_instants(period, zone)] == [start, end]


def test_the_period_in_the_report_has_those_borders() -> None:
    assert report()["period"] == {"start": "2025-01-01T00:00:00+01:00", "end": "2025-12-31T23:59:59+01:00"}


@pytest.mark.parametrize("zone", ["Europe/Atlantis", "", "../etc/passwd"])
def test_an_unknown_time_zone_is_a_configuration_error(zone: str) -> None:
    with pytest.raises(ConfigError, match="time zone"):
        report(time_zone=zone)


def test_a_time_of_production_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        report(produced=datetime(2026, 1, 1))  # noqa: DTZ001
