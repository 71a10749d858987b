"""What goes out as FHIR is valid and comes back with nothing lost; what others map to our categories comes in."""

from __future__ import annotations

import json
import warnings
from datetime import date
from typing import Any

import pytest
from fhir.resources.R4B.codesystem import CodeSystem
from fhir.resources.R4B.conceptmap import ConceptMap
from fhir.resources.R4B.valueset import ValueSet
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.second_validator import r4

from io_fhir_adapter.canonical_urls import BASE, CATEGORY_CODES
from io_fhir_adapter.classify.decide import decide_patient
from io_fhir_adapter.classify.ruleset import Ruleset, load_ruleset
from io_fhir_adapter.classify.tables import AGENTS, APPROACHES, INDICATIONS, ROLES, SITES
from io_fhir_adapter.classify.workbench.exchange import (
    CODE_PATTERN,
    ExportedTable,
    category_alone,
    export_resources,
    import_concept_map,
)
from io_fhir_adapter.classify.workbench.rows import TableRow, canonical_uris, code_row, read_rows, shipped_tables
from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.model import Code, ProcedureFact
from io_fhir_adapter.shipped import shipped_path

pytestmark = pytest.mark.xdist_group("exchange")  # what goes out is made once
DAY = date(2026, 1, 15)
URI = "http://hospital.example/keys"
OPS = "http://fhir.de/CodeSystem/bfarm/ops"
MODELS: dict[str, Any] = {"CodeSystem": CodeSystem, "ValueSet": ValueSet, "ConceptMap": ConceptMap}
RULES = load_ruleset()


def export(*tables: ExportedTable) -> dict[str, dict[str, Any]]:
    made = export_resources(tables, RULES.categories, RULES.rules, RULES.digest, DAY)
    return {f"{item['resourceType']}/{item['id']}": json.loads(json.dumps(item)) for item in made}


def own(*rows: TableRow, codes: tuple[str, ...] | None = None) -> ExportedTable:
    return ExportedTable("keys", URI, rows, codes)


def row(code: str, technique: str = "microwave", **cells: str) -> TableRow:
    usual = {"site": "liver", "approach": "percutaneous", "agent": "none", "role": "main", "indication": "expected"}
    return TableRow(code, technique, **{**usual, **cells})


def shipped() -> list[ExportedTable]:
    folder = shipped_path("mappings")
    uris = canonical_uris(folder / "systems.csv")
    return [
        ExportedTable(table.system, uris[table.system], read_rows(table.path, table.label).rows)
        for table in shipped_tables(folder)
    ]


def back(resource: dict[str, Any]) -> list[tuple[str, TableRow]]:
    found = import_concept_map(resource, RULES.categories, RULES.rules.techniques, "map.json")
    assert found.left_out == ()
    return list(found.rows)


def cells(rows: Any) -> list[tuple[str, ...]]:
    return sorted(tuple(item.cells().values()) for item in rows)


@pytest.fixture(scope="module")
def everything() -> dict[str, dict[str, Any]]:
    return export(*shipped())


def test_all_that_is_made_is_valid_and_says_that_it_is_a_proposal(everything: dict[str, dict[str, Any]]) -> None:
    assert len(everything) == 2 + len(RULES.categories) + len(RULES.table_systems)
    for resource in everything.values():
        MODELS[resource["resourceType"]].model_validate(resource)
        assert resource["url"].startswith(BASE)
        assert (resource["status"], resource["experimental"], resource["date"]) == ("draft", True, "2026-01-15")
        assert "proposal" in resource["description"]
        assert resource["version"].endswith(RULES.digest.removeprefix("sha256:")[:12])
    assert {code["code"] for code in everything["CodeSystem/procedure-category"]["concept"]} == set(RULES.categories)


@pytest.mark.interop
@pytest.mark.xdist_group("fhircraft")
def test_another_implementation_of_fhir_finds_it_valid_too() -> None:
    models = r4()
    made = export(own(row("A[12]?"), row("A1X", "radiofrequency", note="why"), row("G", "guidance", role="add-on")))
    with warnings.catch_warnings():
        # dom-6 recommends a narrative, which terminology of two thousand codes has no use for
        warnings.filterwarnings("ignore", r".*dom-6")
        models.ConceptMap.model_validate(made["ConceptMap/keys-to-procedure-category"])


