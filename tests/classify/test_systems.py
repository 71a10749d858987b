"""Code systems: many URIs for one system, many spellings of one code."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from io_fhir_adapter.classify.systems import SystemNames, normalise_code, uri_key
from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.shipped import shipped_path

NAMES = SystemNames.load(shipped_path("mappings", "systems.csv"))


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("http://fhir.de/CodeSystem/bfarm/ops", "ops"),
        ("http://fhir.de/CodeSystem/dimdi/ops", "ops"),
        ("https://fhir.de/CodeSystem/bfarm/ops/", "ops"),
        ("http://fhir.de/CodeSystem/bfarm/ops|2025", "ops"),
        ("HTTP://FHIR.DE/CodeSystem/BfArM/OPS", "ops"),
        ("http://www.cms.gov/Medicare/Coding/ICD10", "icd10pcs"),
        ("http://hl7.org/fhir/sid/icd-10-pcs", "icd10pcs"),
        ("http://mimic.mit.edu/fhir/mimic/CodeSystem/mimic-procedure-icd10", "icd10pcs"),
        ("urn:oid:2.16.840.1.113883.6.4", "icd10pcs"),
        ("http://snomed.info/sct", "snomed"),
        ("http://snomed.info/sct|http://snomed.info/sct/900000000000207008", "snomed"),
        ("urn:oid:2.16.840.1.113883.6.96", "snomed"),
        ("http://www.ama-assn.org/go/cpt", "cpt"),
        ("http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets", "cpt"),
        ("https://fhir.hl7.org.uk/CodeSystem/OPCS-4", "opcs4"),
        ("http://hl7.org/fhir/sid/icd-10-cm", "icd10"),
        ("http://fhir.de/CodeSystem/bfarm/icd-10-gm", "icd10"),
        ("http://mimic.mit.edu/fhir/mimic/CodeSystem/mimic-diagnosis-icd10", "icd10"),
        ("http://fhir.de/CodeSystem/bfarm/ops|2024", "ops"),
        ("http://fhir.de/CodeSystem/dimdi/ops-2019", "ops"),
        ("http://fhir.de/CodeSystem/bfarm/ops/2023/", "ops"),
        ("https://fhir.de/CodeSystem/dimdi/ops|2020", "ops"),
        ("https://terminologien.bfarm.de/fhir/CodeSystem/ops", "ops"),
        ("http://fhir.hl7.org.uk/CodeSystem/OPCS-4", "opcs4"),
        ("https://fhir.hl7.org.uk/CodeSystem/OPCS-4/|4.10", "opcs4"),
        ("http://fhir.hl7.org.uk/R4/CodeSystem/OPCS-4", "opcs4"),
        ("https://smt.esante.gouv.fr/terminologie-ccam|v83.00", "ccam"),
        ("http://smt.esante.gouv.fr/terminologie-ccam/", "ccam"),
        ("urn:oid:1.2.250.1.215.300.1", "ccam"),
        ("urn:oid:1.2.250.1.213.2.5", "ccam"),
        ("1.2.250.1.213.2.5", "ccam"),
        ("1.2.250.1.213.2.56", ""),
        ("urn:oid:2.16.756.5.30.1.126.3.1", "chop"),
        ("urn:oid:2.16.756.5.30.1.126.3.1.14", "chop"),
        ("URN:OID:2.16.756.5.30.1.126.3.1.2.2023", "chop"),
        ("urn:oid:2.16.756.5.30.1.126.3.10", ""),
        ("urn:oid:2.16.756.5.30.1.126.3.2.9", "icd10"),
        ("urn:oid:2.16.840.1.113883.6.3.9", ""),
        ("http://snomed.info/sct/11000274103/version/20250515", "snomed"),
        ("http://snomed.info/sct/900000000000207008/version/20240101", "snomed"),
        ("http://snomed.info/scthing", ""),
        ("http://hospital.example/ops-2024", ""),
        ("http://hospital.example/keys", ""),
        ("urn:oid:1.2.276.0.76.5.478", "ops"),
        ("1.2.276.0.76.5.417", "icd10"),
        ("https://fhir.hl7.org.uk/Id/opcs-4", "opcs4"),
        ("", ""),
    ],
)
def test_aliases(uri: str, name: str) -> None:
    assert NAMES.name(uri) == name


@pytest.mark.parametrize(
    ("system", "written", "normal"),
    [
        ("ops", "5-501.a3", "5-501.a3"),
        ("ops", "5501A3", "5-501.a3"),
        ("ops", "5-501A3", "5-501.a3"),
        ("ops", " 5-552.52:R ", "5-552.52"),
        ("ops", "5-552.52:B", "5-552.52"),
        ("ops", "5-552.52#", "5-552.52"),
        ("ops", "5-552.52 L", "5-552.52"),
        ("ops", "8-836.KA", "8-836.ka"),
        ("ops", "8-836", "8-836"),
        ("ops", "3-604", "3-604"),
        ("ops", "1", "1"),
        ("icd10pcs", "0f503zz", "0F503ZZ"),
        ("icd10pcs", " 04L33DZ", "04L33DZ"),
        ("snomed", " 764677008 ", "764677008"),
        ("snomed", "764677008|radioembolisation|", "764677008"),
        ("snomed", "430269006:363704007=10200004", "430269006"),
        ("cpt", "47382-26", "47382"),
        ("cpt", "47382 RT", "47382"),
        ("cpt", "c2616", "C2616"),
        ("opcs4", "J124", "J12.4"),
        ("opcs4", "j12.4", "J12.4"),
        ("ccam", "HLNK001.01", "HLNK001"),
        ("ccam", "hlnk001-01", "HLNK001"),
        ("icd10", "C220", "C22.0"),
        ("icd10", "c22.0", "C22.0"),
        ("icd10", "C61", "C61"),
        ("icd10", "C22.0-", "C22.0"),
        ("icdo3", "c220", "C22.0"),
        ("icdo3", "8170/3", "8170/3"),
        ("icdo3", "81703", "8170/3"),
        ("icdo3", "M-8170/3", "8170/3"),
        ("unheard-of", " X 1 ", "X 1"),
    ],
)
def test_code_shapes(system: str, written: str, normal: str) -> None:
    assert normalise_code(system, written) == normal


@given(
    st.sampled_from(["ops", "icd10pcs", "snomed", "cpt", "opcs4", "ccam", "icd10", "icdo3", "other"]),
    st.text(max_size=12),
)
def test_a_normal_code_stays_as_it_is(system: str, code: str) -> None:
    once = normalise_code(system, code)
    assert normalise_code(system, once) == once


@given(st.text(max_size=30))
def test_a_uri_s_key_is_stable(uri: str) -> None:
    assert uri_key(uri_key(uri)) == uri_key(uri)


def test_a_site_adds_its_own_uri(tmp_path: Path) -> None:
    names = SystemNames.load(shipped_path("mappings", "systems.csv"), {"http://hospital.example/ops": "ops"})
    assert names.name("https://hospital.example/OPS/") == "ops"


def test_a_site_s_own_uri_may_stand_for_all_below_it() -> None:
    names = SystemNames.load(shipped_path("mappings", "systems.csv"), {"http://hospital.example/ops/*": "ops"})
    assert names.name("http://hospital.example/ops/2024-rev2") == "ops"
    assert names.name("http://hospital.example/ops-theatre") == ""


def test_one_uri_for_two_systems_is_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "systems.csv"
    path.write_text("name,uri\nops,http://a.example/x\ncpt,https://a.example/X/\n", encoding="utf-8")
    with pytest.raises(MappingError, match=r"systems\.csv:3"):
        SystemNames.load(path)


def test_an_unreadable_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match="cannot be read"):
        SystemNames.load(tmp_path / "absent.csv")
    path = tmp_path / "systems.csv"
    path.write_text("who,what\nx,y\n", encoding="utf-8")
    with pytest.raises(MappingError, match="cannot be read"):
        SystemNames.load(path)
