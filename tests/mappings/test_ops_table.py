"""The OPS table says what a clinical coder would say of each code, and says it once."""

from __future__ import annotations

import csv
import re
from datetime import date
from fnmatch import translate
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
TABLE = PROJECT / "mappings" / "codes" / "ops.csv"
LIST_2023 = PROJECT.parent / "shared" / "codes" / "raw" / "ops" / "ops2023_parsed_from_claml.csv"

COLUMNS = (
    "code", "technique", "site", "approach", "agent", "role", "indication",
    "valid_from", "valid_to", "meaning", "checked", "note",
)  # fmt: skip
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
CHARACTERS = "0123456789abcdefghjkmnpqrstuvwxyz"
PATTERN = re.compile(r"\d-\d[0-9a-z\[\]?*.-]*")

Row = dict[str, str]


@cache
def table() -> tuple[Row, ...]:
    with TABLE.open(encoding="utf-8", newline="") as handle:
        return tuple(csv.DictReader(handle))


def specificity(pattern: str) -> tuple[int, int, bool]:
    literal = re.sub(r"\[[^\]]*\]|[?*]", "", pattern)
    return len(literal), pattern.count("["), not pattern.endswith("*")


@cache
def rows_by_start() -> dict[str, tuple[tuple[re.Pattern[str], Row], ...]]:
    """The rows, compiled, under each way a code may start; all patterns begin with literal characters."""
    starts: dict[str, list[tuple[re.Pattern[str], Row]]] = {}
    for row in sorted(table(), key=lambda row: specificity(row["code"]), reverse=True):
        compiled = re.compile(translate(row["code"]))
        starts.setdefault(row["code"][:3], []).append((compiled, row))
    return {start: tuple(rows) for start, rows in starts.items()}


@cache
def matches(code: str) -> tuple[Row, ...]:
    """The rows that match a code, most specific first."""
    return tuple(row for pattern, row in rows_by_start().get(code[:3], ()) if pattern.match(code))


@cache
def titles() -> dict[str, str]:
    """Codes of the 2023 list with their titles."""
    if not LIST_2023.is_file():
        pytest.skip("the OPS 2023 code list is absent")
    with LIST_2023.open(encoding="utf-8-sig", newline="") as handle:
        return {code: title for code, title in list(csv.reader(handle))[1:] if "..." not in code}


@cache
def known_codes() -> frozenset[str]:
    """The list's codes, and the six-character ones it leaves unexpanded under a five-character class."""
    listed = set(titles())
    parents = {code[:-1] for code in listed if re.fullmatch(r"\d-\d\w\w\.\w\w", code)}
    unexpanded = [code for code in listed if re.fullmatch(r"\d-\d\w\w\.\w", code) and code not in parents]
    return frozenset(listed.union(code + last for code in unexpanded for last in CHARACTERS))


def newer_than_the_list(row: Row) -> bool:
    return row["checked"] == "OPS 2026 alphabet notes"


def test_header_is_the_contract() -> None:
    assert TABLE.read_text(encoding="utf-8").splitlines()[0] == ",".join(COLUMNS)


@pytest.mark.parametrize("column", sorted(WORDS))
def test_only_known_words(column: str) -> None:
    allowed = set(WORDS[column].split()) | ({""} if column == "site" else set())
    assert {row[column] for row in table()} <= allowed


def test_every_row_is_whole() -> None:
    for row in table():
        assert set(row) == set(COLUMNS), row["code"]
        assert PATTERN.fullmatch(row["code"]), row["code"]
        assert not set("[?*") & set(row["code"][:3]), row["code"]
        assert "*" not in row["code"][:-1], row["code"]
        assert row["meaning"], row["code"]
        assert row["checked"], row["code"]
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


def test_every_pattern_names_a_listed_code() -> None:
    named = {row["code"] for code in known_codes() for row in matches(code)}
    lost = [row["code"] for row in table() if row["code"] not in named and not newer_than_the_list(row)]
    assert lost == []


def test_every_row_decides_some_code() -> None:
    """A row that narrower rows cover completely would only mislead its reader."""
    deciding = {found[0]["code"] for code in known_codes() if (found := matches(code))}
    assert [row["code"] for row in table() if row["code"] not in deciding and not newer_than_the_list(row)] == []


