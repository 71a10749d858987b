"""The OPCS-4 table says what a clinical coder would say of each code, and says it once."""

from __future__ import annotations

import csv
import re
from functools import cache
from pathlib import Path

import pytest

from io_fhir_adapter.classify.rules import (
    SessionContext,
    SessionRules,
    load_categories,
    load_session_rules,
    load_techniques,
)
from io_fhir_adapter.classify.systems import normalise_code
from io_fhir_adapter.classify.tables import COLUMNS, CodeRow, GlobIndex, load_code_table

PROJECT = Path(__file__).resolve().parents[2]
MAPPINGS = PROJECT / "mappings"
TABLE = MAPPINGS / "codes" / "opcs4.csv"
PUBLISHED = PROJECT.parent / "shared" / "codes" / "raw" / "opcs4" / "OPCS4.coding240.tsv"

WORDS = {
    "technique": """radiofrequency microwave cryotherapy electroporation laser focused-ultrasound chemical ablation
        electrochemotherapy brachytherapy embolisation arterial-infusion stent biliary-drainage urinary-drainage
        effusion-drainage gastrostomy vena-cava-filter thrombectomy cementoplasty vertebral-reduction neurolysis
        venous-access marker biopsy angiography dosimetry guidance device-count drug needle-treatment none""",
    "site": """liver lung kidney adrenal pancreas spleen bone spine prostate breast thyroid parathyroid uterus ovary
        testis brain nerve skin soft-tissue lymph-node pleura peritoneum bile-duct urinary-tract stomach bowel
        oesophagus bladder head-neck heart airway vessel vena-cava portal-vein hepatic-artery visceral-arteries
        renal-artery pelvic-arteries thoracic-vessels extremity other""",
    "approach": "percutaneous external open laparoscopic endoscopic unspecified",
    "agent": """none cytostatic drug-loaded-particles radionuclide alcohol oily-contrast particles coils liquid plug
        cement unspecified""",
    "role": "main add-on planning revision",
    "indication": "implied expected required",
}
PATTERN = re.compile(r"[A-Z](?:\*|(?:\d|\[[0-9-]+\]){1,2}(?:\*|\.(?:\d|\[[0-9-]+\])))")

Row = dict[str, str]


@cache
def table() -> tuple[Row, ...]:
    with TABLE.open(encoding="utf-8", newline="") as handle:
        return tuple(csv.DictReader(handle))


@cache
def loaded() -> tuple[CodeRow, ...]:
    return tuple(load_code_table(TABLE, "opcs4", load_techniques(MAPPINGS / "techniques.csv")))


@cache
def index() -> GlobIndex[CodeRow]:
    return GlobIndex(loaded())


@cache
def rules() -> SessionRules:
    techniques = load_techniques(MAPPINGS / "techniques.csv")
    return load_session_rules(MAPPINGS / "session-rules.yaml", techniques, load_categories(MAPPINGS / "categories.csv"))


@cache
def published() -> dict[str, str]:
    """Codes of the published list, normalised, with their titles."""
    if not PUBLISHED.is_file():
        pytest.skip("shared data absent")
    with PUBLISHED.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    return {
        normalise_code("opcs4", row["coding"]): row["meaning"].partition(" ")[2]
        for row in rows
        if re.fullmatch(r"[A-Z]\d{3}", row["coding"])
    }


def deciding(code: str) -> CodeRow:
    found = index().match(code)
    assert found, code
    return found[0]


def test_header_is_the_contract() -> None:
    assert TABLE.read_text(encoding="utf-8").splitlines()[0] == ",".join(COLUMNS)


@pytest.mark.parametrize("column", sorted(WORDS))
def test_only_known_words(column: str) -> None:
    allowed = set(WORDS[column].split()) | ({""} if column == "site" else set())
    assert {row[column] for row in table()} <= allowed


def test_every_row_is_whole() -> None:
    assert len(table()) == len(loaded()) > 350
    for row in table():
        assert set(row) == set(COLUMNS), row["code"]
        assert PATTERN.fullmatch(row["code"]), row["code"]
        assert row["meaning"], row["code"]
        assert row["checked"] == "OPCS-4 (UK Biobank coding 240)", row["code"]
        assert (row["valid_from"], row["valid_to"]) == ("", ""), row["code"]


