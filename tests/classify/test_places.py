"""Body sites: they refine codes that name no organ, and never make a treatment of a look-alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from io_fhir_adapter.classify.places import COLUMNS, load_body_sites
from io_fhir_adapter.classify.rules import load_techniques
from io_fhir_adapter.classify.ruleset import load_ruleset
from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.model import Code, Decision
from io_fhir_adapter.shipped import shipped_path

SCT = "http://snomed.info/sct"
LIVER, KIDNEY, HEART, PROSTATE, LEFT = "10200004", "64033007", "80891009", "41216001", "7771000"
PORTAL_VEIN, GDA, SAPHENOUS, UPPER_CAVA = "32764006", "37274004", "60734001", "48345005"
GENERIC_RFA, CT_ABLATION, EMBOLISATION, VEIN_STENT, CARDIAC = (
    "879916008", "430269006", "57238002", "709021002", "18286008",
)  # fmt: skip


def at(make: Any, code: str, *places: str, stated: str = "", on_record: str = "") -> Decision:
    fact = make.procedure("x", f"sct:{code}", stated=stated, body_sites=tuple(Code(SCT, place) for place in places))
    conditions = [make.condition(f"c{number}", item) for number, item in enumerate(on_record.split())]
    decisions: list[Decision] = make.decide([fact], conditions)
    (found,) = decisions
    return found


@pytest.mark.parametrize(
    ("code", "place", "stated", "expected"),
    [
        (CT_ABLATION, KIDNEY, "C64", ("ablation-other", "counted", "counted")),
        (CT_ABLATION, KIDNEY, "C61", ("ablation-other", "not-counted", "no-tumour-indication")),
        (GENERIC_RFA, LIVER, "C22.0", ("ablation-rfa", "review", "route-not-coded")),
        (EMBOLISATION, LIVER, "C22.0", ("bland-embolisation", "counted", "counted")),
        (EMBOLISATION, PORTAL_VEIN, "C22.0", ("pve", "counted", "counted")),
        (EMBOLISATION, GDA, "C22.0", ("bland-embolisation", "review", "protection-possible")),
        (VEIN_STENT, UPPER_CAVA, "C34.1", ("venous-stent", "counted", "counted")),
    ],
)
def test_a_place_makes_a_general_concept_usable(
    make: Any, code: str, place: str, stated: str, expected: tuple[str, str, str]
) -> None:
    found = at(make, code, place, stated=stated)
    assert (found.category, found.decision, found.reason) == expected


@pytest.mark.parametrize(
    ("code", "place"),
    [(CT_ABLATION, HEART), (GENERIC_RFA, SAPHENOUS), (EMBOLISATION, PROSTATE), (CARDIAC, LIVER), (VEIN_STENT, HEART)],
)
def test_some_places_make_a_look_alike_and_none_unmakes_one(make: Any, code: str, place: str) -> None:
    for stated in ("", "C79.8"):
        found = at(make, code, place, stated=stated, on_record="C22.0")
        assert (found.category, found.decision, found.reason) == ("none", "not-counted", "look-alike")


def test_a_side_adds_nothing_and_two_places_are_none(make: Any) -> None:
    assert at(make, CT_ABLATION, KIDNEY, LEFT, stated="C64").findings == at(make, CT_ABLATION, KIDNEY).findings
    assert [finding.site for finding in at(make, CT_ABLATION, KIDNEY, LIVER).findings] == [""]


def test_a_row_s_own_site_holds(make: Any) -> None:
    assert [finding.site for finding in at(make, "609232008", KIDNEY).findings] == ["liver"]


def test_the_name_of_a_local_place_is_read(make: Any) -> None:
    place = Code("http://hospital.example/places", "L7", display="Leber, Segment VII")
    fact = make.procedure("x", f"sct:{CT_ABLATION}", stated="C22.0", body_sites=(place,))
    assert [finding.site for finding in make.decide([fact])[0].findings] == ["liver"]


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("10200004,nowhere,,,", "nowhere"),
        ("10200004,liver,burning,,", "burning"),
        ("liver,liver,,,", "stands twice"),
        ("10200004,liver,,,\n10200004,liver,,,", "stands twice"),
        ("10200004,liver", "too few columns"),
    ],
)
def test_a_wrong_row_is_refused_with_its_line(tmp_path: Path, row: str, what: str) -> None:
    path = tmp_path / "body-sites.csv"
    path.write_text(f"{','.join(COLUMNS)}\n{row}\n", encoding="utf-8")
    rules = load_ruleset()
    techniques = load_techniques(shipped_path("mappings", "techniques.csv"))
    with pytest.raises(MappingError, match=what) as caught:
        load_body_sites(path, rules.systems, rules.words, techniques)
    assert "body-sites.csv:" in str(caught.value)
