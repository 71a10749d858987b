"""The ICD-10-PCS table against the published code lists: what a code is taken for, and that none is taken twice."""

from __future__ import annotations

import csv
import itertools
import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from datetime import date
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
TABLE = PROJECT / "mappings" / "codes" / "icd10pcs.csv"
LISTS = PROJECT.parent / "shared" / "codes" / "raw" / "icd10pcs"
CODES_2025 = LISTS / "icd10pcs_2025_codes_generated.tsv"
TABLES_2020 = LISTS / "icd10pcs_tables_2020.xml"

HEADER = "code,technique,site,approach,agent,role,indication,valid_from,valid_to,meaning,checked,note"
VOCABULARY = {
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
PIECE = re.compile(r"\[[0-9A-Z-]+\]|[?*]|[0-9A-Z]")

# Families of percutaneous destruction that no row names: nothing there is mistaken for tumour ablation.
IGNORED_DESTRUCTION = {
    "085": "eye",
    "095": "ear, nose and sinuses",
    "0L5": "tendons",
    "0M5": "bursae and ligaments",
}

Row = dict[str, str]


@cache
def table() -> tuple[Row, ...]:
    with TABLE.open(encoding="utf-8", newline="") as handle:
        return tuple(csv.DictReader(handle))


def to_regex(pattern: str) -> str:
    pieces = PIECE.findall(pattern)
    assert "".join(pieces) == pattern, f"{pattern} is no pattern"
    assert "*" not in pieces[:-1], f"{pattern}: * only at the end"
    return "".join({"?": ".", "*": ".*"}.get(piece, piece) for piece in pieces)


def specificity(pattern: str) -> tuple[int, int, bool]:
    literals = re.sub(r"\[[^\]]*\]|[?*]", "", pattern)
    return len(literals), pattern.count("["), not pattern.endswith("*")


@cache
def compiled() -> tuple[tuple[Row, re.Pattern[str]], ...]:
    return tuple((row, re.compile(to_regex(row["code"]))) for row in table())


def winner(code: str) -> Row | None:
    rows = [row for row, regex in compiled() if regex.fullmatch(code)]
    return max(rows, key=lambda row: specificity(row["code"])) if rows else None


@cache
def codes_2025() -> dict[str, str]:
    if not CODES_2025.exists():
        pytest.skip("the ICD-10-PCS 2025 code list is absent")
    with CODES_2025.open(encoding="utf-8") as handle:
        return dict(line.rstrip("\n").split("\t", 1) for line in handle)


@cache
def codes_2020() -> frozenset[str]:
    if not TABLES_2020.exists():
        pytest.skip("the ICD-10-PCS 2020 tables are absent")
    codes: set[str] = set()
    for part in ET.parse(TABLES_2020).getroot().iter("pcsTable"):  # noqa: S314 - a published list kept beside the project
        start = "".join(label.get("code", "") for label in part.findall("axis/label"))
        for row in part.findall("pcsRow"):
            axes = [[label.get("code", "") for label in axis.findall("label")] for axis in row.findall("axis")]
            codes.update(start + "".join(tail) for tail in itertools.product(*axes))
    return frozenset(codes)


@cache
def matches_by_row(codes: frozenset[str]) -> dict[str, set[str]]:
    """The codes that each pattern matches; a family is tried only where its first three characters fit."""
    families: dict[str, list[str]] = defaultdict(list)
    for code in codes:
        families[code[:3]].append(code)
    found: dict[str, set[str]] = {}
    for row, regex in compiled():
        pieces = [piece for piece in PIECE.findall(row["code"]) if piece != "*"][:3]
        start = re.compile(to_regex("".join(pieces)))
        hits = (code for family, members in families.items() if start.match(family) for code in members)
        found[row["code"]] = {code for code in hits if regex.fullmatch(code)}
    return found


@cache
def judged(codes: frozenset[str]) -> dict[str, Row]:
    """The row that decides each code of a list."""
    rows = {row["code"]: row for row in table()}
    best: dict[str, str] = {}
    for pattern, matched in matches_by_row(codes).items():
        for code in matched:
            best[code] = max(best.get(code, pattern), pattern, key=specificity)
    return {code: rows[pattern] for code, pattern in best.items()}


@cache
def current() -> frozenset[str]:
    return frozenset(codes_2025())


def test_header_is_the_one_of_a_code_table() -> None:
    assert TABLE.read_text(encoding="utf-8").partition("\n")[0] == HEADER


@pytest.mark.parametrize("column", sorted(VOCABULARY))
def test_words_are_of_the_vocabulary(column: str) -> None:
    """A site may be empty: the code does not say."""
    known = {*VOCABULARY[column].split(), *([""] if column == "site" else [])}
    assert {row[column] for row in table()} <= known


def test_every_row_is_complete() -> None:
    for row in table():
        assert None not in row.values()
        assert None not in row
        assert row["meaning"]
        assert row["checked"].startswith("ICD-10-PCS 20")
        assert row["meaning"][0].islower(), row["code"]
        for cell in row.values():
            assert cell == " ".join(cell.split()), f"{row['code']}: stray spaces"


def test_validity_is_a_span_of_days() -> None:
    for row in table():
        days = [date.fromisoformat(row[name]) for name in ("valid_from", "valid_to") if row[name]]
        assert days == sorted(days), row["code"]


def test_no_code_is_written_twice_and_each_is_seven_characters() -> None:
    patterns = [row["code"] for row in table()]
    assert len(patterns) == len(set(patterns))
    for pattern in patterns:
        places = [piece for piece in PIECE.findall(pattern) if piece != "*"]
        assert len(places) == 7 or (pattern.endswith("*") and len(places) < 7), pattern


def test_look_alikes_say_nothing_else() -> None:
    for row in table():
        if row["technique"] == "none":
            assert (row["agent"], row["role"]) == ("none", "main"), row["code"]
            assert row["note"], f"{row['code']}: a look-alike says why"


def test_every_pattern_stands_for_a_published_code() -> None:
    now, then = matches_by_row(current()), matches_by_row(codes_2020())
    for row in table():
        if row["valid_to"]:
            assert then[row["code"]], row["code"]
            assert not now[row["code"]], f"{row['code']} has an end but is still published"
        else:
            assert now[row["code"]], row["code"]


def test_every_row_decides_some_code() -> None:
    deciding = {row["code"] for codes in (current(), codes_2020()) for row in judged(codes).values()}
    assert {row["code"] for row in table()} == deciding


def test_no_two_equally_specific_rows_claim_one_code() -> None:
    for codes in (current(), codes_2020()):
        claims: dict[tuple[str, tuple[int, int, bool]], str] = {}
        for pattern, matched in matches_by_row(codes).items():
            for code in matched:
                other = claims.setdefault((code, specificity(pattern)), pattern)
                assert other == pattern, f"{code}: {pattern} and {other}"


def test_every_percutaneous_destruction_is_judged_or_deliberately_left_out() -> None:
    decided, left = judged(current()), set()
    for code, title in codes_2025().items():
        parts = [part.strip() for part in title.split("|")]
        if parts[2] == "Destruction" and "Percutaneous" in parts and code not in decided:
            left.add(code[:3])
    assert left == set(IGNORED_DESTRUCTION)


def test_no_open_keyhole_or_endoscopic_treatment_is_called_percutaneous() -> None:
    """Ports are the exception: the pocket is an incision, the vein is punctured."""
    for code, row in judged(current()).items():
        if code[0] == "0" and code[4] in "0478" and row["technique"] != "venous-access":
            assert row["approach"] != "percutaneous", f"{code}: {row['code']}"


def test_every_percutaneous_biopsy_is_a_biopsy_or_a_named_look_alike() -> None:
    decided = judged(current())
    samples = [code for code in current() if re.fullmatch(r"0.[BD].3.X", code)]
    assert samples
    assert all(code in decided for code in samples)
    others = {code[:3] for code in samples if decided[code]["technique"] != "biopsy"}
    assert others == {"02B", "07D"}, "heart and bone marrow"


def test_every_drain_left_through_the_skin_is_judged() -> None:
    drains = {code for code in current() if re.fullmatch(r"0.9.30Z", code)}
    assert drains
    assert drains <= set(judged(current()))


def test_radiation_section_never_counts_as_ablation_now() -> None:
    techniques = {row["technique"] for code, row in judged(current()).items() if code[0] == "D"}
    assert techniques == {"none", "brachytherapy", "embolisation"}


def test_only_antineoplastics_into_arteries_imply_a_tumour() -> None:
    implied = {row["code"] for row in table() if row["indication"] == "implied"}
    assert implied == {"3E0[56]30[235MP]", "3E0[56]00[235MP]", "XW053T9"}


# code, technique, site, approach, agent, role
JUDGED = """
0F503ZZ ablation liver percutaneous none main
0F513Z3 laser liver percutaneous none main
0F523ZF electroporation liver percutaneous none main
0F500ZZ ablation liver open none main
0F514ZF electroporation liver laparoscopic none main
XF51X08 focused-ultrasound liver external none main
0F5G3ZF electroporation pancreas percutaneous none main
0F5G8ZZ ablation pancreas endoscopic none main
0F593ZZ ablation bile-duct percutaneous none main
0F598ZZ ablation bile-duct endoscopic none main
0F543ZZ ablation bile-duct percutaneous none main
0B5K3ZZ ablation lung percutaneous none main
0B5C3Z3 laser lung percutaneous none main
0B5F8ZZ ablation lung endoscopic none main
0B5J4ZZ ablation lung laparoscopic none main
0B538ZZ none airway unspecified none main
0B5N3ZZ ablation pleura percutaneous none main
0T503ZZ ablation kidney percutaneous none main
0T514ZZ ablation kidney laparoscopic none main
0T5B8ZZ none * unspecified none main
0G523ZZ ablation adrenal percutaneous none main
0G543Z3 laser adrenal percutaneous none main
0G5H3ZZ ablation thyroid percutaneous none main
0G5L3ZZ ablation parathyroid percutaneous none main
0P543ZZ ablation spine percutaneous none main
0Q503Z3 laser spine percutaneous none main
0Q513ZZ ablation spine percutaneous none main
0P523ZZ ablation bone percutaneous none main
0Q563ZZ ablation bone percutaneous none main
0Q560ZZ ablation bone open none main
0H5T3ZZ ablation breast percutaneous none main
0H5U3Z3 laser breast percutaneous none main
0H50XZZ none * unspecified none main
0V503ZZ ablation prostate percutaneous none main
0V503Z3 laser prostate percutaneous none main
0V507ZZ none prostate endoscopic none main
0V508ZZ none prostate endoscopic none main
XV508A4 none prostate endoscopic none main
075D3ZZ ablation lymph-node percutaneous none main
075P3ZZ ablation spleen percutaneous none main
0J583ZZ ablation soft-tissue percutaneous none main
0K5F3ZZ ablation soft-tissue percutaneous none main
0D513ZZ ablation oesophagus percutaneous none main
0D568ZZ ablation - endoscopic none main
0D5W3ZZ ablation peritoneum percutaneous none main
0U593ZZ ablation uterus percutaneous none main
0U5B8ZZ none uterus unspecified none main
00503Z3 laser brain percutaneous none main
00503Z4 none brain percutaneous none main
005K3ZZ none * unspecified none main
02583ZF none heart unspecified none main
02583ZZ none heart unspecified none main
065P3ZZ none vessel unspecified none main
X051329 none nerve percutaneous none main
X05133A none nerve percutaneous none main
0R533ZZ none * unspecified none main
DFY0KZZ laser liver unspecified none main
DBY2KZZ laser lung unspecified none main
DVY0KZZ laser prostate unspecified none main
DFY08ZZ none * unspecified none main
DF000ZZ none * unspecified none main
DV10BBZ none * unspecified none main
DF10BYZ embolisation liver unspecified radionuclide main
DF109YZ brachytherapy liver unspecified radionuclide main
0FH031Z brachytherapy liver percutaneous radionuclide main
0BHK31Z brachytherapy lung percutaneous radionuclide main
0VH031Z brachytherapy prostate percutaneous radionuclide main
0VH001Z none * unspecified none main
04L33DZ embolisation hepatic-artery percutaneous none main
04L33ZZ embolisation hepatic-artery percutaneous none main
04V33DZ embolisation hepatic-artery percutaneous none main
04L33CZ none vessel percutaneous none main
04L30ZZ none vessel open none main
04L34DZ none vessel laparoscopic none main
04L23DZ embolisation visceral-arteries percutaneous none main
04L13ZZ embolisation visceral-arteries percutaneous none main
04L43DZ embolisation visceral-arteries percutaneous none main
04L93DZ embolisation renal-artery percutaneous none main
04LE3DZ embolisation pelvic-arteries percutaneous none main
04LE3DT none pelvic-arteries percutaneous none main
04LF3DU none pelvic-arteries percutaneous none main
04LE3DV none pelvic-arteries percutaneous none main
04LF3ZW none pelvic-arteries percutaneous none main
04L03DJ none vessel percutaneous none main
04LY3DZ embolisation vessel percutaneous none main
04LK3DZ embolisation extremity percutaneous none main
03LY3DZ embolisation thoracic-vessels percutaneous none main
03LG3DZ embolisation brain percutaneous none main
03LM3BZ none vessel percutaneous none main
03LG3BZ none vessel percutaneous none main
03LM3DZ embolisation head-neck percutaneous none main
008W3ZZ neurolysis nerve percutaneous none main
06753DZ stent portal-vein percutaneous none main
057Y3DZ stent vessel percutaneous none main
04V03DZ none vessel unspecified none main
06L83DZ embolisation portal-vein percutaneous none main
06L43DZ embolisation portal-vein percutaneous none main
06L80ZZ embolisation portal-vein open none main
06LY3DC none vessel percutaneous none main
06L33DZ none vessel unspecified none main
06LM3DZ none vessel unspecified none main
3E05305 arterial-infusion - percutaneous cytostatic main
3E06305 arterial-infusion - percutaneous cytostatic main
3E06005 arterial-infusion - open cytostatic main
XW053T9 arterial-infusion liver percutaneous cytostatic main
3E053HZ arterial-infusion - percutaneous radionuclide main
3E063HZ arterial-infusion - percutaneous radionuclide main
3E063TZ embolisation - percutaneous liquid main
04H333Z arterial-infusion hepatic-artery percutaneous none add-on
3E03305 none * unspecified none main
3E04305 none * unspecified none main
3E0M30Y none peritoneum percutaneous none main
3E0L305 none * unspecified none main
3E033HZ none * unspecified none main
3E0J3TZ chemical bile-duct percutaneous unspecified main
0PU33JZ cementoplasty spine percutaneous cement main
0QU03JZ cementoplasty spine percutaneous cement main
0QU13JZ cementoplasty spine percutaneous cement main
0QU23JZ cementoplasty bone percutaneous cement main
0QU00JZ cementoplasty spine open cement main
XNU0356 cementoplasty spine percutaneous cement main
0PS43ZZ vertebral-reduction spine percutaneous none main
0QS03ZZ vertebral-reduction spine percutaneous none main
015M3ZZ neurolysis nerve percutaneous none main
015B3ZZ neurolysis nerve percutaneous none main
015L4ZZ neurolysis nerve laparoscopic none main
3E0T3TZ neurolysis nerve percutaneous alcohol main
3E0X3TZ none nerve percutaneous none main
3E0T3BZ none nerve percutaneous none main
0F9930Z biliary-drainage bile-duct percutaneous none main
0F9430Z biliary-drainage bile-duct percutaneous none main
0F793DZ biliary-drainage bile-duct percutaneous none main
0FHB3DZ biliary-drainage bile-duct percutaneous none main
0F798DZ biliary-drainage bile-duct endoscopic none main
0F2BX0Z biliary-drainage bile-duct external none revision
0FPB3DZ biliary-drainage bile-duct unspecified none revision
0T9030Z urinary-drainage urinary-tract percutaneous none main
0T9430Z urinary-drainage urinary-tract percutaneous none main
0T133JD urinary-drainage urinary-tract percutaneous none main
0T763DZ urinary-drainage urinary-tract percutaneous none main
0T768DZ urinary-drainage urinary-tract endoscopic none main
0T25X0Z urinary-drainage urinary-tract external none revision
0T9B30Z none bladder percutaneous none main
0W9930Z effusion-drainage pleura percutaneous none main
0W9G30Z effusion-drainage peritoneum percutaneous none main
0W9D30Z effusion-drainage heart percutaneous none main
0WHG33Z effusion-drainage peritoneum percutaneous none main
0F9030Z effusion-drainage liver percutaneous none main
0W9G3ZZ none * percutaneous none main
0W993ZX none * percutaneous none main
0S9C3ZX none * percutaneous none main
0DH63UZ gastrostomy stomach percutaneous none main
0DHA3UZ gastrostomy bowel percutaneous none main
0D9630Z gastrostomy stomach percutaneous none main
0DH67UZ none stomach endoscopic none main
0D20XUZ gastrostomy stomach external none revision
027V3DZ stent vena-cava percutaneous none main
05733DZ stent thoracic-vessels percutaneous none main
05763D1 stent thoracic-vessels percutaneous none main
06703DZ stent vena-cava percutaneous none main
067C3DZ stent vessel percutaneous none main
027V3ZZ none vena-cava unspecified none main
057B3DZ none vessel unspecified none main
06H03DZ vena-cava-filter vena-cava percutaneous none main
02HV3DZ vena-cava-filter vena-cava percutaneous none main
06PY3DZ vena-cava-filter vena-cava percutaneous none revision
06C03ZZ thrombectomy vena-cava percutaneous none main
02CP3ZZ thrombectomy thoracic-vessels percutaneous none main
06CD3ZZ thrombectomy vessel percutaneous none main
03CG3ZZ none vessel unspecified none main
02HV33Z venous-access vessel percutaneous none main
0JH60WZ venous-access vessel percutaneous none main
0JH63XZ venous-access vessel percutaneous none main
0JPT0WZ venous-access vessel unspecified none revision
0FH03YZ marker liver percutaneous none main
0HHT3YZ marker breast percutaneous none main
0FB03ZX biopsy liver percutaneous none main
0FD13ZX biopsy liver percutaneous none main
0BBK3ZX biopsy lung percutaneous none main
0TB03ZX biopsy kidney percutaneous none main
07BD3ZX biopsy lymph-node percutaneous none main
0QB03ZX biopsy spine percutaneous none main
0VB03ZX biopsy prostate percutaneous none main
0FB04ZX biopsy - laparoscopic none main
0BBC8ZX biopsy - endoscopic none main
07DR3ZX none * unspecified none main
02BK3ZX none heart percutaneous none main
B4121ZZ angiography hepatic-artery percutaneous none planning
CF251ZZ dosimetry liver unspecified radionuclide planning
B513ZZA guidance vessel unspecified none add-on
"""
JUDGEMENTS = [line.split() for line in JUDGED.strip().split("\n")]


@pytest.mark.parametrize(
    ("code", "technique", "site", "approach", "agent", "role"), JUDGEMENTS, ids=[line[0] for line in JUDGEMENTS]
)
def test_code_is_taken_for(code: str, technique: str, site: str, approach: str, agent: str, role: str) -> None:
    """``-`` stands for a site that the code does not say, ``*`` for any."""
    row = winner(code)
    assert row is not None
    wanted = {"technique": technique, "approach": approach, "agent": agent, "role": role}
    if site != "*":
        wanted["site"] = "" if site == "-" else site
    assert {name: row[name] for name in wanted} == wanted


@pytest.mark.parametrize("code", [line[0] for line in JUDGEMENTS])
def test_judged_codes_exist(code: str) -> None:
    assert code in codes_2025() or code in codes_2020()


@pytest.mark.parametrize("code", ["0DTJ4ZZ", "10E0XZZ", "5A1955Z", "30233N1", "02703DZ", "4A023N7", "0SRD0J9"])
def test_other_medicine_has_no_row(code: str) -> None:
    assert winner(code) is None


@pytest.mark.parametrize(
    ("code", "indication"),
    [
        ("0F503ZZ", "expected"),
        ("0B5K3ZZ", "expected"),
        ("0T503ZZ", "expected"),
        ("0G523ZZ", "expected"),
        ("0Q503ZZ", "required"),
        ("0V503ZZ", "required"),
        ("0G5K3ZZ", "required"),
        ("04L33DZ", "required"),
        ("06L83DZ", "required"),
        ("3E05305", "implied"),
        ("3E053HZ", "expected"),
        ("0QU03JZ", "required"),
        ("015M3ZZ", "required"),
        ("027V3DZ", "required"),
        ("0F9930Z", "required"),
    ],
)
def test_what_the_code_says_about_a_tumour(code: str, indication: str) -> None:
    row = winner(code)
    assert row is not None
    assert row["indication"] == indication


def test_laser_moved_from_radiation_to_destruction_with_fiscal_year_2023() -> None:
    new = [row for row in table() if row["technique"] == "laser" and not row["code"].startswith("D")]
    old = [row for row in table() if row["technique"] == "laser" and row["code"].startswith("D")]
    assert {row["valid_from"] for row in new} == {"2022-10-01"}
    assert {row["valid_to"] for row in old} == {"2022-09-30"}
    retired = {code for code in codes_2020() - current() if re.fullmatch(r"D..[0-9]KZZ", code)}
    assert len(retired) == 31
    assert {judged(codes_2020())[code]["technique"] for code in retired} == {"laser"}
