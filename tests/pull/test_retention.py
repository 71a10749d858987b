"""What was removed because it need not be kept any longer does not come back with any reading."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from io_fhir_adapter.classify.redecide import redecide
from io_fhir_adapter.config import Config
from io_fhir_adapter.ledger.retention import Removed, purge
from io_fhir_adapter.ledger.runs import start_run
from io_fhir_adapter.pull.sources import pull_sources
from io_fhir_adapter.volume.period import Period
from io_fhir_adapter.volume.tally import count_ledger

NOW = datetime(2026, 1, 30, tzinfo=UTC)


def decide(site: Any, ruleset: Any) -> None:
    redecide(site.ledger, ruleset, site.stale(), site.run, lambda _done, _total: None)


def counted(site: Any, ruleset: Any, year: str) -> tuple[int, int, int]:
    with site.ledger.read() as connection:
        volume = count_ledger(connection, Period.year(year), ruleset.programme)
    return volume.counted, volume.seen.procedures, volume.seen.outside


def hospital(kit: Any) -> list[Any]:
    made = [kit.person(name) for name in "abc"] + [kit.condition(f"c-{name}", name) for name in "abc"]
    days = {"a": ("2018-03-01", "2024-03-01"), "b": ("2018-05-01",), "c": ("2024-05-01",)}
    made += [
        kit.procedure(f"{name}{number}", name, performedDateTime=day)
        for name, those in days.items()
        for number, day in enumerate(those)
    ]
    return [*made, kit.procedure("x", "d", "other", performedDateTime="2017-01-01")]


def test_no_reading_brings_back_what_was_removed(make_site: Callable[..., Any], kit: Any) -> None:
    site, rules = make_site(hospital(kit)), kit.ruleset
    site.pull()
    decide(site, rules)
    before = {year: counted(site, rules, year) for year in ("2018", "2024")}
    assert before["2018"][0] == 2
    assert purge(site.ledger, "2020-01-01", NOW) == Removed(procedures=3, sessions=2, people=1, others=2)
    kept = site.facts()
    site.forget_reconciling()
    whole = site.pull()
    assert (whole.error, whole.since, whole.types["Procedure"].read, whole.types["Procedure"].new) == ("", "", 5, 0)
    assert (site.facts(), site.stale()) == (kept, set())
    site.store.put(kit.procedure("b0", "b", performedDateTime="2018-05-02"))  # somebody corrects it, years later
    site.store.put(kit.procedure("c0", "c", performedDateTime="2018-05-02"))  # one on record turns out to be old
    assert site.pull().since
    assert site.ids("Procedure") == ["a1", "c0"]
    decide(site, rules)
    assert counted(site, rules, "2018")[0] == 3
    assert purge(site.ledger, "2020-01-01", NOW).sessions == 1
    assert counted(site, rules, "2018")[0] == 3
    assert before["2024"][0] - counted(site, rules, "2024")[0] == 1


def test_files_do_not_bring_it_back_either(make_site: Callable[..., Any], kit: Any, tmp_path: Path) -> None:
    site, rules = make_site([]), kit.ruleset
    file = tmp_path / "export.ndjson"
    file.write_text("\n".join(map(json.dumps, hospital(kit))), encoding="utf-8")
    document = {"facility": {"code": "F"}, "sources": [{"name": "s", "kind": "files", "paths": [str(file)]}]}

    def read() -> None:
        with site.ledger.begin() as connection:
            site.run = start_run(connection, NOW)
        work = pull_sources(Config.model_validate(document), site.ledger, rules, site.run, lambda *_: None)
        (outcome,) = asyncio.run(work)
        assert outcome.complete
        decide(site, rules)

    read()
    before = counted(site, rules, "2018")
    purge(site.ledger, "2020-01-01", NOW)
    read()
    assert site.ids("Procedure") == ["a1", "c0"]
    assert counted(site, rules, "2018") == before