def test_patterns_are_written_once() -> None:
    patterns = [row["code"] for row in table()]
    assert len(patterns) == len(set(patterns))


def test_look_alikes_and_add_ons_claim_nothing() -> None:
    for row in table():
        if row["technique"] == "none":
            assert (row["agent"], row["approach"], row["indication"]) == ("none", "unspecified", "required"), row[
                "code"
            ]
        if row["technique"] in {"guidance", "device-count", "drug"}:
            assert row["role"] == "add-on", row["code"]


def test_chapters_of_method_and_site_only_refine() -> None:
    assert {row["role"] for row in table() if row["code"][0] in "YZ"} == {"add-on"}
    assert {row["technique"] for row in table() if row["code"][0] == "Z"} == {"device-count"}


def test_every_pattern_names_a_published_code() -> None:
    named = {row.glob.text for code in published() for row in index().match(code)}
    assert [row["code"] for row in table() if row["code"] not in named] == []


def test_every_row_decides_some_code() -> None:
    """A row that narrower rows cover completely would only mislead its reader."""
    used = {found[0].glob.text for code in published() if (found := index().match(code))}
    assert [row["code"] for row in table() if row["code"] not in used] == []


def test_no_code_is_claimed_by_two_equally_specific_rows() -> None:
    for code in published():
        found = index().match(code)
        if len(found) > 1:
            assert found[0].glob.specificity != found[1].glob.specificity, (code, found[0], found[1])


def test_what_is_titled_percutaneous_is_not_taken_for_surgery() -> None:
    surgical = [
        code
        for code, title in published().items()
        if title.startswith("Percutaneous") and (found := index().match(code))
        if found[0].finding.approach in {"open", "laparoscopic", "endoscopic"}
    ]
    assert surgical == []


def test_what_is_titled_open_or_endoscopic_is_never_percutaneous() -> None:
    wrong = [
        code
        for code, title in published().items()
        if re.match(r"(Open|Endoscopic|Fibreoptic|Diagnostic endoscopic|Laparoscopic) ", title)
        and (found := index().match(code))
        and found[0].finding.approach in {"percutaneous", "external"}
    ]
    assert wrong == []


def test_meanings_are_our_own_words() -> None:
    official = {title.strip().lower() for title in published().values()}
    assert [row["code"] for row in table() if row["meaning"].lower() in official] == []


