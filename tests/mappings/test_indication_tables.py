"""The indication tables and the list of code systems: every tumour code is a tumour, every look-alike is not."""

from __future__ import annotations

import csv
import json
import re
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]
MAPPINGS = PROJECT / "mappings"
LISTS = PROJECT.parent / "shared" / "codes" / "raw"
DATA = PROJECT.parent / "shared" / "data"


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


COLUMNS = ("code", "kind", "organ", "meaning", "checked", "note")
KINDS = words("malignant metastasis in-situ uncertain benign history bleeding fracture obstruction symptom other")
NEOPLASTIC = words("malignant metastasis in-situ uncertain benign")
ORGANS = {""} | words(
    "liver lung kidney adrenal pancreas spleen bone spine prostate breast thyroid parathyroid uterus ovary testis "
    "brain nerve skin soft-tissue lymph-node pleura peritoneum bile-duct urinary-tract stomach bowel oesophagus "
    "bladder head-neck heart airway vessel vena-cava portal-vein hepatic-artery visceral-arteries renal-artery "
    "pelvic-arteries thoracic-vessels extremity other"
)
TABLES = ("icd10", "snomed", "icdo3")
SYSTEMS = words("ops icd10pcs snomed cpt opcs4 ccam chop icd10 icdo3")

Row = dict[str, str]
Place = frozenset[str] | None  # None: any character


@cache
def rows(name: str) -> tuple[Row, ...]:
    with (MAPPINGS / "indications" / f"{name}.csv").open(encoding="utf-8", newline="") as handle:
        return tuple(csv.DictReader(handle))


@cache
def places(pattern: str) -> tuple[tuple[Place, ...], bool]:
    """The characters allowed at each place, and whether the tail is open."""
    found: list[Place] = []
    for piece in re.findall(r"\[[^\]]+\]|.", pattern.removesuffix("*")):
        if piece == "?":
            found.append(None)
        elif piece.startswith("["):
            body = re.sub(
                r"(.)-(.)", lambda ends: "".join(map(chr, range(ord(ends[1]), ord(ends[2]) + 1))), piece[1:-1]
            )
            found.append(frozenset(body))
        else:
            found.append(frozenset(piece))
    return tuple(found), pattern.endswith("*")


def matches(pattern: str, code: str) -> bool:
    wanted, tail = places(pattern)
    if len(code) < len(wanted) or (len(code) > len(wanted) and not tail):
        return False
    return all(place is None or char in place for place, char in zip(wanted, code, strict=False))


def specificity(pattern: str) -> tuple[int, int, bool]:
    wanted, tail = places(pattern)
    sets = pattern.count("[")
    return sum(place is not None for place in wanted) - sets, sets, not tail


def overlap(first: str, second: str) -> bool:
    (one, one_tail), (other, other_tail) = places(first), places(second)
    if (len(one) < len(other) and not one_tail) or (len(other) < len(one) and not other_tail):
        return False
    return all(a is None or b is None or a & b for a, b in zip(one, other, strict=False))


@cache
def _starting(name: str) -> dict[str, tuple[Row, ...]]:
    found: dict[str, list[Row]] = {}
    for row in rows(name):
        found.setdefault(row["code"][:2], []).append(row)
    return {start: tuple(group) for start, group in found.items()}


def candidates(name: str, code: str) -> list[Row]:
    starts = _starting(name)
    group = rows(name) if name == "icdo3" else (*starts.get(code[:2], ()), *starts.get(f"{code[:1]}*", ()))
    return sorted(
        (row for row in group if matches(row["code"], code)), key=lambda row: specificity(row["code"]), reverse=True
    )


def look_up(name: str, code: str) -> tuple[str, str]:
    found = candidates(name, code)
    return (found[0]["kind"], found[0]["organ"]) if found else ("", "")


def dotted(code: str) -> str:
    return f"{code[:3]}.{code[3:]}" if len(code) > 3 else code


