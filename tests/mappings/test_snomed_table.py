"""The SNOMED CT procedure table: real concepts, known words, and what a coder would say of each."""

from __future__ import annotations

import csv
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]
TABLE = PROJECT / "mappings" / "codes" / "snomed.csv"
CODES = PROJECT.parent / "shared" / "codes"
LISTS = CODES / "raw" / "snomed"


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


COLUMNS = (
    "code", "technique", "site", "approach", "agent", "role", "indication",
    "valid_from", "valid_to", "meaning", "checked", "note",
)  # fmt: skip
WORDS = {
    "technique": words("""
        radiofrequency microwave cryotherapy electroporation laser focused-ultrasound chemical ablation
        electrochemotherapy brachytherapy embolisation arterial-infusion stent biliary-drainage urinary-drainage
        effusion-drainage gastrostomy vena-cava-filter thrombectomy cementoplasty vertebral-reduction neurolysis
        venous-access marker biopsy angiography dosimetry guidance device-count drug none"""),
    "site": frozenset({""})
    | words(
        "liver lung kidney adrenal pancreas spleen bone spine prostate breast thyroid parathyroid uterus ovary "
        "testis brain nerve skin soft-tissue lymph-node pleura peritoneum bile-duct urinary-tract stomach bowel "
        "oesophagus bladder head-neck heart airway vessel vena-cava portal-vein hepatic-artery visceral-arteries "
        "renal-artery pelvic-arteries thoracic-vessels extremity other"
    ),
    "approach": words("percutaneous external open laparoscopic endoscopic unspecified"),
    "agent": words("""
        none cytostatic drug-loaded-particles radionuclide alcohol oily-contrast particles coils liquid plug cement
        unspecified"""),
    "role": words("main add-on planning revision"),
    "indication": words("implied expected required"),
}
# The dihedral check digit of SNOMED CT identifiers (Verhoeff).
_PRODUCT = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 4, 0, 6, 7, 8, 9, 5), (2, 3, 4, 0, 1, 7, 8, 9, 5, 6),
    (3, 4, 0, 1, 2, 8, 9, 5, 6, 7), (4, 0, 1, 2, 3, 9, 5, 6, 7, 8), (5, 9, 8, 7, 6, 0, 4, 3, 2, 1),
    (6, 5, 9, 8, 7, 1, 0, 4, 3, 2), (7, 6, 5, 9, 8, 2, 1, 0, 4, 3), (8, 7, 6, 5, 9, 3, 2, 1, 0, 4),
    (9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
)  # fmt: skip
_TURN = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)

Row = dict[str, str]


@cache
def rows() -> tuple[Row, ...]:
    with TABLE.open(encoding="utf-8", newline="") as handle:
        return tuple(csv.DictReader(handle))


@cache
def by_code() -> dict[str, Row]:
    return {row["code"]: row for row in rows()}


def _displays(node: Any, found: dict[str, str]) -> None:
    if isinstance(node, dict):
        code, display = node.get("code"), node.get("display")
        if isinstance(code, str) and code.isdigit() and isinstance(display, str):
            found.setdefault(code, display)
        for value in node.values():
            _displays(value, found)
    elif isinstance(node, list):
        for value in node:
            _displays(value, found)


@cache
def listed() -> dict[str, str]:
    if not LISTS.is_dir():
        pytest.skip("the published SNOMED CT lists are absent")
    found: dict[str, str] = {}
    for path in sorted(LISTS.glob("*.json")):
        _displays(json.loads(path.read_text(encoding="utf-8")), found)
    return found


@cache
def candidates() -> tuple[Row, ...]:
    path = CODES / "candidates.csv"
    if not path.is_file():
        pytest.skip("the candidate list is absent")
    with path.open(encoding="utf-8", newline="") as handle:
        return tuple(row for row in csv.DictReader(handle) if row["system_uri"] == "http://snomed.info/sct")


def _check_digit_holds(code: str) -> bool:
    check = 0
    for index, digit in enumerate(reversed(code)):
        value = int(digit)
        for _ in range(index % 8):
            value = _TURN[value]
        check = _PRODUCT[check][value]
    return check == 0


def test_header_is_that_of_a_code_table() -> None:
    with TABLE.open(encoding="utf-8", newline="") as handle:
        assert handle.readline().rstrip("\n") == ",".join(COLUMNS)


def test_every_word_is_in_the_vocabulary() -> None:
    strange = [
        (row["code"], column, row[column]) for row in rows() for column in WORDS if row[column] not in WORDS[column]
    ]
    assert strange == []


