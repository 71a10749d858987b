"""The runs: what each read, the proof, what was set aside and why one failed; never a patient."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from argon2 import PasswordHasher
from tests.serve.house import NOW, House, house_in, words

from io_fhir_adapter.engine.standing import years_under
from io_fhir_adapter.ledger.intake import put_quarantined
from io_fhir_adapter.ledger.runs import finish_run, start_run
from io_fhir_adapter.model import Quarantined
from io_fhir_adapter.pull.outcome import SourceOutcome, TypeOutcome
from io_fhir_adapter.serve.pages import figures
from io_fhir_adapter.volume.count import FunnelStep

WHY = "https://fhir.example.org: the server answers with <503> to every request [IOA-NET-005]"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, hasher: PasswordHasher) -> Iterator[House]:
    with house_in(tmp_path_factory.mktemp("house"), hasher) as made:
        yield made


def ran(house: House, state: str, error: str = "", late: int = 0, **more: Any) -> int:
    """A run of the main source; gives its number."""
    types = {
        "Procedure": TypeOutcome(read=1234, new=1200, total=1234, quarantined=3, complete=not error, ids="sha256:ab")
    }
    source = SourceOutcome("main", "2026-01-29T01:30:00Z", 12.5, 40, 2, types, {"Patient/pat-ana"}, error, "search")
    source.note("the server does not offer _sort")
    with house.ledger.begin() as connection:
        run = start_run(connection, NOW)
        aside = [
            Quarantined("main", f"Procedure/prc-{n}", "Procedure", "the date lies in the future", "IOA-RES-013")
            for n in range(3)
        ]
        put_quarantined(connection, aside, run)
        summary = {"sources": [source.to_json()], **more}
        finish_run(connection, run, NOW + timedelta(seconds=75 + late), state, summary, error)
    return run


def test_a_run_shows_sources_counts_proof_and_what_was_set_aside(house: House) -> None:
    why = (("stopped", 30), ("not-done", 204))
    funnel = [
        FunnelStep("read", "read", "procedures", 1234, 0, ()),
        FunnelStep("completed", "completed", "procedures", 1000, 234, why),
    ]
    number = ran(house, "complete", counted=207, funnel=[step.to_json() for step in funnel])
    for account in ("vogt", "weber", "lang", "adler"):
        text = house.text(f"/runs/{number}", account)
        assert f"Run {number} complete" in text
        assert "1 min 15 s · 207 counted in the reported year" in text
        assert "read by search · what changed since 2026-01-29 02:30:00 · 12.5 s · 40 requests, 2 of them again" in text
        assert (
            "Procedure sha256:ab… Read 1,234 Server says 1,234 New 1,200 Changed 0 Gone 0 Set aside 3 complete" in text
        )
        assert "not done 204, stopped 30" in text
        assert "the date lies in the future Procedure · IOA-RES-013 3" in text
        assert "the server does not offer _sort" in text
        assert "pat-ana" not in text
        assert "prc-" not in text
    german = house.text(f"/runs/{number}", headers={"Accept-Language": "de"})
    assert "über die Suche gelesen" in german
    assert "· 12,5 s ·" in german
    assert f'href="/runs/{number}"' in house.page("/")


def test_a_failed_run_says_why_and_markup_in_it_is_text(house: House) -> None:
    number = ran(house, "failed", WHY)
    for path in ("/runs", f"/runs/{number}"):
        page = house.page(path)
        assert "&lt;503&gt; to every request [IOA-NET-005]" in page
    assert "not complete" in house.text(f"/runs/{number}")
    with house.ledger.begin() as connection:
        under_way = start_run(connection, NOW)
    assert "This run is under way" in house.text(f"/runs/{under_way}")
    assert f"Run {under_way} under way" in house.text(f"/runs/{under_way}")
    for wrong in ("99999", "-1"):
        assert house.at("vogt").get(f"/runs/{wrong}").status_code == 404


def test_runs_are_paged_from_the_newest_on(house: House) -> None:
    newest = [ran(house, "complete") for _ in range(31)][-1]
    page = house.page("/runs")
    assert page.count('class="open"') == 30
    assert f"/runs?before={newest - 29}" in page
    older = house.page(f"/runs?before={newest - 29}")
    assert f'class="open" href="/runs/{newest - 30}"' in older
    assert f'class="open" href="/runs/{newest}"' not in older


def test_the_overview_says_of_which_night_its_numbers_are_while_newer_ones_are_counted(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "_PATIENCE_S", 60.0)
    ran(house, "complete")
    assert "are being counted" not in house.text("/")
    may_end, count = threading.Event(), years_under

    def slow(*arguments: Any) -> Any:
        assert may_end.wait(60)
        return count(*arguments)

    monkeypatch.setattr(figures, "years_under", slow)
    monkeypatch.setattr(figures, "_PATIENCE_S", 0.01)
    number = ran(house, "complete", late=5)
    answer = house.at("vogt").get("/")
    may_end.set()
    assert answer.headers["refresh"] == "4"
    said = words(answer.text)
    assert "Numbers of the night that ended 2026-01-30 09:01:15 Those of the newer night are being counted" in said
    assert f'href="/runs/{number}"' in answer.text
