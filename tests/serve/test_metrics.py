"""The metrics: what they say of a ledger, and that the manual names exactly those."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.ledgers import new_ledger
from tests.notify.conftest import ruleset

from io_fhir_adapter.ledger.facts import put_decisions
from io_fhir_adapter.ledger.intake import StoredFact, put_facts, put_quarantined
from io_fhir_adapter.ledger.outbox import enqueue, settle
from io_fhir_adapter.ledger.runs import finish_run, start_run, write_state
from io_fhir_adapter.model import Code, Decision, ProcedureFact, Quarantined
from io_fhir_adapter.notify.book import BOOK, Book, Entry
from io_fhir_adapter.notify.incidents import TITLES
from io_fhir_adapter.pull.outcome import SourceOutcome, TypeOutcome
from io_fhir_adapter.serve.metrics import Metrics

MANUAL = Path(__file__).resolve().parents[2] / "docs" / "monitoring.md"
BEGAN = datetime(2026, 7, 1, 0, 30, tzinfo=UTC)
TODAY = date(2026, 7, 1)
CANARY = "Mustermann"

Shown = dict[tuple[str, ...], float]


def numbers(text: bytes) -> Shown:
    """(name, values of the labels …) to number."""
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """Of a ledger in which there is something of everything, with canaries wherever a record has its say."""
    ledger = new_ledger(tmp_path_factory.mktemp("metrics") / "ledger.sqlite")
    outcome = SourceOutcome("his", requests=12, retried=3, types={"Procedure": TypeOutcome(read=40, complete=True)})
    outcome.note(CANARY)
    coded = [
        ("2026-06-30", True, True),
        ("2026-06-30", False, True),
        ("2026-06-30", False, False),
        ("2019", True, True),
    ]
    with ledger.begin() as connection:
        run = start_run(connection, BEGAN)
        summary = {"counted": 17, "sources": [outcome.to_json()]}
        put_facts(
            connection,
            [StoredFact(ProcedureFact("his", f"{number}", f"Patient/{CANARY}", "completed", day, text=CANARY,
                                      codes=(Code("urn:x", CANARY),)), mapped, known)
             for number, (day, mapped, known) in enumerate(coded)], run,
        )  # fmt: skip
        put_quarantined(
            connection, [Quarantined("his", f"Procedure/{CANARY}", "Procedure", CANARY, "IOA-RES-011")], run
        )
        made = [Decision("his", "Patient/1", "2026-01-02", "ablation", "counted", "counted")] * 20
        put_decisions(connection, "Patient/1", made)
        write_state(connection, "ruleset", ruleset().digest)
        write_state(connection, BOOK, Book({"run": Entry("2026-07-01")}).write())
        enqueue(connection, "sha256:" + "a" * 64, "2025", CANARY.encode(), BEGAN)
        enqueue(connection, "sha256:" + "b" * 64, "2024", b"{}", BEGAN)
        settle(connection, "sha256:" + "b" * 64, "rejected", CANARY)
        finish_run(connection, run, BEGAN + timedelta(minutes=2), "complete", summary)
    metrics = Metrics()
    metrics.see(False)
    text = metrics.show(ledger, ruleset(), TODAY)
    assert CANARY.encode() not in text
    assert metrics.show(ledger, ruleset(), TODAY) == text
    ledger.close()
    return numbers(text)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        (("runs_total", "failed"), 1),
        (("run_seconds",), 120),
        (("last_success_timestamp_seconds",), (BEGAN + timedelta(minutes=2)).timestamp()),
        (("pull_requests", "his"), 12),
        (("pull_retries", "his"), 3),
        (("pull_resources", "Procedure", "his"), 40),
        (("pull_complete", "his"), 1),
        (("quarantined", "Procedure"), 1),
        (("outbox", "queued"), 1),
        (("outbox", "rejected"), 1),
        (("outbox", "accepted"), 0),
        (("outbox_pending",), 1),
        (("counted",), 17),
        (("year_counted",), 20),
        (("year_projected",), 20 * 365 // 182),
        (("year_threshold",), 150),
        (("unmapped_share", "row"), 2 / 3),
        (("unmapped_share", "table"), 1 / 3),
        (("incidents", "run"), 1),
        (("incidents", "disk"), 0),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else "",
)
def test_each_says_what_the_ledger_does(shown: Shown, name: tuple[str, ...], number: float) -> None:
    assert shown[f"io_fhir_adapter_{name[0]}", *name[1:]] == pytest.approx(number)


def test_the_manual_names_exactly_these_with_their_labels() -> None:
    table = re.findall(
        r"^\| `(io_fhir_adapter_\w+)` \| ((?:`\w+`(?:, )?)*) ?\|", MANUAL.read_text(encoding="utf-8"), re.M
    )
    told = {name: sorted(re.findall(r"`(\w+)`", labels)) for name, labels in table}
    metrics = Metrics()
    made = [value for value in vars(metrics).values() if hasattr(value, "_labelnames")]
    real = {f"{one._name}{'_total' if one._type == 'counter' else ''}": sorted(one._labelnames) for one in made}
    assert told == real


def test_the_manual_names_every_kind_of_incident() -> None:
    text = MANUAL.read_text(encoding="utf-8")
    assert [kind for kind in TITLES if f"| `{kind}` |" not in text] == []