@cache
def listed_icd10() -> tuple[str, ...]:
    paths = (
        (LISTS / "icd10who" / "icd10who_neoplasm_ukb_coding19.tsv", "\t"),
        (LISTS / "icd10cm" / "icd10cm_neoplasm_from_CMSHCC2026mapping.csv", ","),
    )
    codes: set[str] = set()
    for path, delimiter in paths:
        if not path.is_file():
            pytest.skip("the published ICD-10 lists are absent")
        with path.open(encoding="utf-8", newline="") as handle:
            codes.update(dotted(line[0].strip()) for line in list(csv.reader(handle, delimiter=delimiter))[1:])
    return tuple(sorted(codes))


@cache
def listed_snomed() -> frozenset[str]:
    path = LISTS / "snomed" / "ValueSet-snomed-intl-gps.json"
    if not path.is_file():
        pytest.skip("the SNOMED GPS value set is absent")
    return frozenset(re.findall(r'"code"\s*:\s*"(\d+)"', path.read_text(encoding="utf-8")))


@cache
def systems() -> tuple[Row, ...]:
    with (MAPPINGS / "systems.csv").open(encoding="utf-8", newline="") as handle:
        return tuple(csv.DictReader(handle))


def uri_key(uri: str) -> str:
    return re.sub(r"^https?://", "", uri.strip().lower()).rstrip("/")


@pytest.mark.parametrize("name", TABLES)
def test_header_is_that_of_an_indication_table(name: str) -> None:
    with (MAPPINGS / "indications" / f"{name}.csv").open(encoding="utf-8", newline="") as handle:
        assert handle.readline().rstrip("\n") == ",".join(COLUMNS)


@pytest.mark.parametrize("name", TABLES)
def test_words_are_known_and_rows_whole(name: str) -> None:
    broken = [
        row["code"]
        for row in rows(name)
        if row["kind"] not in KINDS
        or row["organ"] not in ORGANS
        or not row["meaning"]
        or not row["checked"]
        or None in row
    ]
    assert broken == []


@pytest.mark.parametrize("name", TABLES)
def test_every_pattern_is_written_once(name: str) -> None:
    codes = [row["code"] for row in rows(name)]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("name", ["icd10", "icdo3"])
def test_no_two_patterns_are_equally_specific_for_one_code(name: str) -> None:
    groups: dict[tuple[int, int, bool], list[str]] = {}
    for row in rows(name):
        groups.setdefault(specificity(row["code"]), []).append(row["code"])
    clashes = [pair for group in groups.values() for pair in combinations(group, 2) if overlap(*pair)]
    assert clashes == []


def test_every_listed_tumour_code_has_one_most_specific_row_of_a_tumour_kind() -> None:
    wrong = []
    for code in listed_icd10():
        found = candidates("icd10", code)
        best = [row for row in found if specificity(row["code"]) == specificity(found[0]["code"])]
        if len(best) != 1 or best[0]["kind"] not in NEOPLASTIC:
            wrong.append(code)
    assert wrong == []
    assert len(listed_icd10()) > 1500


def test_the_chapter_decides_the_kind() -> None:
    ranges = (
        (r"C7[789]|C7B", "metastasis"), (r"C", "malignant"), (r"D0", "in-situ"),
        (r"D[12]|D3[0-6A]", "benign"), (r"D3[789]|D4", "uncertain"),
    )  # fmt: skip
    wrong = []
    for code in listed_icd10():
        expected = next(kind for pattern, kind in ranges if re.match(pattern, code))
        if look_up("icd10", code)[0] != expected:
            wrong.append(code)
    assert wrong == []