def test_no_code_is_claimed_by_two_equally_specific_rows() -> None:
    newer = {"5-06a.0", "5-04c.5", "5-431.22", "5-431.40", "5-501.c0"}
    for code in sorted(known_codes() | newer):
        found = matches(code)
        if len(found) > 1:
            assert specificity(found[0]["code"]) != specificity(found[1]["code"]), (code, found[0], found[1])


def test_meanings_are_our_own_words() -> None:
    official = {part.strip().lower() for title in titles().values() for part in title.split(": ")}
    assert [row["code"] for row in table() if row["meaning"].lower() in official] == []


# code: technique, site, approach, agent, role
SPOT_CHECKS = {
    # liver
    "5-501.93": "radiofrequency liver percutaneous none main",
    "5-501.90": "radiofrequency liver open none main",
    "5-501.91": "radiofrequency liver laparoscopic none main",
    "5-501.92": "radiofrequency liver open none main",
    "5-501.9": "radiofrequency liver unspecified none main",
    "5-501.a3": "microwave liver percutaneous none main",
    "5-501.b3": "cryotherapy liver percutaneous none main",
    "5-501.73": "electroporation liver percutaneous none main",
    "5-501.63": "laser liver percutaneous none main",
    "5-501.43": "chemical liver percutaneous alcohol main",
    "5-501.83": "electrochemotherapy liver percutaneous cytostatic main",
    "5-501.00": "none liver unspecified none main",
    "5-501.c0": "none liver unspecified none main",
    # lung, kidney, bladder
    "5-339.25": "radiofrequency lung percutaneous none main",
    "5-339.26": "microwave lung percutaneous none main",
    "5-339.23": "cryotherapy lung percutaneous none main",
    "5-339.22": "electroporation lung percutaneous none main",
    "5-339.20": "ablation lung percutaneous none main",
    "5-339.24": "electrochemotherapy lung unspecified cytostatic main",
    "5-339.21": "none lung unspecified none main",
    "5-339.05": "none lung unspecified none main",
    "5-552.54": "radiofrequency kidney percutaneous none main",
    "5-552.55": "microwave kidney percutaneous none main",
    "5-552.52": "cryotherapy kidney percutaneous none main",
    "5-552.42": "radiofrequency kidney open none main",
    "5-552.70": "cryotherapy kidney laparoscopic none main",
    "5-552.6": "ablation kidney endoscopic none main",
    "5-552.3": "none kidney unspecified none main",
    "5-57a.1": "microwave bladder percutaneous none main",
    # other organs
    "5-073.41": "microwave adrenal unspecified none main",
    "5-06a.0": "radiofrequency thyroid unspecified none main",
    "5-521.3": "electroporation pancreas unspecified none main",
    "5-521.41": "radiofrequency pancreas endoscopic none main",
    "5-521.40": "radiofrequency pancreas open none main",
    "5-419.3": "none spleen unspecified none main",
    "5-602.1": "focused-ultrasound prostate external none main",
    "5-602.3": "cryotherapy prostate unspecified none main",
    "5-601.32": "none prostate unspecified none main",
    "5-789.6f": "radiofrequency bone percutaneous none main",
    "5-789.a": "cryotherapy bone percutaneous none main",
    "5-789.7": "focused-ultrasound bone external none main",
    "5-839.h1": "radiofrequency spine percutaneous none main",
    "5-859.3": "ablation soft-tissue percutaneous none main",
    "5-408.5": "ablation lymph-node percutaneous none main",
    "5-870.6": "ablation breast unspecified none main",
    "5-915.8": "electrochemotherapy skin unspecified cytostatic main",
    "5-250.35": "electrochemotherapy head-neck unspecified cytostatic main",
    "5-433.55": "radiofrequency stomach endoscopic none main",
    # embolisation, arterial chemotherapy, radioembolisation
    "8-836.ka": "embolisation visceral-arteries percutaneous particles main",
    "8-836.9a": "embolisation visceral-arteries percutaneous liquid main",
    "8-836.ma": "embolisation visceral-arteries percutaneous coils main",
    "8-836.ca": "embolisation visceral-arteries percutaneous plug main",
    "8-836.kg": "embolisation portal-vein percutaneous particles main",
    "8-836.kh": "embolisation pelvic-arteries percutaneous particles main",
    "8-836.k8": "embolisation thoracic-vessels percutaneous particles main",
    "8-836.k1": "embolisation head-neck percutaneous particles main",
    "8-836.kf": "embolisation spine percutaneous particles main",
    "8-836.kk": "embolisation extremity percutaneous particles main",
    "8-836.k": "embolisation  percutaneous particles main",
    "8-836.m0": "embolisation brain percutaneous coils main",
    "8-836.mj": "none vessel unspecified none main",
    "8-836.md": "none vessel unspecified none main",
    "8-836.0a": "none vessel unspecified none main",
    "8-836.n4": "device-count  unspecified coils add-on",
    "8-838.90": "embolisation thoracic-vessels percutaneous particles main",
    "8-83b.10": "drug  unspecified drug-loaded-particles add-on",
    "8-83b.14": "drug  unspecified drug-loaded-particles add-on",
    "8-83b.15": "drug  unspecified drug-loaded-particles add-on",
    "8-83b.11": "drug  unspecified radionuclide add-on",
    "8-83b.25": "drug  unspecified oily-contrast add-on",
    "8-83b.22": "drug  unspecified liquid add-on",
    "8-83b.k1": "device-count  unspecified none add-on",
    "8-541.6": "arterial-infusion  percutaneous cytostatic main",
    "8-541.4": "none  unspecified none main",
    "8-549.01": "arterial-infusion liver percutaneous cytostatic main",
    "8-549.00": "arterial-infusion liver percutaneous cytostatic main",
    "5-506.30": "arterial-infusion liver open cytostatic main",
    "8-839.5": "arterial-infusion hepatic-artery percutaneous none planning",
    "8-530.a5": "embolisation liver percutaneous radionuclide main",
    "8-530.a8": "embolisation liver percutaneous radionuclide main",
    "8-530.a0": "arterial-infusion  unspecified radionuclide main",
    "8-530.e": "brachytherapy pancreas endoscopic radionuclide main",
    "8-530.62": "none  unspecified none main",
    "8-539.01": "dosimetry  unspecified radionuclide planning",
    "8-539.00": "none  unspecified none main",
    "3-708.00": "dosimetry liver unspecified radionuclide planning",
    "3-604": "angiography visceral-arteries percutaneous none planning",
    "3-607": "none  unspecified none main",
    "8-525.12": "brachytherapy  unspecified radionuclide main",
    "8-525.3": "brachytherapy  unspecified radionuclide revision",
    # drains, stents, filters
    "5-514.53": "biliary-drainage bile-duct percutaneous none main",
    "5-514.g3": "biliary-drainage bile-duct percutaneous none main",
    "5-514.g0": "biliary-drainage bile-duct open none main",
    "5-514.p3": "biliary-drainage bile-duct percutaneous none revision",
    "5-514.s3": "radiofrequency bile-duct percutaneous none main",
    "5-517.13": "biliary-drainage bile-duct percutaneous none main",
    "5-517.11": "biliary-drainage bile-duct laparoscopic none main",
    "5-513.m0": "biliary-drainage bile-duct endoscopic none main",
    "5-513.42": "radiofrequency bile-duct endoscopic none main",
    "5-513.20": "none bile-duct unspecified none main",
    "5-550.1": "urinary-drainage urinary-tract percutaneous none main",
    "5-551.1": "urinary-drainage urinary-tract open none main",
    "8-137.01": "urinary-drainage urinary-tract percutaneous none main",
    "8-137.00": "urinary-drainage urinary-tract endoscopic none main",
    "8-137.11": "urinary-drainage urinary-tract unspecified none revision",
    "8-138.0": "urinary-drainage urinary-tract percutaneous none revision",
    "5-550.30": "none kidney unspecified none main",
    "8-144.1": "effusion-drainage pleura percutaneous none main",
    "8-144.0": "none pleura unspecified none main",
    "8-148.0": "effusion-drainage peritoneum percutaneous none main",
    "5-549.21": "effusion-drainage peritoneum unspecified none main",
    "5-549.20": "none peritoneum unspecified none main",
    "8-153": "none peritoneum unspecified none main",
    "8-84a.17": "stent vena-cava percutaneous none main",
    "8-840.07": "stent vena-cava percutaneous none main",
    "8-840.08": "stent thoracic-vessels percutaneous none main",
    "8-840.0s": "none vessel unspecified none main",
    "8-839.10": "vena-cava-filter vena-cava percutaneous none main",
    "8-839.7": "vena-cava-filter vena-cava percutaneous none revision",
    "8-836.87": "thrombectomy vena-cava percutaneous none main",
    "8-836.8k": "none vessel unspecified none main",
    # supportive
    "5-839.90": "cementoplasty spine percutaneous cement main",
    "5-839.a2": "cementoplasty spine percutaneous cement main",
    "5-839.60": "none spine unspecified none main",
    "5-83a.01": "none spine unspecified none main",
    "8-916.13": "neurolysis nerve percutaneous unspecified main",
    "5-04a.2": "neurolysis nerve percutaneous unspecified main",
    "5-041.5": "neurolysis nerve unspecified unspecified main",
    "8-914.12": "none nerve unspecified none main",
    "8-910": "none nerve unspecified none main",
    "5-431.40": "gastrostomy stomach percutaneous none main",
    "5-431.22": "gastrostomy stomach endoscopic none main",
    "5-431.0": "gastrostomy stomach open none main",
    "8-123.0": "gastrostomy stomach unspecified none revision",
    "5-399.5": "venous-access vessel unspecified none main",
    "5-399.7": "venous-access vessel unspecified none revision",
    "8-831.00": "none vessel unspecified none main",
    "8-831.04": "none vessel unspecified none main",
    # markers, biopsies, guidance
    "5-509.00": "marker liver percutaneous none main",
    "5-509.01": "marker liver endoscopic none main",
    "5-339.93": "marker lung laparoscopic none main",
    "1-442.0": "biopsy liver percutaneous none main",
    "1-432.01": "biopsy lung percutaneous none main",
    "1-426.8": "biopsy spleen percutaneous none main",
    "1-465.0": "biopsy kidney percutaneous none main",
    "1-441.0": "none liver unspecified none main",
    "1-464.00": "none prostate unspecified none main",
    "1-440.a": "none  unspecified none main",
    "5-98h.4": "device-count  unspecified none add-on",
    "5-988.0": "guidance  unspecified none add-on",
    "8-660.2": "device-count  unspecified none add-on",
    # ablation and chemotherapy words elsewhere
    "8-835.k3": "none heart unspecified none main",
    "8-83c.54": "none renal-artery unspecified none main",
    "5-681.53": "none uterus unspecified none main",
    "5-681.65": "none uterus unspecified none main",
    "5-014.e": "none brain unspecified none main",
    "5-385.b": "none extremity unspecified none main",
    "5-399.g": "none vessel unspecified none main",
    "8-546.0": "none peritoneum unspecified none main",
    "5-549.b": "none peritoneum unspecified none main",
    "8-543.51": "none  unspecified none main",
    "8-531.20": "none thyroid unspecified none main",
    "8-600.1": "none  unspecified none main",
    "8-522.91": "none  unspecified none main",
    "8-839.87": "none portal-vein unspecified none main",
}


@pytest.mark.parametrize("code", sorted(SPOT_CHECKS))
def test_what_a_coder_expects(code: str) -> None:
    row = matches(code)[0]
    said = " ".join(row[column] for column in ("technique", "site", "approach", "agent", "role"))
    assert said == SPOT_CHECKS[code], row["code"]


@pytest.mark.parametrize(
    ("indication", "codes"),
    [
        ("implied", ["8-541.6", "8-549.01", "8-530.a5", "3-708.00"]),
        ("expected", ["5-501.93", "5-339.26", "5-552.54", "5-073.40", "5-509.00"]),
        ("required", ["8-836.ka", "8-836.kh", "8-836.kg", "5-839.90", "5-789.6", "5-602.0", "8-839.10", "8-148.0"]),
    ],
)
def test_how_far_a_code_proves_a_tumour(indication: str, codes: list[str]) -> None:
    assert {code: matches(code)[0]["indication"] for code in codes} == dict.fromkeys(codes, indication)


@pytest.mark.parametrize("code", ["9-401.22", "5-470.11", "6-002.10"])
def test_unrelated_codes_have_no_row(code: str) -> None:
    assert not matches(code)
