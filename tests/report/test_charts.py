from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import pytest

from io_fhir_adapter.look.drawing import even_ticks
from io_fhir_adapter.look.theme import DARK, FAMILIES, LIGHT, family_of
from io_fhir_adapter.model import Decision
from io_fhir_adapter.report.charts import Size, cumulative_chart, funnel_chart, monthly_chart, to_png
from io_fhir_adapter.volume.count import Period, Seen, Volume, VolumeCounter

COUNTS = {"tace": "yes", "ablation-mwa": "yes"}
SVG = "{http://www.w3.org/2000/svg}"


def volume(per_month: int = 2, year: str = "2025", category: str = "tace", label: str | None = None) -> Volume:
    period = Period(f"{year}-01-01", f"{year}-12-31", label or year)
    counter = VolumeCounter(period, 20, COUNTS)
    for month in range(1, 13):
        for day in range(per_month):
            counter.add(Decision("s", "Patient/1", f"{year}-{month:02d}-{day + 1:02d}", category, "counted", "counted"))
    counter.add(Decision("s", "Patient/1", f"{year}-04-04", "none", "not-counted", "no-io-code"))
    return counter.result(Seen(1500, 1400, {"completed": 1400, "not-done": 100}, 40, 900, 3, 2, 70))


def empty() -> Volume:
    return VolumeCounter(Period.year("2025"), 20, COUNTS).result(Seen(0, 0, {}, 0, 0, 0, 0))


def parse(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314 - drawn by ourselves


def words(svg: str) -> list[str]:
    return [text for element in parse(svg).iter(f"{SVG}text") if (text := "".join(element.itertext()))]


@pytest.mark.parametrize("draw", [cumulative_chart, monthly_chart, funnel_chart])
@pytest.mark.parametrize("of", [volume, empty])
def test_each_chart_follows_the_schema_of_what_draws_it(
    of: Callable[[], Volume], draw: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawing does not look, since looking takes longer than drawing."""

    def checked(chart: Any, *_: str) -> str:
        return str(chart.to_dict(validate=True)["$schema"])

    monkeypatch.setattr("io_fhir_adapter.report.charts.svg", checked)
    for size in ("wide", "narrow"):
        assert "vega-lite" in draw(of(), size=size)


@pytest.mark.parametrize("size", ["wide", "narrow"])
@pytest.mark.parametrize("draw", [cumulative_chart, monthly_chart, funnel_chart])
@pytest.mark.parametrize("of", [volume, empty])
def test_each_chart_is_whole_svg_with_name_and_description(
    of: Callable[[], Volume], draw: Callable[..., str], size: Size
) -> None:
    svg = draw(of(), size=size)
    root = parse(svg)
    assert root.get("role") == "img"
    labels = (root.get("aria-labelledby") or "").split()
    named = {element.get("id"): element.text for element in root if element.tag in (f"{SVG}title", f"{SVG}desc")}
    assert list(named) == labels
    assert all(named.values())
    for element in root.iter():
        assert element.tag not in (f"{SVG}script", f"{SVG}image", f"{SVG}foreignObject")
        assert not [name for name in element.keys() if name.endswith("href")]  # noqa: SIM118
    assert "NaN" not in svg
    assert "undefined" not in svg


@pytest.mark.parametrize("draw", [cumulative_chart, monthly_chart, funnel_chart])
def test_every_colour_has_a_dark_twin(draw: Callable[..., str]) -> None:
    root = parse(draw(volume()))
    colours = {element.get(name) for element in root.iter() for name in ("fill", "stroke")}
    assert colours - {None, "none", "transparent"} <= set(LIGHT.values())


def test_the_colours_of_both_modes_match_one_to_one() -> None:
    assert LIGHT.keys() == DARK.keys()
    assert len(set(LIGHT.values())) == len(LIGHT)
    assert set(FAMILIES) <= LIGHT.keys()


def test_the_running_count_names_its_lines_and_the_threshold() -> None:
    svg = cumulative_chart(volume(), previous=volume(1, "2024"))
    assert {"24 in 2025", "12 in 2024", "Threshold 20, reached 2 Oct"} <= set(words(svg))
    assert "24 sessions counted in 2025, threshold 20, reached on 2 October 2025. 2024: 12." in svg


def test_a_running_year_ends_at_its_date() -> None:
    assert cumulative_chart(volume(1), as_of="2025-06-30") != cumulative_chart(volume(1))
    assert "not reached" in cumulative_chart(volume(1), as_of="2024-06-30")


def test_bars_carry_the_sum_of_the_month_and_sessions_without_month_stand_apart() -> None:
    counter = VolumeCounter(Period.year("2025"), 20, COUNTS)
    for day, category in (("2025-02-01", "tace"), ("2025-02-03", "ablation-mwa"), ("2025", "tace")):
        counter.add(Decision("s", "Patient/1", day, category, "counted", "counted"))
    shown = words(monthly_chart(counter.result(Seen(0, 0, {}, 0, 0, 0, 0))))
    assert {"2", "1", "no month", "Ablation", "Chemoembolisation"} <= set(shown)
    assert "Pain" not in shown
    assert "no month" not in words(monthly_chart(volume()))


def test_the_funnel_shows_what_is_left_and_lost_and_why() -> None:
    shown = words(funnel_chart(volume()))
    assert {"1,575", "1,500", "−75", "other period 70, not readable 3 …", "−1,360", "Counted", "24"} <= set(shown)


def test_the_funnel_shows_what_the_scope_left_out_and_what_cannot_be_placed() -> None:
    counter = VolumeCounter(Period.year("2025"), 20, COUNTS, scoped=True)
    for day in range(1, 7):
        counter.add(Decision("s", "Patient/1", f"2025-02-{day:02d}", "tace", "counted", "counted"))
        counter.add(Decision("s", "Patient/2", f"2025-02-{day:02d}", "tace", "not-counted", "out-of-scope"))
    counter.add(Decision("s", "Patient/3", "", "tace", "counted", "counted"))
    of = counter.result(Seen(0, 0, {}, 0, 0, 0, 0))
    for size in ("wide", "narrow"):
        shown = words(funnel_chart(of, size=size))
        assert "In scope" in shown
        assert [text for text in shown if "outside the scope 6" in text]
        assert [text for text in shown if text.endswith("12 in the period, 1 that may be")]
        assert [text for text in shown if "no usable date 1" in text]
    assert "In scope" not in words(funnel_chart(volume()))


def test_hostile_labels_stay_words() -> None:
    svg = cumulative_chart(volume(label="</title><script>alert(1)</script>&'\""))
    assert "<script" not in svg
    parse(svg)


def test_the_same_volume_gives_the_same_picture() -> None:
    assert monthly_chart(volume()) == monthly_chart(volume())


def test_a_chart_can_be_had_as_png() -> None:
    assert to_png(funnel_chart(volume()), 1).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("highest", "ticks"),
    [(0, [0, 1]), (1, [0, 1]), (7, [0, 2, 4, 6, 8]), (163, [0, 50, 100, 150, 200]), (100_000, None)],
)
def test_ticks_are_round_and_reach_the_highest(highest: float, ticks: Any) -> None:
    made = even_ticks(highest)
    assert made[-1] >= highest
    assert 2 <= len(made) <= 7
    assert ticks is None or made == ticks


@pytest.mark.parametrize(
    ("category", "family"), [("tace", "chemoembolisation"), ("ablation-ire", "ablation"), ("new", "other")]
)
def test_a_category_belongs_to_one_family(category: str, family: str) -> None:
    assert family_of(category) == family