@pytest.mark.parametrize(
    ("code", "kind", "organ"),
    [
        ("C22", "malignant", "liver"), ("C22.0", "malignant", "liver"), ("C22.1", "malignant", "liver"),
        ("C24.0", "malignant", "bile-duct"), ("C25.9", "malignant", "pancreas"), ("C18.7", "malignant", "bowel"),
        ("C20", "malignant", "bowel"), ("C26.1", "malignant", "spleen"), ("C34.1", "malignant", "lung"),
        ("C38.4", "malignant", "pleura"), ("C40.2", "malignant", "bone"), ("C41.2", "malignant", "spine"),
        ("C43.5", "malignant", "skin"), ("C45.0", "malignant", "pleura"), ("C48.0", "malignant", "soft-tissue"),
        ("C49.A2", "malignant", ""), ("C4A.9", "malignant", "skin"), ("C50.911", "malignant", "breast"),
        ("C53.9", "malignant", "uterus"), ("C56", "malignant", "ovary"), ("C61", "malignant", "prostate"),
        ("C64", "malignant", "kidney"), ("C64.2", "malignant", "kidney"), ("C67.9", "malignant", "bladder"),
        ("C71.9", "malignant", "brain"), ("C72.0", "malignant", "spine"), ("C73", "malignant", "thyroid"),
        ("C74.1", "malignant", "adrenal"), ("C75.0", "malignant", "parathyroid"), ("C80.0", "malignant", ""),
        ("C83.3", "malignant", "lymph-node"), ("C90.00", "malignant", "bone"), ("C91.0", "malignant", ""),
        ("C7A.090", "malignant", "lung"), ("C7A.012", "malignant", "bowel"), ("C7A.8", "malignant", ""),
        ("C7B.02", "metastasis", "liver"), ("C7B.03", "metastasis", "bone"), ("C77.2", "metastasis", "lymph-node"),
        ("C78.0", "metastasis", "lung"), ("C78.01", "metastasis", "lung"), ("C78.2", "metastasis", "pleura"),
        ("C78.6", "metastasis", "peritoneum"), ("C78.7", "metastasis", "liver"), ("C78.5", "metastasis", "bowel"),
        ("C79.0", "metastasis", "kidney"), ("C79.11", "metastasis", "bladder"), ("C79.3", "metastasis", "brain"),
        ("C79.5", "metastasis", "bone"), ("C79.51", "metastasis", "bone"), ("C79.7", "metastasis", "adrenal"),
        ("C79.70", "metastasis", "adrenal"), ("C79.81", "metastasis", "breast"), ("C79.9", "metastasis", ""),
        ("D01.5", "in-situ", "liver"), ("D05.1", "in-situ", "breast"), ("D09.0", "in-situ", "bladder"),
        ("D13.4", "benign", "liver"), ("D16.9", "benign", "bone"), ("D16.6", "benign", "spine"),
        ("D17.7", "benign", ""), ("D17.71", "benign", "kidney"), ("D18.0", "benign", ""),
        ("D18.02", "benign", "brain"), ("D24", "benign", "breast"), ("D25.9", "benign", "uterus"),
        ("D34", "benign", "thyroid"), ("D35.0", "benign", "adrenal"), ("D3A.090", "benign", "lung"),
        ("D37.6", "uncertain", "liver"), ("D41.0", "uncertain", "kidney"), ("D48.0", "uncertain", "bone"),
        ("D47.2", "uncertain", ""), ("D49.511", "uncertain", "kidney"), ("Z85.05", "history", "liver"),
        ("Z85.3", "history", "breast"), ("Z85.9", "history", ""), ("M84.5", "malignant", "bone"),
        ("M84.58XA", "malignant", "bone"), ("M90.7", "malignant", "bone"), ("G89.3", "malignant", ""),
        ("J91.0", "malignant", "pleura"), ("R18.0", "malignant", "peritoneum"), ("E34.0", "uncertain", ""),
        ("M80.08XA", "fracture", "bone"), ("M81.0", "fracture", "bone"), ("M48.5", "fracture", "spine"),
        ("M84.4", "fracture", "bone"), ("S22.0", "fracture", "spine"), ("S22.42XA", "fracture", "bone"),
        ("S32.010A", "fracture", "spine"), ("S32.5", "fracture", "bone"), ("N40", "benign", "prostate"),
        ("I85.9", "other", "oesophagus"), ("I85.0", "bleeding", "oesophagus"), ("K92.2", "bleeding", ""),
        ("O72.1", "bleeding", "uterus"), ("R04.2", "bleeding", "airway"), ("I61.9", "bleeding", "brain"),
        ("N13.3", "obstruction", "kidney"), ("N13.5", "obstruction", "urinary-tract"), ("N20.0", "other", "kidney"),
        ("K80.2", "other", "bile-duct"), ("K83.1", "obstruction", "bile-duct"), ("I86.1", "other", "testis"),
        ("I48.0", "other", "heart"), ("I10", "other", ""), ("I15.0", "other", ""), ("E04.2", "other", "thyroid"),
        ("N28.1", "other", "kidney"), ("K76.8", "other", "liver"), ("K74.6", "other", "liver"),
        ("J90", "symptom", "pleura"), ("R18", "symptom", "peritoneum"), ("R18.8", "symptom", "peritoneum"),
        ("I71.4", "other", "vessel"), ("M54.5", "symptom", "spine"), ("G50.0", "other", "nerve"),
        ("G89.4", "other", ""), ("I87.1", "obstruction", "vessel"), ("Z80.0", "other", ""),
        ("R91", "", ""), ("I26.9", "symptom", "vessel"), ("R52.2", "", ""), ("B02.2", "other", ""),
        ("I69.3", "other", "brain"), ("E43", "symptom", ""), ("N28.8", "symptom", "kidney"), ("T81.4", "symptom", ""),
        ("N99.82", "bleeding", ""), ("G95.2", "symptom", "nerve"), ("S06.5", "other", ""),
        ("J94.0", "symptom", "pleura"), ("L02.2", "other", ""),
    ],
)  # fmt: skip
def test_what_an_icd10_code_says(code: str, kind: str, organ: str) -> None:
    assert look_up("icd10", code) == (kind, organ)


