"""A site's own ConceptMaps: what is mapped to what, how far a relation goes, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from io_fhir_adapter.canonical_urls import CATEGORY_CODES
from io_fhir_adapter.classify.decide import decide_patient
from io_fhir_adapter.classify.ruleset import Ruleset, SiteTable, load_ruleset
from io_fhir_adapter.classify.workbench.exchange import ExportedTable, export_resources
from io_fhir_adapter.classify.workbench.rows import TableRow
from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.model import Code, Decision, ProcedureFact

LOCAL = "https://hospital.example/keys"
OPS = "http://fhir.de/CodeSystem/bfarm/ops"
SCT = "http://snomed.info/sct"
ICD = "http://hl7.org/fhir/sid/icd-10"
Json = dict[str, Any]
Load = Callable[..., Ruleset]


def element(code: str, target: str = "5-501.a3", relation: str = "equivalent", **more: Any) -> Json:
    return {"code": code, "target": [{"code": target, "equivalence": relation, **more}]}


def group(*elements: Json, target: str = OPS, source: str = LOCAL, **more: Any) -> Json:
    return {"source": source, "target": target, "element": list(elements), **more}


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def make(*groups: Json, name: str = "keys.json", **more: Any) -> Ruleset:
        path = tmp_path / name
        path.write_text(json.dumps({"resourceType": "ConceptMap", "group": list(groups)}), encoding="utf-8")
        return load_ruleset(concept_maps=[path], **more)

    return make


def decide(rules: Ruleset, *codes: str, system: str = LOCAL, text: str = "", day: str = "2025-03-14") -> Decision:
    facts = [
        ProcedureFact("his", f"p{number}", "Patient/1", "completed", day, text=text,
                      codes=(Code(system, code),), reasons=(Code(ICD, "C22.0"),))
        for number, code in enumerate(codes)
    ]  # fmt: skip
    (found,) = decide_patient(facts, [], [], rules)
    return found


def test_a_target_s_row_holds_and_the_trail_says_where_it_stands(load: Load) -> None:
    found = decide(load(group(element("A"), element("MW 1"))), "MW 1")
    assert (found.category, found.decision) == ("ablation-mwa", "counted")
    (finding,) = found.findings
    assert (finding.system, finding.code, finding.site) == ("site:keys", "MW 1", "liver")
    assert finding.rule.startswith("keys.json:group[0].element[1] (equivalent) > codes/ops.csv:")
    assert any(step.rule == finding.rule for step in found.trail)


def test_a_target_s_row_meets_the_rules_of_sessions(load: Load) -> None:
    rules = load(group(element("EMBO", "8-836.ka"), element("CHEMO", "8-541.6")))
    assert decide(rules, "EMBO", "CHEMO").category == "tace"


COUNTED, REVIEW, NONE = ("counted", "counted"), ("review", "mapping-inexact"), ("not-counted", "look-alike")
RELATIONS = {
    **dict.fromkeys(("equal", "equivalent", "wider", "subsumes", "source-is-narrower-than-target"), COUNTED),
    **dict.fromkeys(("narrower", "specializes", "inexact", "relatedto"), REVIEW),
    **dict.fromkeys(("related-to", "source-is-broader-than-target"), REVIEW),
    **dict.fromkeys(("unmatched", "disjoint", "not-related-to"), NONE),
}


@pytest.mark.parametrize("field", ["equivalence", "relationship"])
def test_how_far_a_relation_goes(load: Load, field: str) -> None:
    rules = load(group(*({"code": word, "target": [{"code": "5-501.a3", field: word}]} for word in RELATIONS)))
    for relation, expected in RELATIONS.items():
        found = decide(rules, relation, text="Mikrowellenablation Leber")
        assert (found.decision, found.reason) == expected, relation
        assert f"({relation})" in found.findings[0].rule


@pytest.mark.parametrize("nothing", [{"noMap": True}, {}, {"target": []}, {"target": [{"equivalence": "unmatched"}]}])
def test_mapped_to_nothing_is_none_of_ours_and_its_text_is_not_read(load: Load, nothing: Json) -> None:
    found = decide(load(group({"code": "X", **nothing})), "X", text="Mikrowellenablation Leber")
    assert (found.category, found.decision) == ("none", "not-counted")


def test_a_code_without_an_element_is_unknown_and_its_text_is_read(load: Load) -> None:
    assert decide(load(group(element("A"))), "B", text="Mikrowellenablation Leber").reason == "text-only"
    assert decide(load(group(element("A"))), "B").reason == "no-io-code"


def test_a_target_without_a_row_is_none_of_ours(load: Load) -> None:
    found = decide(load(group(element("X", "9-999"))), "X")
    assert (found.category, found.decision) == ("none", "not-counted")
    assert "has no row" in found.findings[0].rule


@pytest.mark.parametrize(("code", "category"), [("tare", "tare"), ("ablation-rfa", "ablation-rfa"), ("none", "none")])
def test_a_target_may_be_a_category(load: Load, code: str, category: str) -> None:
    assert decide(load(group(element("K", code), target=f"{CATEGORY_CODES}|1.0")), "K").category == category


def test_what_we_export_works_as_a_map_of_one_s_own(load: Load, tmp_path: Path) -> None:
    cells = ("liver", "percutaneous", "none", "main", "expected")
    rows = (
        TableRow("A1", "microwave", *cells, valid_to="2024-12-31"),
        TableRow("A1", "laser", *cells, valid_from="2025-01-01"),
        TableRow("B*", "cryotherapy", *cells),
        TableRow("BX", "guidance", "", "percutaneous", "none", "add-on", "required"),
    )
    plain = load_ruleset()
    exported = export_resources(
        [ExportedTable("keys", LOCAL, rows)], plain.categories, plain.rules, plain.digest, date(2025, 1, 1)
    )
    (concept_map,) = [item for item in exported if item["resourceType"] == "ConceptMap"]
    path = tmp_path / "own.json"
    path.write_text(json.dumps(concept_map), encoding="utf-8")
    rules = load_ruleset(concept_maps=[path])
    assert decide(rules, "A1").category == "ablation-laser"
    assert decide(rules, "A1", day="2024-06-01").category == "ablation-mwa"
    assert decide(rules, "B77").category == "ablation-cryo"
    assert decide(rules, "BX").reason == "add-on-only"


def test_its_elements_win_over_site_tables_and_ours(load: Load, tmp_path: Path) -> None:
    table = tmp_path / "own.csv"
    header = "code,technique,site,approach,agent,role,indication,valid_from,valid_to,meaning,checked,note\n"
    rows = "".join(f"{code},laser,liver,percutaneous,none,main,expected,,,,,\n" for code in ("5-501.a3", "5-501.a1"))
    table.write_text(header + rows, encoding="utf-8")
    rules = load(group(element("5501A3", "609232008"), target=SCT, source=OPS), site_tables=[SiteTable(OPS, table)])
    mapped, own, shipped = (decide(rules, code, system=OPS) for code in ("5-501.a3", "5-501.a1", "8-836.ka"))
    assert [found.findings[0].rule.partition(":")[0] for found in (mapped, own, shipped)] == [
        "keys.json", "own.csv", "codes/ops.csv",
    ]  # fmt: skip
    assert mapped.findings[0].technique == "microwave"


def test_several_groups_and_several_systems(load: Load) -> None:
    rules = load(
        group(element("A")),
        group(element("A", "609232008"), element("B", "609232008"), target=SCT),
        group(element("A", "8-836.ka"), source="urn:other"),
    )
    assert decide(rules, "A").decision == "counted"
    assert decide(rules, "B").findings[0].rule.startswith("keys.json:group[1].element[1] (equivalent) > codes/snomed")
    assert decide(rules, "A", system="urn:other").findings[0].technique == "embolisation"


def test_targets_that_contradict_each_other_are_for_a_person(load: Load) -> None:
    both = {"code": "A", "target": [{"code": code, "equivalence": "equal"} for code in ("5-501.a3", "8-836.ka")]}
    assert decide(load(group(both)), "A").reason == "mapping-inexact"
    depends = element("A", dependsOn=[{"property": "urn:x", "value": "1"}])
    assert decide(load(group(depends)), "A").reason == "mapping-inexact"


def test_another_code_that_says_the_same_without_doubt_is_enough(load: Load) -> None:
    rules = load(group(element("A", relation="inexact"), element("B")))
    assert decide(rules, "A", "B").decision == "counted"


def test_what_is_said_of_all_other_codes(load: Load) -> None:
    fixed = load(group(element("A"), target=CATEGORY_CODES, unmapped={"mode": "fixed", "code": "none"}) | {
        "element": [element("A", "tace")]})  # fmt: skip
    assert decide(fixed, "A").category == "tace"
    assert decide(fixed, "Z").findings[0].rule.startswith("keys.json:group[0].unmapped (fixed)")
    same = load(group(element("A"), unmapped={"mode": "provided"}))
    assert decide(same, "8836KA").findings[0].technique == "embolisation"
    assert decide(same, "9-999").reason == "no-io-code"
    other = load(group(element("A"), unmapped={"mode": "other-map", "url": "urn:x"}))
    assert decide(other, "Z").reason == "no-io-code"


def test_it_is_part_of_the_digest(load: Load) -> None:
    assert len({load(group(element("A"))).digest, load(group(element("B"))).digest, load_ruleset().digest}) == 3


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([], "maps nothing"),
        ([{"target": OPS, "element": [element("A")]}], "keys.json:group[0]: the group names no source"),
        ([group(element("A"), target="urn:unknown")], "group[0].element[0]: its target urn:unknown is neither"),
        ([group(element("A"), target=ICD)], "nor a system with a code table"),
        ([group(element("A"), element("", "x"))], "group[0].element[1]: the element has no code"),
        ([group(element("A"), element("B", ""))], "group[0].element[1]: its target has no code"),
        ([group(element("A", relation="same"))], "related as 'same'"),
        ([group({"code": "A", "target": [{"code": "5-501.a3"}]})], "does not say how it is related"),
        ([group(element("A", "surgery"), target=CATEGORY_CODES)], "no code has the category 'surgery' by itself"),
    ],
)
def test_a_broken_map_is_one_sentence_that_names_the_place(load: Load, groups: list[Json], words: str) -> None:
    with pytest.raises(MappingError) as caught:
        load(*groups)
    assert words in caught.value.sentence
    assert "\n" not in caught.value.sentence
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "words"), [("{", "no JSON"), ("[]", "no ConceptMap"), ('{"resourceType": "X"}', "no C")]
)
def test_another_file_is_no_map(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(MappingError, match=words):
        load_ruleset(concept_maps=[path])
    with pytest.raises(MappingError, match=r"mappings\.concept_maps"):
        load_ruleset(concept_maps=[tmp_path / "absent.json"])
