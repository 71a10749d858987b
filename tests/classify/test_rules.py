"""Session rules, indication tables, programmes and the ruleset: what editors may write and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from io_fhir_adapter.classify.decide import decide_patient
from io_fhir_adapter.classify.indications import KINDS
from io_fhir_adapter.classify.programme import load_programme
from io_fhir_adapter.classify.ruleset import SiteTable, load_ruleset
from io_fhir_adapter.classify.tables import COLUMNS
from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.model import Code, ProcedureFact
from io_fhir_adapter.shipped import shipped_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(shipped_path("mappings"), tmp_path / "mappings"))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_the_shipped_rules_load_and_have_a_digest_of_their_own() -> None:
    first, second = load_ruleset(), load_ruleset()
    assert first.digest == second.digest
    assert first.table_systems >= {"ops", "icd10pcs", "snomed", "cpt"}
    assert list(first.category_order) == list(first.categories)


def test_a_change_anywhere_changes_the_digest(folder: Path) -> None:
    before = load_ruleset(folder=folder)
    assert load_ruleset(folder=folder).digest == before.digest
    edit(folder / "session-rules.yaml", "within_days: 42", "within_days: 43")
    after = load_ruleset(folder=folder)
    assert after.digest != before.digest
    assert after.rules is not before.rules


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("category: tare", "category: tear", "'tear' is no category"),
        ("technique: dosimetry, site: liver", "technique: dosimetree, site: liver", "'dosimetree' is no technique"),
        ("site: liver, agent", "seite: liver, agent", "'seite' is no element of a finding"),
        ("site: bone, approach: unspecified", "site: bone, approach: sideways", "'sideways' is no approach"),
        ("    absorbs:", "    absorb:", "'absorb' is no element of a rule"),
        ("followed_by: tare", "followed_by: tear", "'tear' is no category"),
        ("    within_days: 42\n", "", "go together"),
        ("within_days: 42", "within_days: many", "go together"),
        ("  - id: radioembolisation\n", "  - name: radioembolisation\n", "lacks its id or its needs"),
        ("rules:\n", "rules: 7\nmore:\n", "no list"),
        ("rules:\n", "regeln:\n", "cannot be read"),
    ],
)
def test_a_wrong_session_rule_is_named(folder: Path, old: str, new: str, words: str) -> None:
    edit(folder / "session-rules.yaml", old, new)
    with pytest.raises(MappingError) as caught:
        load_ruleset(folder=folder)
    assert words in caught.value.sentence
    assert "session-rules.yaml" in caught.value.sentence


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("icd10.csv", "code,kind,organ", "code,sort,organ", r"indications/icd10.csv:1"),
        ("icd10.csv", "C22*,malignant", "C22*,malign", "'malign' is no kind"),
        ("icd10.csv", "C22*,malignant", "C22.[0,malignant", "is no code pattern"),
        ("icd10.csv", "C22*,malignant,liver", "C22*,malignant,leber", "'leber' no organ"),
        ("icd10.csv", "C22*,malignant,", "C22*,malignant,x,y,", "too many or too few"),
        ("plausible.csv", "site,explained_by", "place,explained_by", r"indications/plausible.csv:1"),
        ("plausible.csv", "\npancreas,pancreas,", "\npancreas,eye,", "'eye' is no organ"),
        ("plausible.csv", "\npancreas,pancreas,", "\nspleen,pancreas,", "stands twice"),
    ],
)
def test_a_wrong_indication_row_is_named(folder: Path, file: str, old: str, new: str, words: str) -> None:
    edit(folder / "indications" / file, old, new)
    with pytest.raises(MappingError) as caught:
        load_ruleset(folder=folder)
    assert words in caught.value.sentence
    assert f"indications/{file}" in caught.value.sentence


def test_every_kind_of_diagnosis_is_in_use() -> None:
    rows = (shipped_path("mappings", "indications", "icd10.csv")).read_text(encoding="utf-8").splitlines()[1:]
    assert {row.split(",")[1] for row in rows} == KINDS


def test_every_file_that_is_missing_is_named(folder: Path) -> None:
    for name in ("categories.csv", "techniques.csv", "systems.csv", "session-rules.yaml", "indications/plausible.csv"):
        path = folder / name
        text = path.read_bytes()
        path.unlink()
        with pytest.raises(MappingError, match=path.name.replace(".", r"\.")):
            load_ruleset(folder=folder)
        path.write_bytes(text)


def site_table(tmp_path: Path, *rows: str) -> Path:
    path = tmp_path / "local.csv"
    path.write_text("\n".join([",".join(COLUMNS), *rows]) + "\n", encoding="utf-8")
    return path


def decide(ruleset: Any, *codes: tuple[str, str], stated: str = "C22.0") -> Any:
    fact = ProcedureFact(
        "his",
        "1",
        "Patient/1",
        "completed",
        "2025-03-14",
        codes=tuple(Code(*code) for code in codes),
        reasons=(Code("http://hl7.org/fhir/sid/icd-10", stated),),
    )
    return decide_patient([fact], [], [], ruleset)[0]


def test_a_site_s_own_codes_are_read_and_say_where_from(tmp_path: Path) -> None:
    path = site_table(tmp_path, "R-1*,microwave,liver,percutaneous,none,main,expected,,,own key,site,")
    ruleset = load_ruleset(site_tables=[SiteTable("http://hospital.example/ris", path)])
    found = decide(ruleset, ("https://hospital.example/ris", "R-17"))
    assert (found.category, found.decision) == ("ablation-mwa", "counted")
    assert found.findings[0].rule == "local.csv:2"
    assert ruleset.digest != load_ruleset().digest


def test_a_site_s_row_beats_ours_for_the_same_code(tmp_path: Path) -> None:
    ops = "http://fhir.de/CodeSystem/bfarm/ops"
    path = site_table(tmp_path, "8-836.*,none,,unspecified,none,main,required,,,our vascular surgeons,site,")
    assert decide(load_ruleset(), (ops, "8-836.ka")).category == "bland-embolisation"
    found = decide(load_ruleset(site_tables=[SiteTable(ops, path)]), (ops, "8-836.ka"))
    assert (found.category, found.reason, found.findings[0].rule) == ("none", "look-alike", "local.csv:2")


def test_a_site_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match="does not exist"):
        load_ruleset(site_tables=[SiteTable("urn:x", tmp_path / "absent.csv")])


def test_rows_are_chosen_by_the_year_of_the_procedure(tmp_path: Path) -> None:
    path = site_table(
        tmp_path,
        "A1,microwave,liver,percutaneous,none,main,expected,,2024-12-31,before,site,",
        "A1,cryotherapy,liver,percutaneous,none,main,expected,2025-01-01,,after,site,",
        "B1,laser,liver,percutaneous,none,main,expected,2020-01-01,2020-12-31,once,site,",
    )
    ruleset = load_ruleset(site_tables=[SiteTable("urn:x", path)])
    for day, technique in (
        ("2024-12-31", "microwave"),
        ("2025-01-01", "cryotherapy"),
        ("2025", "cryotherapy"),
        ("2024-05", "microwave"),
    ):
        row = ruleset.entry("urn:x", "A1").row_on(day)
        assert row is not None
        assert row.finding.technique == technique
    outside = ruleset.entry("urn:x", "B1").row_on("2025-03-14")
    assert outside is not None, "a code used outside its years says what it always said"
    assert ruleset.entry("urn:x", "C1").row_on("2025") is None


def test_looking_up_again_gives_the_same_entry() -> None:
    ruleset = load_ruleset()
    ops = "http://fhir.de/CodeSystem/bfarm/ops"
    assert ruleset.entry(ops, "8-836.ka") is ruleset.entry(ops, "8-836.ka")
    assert ruleset.entry("urn:unknown", "x").system == ""


def test_programmes_are_checked(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match="iasios"):
        load_programme("nobody")
    source = shipped_path("mappings", "programmes", "iasios.yaml").read_text(encoding="utf-8")
    path = tmp_path / "own.yaml"
    for old, new, words in (
        ("threshold: 150", "threshold: 0", "threshold"),
        ("tace:", "teace:", "no category"),
        ("unit_proposal:", "unit_suggestion:", "unit_suggestion"),
        ('tace: "yes"', "tace: maybe", "counts"),
        ("id: iasios", "id: [", "cannot be read"),
    ):
        assert old in source
        path.write_text(source.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(MappingError) as caught:
            load_programme(str(path), frozenset(load_ruleset().categories))
        assert words in caught.value.sentence
    path.write_text(source.replace('"yes"', "yes"), encoding="utf-8")
    assert load_programme(str(path)).counts_for("tace") == "yes"
    assert load_programme("iasios").counts_for("unheard-of") == "review"


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("session-rules.yaml", "rules: [{id: a, category: tace, needs: [{technique: 5}]}]", "neither a word"),
        (
            "session-rules.yaml",
            "rules: [{id: a, category: [tace], needs: [{technique: stent}]}]",
            "category is no text",
        ),
        ("session-rules.yaml", "rules: [{id: a, category: tace, needs: [{technique: []}]}]", "neither a word"),
        ("session-rules.yaml", "rules: [{id: 3, category: tace, needs: [{technique: stent}]}]", "id is no text"),
        (
            "session-rules.yaml",
            "rules: [{id: a, category: tace, stated: bleedng, needs: [{technique: stent}]}]",
            "no kind of diagnosis",
        ),
        (
            "session-rules.yaml",
            "rules: [&a {id: a, category: tace, needs: [{technique: stent}]}, *a]",
            "stands twice",
        ),
        ("techniques.csv", "\xff", "cannot be read"),
        ("techniques.csv", "technique,category,family,route_matters,meaning\nstent,stnt,a,no,m\n", "no category"),
        ("techniques.csv", "technique,category,family,route_matters,meaning\nstent,,a,ja,m\n", "neither yes nor no"),
        ("techniques.csv", "technique,category,family,route_matters,meaning\nstent,\n", "too few columns"),
        ("categories.csv", "code,title,axis\nnone,n,n\nnone,n,n\n", "stands twice"),
        ("categories.csv", "\xff", "cannot be read"),
        ("systems.csv", "\xff", "cannot be read"),
        ("systems.csv", "name,uri,kind,note\nops\n", "lacks its name or its URI"),
    ],
)
def test_a_broken_file_is_one_sentence_that_names_it(tmp_path: Path, file: str, content: str, words: str) -> None:
    folder = tmp_path / "mappings"
    shutil.copytree(shipped_path("mappings"), folder)
    (folder / file).write_bytes(content.encode("latin-1"))
    with pytest.raises(MappingError) as caught:
        load_ruleset(folder=folder)
    assert words in caught.value.sentence
    assert file in caught.value.sentence