def test_no_title_of_a_code_goes_out(everything: dict[str, dict[str, Any]]) -> None:
    for name, resource in everything.items():
        if name.startswith("ConceptMap"):
            assert '"display"' not in json.dumps(resource)


def test_the_shipped_tables_come_back_with_nothing_lost(everything: dict[str, dict[str, Any]]) -> None:
    for table in shipped():
        found = back(everything[f"ConceptMap/{table.system}-to-procedure-category"])
        assert cells(item for _, item in found) == cells(table.rows)


_text = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=12)
_day = st.dates().map(date.isoformat) | st.just("")
_rows = st.builds(
    TableRow,
    code=st.from_regex(r"[A-Za-z0-9./_-]{1,6}(\[[0-9]{1,3}\]|\?)?[A-Z0-9]{0,2}\*?", fullmatch=True),
    technique=st.sampled_from(sorted(RULES.rules.techniques)),
    site=st.sampled_from(sorted(SITES)),
    approach=st.sampled_from(sorted(APPROACHES)),
    agent=st.sampled_from(sorted(AGENTS)),
    role=st.sampled_from(sorted(ROLES)),
    indication=st.sampled_from(sorted(INDICATIONS)),
    valid_from=st.just(""),
    valid_to=_day,
    meaning=_text,
    checked=_text,
    note=_text,
)


@settings(max_examples=15)  # each makes every resource
@given(rows=st.lists(_rows, min_size=5, max_size=20))
def test_any_row_comes_back_as_it_was(rows: list[TableRow]) -> None:
    resource = export(own(*rows))["ConceptMap/keys-to-procedure-category"]
    assert back(resource) == [(URI, item) for item in rows]


def test_codes_of_the_cpt_table_that_are_hcpcs_name_their_own_system(everything: dict[str, dict[str, Any]]) -> None:
    groups = everything["ConceptMap/cpt-to-procedure-category"]["group"]
    for group in groups:
        letters = {element["code"][0].isalpha() for element in group["element"]}
        assert letters == {"HCPCS" in group["source"]}


def test_a_pattern_is_marked_and_a_list_of_codes_spells_it_out() -> None:
    table = own(row("A[12]?"), row("A1X", "radiofrequency"), row("B*", "none"))
    made = export(table)
    elements = made["ConceptMap/keys-to-procedure-category"]["group"][0]["element"]
    marked = [any(mark["url"] == CODE_PATTERN for mark in element["extension"]) for element in elements]
    assert marked == [True, False, True]
    microwave = made["ValueSet/procedures-ablation-mwa"]
    assert microwave["compose"]["include"] == [{"system": CATEGORY_CODES, "concept": [{"code": "ablation-mwa"}]}]
    assert microwave["compose"]["extension"][0]["extension"][1]["valueString"] == "A[12]?"

    made = export(own(*table.rows, codes=("A1X", "A1Y", "A2Z", "C1")))
    elements = made["ConceptMap/keys-to-procedure-category"]["group"][0]["element"]
    assert [(element["code"], element["target"][0]["code"]) for element in elements] == [
        ("A1X", "ablation-rfa"),
        ("A1Y", "ablation-mwa"),
        ("A2Z", "ablation-mwa"),
    ]
    assert "extension" not in made["ValueSet/procedures-ablation-mwa"]["compose"]
    assert made["ValueSet/procedures-ablation-mwa"]["compose"]["include"][1]["system"] == URI


def test_what_is_no_treatment_by_itself_is_said_so() -> None:
    table = own(
        row("1", approach="open"), row("2", role="revision"), row("3", "none"), row("4", "guidance", role="add-on")
    )
    elements = export(table)["ConceptMap/keys-to-procedure-category"]["group"][0]["element"]
    targets = [element["target"][0] for element in elements]
    assert [target.get("code") for target in targets] == ["none", "none", "none", None]
    assert [target["equivalence"] for target in targets] == ["wider", "wider", "wider", "unmatched"]