# code: technique, site, approach, agent, role
SPOT_CHECKS = {
    # ablation
    "J12.4": "radiofrequency liver percutaneous none main",
    "J12.7": "microwave liver percutaneous none main",
    "J12.5": "ablation liver percutaneous none main",
    "J12.6": "chemical liver percutaneous unspecified main",
    "J03.3": "ablation liver open none main",
    "J03.4": "ablation liver open none main",
    "J08.3": "microwave liver laparoscopic none main",
    "E59.5": "radiofrequency lung percutaneous none main",
    "E55.4": "ablation lung open none main",
    "M13.7": "radiofrequency kidney percutaneous none main",
    "M10.4": "cryotherapy kidney endoscopic none main",
    "M04.3": "ablation kidney open none main",
    "J66.5": "chemical pancreas percutaneous unspecified main",
    "W35.6": "radiofrequency bone percutaneous none main",
    "M71.1": "focused-ultrasound prostate external none main",
    "M49.7": "focused-ultrasound bladder external none main",
    "M67.1": "cryotherapy prostate endoscopic none main",
    "B40.1": "laser breast percutaneous none main",
    # embolisation and drugs through an artery
    "J12.3": "embolisation liver percutaneous radionuclide main",
    "J10.1": "embolisation hepatic-artery percutaneous none main",
    "J10.2": "embolisation portal-vein percutaneous none main",
    "J10.3": "arterial-infusion hepatic-artery percutaneous cytostatic main",
    "J07.2": "arterial-infusion liver open none planning",
    "L43.3": "embolisation renal-artery percutaneous none main",
    "L47.2": "embolisation visceral-arteries percutaneous none main",
    "L71.3": "embolisation  percutaneous none main",
    "L13.2": "embolisation thoracic-vessels percutaneous none main",
    "L35.1": "embolisation brain percutaneous none main",
    "B25.3": "embolisation adrenal percutaneous none main",
    "J72.2": "embolisation spleen percutaneous none main",
    "L42.2": "embolisation renal-artery open none main",
    "L46.2": "embolisation visceral-arteries open none main",
    "J10.7": "angiography hepatic-artery percutaneous none planning",
    "U36.3": "dosimetry  unspecified none planning",
    "X65.3": "brachytherapy  unspecified radionuclide main",
    "X65.7": "drug  unspecified radionuclide add-on",
    # drains, stents, filters
    "J47.1": "biliary-drainage bile-duct percutaneous none main",
    "J48.6": "biliary-drainage bile-duct percutaneous none main",
    "J48.1": "biliary-drainage bile-duct percutaneous none revision",
    "J48.2": "biliary-drainage bile-duct percutaneous none revision",
    "J40.6": "biliary-drainage bile-duct endoscopic none main",
    "J40.4": "biliary-drainage bile-duct endoscopic none revision",
    "J24.1": "biliary-drainage bile-duct percutaneous none main",
    "M13.6": "urinary-drainage urinary-tract percutaneous none main",
    "M33.2": "urinary-drainage urinary-tract percutaneous none main",
    "M33.4": "urinary-drainage urinary-tract percutaneous none revision",
    "M33.6": "urinary-drainage urinary-tract percutaneous none revision",
    "M06.4": "urinary-drainage urinary-tract percutaneous none revision",
    "M27.4": "urinary-drainage urinary-tract endoscopic none main",
    "T12.6": "effusion-drainage pleura percutaneous none main",
    "T12.7": "effusion-drainage pleura percutaneous none revision",
    "T46.2": "effusion-drainage peritoneum unspecified none main",
    "T34.3": "effusion-drainage peritoneum open none main",
    "L79.3": "stent vena-cava unspecified none main",
    "L94.5": "stent vessel percutaneous none main",
    "L79.1": "vena-cava-filter vena-cava unspecified none main",
    "L79.5": "vena-cava-filter vena-cava unspecified none revision",
    "L96.2": "thrombectomy vessel percutaneous none main",
    "L90.2": "thrombectomy vessel open none main",
    # supportive
    "V44.4": "cementoplasty spine percutaneous cement main",
    "V44.5": "cementoplasty spine percutaneous cement main",
    "A76.5": "neurolysis nerve unspecified unspecified main",
    "A78.5": "neurolysis nerve unspecified none main",
    "A47.3": "neurolysis nerve percutaneous none main",
    "G34.1": "gastrostomy stomach unspecified none main",
    "G44.5": "gastrostomy stomach endoscopic none main",
    "G34.5": "gastrostomy stomach unspecified none revision",
    "L94.3": "venous-access vessel percutaneous none main",
    "L94.4": "venous-access vessel percutaneous none revision",
    "L91.4": "venous-access vessel unspecified none revision",
    # biopsies
    "J13.2": "biopsy liver percutaneous none main",
    "J09.1": "biopsy liver laparoscopic none main",
    "J74.1": "biopsy pancreas endoscopic none main",
    "M08.1": "biopsy kidney open none main",
    "W36.1": "biopsy bone percutaneous none main",
    # method and site
    "Y13.2": "cryotherapy  unspecified none add-on",
    "Y13.4": "radiofrequency  unspecified none add-on",
    "Y13.7": "microwave  unspecified none add-on",
    "Y12.3": "electrochemotherapy  unspecified cytostatic add-on",
    "Y37.4": "marker  unspecified none add-on",
    "Y53.3": "guidance  unspecified none add-on",
    "Y68.1": "guidance  unspecified none add-on",
    "Y53.6": "device-count  unspecified none add-on",
    "Y75.2": "guidance  laparoscopic none add-on",
    "Y50.2": "guidance  open none add-on",
    "Y80.1": "device-count  unspecified none add-on",
    "Z30.1": "device-count liver unspecified none add-on",
    "Z94.2": "device-count  unspecified none add-on",
}


