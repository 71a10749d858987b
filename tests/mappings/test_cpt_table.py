"""The CPT/HCPCS table: what each number is taken for, in words of our own."""

from __future__ import annotations

import csv
import re
from datetime import date
from functools import cache
from itertools import product
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
TABLE = PROJECT / "mappings" / "codes" / "cpt.csv"
NUMBERS_SEEN = PROJECT.parent / "shared" / "codes" / "raw" / "cpt" / "cpt_hcpcs_numbers_seen.csv"

HEADER = "code,technique,site,approach,agent,role,indication,valid_from,valid_to,meaning,checked,note"
VOCABULARY = {
    "technique": """radiofrequency microwave cryotherapy electroporation laser focused-ultrasound chemical ablation
        haemostasis
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
PIECE = re.compile(r"\[[0-9]+\]|[0-9A-Z]")

Row = dict[str, str]


@cache
def table() -> tuple[Row, ...]:
    with TABLE.open(encoding="utf-8", newline="") as handle:
        return tuple(csv.DictReader(handle))


def numbers(pattern: str) -> list[str]:
    """All numbers a pattern stands for; the table uses sets alone, so they can be written out."""
    pieces = PIECE.findall(pattern)
    assert "".join(pieces) == pattern, f"{pattern} is no pattern of this table"
    return ["".join(parts) for parts in product(*(piece.strip("[]") for piece in pieces))]


@cache
def by_number() -> dict[str, Row]:
    found: dict[str, Row] = {}
    for row in table():
        for number in numbers(row["code"]):
            assert number not in found, f"{number} stands in two rows"
            found[number] = row
    return found


def test_header_is_the_one_of_a_code_table() -> None:
    assert TABLE.read_text(encoding="utf-8").partition("\n")[0] == HEADER


@pytest.mark.parametrize("column", sorted(VOCABULARY))
def test_words_are_of_the_vocabulary(column: str) -> None:
    """A site may be empty: the number does not say."""
    known = {*VOCABULARY[column].split(), *([""] if column == "site" else [])}
    assert {row[column] for row in table()} <= known


def test_numbers_have_the_shape_of_their_system_and_stand_once() -> None:
    shape = re.compile(r"[0-9]{4}[0-9T]|[A-V][0-9]{4}")
    assert all(shape.fullmatch(number) for number in by_number())


def test_every_row_is_complete_and_says_where_it_was_seen() -> None:
    for row in table():
        assert None not in row
        assert None not in row.values()
        assert row["meaning"]
        assert row["checked"], row["code"]
        for cell in row.values():
            assert cell == " ".join(cell.split()), f"{row['code']}: stray spaces"


def test_meanings_are_short_words_of_our_own() -> None:
    """The descriptors are licensed; ours are far shorter and never use their turns of phrase."""
    turns = re.compile(
        r"percutaneous|transcatheter|intravascular|supervision and interpretation|list separately|when performed"
        r"|including|radiological|insertion of|1 or more|one or more|\(eg|unilateral|separate procedure",
        re.IGNORECASE,
    )
    for row in table():
        assert len(row["meaning"].split()) <= 12, row["code"]
        assert not turns.search(row["meaning"]), row["code"]


def test_validity_is_a_span_of_days() -> None:
    for row in table():
        days = [date.fromisoformat(row[name]) for name in ("valid_from", "valid_to") if row[name]]
        assert days == sorted(days), row["code"]


def test_replaced_numbers_hand_over_without_a_gap() -> None:
    for old, new in (("0340T", "32994"), ("32405", "32408")):
        end = date.fromisoformat(by_number()[old]["valid_to"])
        start = date.fromisoformat(by_number()[new]["valid_from"])
        assert (start - end).days == 1


def test_look_alikes_say_nothing_else() -> None:
    for row in table():
        if row["technique"] == "none":
            assert (row["agent"], row["role"]) == ("none", "main"), row["code"]
            assert row["note"], f"{row['code']}: a look-alike says why"


def test_numbers_seen_in_public_are_all_judged() -> None:
    if not NUMBERS_SEEN.exists():
        pytest.skip("the list of publicly seen numbers is absent")
    with NUMBERS_SEEN.open(encoding="utf-8", newline="") as handle:
        seen = {row["code"] for row in csv.DictReader(handle)}
    assert seen <= set(by_number())


# number, technique, site, approach, agent, role, indication
JUDGED = """
47382 radiofrequency liver percutaneous none main implied
47383 cryotherapy liver percutaneous none main implied
47384 electroporation liver percutaneous none main implied
47370 radiofrequency liver laparoscopic none main implied
47380 radiofrequency liver open none main implied
47381 cryotherapy liver open none main implied
0686T focused-ultrasound liver external none main implied
0888T focused-ultrasound kidney external none main implied
C9734 focused-ultrasound - external none main required
55880 focused-ultrasound prostate external none main implied
61736 laser brain percutaneous none main required
50592 radiofrequency kidney percutaneous none main implied
50593 cryotherapy kidney percutaneous none main implied
50250 cryotherapy kidney open none main expected
50542 ablation kidney laparoscopic none main expected
32998 radiofrequency lung percutaneous none main implied
32994 cryotherapy lung percutaneous none main implied
0340T cryotherapy lung percutaneous none main implied
20982 radiofrequency bone percutaneous none main required
20983 cryotherapy bone percutaneous none main required
0581T cryotherapy breast percutaneous none main implied
19105 none breast percutaneous none main required
55873 cryotherapy prostate percutaneous none main required
0950T none prostate external none main required
52648 none prostate endoscopic none main required
0600T electroporation - percutaneous none main implied
0601T electroporation - open none main implied
60660 radiofrequency thyroid percutaneous none main required
60661 radiofrequency thyroid percutaneous none add-on required
20999 none - unspecified none main required
93656 none heart unspecified none main required
36475 none vessel percutaneous none main required
37243 embolisation - percutaneous unspecified main required
C9797 embolisation - percutaneous unspecified main required
37242 none vessel percutaneous none main required
37241 none vessel percutaneous none main required
37244 haemostasis - percutaneous none main required
37210 none uterus percutaneous none main required
61624 embolisation brain percutaneous none main required
61626 embolisation head-neck percutaneous none main required
61710 none brain unspecified none main required
96420 arterial-infusion - percutaneous cytostatic main implied
96423 arterial-infusion - percutaneous cytostatic add-on implied
79445 arterial-infusion liver percutaneous radionuclide main expected
S2095 embolisation liver percutaneous radionuclide main implied
C2616 drug liver unspecified radionuclide add-on implied
C8004 angiography liver percutaneous none planning required
75726 angiography visceral-arteries percutaneous none planning required
78803 dosimetry - unspecified none planning required
77300 dosimetry - unspecified none planning required
36247 guidance visceral-arteries percutaneous none add-on required
75894 guidance - unspecified none add-on required
76940 guidance - unspecified none add-on required
77012 guidance - unspecified none add-on required
77778 brachytherapy - unspecified radionuclide main expected
22510 cementoplasty spine percutaneous cement main required
22512 cementoplasty spine percutaneous cement add-on required
22513 cementoplasty spine percutaneous cement main required
22515 cementoplasty spine percutaneous cement add-on required
0201T cementoplasty spine percutaneous cement main required
64680 neurolysis nerve percutaneous none main required
64681 neurolysis nerve percutaneous none main required
64620 neurolysis nerve percutaneous none main required
64630 neurolysis nerve percutaneous none main required
64530 neurolysis nerve percutaneous none main required
62281 neurolysis nerve percutaneous none main required
0442T neurolysis nerve percutaneous none main required
0441T none nerve percutaneous none main required
47533 biliary-drainage bile-duct percutaneous none main required
47539 biliary-drainage bile-duct percutaneous none main required
47536 biliary-drainage bile-duct percutaneous none revision required
47537 biliary-drainage bile-duct percutaneous none revision required
47532 none bile-duct percutaneous none main required
47544 none bile-duct percutaneous none main required
50432 urinary-drainage urinary-tract percutaneous none main required
50694 urinary-drainage urinary-tract percutaneous none main required
50435 urinary-drainage urinary-tract percutaneous none revision required
50387 urinary-drainage urinary-tract percutaneous none revision required
47490 biliary-drainage bile-duct percutaneous none main required
50430 none kidney percutaneous none main required
32550 effusion-drainage pleura percutaneous none main required
32557 effusion-drainage pleura percutaneous none main required
32556 none pleura percutaneous none main required
33017 effusion-drainage heart percutaneous none main required
32555 none pleura percutaneous none main required
32552 effusion-drainage pleura percutaneous none revision required
49418 effusion-drainage peritoneum percutaneous none main required
49083 none peritoneum percutaneous none main required
49440 gastrostomy stomach percutaneous none main required
49446 gastrostomy stomach percutaneous none revision required
49441 gastrostomy bowel percutaneous none main required
49451 gastrostomy stomach percutaneous none revision required
43246 gastrostomy stomach endoscopic none main required
37238 stent vessel percutaneous none main required
37191 vena-cava-filter vena-cava percutaneous none main required
37193 vena-cava-filter vena-cava percutaneous none revision required
37187 thrombectomy vessel percutaneous none main required
36901 none vessel percutaneous none main required
36561 venous-access vessel percutaneous none main required
36590 venous-access vessel percutaneous none revision required
36581 venous-access vessel percutaneous none revision required
49411 marker other percutaneous none main required
10036 marker soft-tissue percutaneous none add-on required
32408 biopsy lung percutaneous none main required
47000 biopsy liver percutaneous none main required
47001 none liver open none main required
20225 biopsy bone percutaneous none main required
19083 biopsy breast percutaneous none main required
"""
JUDGEMENTS = [line.split() for line in JUDGED.strip().split("\n")]


@pytest.mark.parametrize("judgement", JUDGEMENTS, ids=[line[0] for line in JUDGEMENTS])
def test_number_is_taken_for(judgement: list[str]) -> None:
    """``-`` stands for a site that the number does not say."""
    number, *wanted = judgement
    row = by_number()[number]
    names = ("technique", "site", "approach", "agent", "role", "indication")
    assert [row[name] or "-" for name in names] == wanted


@pytest.mark.parametrize("number", ["99213", "27447", "71260", "47562", "G0105"])
def test_other_medicine_has_no_row(number: str) -> None:
    assert number not in by_number()