@pytest.mark.parametrize(
    ("code", "kind", "organ"),
    [
        ("C22.0", "uncertain", "liver"), ("C41.2", "uncertain", "spine"), ("C42.2", "uncertain", "spleen"),
        ("C77.0", "uncertain", "lymph-node"), ("8140/3", "malignant", ""), ("8140/6", "metastasis", ""),
        ("8140/33", "malignant", ""), ("M8140/3", "malignant", ""), ("8170/3", "malignant", "liver"),
        ("8010/2", "in-situ", ""), ("8000/1", "uncertain", ""), ("8850/0", "benign", ""),
        ("9191/0", "benign", "bone"), ("9732/3", "malignant", "bone"), ("8312/3", "malignant", "kidney"),
    ],
)  # fmt: skip
def test_what_an_icdo3_code_says(code: str, kind: str, organ: str) -> None:
    assert look_up("icdo3", code) == (kind, organ)


@pytest.mark.parametrize(
    ("code", "kind", "organ"),
    [
        ("109841003", "malignant", "liver"), ("94381002", "metastasis", "liver"), ("94391008", "metastasis", "lung"),
        ("94222008", "metastasis", "bone"), ("254637007", "malignant", "lung"), ("254837009", "malignant", "breast"),
        ("399068003", "malignant", "prostate"), ("363406005", "malignant", "bowel"),
        ("109989006", "malignant", "bone"), ("94503003", "metastasis", "prostate"),
        ("162573006", "uncertain", "lung"), ("95315005", "benign", "uterus"), ("266569009", "benign", "prostate"),
        ("49436004", "other", "heart"), ("59621000", "other", ""), ("38341003", "other", ""),
        ("64859006", "fracture", "bone"), ("443165006", "fracture", "bone"), ("46177005", "other", "kidney"),
        ("129103003", "other", "uterus"), ("278860009", "symptom", "spine"), ("79883001", "other", "ovary"),
        ("28670008", "other", "oesophagus"), ("74474003", "bleeding", ""), ("19943007", "other", "liver"),
        ("78275009", "", ""), ("44054006", "", ""), ("59282003", "", ""), ("203468000", "other", "bone"),
        ("417742002", "uncertain", "breast"), ("81639003", "fracture", "bone"),
    ],
)  # fmt: skip
def test_what_a_snomed_concept_says(code: str, kind: str, organ: str) -> None:
    assert look_up("snomed", code) == (kind, organ)