def test_every_row_is_whole_and_explained() -> None:
    broken = [
        row["code"]
        for row in rows()
        if None in row or None in row.values() or not row["meaning"] or not row["checked"] or row["valid_from"]
    ]
    assert broken == []


def test_every_concept_is_listed_once() -> None:
    assert len(by_code()) == len(rows()) > 700


def test_every_identifier_has_a_right_check_digit() -> None:
    wrong = [row["code"] for row in rows() if not row["code"].isdigit() or not _check_digit_holds(row["code"])]
    assert wrong == []


def test_look_alikes_say_nothing_more() -> None:
    bare = {"site": "", "approach": "unspecified", "agent": "none", "role": "main", "indication": "required"}
    odd = [row["code"] for row in rows() if row["technique"] == "none" and any(row[key] != bare[key] for key in bare)]
    assert odd == []


def test_a_concept_without_an_organ_never_proves_a_tumour_unless_it_names_one() -> None:
    proven = {row["code"] for row in rows() if not row["site"] and row["indication"] != "required"}
    assert proven == {"716009005", "609173003"}


def test_stents_stand_only_where_a_vein_is_meant() -> None:
    assert {row["code"] for row in rows() if row["technique"] == "stent"} == {"709021002"}


def test_every_concept_exists_in_a_published_list() -> None:
    vouched = {row["code_or_pattern"] for row in candidates() if row["verified"] == "yes"}
    missing = [row["code"] for row in rows() if row["code"] not in listed() and row["code"] not in vouched]
    assert missing == []


def test_meanings_are_in_our_own_words() -> None:
    def plain(text: str) -> str:
        return text.rsplit(" (", 1)[0].casefold().strip()

    copied = [row["code"] for row in rows() if plain(listed().get(row["code"], "-")) == row["meaning"].casefold()]
    assert copied == []


def test_no_candidate_is_left_out() -> None:
    assert [row["code_or_pattern"] for row in candidates() if row["code_or_pattern"] not in by_code()] == []


def test_what_must_never_count_is_no_percutaneous_treatment() -> None:
    guards = [row["code_or_pattern"] for row in candidates() if row["category"] == "none"]
    escaped = [
        code
        for code in guards
        if by_code()[code]["technique"] != "none"
        and by_code()[code]["approach"] not in {"open", "laparoscopic", "endoscopic"}
    ]
    assert escaped == []


