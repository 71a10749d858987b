"""The CHOP table says what a clinical coder would say of each code, and says it once."""

from __future__ import annotations

import csv
import re
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from io_fhir_adapter.classify.decide import decide_patient
from io_fhir_adapter.classify.rules import load_techniques
from io_fhir_adapter.classify.ruleset import Ruleset, load_ruleset
from io_fhir_adapter.classify.systems import normalise_code
from io_fhir_adapter.classify.tables import CodeRow, GlobIndex, load_code_table
from io_fhir_adapter.model import Code, Decision, ProcedureFact

PROJECT = Path(__file__).resolve().parents[2]
TABLE = PROJECT / "mappings" / "codes" / "chop.csv"
LIST_2023 = PROJECT.parent / "shared" / "codes" / "raw" / "chop" / "CHOP_2023_Systematisches_Verzeichnis_DE.csv"
URI = "urn:oid:2.16.756.5.30.1.126.3.1"
PATTERN = re.compile(r"Z[0-9A-Z\[\]?.-]+\*?")
# eye, ear, throat, genital organs, unborn, blood and surgery: the words mean something else there
ELSEWHERE = (
    "Z03.99", "Z05.1", "Z08", "Z09", "Z1", "Z20", "Z25", "Z31", "Z38.2", "Z40.2", "Z54.A", "Z56.3", "Z6", "Z70.2",
    "Z75", "Z85.K", "Z87", "Z99.04", "Z99.A",
)  # fmt: skip


@cache
def rows() -> tuple[CodeRow, ...]:
    techniques = load_techniques(PROJECT / "mappings" / "techniques.csv")
    return tuple(load_code_table(TABLE, "chop", techniques))


@cache
def index() -> GlobIndex[CodeRow]:
    return GlobIndex(rows())


@cache
def cells() -> tuple[dict[str, str], ...]:
    with TABLE.open(encoding="utf-8", newline="") as handle:
        return tuple(csv.DictReader(handle))


@cache
def titles() -> dict[str, str]:
    """Codes of the 2023 list, groups included, with their titles."""
    if not LIST_2023.is_file():
        pytest.skip("the CHOP 2023 code list is absent")
    with LIST_2023.open(encoding="utf-8-sig", newline="") as handle:
        return {
            row["zcode"]: row["text"]
            for row in csv.DictReader(handle)
            if row["item type"] == "T" and row["zcode"].startswith("Z")
        }


def said(code: str) -> str:
    """What the deciding row says of a code; empty where there is none."""
    found = index().match(code)
    if not found:
        return ""
    finding = found[0].finding
    return " ".join((finding.technique, finding.site, finding.approach, finding.agent, finding.role))


def test_every_row_is_whole() -> None:
    for row in cells():
        assert PATTERN.fullmatch(row["code"]), row["code"]
        assert row["meaning"], row["code"]
        assert row["checked"] == "CHOP 2023 (BFS)", row["code"]


def test_patterns_are_written_as_codes_are_normalised() -> None:
    literal = [row["code"] for row in cells() if not set("[?*") & set(row["code"])]
    assert [code for code in literal if normalise_code("chop", code) != code] == []


def test_patterns_are_written_once() -> None:
    patterns = [row["code"] for row in cells()]
    assert len(patterns) == len(set(patterns))


def test_look_alikes_and_add_ons_claim_nothing() -> None:
    for row in cells():
        if row["technique"] == "none":
            claims = (row["agent"], row["approach"], row["indication"])
            assert claims == ("none", "unspecified", "required"), row["code"]
        if row["technique"] in {"guidance", "device-count", "drug"}:
            assert row["role"] == "add-on", row["code"]


def test_every_row_names_and_decides_a_listed_code() -> None:
    """A row that narrower rows cover completely would only mislead its reader."""
    deciding = {found[0].glob.text for code in titles() if (found := index().match(code))}
    assert [row.glob.text for row in rows() if row.glob.text not in deciding] == []


def test_no_code_is_claimed_by_two_equally_specific_rows() -> None:
    for code in titles():
        found = index().match(code)
        if len(found) > 1:
            assert found[0].glob.specificity != found[1].glob.specificity, code


def test_meanings_are_our_own_words() -> None:
    official = {part.strip().lower() for title in titles().values() for part in title.split(", ")}
    assert [row["code"] for row in cells() if row["meaning"].lower() in official] == []


@pytest.mark.parametrize(
    "stem",
    [
        "Destruktion", "Ablation", "embolisation", "Elektroporation", "Radiofrequenz", "Chemo", "Kryo",
        "SIRT", "Brachytherapie", "biopsie", "Vertebroplastie", "Kyphoplastie",
    ],
)  # fmt: skip
def test_codes_that_name_a_technique_are_known(stem: str) -> None:
    """Nothing that names one of our techniques is left to chance, save in eye, ear, throat, unborn and blood."""
    lost = [
        code
        for code, title in titles().items()
        if stem.lower() in title.lower()
        and len(code) > 5
        and not code.startswith(ELSEWHERE)
        and not index().match(code)
    ]
    assert [code for code in lost if not code.endswith((".0", ".1", ".2", ".3"))] == []