def test_snomed_has_literal_concepts_of_the_value_set_and_says_so() -> None:
    assert 500 <= len(rows("snomed")) <= 2500
    outside = [
        row["code"]
        for row in rows("snomed")
        if row["checked"].startswith("SNOMED GPS") == (row["code"] not in listed_snomed())
    ]
    assert outside == []
    assert all("CC BY 4.0" in row["checked"] for row in rows("snomed") if row["checked"].startswith("SNOMED GPS"))


def test_raised_blood_pressure_called_malignant_is_no_tumour() -> None:
    for code in ("70272006", "78975002"):
        assert look_up("snomed", code)[0] in {"other", ""}


def test_systems_have_known_names_and_every_alias_once() -> None:
    with (MAPPINGS / "systems.csv").open(encoding="utf-8", newline="") as handle:
        assert handle.readline().rstrip("\n") == "name,uri,kind,note"
    assert {row["name"] for row in systems()} == SYSTEMS
    assert {row["kind"] for row in systems()} == {"procedure", "diagnosis", "both"}
    keys = [uri_key(row["uri"]) for row in systems()]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("http://snomed.info/sct", "snomed"), ("http://fhir.de/CodeSystem/bfarm/ops", "ops"),
        ("https://fhir.de/CodeSystem/dimdi/ops/", "ops"), ("http://www.cms.gov/Medicare/Coding/ICD10", "icd10pcs"),
        ("http://hl7.org/fhir/sid/icd-10-pcs", "icd10pcs"), ("urn:oid:2.16.840.1.113883.6.4", "icd10pcs"),
        ("http://mimic.mit.edu/fhir/mimic/CodeSystem/mimic-procedure-icd10", "icd10pcs"),
        ("http://www.ama-assn.org/go/cpt", "cpt"), ("urn:oid:2.16.840.1.113883.6.285", "cpt"),
        ("http://fhir.hl7.org.uk/CodeSystem/OPCS-4", "opcs4"),
        ("https://smt.esante.gouv.fr/terminologie-ccam", "ccam"),
        ("https://terminology.eds.aphp.fr/aphp-orbis-ccam", "ccam"),
        ("urn:oid:2.16.756.5.30.1.126.3.1", "chop"), ("http://hl7.org/fhir/sid/icd-10", "icd10"),
        ("http://fhir.de/CodeSystem/bfarm/icd-10-gm", "icd10"), ("http://hl7.org/fhir/sid/icd-10-cm", "icd10"),
        ("http://fhir.de/CodeSystem/dimdi/icd-10-gm", "icd10"), ("urn:oid:2.16.840.1.113883.6.90", "icd10"),
        ("http://terminology.hl7.org/CodeSystem/icd-o-3", "icdo3"),
    ],
)  # fmt: skip
def test_an_alias_leads_to_its_system(uri: str, name: str) -> None:
    known = {uri_key(row["uri"]): row["name"] for row in systems()}
    assert known[uri_key(uri)] == name


def _coded_systems(node: Any, found: set[str]) -> None:
    if isinstance(node, dict):
        if node.get("resourceType") in {"Procedure", "Condition"}:
            found.update(coding.get("system", "") for coding in (node.get("code") or {}).get("coding", ()))
        for value in node.values():
            _coded_systems(value, found)
    elif isinstance(node, list):
        for value in node:
            _coded_systems(value, found)


def test_the_classifications_of_real_data_are_known() -> None:
    folder = DATA / "mii-kds-testdata"
    if not folder.is_dir():
        pytest.skip("the real sample data is absent")
    found: set[str] = set()
    for path in folder.rglob("*.json"):
        _coded_systems(json.loads(path.read_text(encoding="utf-8")), found)
    known = {uri_key(row["uri"]) for row in systems()}
    classifications = {uri for uri in found if re.search(r"/ops$|icd-10|snomed", uri)}
    assert len(classifications) >= 3
    assert [uri for uri in sorted(classifications) if uri_key(uri) not in known] == []