@pytest.mark.parametrize(
    ("code", "technique", "site", "approach", "agent", "indication"),
    [
        ("426830009", "radiofrequency", "liver", "percutaneous", "none", "expected"),
        ("431475009", "radiofrequency", "liver", "percutaneous", "none", "expected"),
        ("448781006", "radiofrequency", "liver", "unspecified", "none", "expected"),
        ("440711002", "radiofrequency", "liver", "laparoscopic", "none", "implied"),
        ("708625004", "radiofrequency", "liver", "open", "none", "expected"),
        ("609232008", "microwave", "liver", "percutaneous", "none", "expected"),
        ("448540000", "microwave", "liver", "laparoscopic", "none", "expected"),
        ("709020001", "microwave", "liver", "open", "none", "expected"),
        ("609169001", "cryotherapy", "liver", "percutaneous", "none", "implied"),
        ("307627000", "cryotherapy", "liver", "unspecified", "none", "implied"),
        ("716756004", "electroporation", "liver", "percutaneous", "none", "implied"),
        ("433866007", "laser", "liver", "percutaneous", "none", "expected"),
        ("448012004", "focused-ultrasound", "liver", "external", "none", "expected"),
        ("433876005", "chemical", "liver", "percutaneous", "alcohol", "expected"),
        ("426713000", "chemical", "liver", "percutaneous", "unspecified", "expected"),
        ("427929006", "ablation", "liver", "unspecified", "none", "expected"),
        ("314617008", "embolisation", "liver", "percutaneous", "cytostatic", "implied"),
        ("764677008", "embolisation", "liver", "percutaneous", "radionuclide", "implied"),
        ("431530008", "arterial-infusion", "liver", "percutaneous", "radionuclide", "expected"),
        ("57238002", "embolisation", "", "percutaneous", "none", "required"),
        ("16736007", "embolisation", "", "percutaneous", "none", "required"),
        ("426697007", "radiofrequency", "kidney", "percutaneous", "none", "expected"),
        ("609168009", "cryotherapy", "kidney", "percutaneous", "none", "implied"),
        ("439808002", "ablation", "kidney", "laparoscopic", "none", "expected"),
        ("425751005", "cryotherapy", "kidney", "endoscopic", "none", "expected"),
        ("716748002", "electroporation", "kidney", "percutaneous", "none", "implied"),
        ("426987001", "radiofrequency", "lung", "percutaneous", "none", "expected"),
        ("708861007", "cryotherapy", "lung", "percutaneous", "none", "expected"),
        ("788820009", "microwave", "lung", "endoscopic", "none", "expected"),
        ("716755000", "electroporation", "lung", "percutaneous", "none", "implied"),
        ("442429002", "radiofrequency", "bone", "percutaneous", "none", "required"),
        ("432334001", "radiofrequency", "bone", "percutaneous", "none", "required"),
        ("178923005", "cryotherapy", "bone", "unspecified", "none", "required"),
        ("774064002", "focused-ultrasound", "bone", "external", "none", "required"),
        ("708875000", "radiofrequency", "adrenal", "percutaneous", "none", "expected"),
        ("725466004", "electroporation", "pancreas", "unspecified", "none", "implied"),
        ("764738000", "electroporation", "pancreas", "percutaneous", "none", "implied"),
        ("446941000", "focused-ultrasound", "prostate", "external", "none", "required"),
        ("1144494006", "radiofrequency", "thyroid", "percutaneous", "none", "required"),
        ("716009005", "ablation", "", "percutaneous", "none", "implied"),
        ("879916008", "radiofrequency", "", "unspecified", "none", "required"),
        ("774001008", "focused-ultrasound", "", "external", "none", "required"),
        ("401226007", "cementoplasty", "spine", "percutaneous", "cement", "required"),
        ("431555002", "cementoplasty", "spine", "percutaneous", "cement", "required"),
        ("426243004", "cementoplasty", "spine", "percutaneous", "cement", "required"),
        ("432431008", "cementoplasty", "bone", "percutaneous", "cement", "required"),
        ("710129002", "neurolysis", "nerve", "percutaneous", "none", "required"),
        ("231394002", "neurolysis", "nerve", "unspecified", "unspecified", "required"),
        ("446542002", "neurolysis", "nerve", "endoscopic", "none", "required"),
        ("62706003", "neurolysis", "nerve", "percutaneous", "none", "required"),
        ("425847000", "biliary-drainage", "bile-duct", "percutaneous", "none", "required"),
        ("302207003", "biliary-drainage", "bile-duct", "endoscopic", "none", "required"),
        ("313270001", "urinary-drainage", "urinary-tract", "percutaneous", "none", "required"),
        ("428817001", "urinary-drainage", "urinary-tract", "unspecified", "none", "required"),
        ("709983004", "effusion-drainage", "pleura", "percutaneous", "none", "required"),
        ("398182006", "vena-cava-filter", "vena-cava", "unspecified", "none", "required"),
        ("431528006", "thrombectomy", "vena-cava", "percutaneous", "none", "required"),
        ("709021002", "stent", "", "percutaneous", "none", "required"),
        ("54956002", "gastrostomy", "stomach", "unspecified", "none", "required"),
        ("433024005", "gastrostomy", "stomach", "percutaneous", "none", "required"),
        ("235159007", "gastrostomy", "stomach", "endoscopic", "none", "required"),
        ("80402001", "venous-access", "vessel", "unspecified", "none", "required"),
        ("425196008", "venous-access", "vessel", "percutaneous", "none", "required"),
        ("829831000000100", "marker", "lung", "percutaneous", "none", "required"),
        ("277591006", "biopsy", "", "percutaneous", "none", "required"),
        ("86259008", "biopsy", "liver", "unspecified", "none", "required"),
    ],
)
def test_what_a_concept_says(code: str, technique: str, site: str, approach: str, agent: str, indication: str) -> None:
    row = by_code()[code]
    found = (row["technique"], row["site"], row["approach"], row["agent"], row["indication"])
    assert found == (technique, site, approach, agent, indication)


@pytest.mark.parametrize(
    "code",
    [
        "18286008", "473229000", "265060005", "24998001", "373844007", "449405008", "448197009", "736132002",
        "774009005", "782657007", "712539007", "712538004", "713158000", "44208009", "405283007", "233527006",
        "113120007", "425767004", "367336001", "363688001", "77343006", "233445008", "264957007", "91602002",
        "176288003", "782702001", "129335008", "281609006", "103716009", "386718000", "84303004", "431743005",
    ],
)  # fmt: skip
def test_a_look_alike_is_none(code: str) -> None:
    assert by_code()[code]["technique"] == "none"


@pytest.mark.parametrize(
    "code", ["315030002", "449245002", "236174003", "178728009", "233439000", "30444008", "398291001", "427389003"]
)
def test_removal_and_exchange_are_revisions(code: str) -> None:
    assert by_code()[code]["role"] == "revision"
