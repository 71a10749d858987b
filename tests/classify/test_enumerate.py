"""Which code systems a server is asked for, and of which of them the codes can be listed."""

from __future__ import annotations

from pathlib import Path

import pytest

from io_fhir_adapter.classify.enumerate import asked_systems, digest_of, enumerated
from io_fhir_adapter.classify.globs import parse_glob
from io_fhir_adapter.classify.ruleset import SiteTable, load_ruleset

HEAD = "code,technique,site,approach,agent,role,indication,valid_from,valid_to,meaning,checked,note"


@pytest.mark.parametrize(
    ("patterns", "codes"),
    [
        (["A1", "A1"], ("A1",)),
        (["A[12]B[x-z]"], ("A1Bx", "A1By", "A1Bz", "A2Bx", "A2By", "A2Bz")),
        ([], ()),
        (["A1", "B*"], None),
        (["A?"], None),
        (["[0-9a-z][0-9a-z][0-9a-z]"], None),  # more than can be asked for
    ],
)
def test_patterns_as_codes(patterns: list[str], codes: tuple[str, ...] | None) -> None:
    assert enumerated(map(parse_glob, patterns)) == codes


def test_the_shipped_systems() -> None:
    asked = {one.name: one for one in asked_systems(load_ruleset())}
    assert set(asked) == {"ccam", "chop", "cpt", "icd10pcs", "opcs4", "ops", "snomed"}
    assert "http://fhir.de/CodeSystem/bfarm/ops" in asked["ops"].uris
    assert "426830009" in asked["snomed"].codes
    assert all(not uri.endswith("*") for one in asked.values() for uri in one.uris)
    assert [name for name, one in asked.items() if one.codes] == ["snomed"]
    assert all(one.why for name, one in asked.items() if name != "snomed")


def test_a_site_s_own_table(tmp_path: Path) -> None:
    def asked(*patterns: str) -> tuple[object, ...]:
        file = tmp_path / "local.csv"
        rows = [f"{one},radiofrequency,liver,percutaneous,none,main,expected,,,heated,," for one in patterns]
        file.write_text("\n".join([HEAD, *rows]))
        systems = asked_systems(load_ruleset(site_tables=[SiteTable("http://Hospital.example/Keys", file)]))
        (own,) = [one for one in systems if one.name == "site:local"]
        return own.uris, own.codes, own.why, digest_of(systems)

    *listed, first = asked("IO1", "IO[23]")
    assert listed == [("http://Hospital.example/Keys",), ("IO1", "IO2", "IO3"), ""]
    *whole, second = asked("IO1", "IO2*")
    assert whole == [("http://Hospital.example/Keys",), (), "its rows have open ends"]
    assert first != second
