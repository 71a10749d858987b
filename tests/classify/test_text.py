"""Texts: technique words in three languages, with negation and planning. All texts are made up."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import msgspec
import pytest

from io_fhir_adapter.classify.decide import decide_patient
from io_fhir_adapter.classify.findings import read_codes
from io_fhir_adapter.classify.rules import load_techniques
from io_fhir_adapter.classify.ruleset import SiteTable, load_ruleset
from io_fhir_adapter.classify.text import COLUMNS, fold, load_technique_words
from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.model import Code, Decision, ProcedureFact
from io_fhir_adapter.shipped import shipped_path

DONE = [
    ("TACE Leber", "tace"),
    ("cTACE bei HCC", "tace"),
    ("Re-TACE, 3. Sitzung", "tace"),
    ("transarterielle Chemoembolisation rechter Leberlappen", "tace"),
    ("Chemoembolization of liver", "tace"),
    ("Chimioembolisation hépatique", "tace"),
    ("Embolisation mit Doxorubicin und Lipiodol bei HCC", "tace"),
    ("DEB-TACE", "deb-tace"),
    ("Zöliakusneurolyse unter CT", "neurolysis"),
    ("SIRT (Y90) Lobus dexter", "tare"),
    ("Radioembolisation hépatique à l'yttrium-90", "tare"),
    ("selective internal radiation therapy", "tare"),
    ("Tumorembolisation Niere", "bland-embolisation"),
    ("Pfortaderembolisation", "pve"),
    ("embolisation portale droite", "pve"),
    ("Mikrowellenablation Lebermetastase Segment VII", "ablation-mwa"),
    ("MWA Leber ohne Komplikationen", "ablation-mwa"),
    ("MWA Leber, keine Blutung", "ablation-mwa"),
    ("MWA Lunge bei nicht-kleinzelligem Bronchialkarzinom", "ablation-mwa"),
    ("MWA NACH BIOPSIE LEBER", "ablation-mwa"),
    ("Leber-RFA", "ablation-rfa"),
    ("radiofrequency ablation of liver metastasis", "ablation-rfa"),
    ("Ablation par radiofréquence d'une tumeur hépatique", "ablation-rfa"),
    ("Kryoablation Niere rechts", "ablation-cryo"),
    ("Cryoablation rénale gauche", "ablation-cryo"),
    ("IRE Pankreaskarzinom", "ablation-ire"),
    ("HIFU Pankreas", "ablation-hifu"),
    ("Nebennierenmetastasenablation", "ablation-other"),
    ("Elektrochemotherapie Melanommetastase", "electrochemotherapy"),
    ("Vertebroplastie LWK 3", "cementoplasty"),
    ("Plexus coeliacus Neurolyse", "neurolysis"),
    ("TACE bei HCC und Ösophagusvarizen", "tace"),
]
NOT_DONE = [
    "keine Ablation der Lebermetastase",
    "Mikrowellenablation Lebermetastase, nicht durchgeführt",
    "MWA Leber abgebrochen",
    "MWA Leber, wurde abgebrochen",
    "TACE technisch nicht möglich",
    "not performed: radiofrequency ablation of liver",
    "liver ablation cancelled",
    "no chemoembolization",
    "sans embolisation hépatique",
    "chimio-embolisation annulée",
    "TACE hépatique non réalisée",
    "CT Abdomen nach TACE",
    "Z.n. TACE",
    "MRT vor SIRT",
    "status post RFA of liver",
]
PLANNED = [
    "SIRT-Planung",
    "SIRT Evaluation mit MAA",
    "TACE im Intervall",
    "TACE Leber, geplant",
    "Transarterielle Chemoembolisation (geplant)",
    "Aufklärung TACE",
    "planned microwave ablation of liver",
    "vertébroplastie prévue",
    "évaluation pré-SIRT",
    "MAA-Szintigraphie",
]
OTHER_DISEASE = [
    "Katheterablation Vorhofflimmern",
    "RFA Pulmonalvenen",
    "catheter ablation, atrial flutter",
    "Uterine fibroid embolization",
    "Embolisation Myom",
    "RFA of facet joints",
    "Endovenous laser ablation of saphenous vein",
    "Laserablation der Vena saphena magna",
    "Saphenalaserablation links",
    "Radiofrequenzablation Stammvene",
    "Endovenöse Radiofrequenzablation beidseits",
    "EVLT der VSM",
    "laser ablation, endovenous, left GSV",
    "laser endoveineux de la petite veine saphène",
    "radiofréquence de la grande saphène",
    "Uterusmyomembolisation",
    "Varizenlaserablation",
    "Laserablation Zahnfleisch",
    "dental laser ablation",
    "RFA Osteoidosteom",
    "Thyroid nodule RFA",
    "Leberzyste Alkoholinjektion",
    "embolisation d'un fibrome utérin",
    "Ablation de drain",
    "Ablation",
    "Embolisation",
    "Lungenembolie",
    "Hämodialyse",
    "",
]


def said(make: Any, text: str, stated: str = "C22.0", ruleset: Any = None, **more: Any) -> Decision:
    fact = make.procedure("x", more.pop("codes", "local:X"), stated=stated, text=text, **more)
    (found,) = decide_patient([fact], [], [], ruleset or make.ruleset)
    return found


@pytest.mark.parametrize(("text", "category"), DONE)
def test_what_was_done_is_proposed_and_never_counted(make: Any, text: str, category: str) -> None:
    for stated in ("", "C79.8"):
        found = said(make, text, stated)
        assert (found.category, found.decision, found.reason) == (category, "review", "text-only")
        assert {(item.code, item.rule.partition(":")[0]) for item in found.findings} == {
            ("text", "technique-words.csv")
        }


@pytest.mark.parametrize("text", [*NOT_DONE, *OTHER_DISEASE])
def test_what_was_not_done_or_is_for_another_disease_is_nothing(make: Any, text: str) -> None:
    found = said(make, text)
    assert (found.category, found.decision, found.reason) == ("none", "not-counted", "unmapped")


@pytest.mark.parametrize("text", PLANNED)
def test_what_was_planned_is_planning(make: Any, text: str) -> None:
    found = said(make, text)
    assert (found.category, found.decision, found.reason) == ("planning", "not-counted", "planning-only")


def test_the_display_of_an_unknown_code_is_read_like_the_text(make: Any) -> None:
    code = Code("http://hospital.example/keys", "K1", display="Mikrowellenablation Leber")
    fact = ProcedureFact("his", "x", "Patient/p1", "completed", "2025-03-14", codes=(code,))
    assert [finding.technique for finding in read_codes(fact, make.ruleset).findings] == ["microwave"]
    bare = ProcedureFact("his", "x", "Patient/p1", "completed", "2025-03-14", text="Mikrowellenablation Leber")
    assert read_codes(bare, make.ruleset).findings == read_codes(fact, make.ruleset).findings


@pytest.mark.parametrize(
    ("codes", "reason"),
    [("ops:8-835.23", "look-alike"), ("ops:9-999", "no-io-code"), ("local:X & ops:8-835.23", "look-alike")],
)
def test_a_code_that_is_known_is_the_better_witness(make: Any, codes: str, reason: str) -> None:
    found = said(make, "TACE Leber", codes=codes)
    assert (found.category, found.decision, found.reason) == ("none", "not-counted", reason)


def test_a_key_that_the_site_has_not_mapped_yet_is_read(make: Any, tmp_path: Path) -> None:
    table = tmp_path / "keys.csv"
    head = "code,technique,site,approach,agent,role,indication,valid_from,valid_to,meaning,checked,note"
    table.write_text(f"{head}\nK1,none,,unspecified,none,main,required,,,made up,made up,\n", encoding="utf-8")
    ruleset = load_ruleset(site_tables=[SiteTable("http://hospital.example/keys", table)])
    assert said(make, "TACE Leber", codes="local:K2", ruleset=ruleset).reason == "text-only"
    assert said(make, "TACE Leber", codes="local:K1", ruleset=ruleset).reason == "look-alike"


def test_another_way_in_and_another_stated_disease_are_heard(make: Any) -> None:
    assert said(make, "Laparoskopische RFA Leber").reason == "not-percutaneous"
    assert said(make, "Vertebroplastie LWK 3", "M80.08").reason == "other-disease"
    assert said(make, "PTCD-Wechsel").reason == "revision-only"
    assert said(make, "Nephrostomie", "").reason == "no-tumour-indication"
    assert said(make, "Nephrostomie", "C67.2").reason == "text-only"
    assert said(make, "TACE Leber", status="not-done").reason == "not-completed"


def test_a_text_changes_nothing_that_codes_decide(make: Any) -> None:
    coded = make.procedure("1", "ops:8-836.ka", stated="C22.0")
    words = make.procedure("2", "local:X", text="TACE Leber", stated="C22.0")
    (found,) = make.decide([coded, words])
    assert (found.category, found.decision, found.categories) == (
        "bland-embolisation",
        "counted",
        ("bland-embolisation",),
    )
    other = make.procedure("2", "local:X", text="MWA Leber", stated="C22.0")
    (found,) = make.decide([coded, other])
    assert (found.decision, found.categories) == ("counted", ("bland-embolisation", "ablation-mwa"))


def test_a_text_beside_a_coded_biopsy_is_proposed(make: Any) -> None:
    (found,) = make.decide(
        [make.procedure("1", "ops:1-442.0", stated="C22.0"), make.procedure("2", "local:X", text="MWA Leber")]
    )
    assert (found.category, found.reason) == ("ablation-mwa", "text-only")


def test_a_text_and_the_code_of_the_next_day_are_one_treatment(make: Any) -> None:
    facts = [
        make.procedure("1", "local:X", day="2025-03-13", text="TACE Leber", origin="urn:ris"),
        make.procedure("2", "ops:8-836.ka & ops:8-541.6", stated="C22.0", origin="urn:his"),
    ]
    assert [(d.category, d.decision) for d in make.decide(facts)] == [("tace", "counted")]


@pytest.mark.parametrize(
    ("text", "folded"), [("Ösophagus", "osophagus"), ("OESOPHAGUS", "osophagus"), ("Größe", "grosse"), ("né", "ne")]
)
def test_folding(text: str, folded: str) -> None:
    assert fold(text) == folded


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("TACE,xx,word,embolisation,,,,main,expected,,", "language"),
        ("TACE,de,whole,embolisation,,,,main,expected,,", "match"),
        ("TACE,de,word,burning,,,,main,expected,,", "technique"),
        ("TACE,de,word,embolisation,nowhere,,,main,expected,,", "site"),
        ("TACE,de,word,,,,,,,,", "says nothing"),
        ("TACE,de,word,embolisation", "too few columns"),
        ("TACE,de,word,embolisation,,,,main,expected,,\ntace,en,word,embolisation,,,,main,expected,,", "twice"),
    ],
)
def test_a_wrong_row_is_refused_with_its_line(tmp_path: Path, row: str, what: str) -> None:
    path = tmp_path / "technique-words.csv"
    path.write_text(f"{','.join(COLUMNS)}\n{row}\n", encoding="utf-8")
    techniques = load_techniques(shipped_path("mappings", "techniques.csv"))
    with pytest.raises(MappingError, match=what) as caught:
        load_technique_words(path, techniques)
    assert "technique-words.csv:" in str(caught.value)


def test_every_shipped_technique_word_is_found_in_its_own_text(make: Any) -> None:
    with shipped_path("mappings", "technique-words.csv").open(encoding="utf-8", newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["technique"] not in {"", "none", "drug"}]
    assert len(rows) > 100
    for row in rows:
        text = f"{row['word']} tumour"
        found = make.ruleset.text_findings((), [text])
        assert row["technique"] in {finding.technique for finding in found}, text


def test_facts_are_plain_values(make: Any) -> None:
    reading = read_codes(make.procedure("x", "local:X", text="TACE Leber"), make.ruleset)
    assert msgspec.json.decode(msgspec.json.encode(reading))["from_text"] is True
