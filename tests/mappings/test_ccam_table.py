"""The CCAM table says what a clinical coder would say of each code, and says it once."""

from __future__ import annotations

import csv
import gzip
import json
import re
from datetime import date
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
TABLE = MAPPINGS / "codes" / "ccam.csv"
PUBLISHED = PROJECT.parent / "shared" / "codes" / "raw" / "ccam" / "ccam_actes.json.gz"

WORDS = {
    "technique": """radiofrequency microwave cryotherapy electroporation laser focused-ultrasound chemical ablation
        electrochemotherapy brachytherapy embolisation arterial-infusion stent biliary-drainage urinary-drainage
        effusion-drainage gastrostomy vena-cava-filter thrombectomy cementoplasty vertebral-reduction neurolysis
        venous-access marker biopsy angiography dosimetry guidance device-count drug none""",
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
PATTERN = re.compile(r"(?:[A-Z]|\[[A-Z]+\]){3,4}(?:(?:\d|\[[0-9-]+\]){0,2}\*|(?:\d|\[[0-9-]+\]){3})")
OLDEST = "2005-03-01"

Row = dict[str, str]


@cache
def table() -> tuple[Row, ...]:
    with TABLE.open(encoding="utf-8", newline="") as handle:
        return tuple(csv.DictReader(handle))


@cache
def loaded() -> tuple[CodeRow, ...]:
    return tuple(load_code_table(TABLE, "ccam", load_techniques(MAPPINGS / "techniques.csv")))


@cache
def index() -> GlobIndex[CodeRow]:
    return GlobIndex(loaded())


@cache
def rules() -> SessionRules:
    techniques = load_techniques(MAPPINGS / "techniques.csv")
    return load_session_rules(MAPPINGS / "session-rules.yaml", techniques, load_categories(MAPPINGS / "categories.csv"))


@cache
def published() -> dict[str, Row]:
    """Codes of the published list, with their titles and dates."""
    if not PUBLISHED.is_file():
        pytest.skip("shared data absent")
    with gzip.open(PUBLISHED, "rt", encoding="utf-8") as handle:
        return {item["code"]: item for item in json.load(handle)}


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
    assert len(table()) == len(loaded()) > 300
    for row in table():
        assert set(row) == set(COLUMNS), row["code"]
        assert PATTERN.fullmatch(row["code"]), row["code"]
        assert row["meaning"], row["code"]
        assert row["checked"] == "CCAM of ATIH and CNAM, state of 2025-01-01", row["code"]
        for column in ("valid_from", "valid_to"):
            assert not row[column] or date.fromisoformat(row[column]), row["code"]


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


def test_codes_live_as_long_as_the_list_says() -> None:
    """Look-alikes stay look-alikes; all other rows begin and end with their codes."""
    wrong = []
    for code, item in published().items():
        found = index().match(code)
        if not found or found[0].finding.technique == "none":
            continue
        began = "" if item["date_debut"] == OLDEST else item["date_debut"]
        if (found[0].valid_from, found[0].valid_to) != (began, item.get("date_fin", "")):
            wrong.append((code, found[0].finding.rule))
    assert wrong == []


@pytest.mark.parametrize(
    ("words", "approaches"),
    [
        (r"par (laparotomie|thoracotomie|cervicotomie|abord direct)", {"open", "unspecified"}),
        (r"par (coelioscopie|thoracoscopie)", {"laparoscopic", "unspecified"}),
        (r"par (fibroscopie|bronchoscopie|urétéroscopie|coloscopie|urétrocystoscopie)", {"endoscopic", "unspecified"}),
        (r"par voie ([a-zé]+ )?transcutanée", {"percutaneous", "endoscopic", "unspecified"}),
    ],
)
def test_the_way_in_is_that_of_the_title(words: str, approaches: set[str]) -> None:
    wrong = [
        code
        for code, item in published().items()
        if re.search(words, item["libelle_long"]) and (found := index().match(code))
        if found[0].finding.approach not in approaches
    ]
    assert wrong == []


def test_meanings_are_our_own_words() -> None:
    official = {item["libelle_long"].strip().lower() for item in published().values()}
    assert [row["code"] for row in table() if row["meaning"].lower() in official] == []


# code: technique, site, approach, agent, role
SPOT_CHECKS = {
    # ablation
    "HLNK001": "radiofrequency liver percutaneous none main",
    "HLNM001": "radiofrequency liver percutaneous none main",
    "HLNN900": "radiofrequency liver percutaneous none main",
    "HLNA007": "radiofrequency liver open none main",
    "HLNC003": "radiofrequency liver laparoscopic none main",
    "GFNH174": "radiofrequency lung percutaneous none main",
    "GFNH214": "radiofrequency lung percutaneous none main",
    "JANH798": "radiofrequency kidney percutaneous none main",
    "PANH001": "ablation bone percutaneous none main",
    "JGNJ900": "focused-ultrasound prostate external none main",
    "JGND002": "cryotherapy prostate unspecified none main",
    "ZCNH002": "chemical other percutaneous unspecified main",
    "ZCNH005": "chemical other percutaneous unspecified main",
    "ECNH001": "chemical extremity percutaneous unspecified main",
    "JBNE004": "laser urinary-tract endoscopic none main",
    "GENE004": "laser airway endoscopic none main",
    # drugs and embolisation through an artery
    "EDLF016": "embolisation liver percutaneous cytostatic main",
    "EDLF017": "embolisation liver percutaneous cytostatic main",
    "EDLF018": "embolisation kidney percutaneous cytostatic main",
    "EDLF019": "embolisation kidney percutaneous cytostatic main",
    "EDLF014": "arterial-infusion liver percutaneous cytostatic main",
    "EDLF015": "arterial-infusion liver percutaneous cytostatic main",
    "EDLF021": "arterial-infusion kidney percutaneous cytostatic main",
    "EELF004": "arterial-infusion extremity percutaneous cytostatic main",
    "EBLF003": "arterial-infusion head-neck percutaneous cytostatic main",
    "ZZLF900": "arterial-infusion  percutaneous cytostatic main",
    "ZZLF004": "arterial-infusion  open cytostatic main",
    "EDLL001": "embolisation liver percutaneous radionuclide main",
    "EDLL002": "arterial-infusion liver percutaneous radionuclide main",
    "EDSF005": "embolisation visceral-arteries percutaneous none main",
    "EDSF015": "embolisation visceral-arteries percutaneous none main",
    "EDSF008": "embolisation renal-artery percutaneous none main",
    "EDSF016": "embolisation pelvic-arteries percutaneous none main",
    "ECSF004": "embolisation thoracic-vessels percutaneous none main",
    "EBSF004": "embolisation head-neck percutaneous none main",
    "EASF002": "embolisation brain percutaneous none main",
    "ENSF001": "embolisation spine percutaneous none main",
    "EHSF001": "embolisation portal-vein percutaneous none main",
    "EDQH007": "angiography visceral-arteries percutaneous none planning",
    "ZZQL007": "dosimetry  unspecified none planning",
    "EDLA001": "arterial-infusion visceral-arteries open none planning",
    "ZZNL018": "brachytherapy  unspecified radionuclide main",
    "ZZNL003": "brachytherapy  open radionuclide main",
    # drains, stents, filters
    "HMJH002": "biliary-drainage bile-duct percutaneous none main",
    "HMJH006": "biliary-drainage bile-duct percutaneous none main",
    "HMLH003": "biliary-drainage bile-duct percutaneous none main",
    "HMKH001": "biliary-drainage bile-duct percutaneous none revision",
    "HMGH002": "biliary-drainage bile-duct percutaneous none revision",
    "HMLE002": "biliary-drainage bile-duct endoscopic none main",
    "HMLA001": "biliary-drainage bile-duct open none main",
    "JACH001": "urinary-drainage urinary-tract percutaneous none main",
    "JCLH001": "urinary-drainage urinary-tract percutaneous none main",
    "JAKD001": "urinary-drainage urinary-tract percutaneous none revision",
    "JCKH001": "urinary-drainage urinary-tract percutaneous none revision",
    "JCLE002": "urinary-drainage urinary-tract endoscopic none main",
    "JACA002": "urinary-drainage urinary-tract open none main",
    "GGJB001": "effusion-drainage pleura percutaneous none main",
    "HPLA004": "effusion-drainage peritoneum percutaneous none main",
    "ZZJJ008": "effusion-drainage other percutaneous none main",
    "ZZKP001": "effusion-drainage other unspecified none revision",
    "DHAF001": "stent vena-cava percutaneous none main",
    "DHPF002": "stent vena-cava percutaneous none main",
    "EGPF001": "stent vessel percutaneous none main",
    "EHAF001": "stent portal-vein percutaneous none main",
    "DHSF002": "vena-cava-filter vena-cava percutaneous none main",
    "DHGF001": "vena-cava-filter vena-cava percutaneous none revision",
    "DHNF003": "thrombectomy vena-cava percutaneous none main",
    "DFNF002": "thrombectomy thoracic-vessels percutaneous none main",
    # supportive
    "LHMH001": "cementoplasty spine percutaneous cement main",
    "LHMH228": "cementoplasty spine percutaneous cement main",
    "LHMH197": "cementoplasty spine percutaneous cement main",
    "PAMH001": "cementoplasty bone percutaneous cement main",
    "AJNH008": "neurolysis nerve percutaneous unspecified main",
    "AJNJ001": "neurolysis nerve percutaneous unspecified main",
    "AJNH006": "neurolysis nerve percutaneous unspecified main",
    "AJLH017": "neurolysis nerve percutaneous unspecified main",
    "AJNC001": "neurolysis nerve laparoscopic unspecified main",
    "AJLJ002": "neurolysis nerve endoscopic unspecified main",
    "HFCH001": "gastrostomy stomach percutaneous none main",
    "HGCH001": "gastrostomy bowel percutaneous none main",
    "HFCB001": "gastrostomy stomach endoscopic none main",
    "HFKH001": "gastrostomy stomach unspecified none revision",
    "EBLA003": "venous-access vessel percutaneous none main",
    "EBGA001": "venous-access vessel unspecified none revision",
    # markers, biopsies, guidance
    "QELJ001": "marker breast percutaneous none main",
    "HLHJ006": "biopsy liver percutaneous none main",
    "ZZHH008": "biopsy other percutaneous none main",
    "ZZHJ010": "biopsy other endoscopic none main",
    "LHHH002": "biopsy spine percutaneous none main",
    "QEHJ004": "biopsy breast percutaneous none main",
    "YYYY115": "guidance  unspecified none add-on",
}


@pytest.mark.parametrize("code", sorted(SPOT_CHECKS))
def test_what_a_coder_expects(code: str) -> None:
    finding = deciding(code).finding
    said = (finding.technique, finding.site, finding.approach, finding.agent, finding.role)
    assert " ".join(said) == SPOT_CHECKS[code], finding.rule


@pytest.mark.parametrize(
    "code",
    [
        "AANB001", "AANB741", "ADNH002", "AHNH001", "AJLH007", "AJNF800", "DDSF001", "DEPF033", "DENF018", "DHPF001",
        "EASF005", "EDSF001", "EDSF011", "EDSF618", "EGSF001", "EHCF002", "EJSF418", "ELSF001", "EPLF003", "EZAF002",
        "FDHB002", "GEME121", "GGHB001", "GGJB002", "GGLB001", "HENE494", "HFLH002", "HLHB001", "HLHH001", "HMGH004",
        "HPJB001", "HPLA335", "HPLB003", "HPLB004", "JANH002", "JDLD659", "JGHJ001", "JGNE403", "JGNJ001", "JKND001",
        "LHNH001", "LHNH002", "PANL001", "QZNP022", "ZCNH001", "ZZJH001", "ZZMK018", "ZZNL016", "ZZNL049", "JKNL001",
    ],
)  # fmt: skip
def test_a_look_alike_is_none(code: str) -> None:
    assert deciding(code).finding.technique == "none"


@pytest.mark.parametrize(
    ("indication", "codes"),
    [
        ("implied", ["HLNK001", "GFNH174", "JANH798", "EDLF016", "EDLF014", "EDLL001", "ZCNH002"]),
        ("expected", ["EASF002", "ZZNL018", "JGNL001"]),
        ("required", ["PANH001", "JGNJ900", "EDSF005", "EHSF001", "LHMH002", "PAMH001", "AJNH008", "DHAF001"]),
    ],
)
def test_how_far_a_code_proves_a_tumour(indication: str, codes: list[str]) -> None:
    assert {code: deciding(code).finding.indication for code in codes} == dict.fromkeys(codes, indication)


@pytest.mark.parametrize(
    ("code", "first", "last"),
    [
        ("LHMH001", "", "2019-07-14"),
        ("LHMH801", "2014-12-29", "2019-07-14"),
        ("LHMH444", "2019-05-16", ""),
        ("LHMH705", "2021-09-28", ""),
        ("GFNH214", "2022-09-19", ""),
        ("JGNJ001", "", "2007-09-12"),
        ("HPLB003", "", "2023-04-01"),
        ("HLNK001", "", ""),
    ],
)
def test_validity(code: str, first: str, last: str) -> None:
    assert (deciding(code).valid_from, deciding(code).valid_to) == (first, last)


@pytest.mark.parametrize(
    ("codes", "categories"),
    [
        (["EDLF017"], ["tace"]),
        (["EDLF016", "EDSF006", "EDQH007"], ["tace"]),
        (["EDLF018"], ["tace"]),
        (["EDLF014"], ["ia-chemo"]),
        (["EDLL001", "EDQH007"], ["tare"]),
        (["EDLL002"], ["tare"]),
        (["EDSF003"], ["bland-embolisation"]),
        (["EHSF001"], ["pve"]),
        (["HLNK001", "YYYY115"], ["ablation-rfa"]),
        (["ZCNH005"], ["ablation-chemical"]),
        (["PANH001", "PAMH001"], ["cementoplasty", "ablation-other"]),
        (["LHMH228", "YYYY033"], ["cementoplasty"]),
        (["DHAF001", "DHNF001"], ["venous-stent", "vte"]),
        (["EDQH006", "ZZQL007"], ["planning"]),
        (["EDQH006", "ZZQL007", "EDSF005"], ["planning"]),
        (["YYYY028"], []),
    ],
)
def test_what_codes_of_one_session_mean_together(codes: list[str], categories: list[str]) -> None:
    findings = [deciding(code).finding for code in codes]
    assert [item.category for item in rules().categories(findings, SessionContext())] == categories


@pytest.mark.parametrize("written", ["HLNK001", "hlnk001", "HLNK001.01", "HLNK001-04"])
def test_any_spelling_is_understood(written: str) -> None:
    assert deciding(normalise_code("ccam", written)).finding.technique == "radiofrequency"


@pytest.mark.parametrize("code", ["HHFA001", "NEKA020", "AAFA001", "HLFA011"])
def test_unrelated_codes_have_no_row(code: str) -> None:
    assert not index().match(code)
