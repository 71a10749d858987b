"""Programmes as data: the body's own groups, standards and statuses, each with its source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from io_fhir_adapter.classify.programme import Programme, load_programme
from io_fhir_adapter.classify.rules import load_categories
from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.shipped import shipped_path

CATEGORIES = load_categories(shipped_path("mappings", "categories.csv"))
SHIPPED = ("iasios", "degir")
SHORTEST = """\
id: tiny
title: A programme without groups
version: "1"
volume: {threshold: 10}
counts: {tace: yes, biopsy: no}
sample: {size: 3, reserves: 1, window_months: 12, ends_days_before: 30}
"""


def shipped(name: str) -> Programme:
    return load_programme(name, frozenset(CATEGORIES))


def written(folder: Path, more: str = "") -> Path:
    path = folder / "tiny.yaml"
    path.write_text(SHORTEST + more, encoding="utf-8")
    return path


def load(folder: Path, more: str = "") -> Programme:
    return load_programme(str(written(folder, more)), frozenset(CATEGORIES))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_programmes_decide_on_every_category(name: str) -> None:
    programme = shipped(name)
    assert programme.id == name
    assert set(programme.counts) == set(CATEGORIES)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_category_is_in_one_group_or_in_none_on_purpose(name: str) -> None:
    programme = shipped(name)
    placed = [category for group in programme.groups for category in group.categories]
    assert sorted([*placed, *programme.ungrouped]) == sorted(CATEGORIES)
    for category in CATEGORIES:
        group = programme.group_of(category)
        assert (group is None) == (category in programme.ungrouped)


@pytest.mark.parametrize("name", SHIPPED)
def test_what_counts_has_a_group(name: str) -> None:
    programme = shipped(name)
    assert [name for name, word in programme.counts.items() if word != "no" and not programme.group_of(name)] == []


def test_iasios_has_the_seven_groups_of_its_faq() -> None:
    programme = shipped("iasios")
    assert [group.id for group in programme.groups] == [
        "ablations", "radioembolisation", "chemoembolisation", "pain-management", "musculoskeletal",
        "other-vascular", "other-therapeutic",
    ]  # fmt: skip
    assert programme.group_of("deb-tace") == "chemoembolisation"
    assert programme.group_of("cementoplasty") == "musculoskeletal"
    assert programme.group_of("biopsy") is None
    assert programme.group_of("unheard-of") is None


def test_open_categories_are_for_review_and_said_to_be_doubtful() -> None:
    programme = shipped("iasios")
    doubtful = {category for group in programme.groups for category in group.doubtful}
    assert {name for name, word in programme.counts.items() if word == "review"} <= doubtful


def test_the_27_core_requirements() -> None:
    standards = shipped("iasios").standards
    assert standards is not None
    core = " ".join(f"{item.number}{letter}" for item in standards.standards for letter in item.core)
    assert core == "1a 1c 1e 1f 1g 2b 3a 3c 4b 4c 4d 5d 6a 6b 6c 6d 7a 7b 8a 8b 8c 8d 8e 10c 11a 12a 12b"
    assert len(core.split()) == 27


def test_thirteen_standards_in_three_sections_without_titles() -> None:
    standards = shipped("iasios").standards
    assert standards is not None
    assert [standard.number for standard in standards.standards] == list(range(1, 14))
    assert [standard.section for standard in standards.standards] == ["I"] * 6 + ["II"] * 3 + ["III"] * 4
    assert {standard.title for standard in standards.standards} == {None}


def test_extended_letters_are_only_those_that_must_exist() -> None:
    standards = shipped("iasios").standards
    assert standards is not None
    for standard in standards.standards:
        before = [chr(point) for point in range(ord("a"), ord(max(standard.core, default="a")))]
        missing = tuple(letter for letter in before if letter not in standard.core)
        assert standard.extended == (missing or None), standard.number


def test_statuses_cycle_and_roles_of_iasios() -> None:
    programme = shipped("iasios")
    assert [status.id for status in programme.statuses] == ["enrolled", "accredited", "excellence"]
    assert programme.cycle is not None
    assert programme.cycle.years == 4
    assert "authorised-representative" in {role.id for role in programme.roles}


def test_degir_modules_and_their_numbers() -> None:
    programme = shipped("degir")
    assert [group.id for group in programme.groups] == ["A", "B", "C", "D"]
    assert programme.threshold == 20
    numbers = {(item.group, item.applies_to): item.threshold for item in programme.group_thresholds}
    assert numbers["D", "training site"] == 20
    assert numbers[None, "centre"] == 250
    assert numbers["D", "centre"] is None
    assert {name for name, word in programme.counts.items() if word == "yes"} <= {
        name for name in CATEGORIES if programme.group_of(name) == "D"
    }


def test_numbers_that_were_found_say_of_which_year_and_the_others_why_not() -> None:
    for item in shipped("degir").group_thresholds:
        if item.threshold is None:
            assert "not found" in item.note
        else:
            assert item.archived
            assert "2017" in item.as_of


def facts(value: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping in a file that states something of the body's."""
    if isinstance(value, dict):
        if "source" in value or "proposal" in value or {"id", "title"} <= set(value):
            yield place, value
        for key, inner in value.items():
            yield from facts(inner, f"{place}.{key}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from facts(inner, f"{place}.{number}")


@pytest.mark.parametrize("name", SHIPPED)
def test_every_fact_has_a_source_or_is_marked_a_proposal(name: str) -> None:
    path = shipped_path("mappings", "programmes", f"{name}.yaml")
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert document["counts_source"]
    sections = ".standards.sections."  # part of the document whose source stands above them
    stated = [(place, fact) for place, fact in facts(document) if place and not place.startswith(sections)]
    unsourced = [place for place, fact in stated if "http" not in fact.get("source", "") and not fact.get("proposal")]
    assert len(stated) > 8
    assert unsourced == []
    for key in ("unit", "period"):
        assert document["volume"][f"{key}_proposal"] is True


def test_an_older_file_without_groups_still_loads(tmp_path: Path) -> None:
    programme = load(tmp_path)
    assert programme.groups == ()
    assert programme.group_of("tace") is None
    assert programme.counts_for("tace") == "yes"
    assert programme.counts_for("tare") == "review"


def test_what_describes_does_not_change_the_digest_and_what_decides_does(tmp_path: Path) -> None:
    plain = load(tmp_path).digest
    assert load(tmp_path, "cycle: {years: 4, proposal: true}\n").digest == plain
    assert load(tmp_path, "ungrouped: [biopsy]\n").digest == plain
    changed = written(tmp_path)
    changed.write_text(changed.read_text(encoding="utf-8").replace("threshold: 10", "threshold: 11"), encoding="utf-8")
    assert load_programme(str(changed)).digest != plain


GROUP = "groups: [{id: a, title: A, proposal: true, categories: [tace]%s}]\n"


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ("groupz: []\n", "groupz"),
        (GROUP % ", colour: red", r"groups\.0\.colour"),
        ("statuses: [{id: a, title: A, proposal: true, fee: 1}]\n", r"statuses\.0\.fee"),
        ("roles: [{id: a, title: A}]\n", r"roles\.0: .*source.*proposal"),
        ("cycle: {years: 0, proposal: true}\n", r"cycle\.years"),
        (GROUP % ", doubtful: [tare]", r"groups\.0: .*'tare'"),
        (GROUP % "" + "ungrouped: [tace]\n", "'tace' is listed twice"),
        ("groups: [{id: a, title: A, proposal: true}, {id: a, title: B, proposal: true}]\n", "'a' is listed twice"),
        ("group_thresholds: [{group: z, applies_to: site, threshold: 1, proposal: true}]\n", "'z', which is no group"),
        ("group_thresholds: [{applies_to: site, proposal: true}]\n", r"group_thresholds\.0\.threshold"),
        ("ungrouped: [unheard-of]\n", "ungrouped: 'unheard-of' is no category"),
        ("groups: [{id: a, title: A, proposal: true, categories: [unheard-of]}]\n", "groups, a: 'unheard-of'"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(tmp_path: Path, more: str, place: str) -> None:
    with pytest.raises(MappingError, match=place):
        load(tmp_path, more)


@pytest.mark.parametrize(
    ("standards", "place"),
    [
        ("[{number: 1, section: II, proposal: true}]", "section 'II', which is not listed"),
        ("[{number: 1, section: I, proposal: true, core: [a], extended: [a]}]", r"standards\.0: .*listed twice"),
        ("[{number: 1, section: I, proposal: true}, {number: 1, section: I, proposal: true}]", "standard is listed"),
        ("[{number: 1, section: I, proposal: true, text: x}]", r"standards\.0\.text"),
    ],
)
def test_wrong_standards_are_refused_with_the_place(tmp_path: Path, standards: str, place: str) -> None:
    more = f"standards: {{title: S, proposal: true, sections: [{{id: I}}], standards: {standards}}}\n"
    with pytest.raises(MappingError, match=place):
        load(tmp_path, more)


def test_a_facility_may_enter_titles_of_its_own_copy(tmp_path: Path) -> None:
    more = (
        "standards: {title: S, proposal: true, sections: [{id: I, title: First}], "
        "standards: [{number: 1, section: I, title: Own words, core: [a], proposal: true}]}\n"
    )
    standards = load(tmp_path, more).standards
    assert standards is not None
    assert standards.standards[0].title == "Own words"


def test_an_unknown_programme_is_refused_with_those_there_are() -> None:
    with pytest.raises(MappingError) as caught:
        load_programme("nobody")
    assert "degir" in caught.value.do
    assert "iasios" in caught.value.do


def test_a_kind_of_diagnosis_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    shipped = shipped_path("mappings", "programmes") / "iasios.yaml"
    path = tmp_path / "own.yaml"
    text = shipped.read_text(encoding="utf-8")
    path.write_text(text.replace("tumour: [malignant,", "tumour: [cancer,"), encoding="utf-8")
    with pytest.raises(MappingError, match=r"own\.yaml: indication\.tumour: .*'cancer' is no kind of diagnosis"):
        load_programme(str(path))


def test_a_key_written_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    shipped = shipped_path("mappings", "programmes") / "iasios.yaml"
    path = tmp_path / "own.yaml"
    path.write_text(shipped.read_text(encoding="utf-8") + "\nid: other\n", encoding="utf-8")
    with pytest.raises(MappingError, match=r"own\.yaml:\d+: a key is written twice"):
        load_programme(str(path))