# code: technique, site, approach, agent, role
SPOT_CHECKS = {
    # liver
    "Z50.27.31": "chemical liver percutaneous alcohol main",
    "Z50.27.32": "ablation liver percutaneous none main",
    "Z50.27.33": "cryotherapy liver percutaneous none main",
    "Z50.27.34": "laser liver percutaneous none main",
    "Z50.27.35": "electroporation liver percutaneous none main",
    "Z50.27.39": "ablation liver percutaneous none main",
    "Z50.27.11": "chemical liver open alcohol main",
    "Z50.27.12": "ablation liver open none main",
    "Z50.27.25": "electroporation liver laparoscopic none main",
    "Z50.20": "none liver unspecified none main",
    "Z50.23.11": "none liver unspecified none main",
    "Z50.2B.11": "none liver unspecified none main",
    "Z50.91": "none liver unspecified none main",
    "Z50.93": "none liver unspecified none main",
    "Z50.95": "marker liver percutaneous none main",
    "Z50.96": "effusion-drainage liver percutaneous none main",
    # codes that mix excision and destruction
    "Z55.3A.14": "ablation kidney percutaneous none main",
    "Z55.3A.11": "ablation kidney open none main",
    "Z55.3A.12": "ablation kidney laparoscopic none main",
    "Z55.3A.13": "ablation kidney endoscopic none main",
    "Z55.3Y": "ablation kidney unspecified none main",
    "Z55.31": "none kidney unspecified none main",
    "Z32.2A.14": "ablation lung percutaneous none main",
    "Z32.2A.11": "ablation lung open none main",
    "Z32.2A.12": "ablation lung laparoscopic none main",
    "Z32.2A.13": "none lung unspecified none main",
    "Z32.2A.00": "ablation lung unspecified none main",
    "Z52.22.99": "ablation pancreas unspecified none main",
    "Z52.22.11": "none pancreas unspecified none main",
    "Z77.69.12": "ablation bone unspecified none main",
    "Z7A.26": "ablation spine unspecified none main",
    "Z85.2B": "ablation breast unspecified none main",
    "Z06.32": "ablation thyroid unspecified none main",
    # energies
    "Z00.99.A2": "electroporation  unspecified none add-on",
    "Z00.99.A3": "focused-ultrasound  unspecified none add-on",
    "Z00.99.A4": "focused-ultrasound  unspecified none add-on",
    "Z00.99.A7": "cryotherapy  unspecified none add-on",
    "Z00.99.AA": "ablation  unspecified none add-on",
    "Z00.99.AB": "laser  unspecified none add-on",
    "Z00.99.AY": "ablation  unspecified none add-on",
    "Z00.99.A8": "none  unspecified none add-on",
    "Z00.99.92": "guidance  open none add-on",
    "Z88.38.60": "guidance  unspecified none add-on",
    "Z00.4A.41": "device-count  unspecified coils add-on",
    "Z00.41": "device-count  unspecified none add-on",
    # arteries
    "Z99.25.31": "embolisation  percutaneous cytostatic main",
    "Z99.25.51": "none  unspecified none main",
    "Z99.25.21": "none  unspecified none main",
    "Z99.28.07": "arterial-infusion  percutaneous cytostatic main",
    "Z99.28.05": "none  unspecified none main",
    "Z92.28.24": "embolisation liver percutaneous radionuclide main",
    "Z92.28.25": "embolisation liver percutaneous radionuclide main",
    "Z92.28.26": "embolisation liver percutaneous radionuclide main",
    "Z92.05.21": "dosimetry liver unspecified radionuclide planning",
    "Z92.05.22": "dosimetry liver unspecified radionuclide planning",
    "Z92.05.29": "none  unspecified none main",
    "Z92.28.65": "none  unspecified none main",
    "Z92.28.43": "none  unspecified none main",
    "Z39.97.11": "arterial-infusion extremity open cytostatic main",
    "Z39.79.25": "embolisation visceral-arteries percutaneous coils main",
    "Z39.79.65": "embolisation visceral-arteries percutaneous particles main",
    "Z39.79.66": "embolisation pelvic-arteries percutaneous particles main",
    "Z39.79.B5": "embolisation visceral-arteries percutaneous liquid main",
    "Z39.79.A4": "embolisation thoracic-vessels percutaneous plug main",
    "Z39.79.67": "embolisation extremity percutaneous particles main",
    "Z39.79.68": "embolisation spine percutaneous particles main",
    "Z39.79.47": "embolisation spine percutaneous plug main",
    "Z39.79.48": "embolisation extremity percutaneous plug main",
    "Z39.79.62": "none vessel unspecified none main",
    "Z39.79.60": "embolisation  percutaneous particles main",
    "Z39.79.9A": "embolisation  percutaneous unspecified main",
    "Z39.79.86": "none vessel unspecified none main",
    "Z39.79.09": "none vessel unspecified none main",
    "Z39.72.17": "embolisation brain percutaneous particles main",
    "Z39.72.28": "embolisation head-neck percutaneous liquid main",
    "Z44.44": "none vessel unspecified none main",
    "Z00.66.41": "none heart unspecified none main",
    "Z88.47": "angiography visceral-arteries percutaneous none planning",
    # drains, stents, filters
    "Z51.98.12": "biliary-drainage bile-duct percutaneous none main",
    "Z51.9A.21": "biliary-drainage bile-duct percutaneous none main",
    "Z51.9A.51": "biliary-drainage bile-duct laparoscopic none main",
    "Z51.9A.A1": "biliary-drainage bile-duct open none main",
    "Z51.87.23": "biliary-drainage bile-duct endoscopic none main",
    "Z51.95.11": "biliary-drainage bile-duct percutaneous none revision",
    "Z51.88": "none bile-duct unspecified none main",
    "Z55.02.10": "urinary-drainage urinary-tract percutaneous none main",
    "Z55.02.11": "urinary-drainage urinary-tract open none main",
    "Z55.93": "urinary-drainage urinary-tract percutaneous none revision",
    "Z55.04.10": "none kidney unspecified none main",
    "Z59.8X.12": "urinary-drainage urinary-tract percutaneous none main",
    "Z59.8X.10": "urinary-drainage urinary-tract endoscopic none main",
    "Z57.17": "none bladder unspecified none main",
    "Z34.04": "effusion-drainage pleura percutaneous none main",
    "Z34.91": "none pleura unspecified none main",
    "Z54.91": "effusion-drainage peritoneum percutaneous none main",
    "Z39.B1.J7": "stent vena-cava percutaneous none main",
    "Z39.B7.81": "stent thoracic-vessels percutaneous none main",
    "Z39.B1.JI": "stent portal-vein percutaneous none main",
    "Z39.BH.J7": "none vessel unspecified none main",
    "Z39.B1.C3": "none vessel unspecified none main",
    "Z38.7X.21": "vena-cava-filter vena-cava percutaneous none main",
    "Z38.7X.22": "vena-cava-filter vena-cava percutaneous none revision",
    "Z38.7X.11": "vena-cava-filter vena-cava open none main",
    # supportive
    "Z7A.43.11": "cementoplasty spine percutaneous cement main",
    "Z7A.44.24": "cementoplasty spine percutaneous cement main",
    "Z7A.44.91": "cementoplasty spine percutaneous cement main",
    "Z7A.52.11": "none spine unspecified none main",
    "Z84.55.46": "none bone unspecified none main",
    "Z05.32": "neurolysis nerve percutaneous unspecified main",
    "Z05.31.18": "neurolysis nerve percutaneous unspecified main",
    "Z05.31.17": "none nerve unspecified none main",
    "Z03.96.11": "none nerve unspecified none main",
    "Z04.05.20": "none nerve unspecified none main",
    "Z43.11": "gastrostomy stomach unspecified none main",
    "Z97.02": "gastrostomy stomach unspecified none revision",
    "Z39.9A.11": "venous-access vessel unspecified none main",
    "Z39.9A.13": "venous-access vessel unspecified none revision",
    "Z38.93.11": "venous-access vessel unspecified none main",
    "Z38.95": "none vessel unspecified none main",
    "Z92.29.13": "brachytherapy  unspecified radionuclide main",
    "Z92.29.24": "brachytherapy  open radionuclide main",
    "Z92.29.83": "none  unspecified none main",
    "Z33.94.11": "marker lung percutaneous none main",
    "Z60.99.52": "marker prostate unspecified none main",
    "Z50.11.11": "biopsy liver percutaneous none main",
    "Z50.11.12": "biopsy liver endoscopic none main",
    "Z50.13.10": "none liver unspecified none main",
    "Z33.26.12": "biopsy lung percutaneous none main",
    "Z77.45.10": "biopsy bone percutaneous none main",
    "Z77.45.20": "none bone unspecified none main",
    "Z60.11": "none prostate unspecified none main",
    # the words elsewhere
    "Z37.34.11": "none heart unspecified none main",
    "Z37.34.1C": "none heart unspecified none main",
    "Z39.75.20": "none renal-artery unspecified none main",
    "Z38.59.52": "none extremity unspecified none main",
    "Z32.01.13": "none airway unspecified none main",
    "Z68.23": "none uterus unspecified none main",
    "Z68.29.4B": "none uterus unspecified none main",
    "Z60.96": "none prostate unspecified none main",
    "Z99.85": "none  unspecified none main",
    "Z86.2C.31": "none skin unspecified none main",
    "Z42.33.23": "radiofrequency oesophagus endoscopic none main",
    "Z92.32.01": "none  unspecified none main",
}


