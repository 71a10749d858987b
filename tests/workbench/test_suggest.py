"""Displays become proposals: in three languages, with spelling mistakes, negation and planning understood."""

from __future__ import annotations

import pytest

from io_fhir_adapter.classify.globs import parse_glob
from io_fhir_adapter.classify.ruleset import Ruleset, load_ruleset
from io_fhir_adapter.classify.workbench.rows import read_rows, shipped_tables
from io_fhir_adapter.classify.workbench.suggest import LocalCode, Suggestion, load_spellings, suggest_rows
from io_fhir_adapter.shipped import shipped_path

URI = "http://hospital.example/keys"
FOLDER = shipped_path("mappings")
ROWS = [row for table in shipped_tables(FOLDER) for row in read_rows(table.path, table.label).rows]
SPELLINGS = load_spellings(FOLDER / "technique-words.csv")
RULES = load_ruleset()


def propose(display: str | None, code: str = "K1", system: str = URI) -> Suggestion | None:
    made = suggest_rows([LocalCode(system, code, display, 7)], ROWS, RULES, SPELLINGS)
    return made[0] if made else None


@pytest.mark.parametrize(
    ("display", "technique", "site", "agent", "role"),
    [
        ("CT-gesteuerte Mikrowellenablation Leber", "microwave", "liver", "none", "main"),
        ("Mikrowelenablation Leber", "microwave", "liver", "none", "main"),
        ("RFA Niere", "radiofrequency", "kidney", "none", "main"),
        ("Chemoembolisaton der Leber", "embolisation", "liver", "cytostatic", "main"),
        ("chimioembolisation hépatique", "embolisation", "liver", "cytostatic", "main"),
        ("cryoablation rénale", "cryotherapy", "kidney", "none", "main"),
        ("Pfortaderembolisation", "embolisation", "portal-vein", "none", "main"),
        ("Vertebroplastie LWK 3", "cementoplasty", "spine", "cement", "main"),
        ("SIRT Mapping", "embolisation", "", "radionuclide", "planning"),
        ("PTCD Wechsel", "biliary-drainage", "bile-duct", "none", "revision"),
    ],
)
def test_displays_that_say_something(display: str, technique: str, site: str, agent: str, role: str) -> None:
    made = propose(display)
    assert made is not None
    row = made.row
    assert (row.technique, row.site, row.agent, row.role) == (technique, site, agent, role)
    assert row.checked == ""
    assert row.note
    assert made.score >= 60


@pytest.mark.parametrize(
    "display",
    ["MRT Kopf", "Röntgen Thorax in 2 Ebenen", "keine Mikrowellenablation", "no ablation of the liver", "", None],
)
def test_displays_that_say_nothing_of_ours(display: str | None) -> None:
    assert propose(display) is None


def test_the_surer_the_higher() -> None:
    exact, misspelt = propose("Mikrowellenablation Leber"), propose("Mikrowelenablation Leber")
    without_site, doubtful = propose("Mikrowellenablation"), propose("biopsy and microwave ablation of the liver")
    assert exact is not None
    for less in (misspelt, without_site, doubtful):
        assert less is not None
        assert less.score < exact.score
    assert doubtful is not None
    assert "more than one treatment" in doubtful.row.note


def test_a_display_like_the_meaning_of_a_row_is_taken_for_it() -> None:
    made = propose("destruction of a focus of the liver by laparoscopy, energy not said", system=URI)
    assert made is None or made.score <= 100
    like = next(row for row in ROWS if row.place.startswith("codes/chop") and row.technique == "chemical")
    found = propose(like.meaning)
    assert found is not None
    assert found.row.technique == "chemical"


def test_only_codes_of_local_systems_get_rows() -> None:
    for system in ("http://snomed.info/sct", "http://fhir.de/CodeSystem/bfarm/ops", "", "(no system)"):
        assert propose("Mikrowellenablation Leber", system=system) is None


def test_a_display_alone_names_no_tumour() -> None:
    made = propose("Radiofrequenzablation Leber")
    assert made is not None
    assert made.row.indication == "expected"


def test_a_key_with_the_characters_of_patterns_matches_itself(ruleset: Ruleset) -> None:
    made = propose("Mikrowellenablation Leber", code="CT[1]*?")
    assert made is not None
    assert parse_glob(made.row.code).regex().match("CT[1]*?")


def test_proposals_come_in_a_stable_order() -> None:
    codes = [
        LocalCode(URI, "A", "TACE", 1),
        LocalCode(URI, "B", "RFA Leber", 1),
        LocalCode("http://a.example", "C", "RFA", 1),
    ]
    made = suggest_rows(codes, ROWS, RULES, SPELLINGS)
    assert made == suggest_rows(reversed(codes), ROWS, RULES, SPELLINGS)
    assert [item.row.code for item in made] == ["C", "B", "A"]