@pytest.mark.parametrize("code", sorted(SPOT_CHECKS))
def test_what_a_coder_expects(code: str) -> None:
    finding = deciding(code).finding
    said = (finding.technique, finding.site, finding.approach, finding.agent, finding.role)
    assert " ".join(said) == SPOT_CHECKS[code], finding.rule


@pytest.mark.parametrize(
    "code",
    [
        "A26.3", "A31.3", "A61.2", "A68.4", "E05.3", "H52.1", "J06.1", "J11.4", "J13.1", "J41.1", "K16.6", "K57.1",
        "K62.1", "L43.6", "L75.4", "L86.2", "L88.1", "L88.2", "L94.1", "L97.3", "M13.2", "M14.1", "M65.6", "M67.5",
        "M67.6", "M70.3", "M70.7", "N19.2", "O01.1", "O05.1", "Q16.5", "Q16.7", "Q17.6", "Q20.6", "S09.1", "S11.2",
        "T12.3", "T13.3", "T46.1", "T48.2", "V48.5", "V62.3", "W36.5", "X35.2", "X65.4", "X65.5", "X68.3", "X72.1",
    ],
)  # fmt: skip
def test_a_look_alike_is_none(code: str) -> None:
    assert deciding(code).finding.technique == "none"


@pytest.mark.parametrize(
    ("indication", "codes"),
    [
        ("implied", ["J12.3"]),
        ("expected", ["J12.4", "J12.5", "E59.5", "M13.7", "J66.5", "J10.3"]),
        ("required", ["J10.1", "J10.2", "L71.3", "W35.6", "M71.1", "V44.4", "A76.5", "M13.6", "J47.1", "L79.3"]),
    ],
)
def test_how_far_a_code_proves_a_tumour(indication: str, codes: list[str]) -> None:
    assert {code: deciding(code).finding.indication for code in codes} == dict.fromkeys(codes, indication)


@pytest.mark.parametrize(
    ("codes", "categories"),
    [
        (["J10.1", "J10.3", "Y53.4", "Z94.2"], ["tace"]),
        (["J10.1", "J10.3", "J10.7"], ["tace"]),
        (["J10.3"], ["ia-chemo"]),
        (["J10.1", "Y53.4"], ["bland-embolisation"]),
        (["J12.3", "Y53.4"], ["tare"]),
        (["J10.1", "X65.7"], ["tare"]),
        (["J10.2", "Z39.3"], ["pve"]),
        (["J12.4", "Y53.3", "Z30.1"], ["ablation-rfa"]),
        (["J12.7"], ["ablation-mwa"]),
        (["J12.6"], ["ablation-chemical"]),
        (["M71.1"], ["ablation-hifu"]),
        (["V44.5", "Y53.5", "Z66.4"], ["cementoplasty"]),
        (["A76.5", "Y53.3"], ["neurolysis"]),
        (["L79.3", "L76.1"], ["venous-stent"]),
        (["J10.7", "U36.3"], ["planning"]),
        (["Y13.4", "Y53.3", "Z30.1"], []),
        (["Y12.3", "Z94.2"], []),
    ],
)
def test_what_codes_of_one_session_mean_together(codes: list[str], categories: list[str]) -> None:
    findings = [deciding(code).finding for code in codes]
    assert [item.category for item in rules().categories(findings, SessionContext())] == categories


@pytest.mark.parametrize("written", ["J124", "j12.4", "J12.4 "])
def test_any_spelling_is_understood(written: str) -> None:
    assert deciding(normalise_code("opcs4", written)).finding.technique == "radiofrequency"


@pytest.mark.parametrize("code", ["F09.1", "R17.2", "H01.1", "F34.1"])
def test_unrelated_codes_have_no_row(code: str) -> None:
    assert not index().match(code)