@pytest.mark.parametrize("code", sorted(SPOT_CHECKS))
def test_what_a_coder_expects(code: str) -> None:
    assert said(code) == SPOT_CHECKS[code]


def test_spot_checks_are_listed_codes() -> None:
    assert [code for code in SPOT_CHECKS if code not in titles() and code != "Z86.2C.31"] == []


@pytest.mark.parametrize("code", ["Z47.09", "Z81.51.11", "Z99.04.31", "Z93.38.10"])
def test_unrelated_codes_have_no_row(code: str) -> None:
    assert said(code) == ""


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("Z99.25.31", "Z99.25.31"),
        ("99.25.31", "Z99.25.31"),
        ("992531", "Z99.25.31"),
        ("Z992531", "Z99.25.31"),
        (" z55.3a.14 ", "Z55.3A.14"),
        ("55.3A.14:L", "Z55.3A.14"),
        ("553A14:L:20230301", "Z55.3A.14"),
        ("55.3A.14 R", "Z55.3A.14"),
        ("7A4311", "Z7A.43.11"),
        ("Z7A.43.11", "Z7A.43.11"),
        ("05.32", "Z05.32"),
        ("39.79.6-", "Z39.79.6"),
        ("37.0", "Z37.0"),
        ("50", "Z50"),
        ("", ""),
    ],
)
def test_codes_with_and_without_the_letter(written: str, normal: str) -> None:
    assert normalise_code("chop", written) == normal