def test_the_category_of_a_code_is_that_of_a_decision_on_it_alone(ruleset: Ruleset) -> None:
    different = []
    for table in shipped():
        for item in table.rows:
            seen = code_row(item, table.system)
            if not seen.glob.is_literal or seen.finding.role == "revision" or item.valid_to:
                continue
            fact = ProcedureFact("s", "1", "Patient/1", "completed", "2025-06-01", codes=(Code(table.uri, item.code),))
            (decision,) = decide_patient([fact], [], [], ruleset)
            if (category_alone(seen.finding, ruleset.rules) or "none") != decision.category:
                different.append((table.system, item.code))
    assert different == []


def foreign(*targets: dict[str, Any], code: str = "X.1", target: str = CATEGORY_CODES, **more: Any) -> dict[str, Any]:
    element = {"code": code, "display": "a title of somebody's", "target": list(targets), **more}
    group = {"source": f"{URI}|2025", "target": target, "element": [element]}
    return {"resourceType": "ConceptMap", "url": "http://other.example/map", "version": "3", "group": [group]}


@pytest.mark.parametrize("category", sorted(set(RULES.categories) - {"bleeding-embolisation"}))
@pytest.mark.parametrize("relation", ["equal", "equivalent", "wider"])
def test_anothers_map_gives_rows_of_the_category_that_it_names(category: str, relation: str) -> None:
    ((uri, made),) = back(foreign({"code": category, "equivalence": relation}))
    assert (uri, made.code) == (URI, "X.1")
    assert category_alone(code_row(made, "keys").finding, RULES.rules) == category
    assert made.note == f"{relation} in http://other.example/map|3"
    assert "somebody" not in str(made)


def test_a_map_of_r5_says_the_relation_in_other_words() -> None:
    ((_, made),) = back(foreign({"code": "tace", "relationship": "source-is-narrower-than-target"}))
    assert (made.technique, made.agent) == ("embolisation", "cytostatic")


def test_characters_of_patterns_in_anothers_codes_stand_for_themselves() -> None:
    ((_, made),) = back(foreign({"code": "tace", "equivalence": "equal"}, code="A*[1]?"))
    glob = code_row(made, "keys").glob.regex()
    assert glob.match("A*[1]?")
    assert not glob.match("A2[1]?")


@pytest.mark.parametrize(
    ("resource", "reason"),
    [
        (foreign({"code": "tace", "equivalence": "narrower"}), "related as narrower"),
        (foreign({"code": "tace"}), r"related as (not said)"),
        (foreign({"code": "surgery", "equivalence": "equal"}), "'surgery' is no category"),
        (foreign({"code": "tace", "equivalence": "equal"}, target="http://other.example/cs"), "and not"),
        (foreign(), "has 0 targets"),
        (foreign({"code": "tace", "equivalence": "equal"}, {"code": "pve", "equivalence": "equal"}), "has 2 targets"),
        (foreign({"code": "bleeding-embolisation", "equivalence": "equal"}), "by itself"),
        (foreign({"code": "tace", "equivalence": "equal", "dependsOn": [{}]}), "depends on"),
        (foreign({"code": "tace", "equivalence": "equal"}, code=" "), "has no code"),
    ],
)
def test_what_cannot_be_used_is_left_out_with_its_reason(resource: dict[str, Any], reason: str) -> None:
    found = import_concept_map(resource, RULES.categories, RULES.rules.techniques, "map.json")
    assert found.rows == ()
    (text,) = found.left_out
    assert reason in text


def test_a_row_with_words_that_do_not_exist_is_left_out() -> None:
    resource = export(own(row("1"), row("2")))["ConceptMap/keys-to-procedure-category"]
    parts = resource["group"][0]["element"][0]["extension"][0]["extension"]
    next(part for part in parts if part["url"] == "technique")["valueString"] = "magic"
    found = import_concept_map(resource, RULES.categories, RULES.rules.techniques, "map.json")
    assert [item.code for _, item in found.rows] == ["2"]
    assert "'magic' is no technique" in found.left_out[0]


@pytest.mark.parametrize(
    "resource", [None, [], {"resourceType": "ValueSet"}, {"resourceType": "ConceptMap", "group": 3}]
)
def test_what_is_no_concept_map_is_refused(resource: object) -> None:
    with pytest.raises(MappingError, match=r"map\.json"):
        import_concept_map(resource, RULES.categories, RULES.rules.techniques, "map.json")


def test_a_code_that_fhir_does_not_allow_is_refused() -> None:
    with pytest.raises(MappingError, match="code"):
        export(own(row("two  blanks")))