@given(st.text(max_size=14))
def test_a_normal_code_stays_as_it_is(code: str) -> None:
    once = normalise_code("chop", code)
    assert normalise_code("chop", once) == once


def test_every_listed_code_is_normal() -> None:
    assert [code for code in titles() if normalise_code("chop", code) != code] == []


@cache
def ruleset() -> Ruleset:
    return load_ruleset()


def decide(codes: str, stated: str) -> Decision:
    facts = [
        ProcedureFact(
            "his", f"p{number}", "Patient/synthetic", "completed", "2023-03-14", encounter="Encounter/e",
            codes=(Code(URI, code),), reasons=(Code("http://hl7.org/fhir/sid/icd-10", stated),) if stated else (),
        )
        for number, code in enumerate(codes.split())
    ]  # fmt: skip
    (decision,) = decide_patient(facts, (), (), ruleset())
    return decision


@pytest.mark.parametrize(
    ("codes", "stated", "expected"),
    [
        ("99.25.31", "", "tace / counted"),
        ("Z99.25.31 Z39.79.65 Z39.79.B5", "C22.0", "tace / counted"),
        ("39.79.65 99.28.07", "C22.0", "tace / counted"),
        ("92.28.25 39.79.65", "C22.0", "tare / counted"),
        ("92.28.26", "C78.7", "tare / counted"),
        ("92.05.21 39.79.25", "C22.0", "planning / planning-only"),
        ("92.05.22 88.47 39.79.25", "C22.0", "planning / planning-only"),
        ("50.27.32", "C22.0", "ablation-other / counted"),
        ("50.27.35", "C78.7", "ablation-ire / counted"),
        ("50.27.12", "C22.0", "none / not-percutaneous"),
        ("32.2A.14", "C34.1", "ablation-other / counted"),
        ("55.3A.14", "C64", "ablation-other / counted"),
        ("55.3A.14", "", "ablation-other / indication-not-found"),
        ("55.3A.12", "C64", "none / not-percutaneous"),
        ("52.22.99", "C25.0", "ablation-other / route-not-coded"),
        ("00.99.A7", "C64", "none / add-on-only"),
        ("39.79.65", "C22.0", "bland-embolisation / counted"),
        ("39.79.66", "D25.9", "bland-embolisation / other-disease"),
        ("7A.43.11", "C79.5", "cementoplasty / counted"),
        ("7A.43.11", "M80.0", "cementoplasty / other-disease"),
        ("51.98.12", "C25.0", "biliary / category-for-review"),
        ("55.93", "C61", "urinary / revision-only"),
        ("37.34.11", "C34.1", "none / look-alike"),
        ("39.75.20", "C64", "none / look-alike"),
        ("50.11.11", "C22.0", "biopsy / category-not-counted"),
        ("39.9A.11", "C18.7", "venous-access / category-not-counted"),
    ],
)
def test_what_a_session_becomes(codes: str, stated: str, expected: str) -> None:
    decision = decide(codes, stated)
    assert f"{decision.category} / {decision.reason}" == expected
