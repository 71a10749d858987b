"""How the records come in never changes who is drawn: their order, the size of pages, the files, the sources."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from io_fhir_adapter.config import Config
from io_fhir_adapter.demo import AS_OF, demo_config
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.ledger.draws import find_draw, put_nonce
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.pipeline import Nightly, rules_for
from io_fhir_adapter.review.sample import Design, commit_sample, draw_sample
from io_fhir_adapter.sandbox.hospital import build_hospital
from io_fhir_adapter.sandbox.server import create_app as sandbox_app
from io_fhir_adapter.sandbox.store import SandboxStore

KEY, NONCE = b"k" * 32, "5a" * 32
NOW = datetime(2026, 1, 30, 3, 0, tzinfo=UTC)
Drawn = tuple[str, list[tuple[Any, ...]]]
Resources = list[dict[str, Any]]


@pytest.fixture(scope="module")
def resources() -> Resources:
    hospital = build_hospital(7, patients=60, procedures=240)
    return [one for found in hospital.resources.values() for one in found]


@pytest.fixture(scope="module")
def drawn_from(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Drawn]:
    """Pulls everything from these sources into a new ledger, decides, and draws with a fixed key and nonce."""
    rules = rules_for(demo_config("http://127.0.0.1:9/fhir", "http://127.0.0.1:9/fhir", Path()))

    def draw(*sources: dict[str, Any]) -> Drawn:
        folder = tmp_path_factory.mktemp("facility")
        config = Config.model_validate(
            {"facility": {"code": "F-001", "time_zone": "Europe/Berlin"}, "sources": sources,
             "ledger": {"path": folder / "ledger.sqlite"}}
        )  # fmt: skip
        ledger = open_ledger(config.ledger)
        try:
            job = Nightly(config, ledger, rules, as_of=AS_OF)
            night = asyncio.run(job.run(dry_run=True))
            assert night.problem is None
            assert night.volume is not None
            design = Design(rules.programme, "F-001", KEY, rules.digest)
            committed = commit_sample(ledger, design, period="2025", as_of=AS_OF, now=NOW)
            with ledger.begin() as connection:
                put_nonce(connection, committed, NONCE, "local", NOW)
                stored = find_draw(connection, rules.programme.id, "2025")
            assert stored is not None
            sample = draw_sample(ledger, design, stored, NOW)
            return stored.digest, [(c.number, c.token, c.patient, c.date, c.category) for c in sample.cases]
        finally:
            ledger.close()

    return draw


@pytest.fixture(scope="module")
def expected(resources: Resources, drawn_from: Callable[..., Drawn], tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """The draw where everything stands in one file."""
    return drawn_from(_files(tmp_path_factory.mktemp("export"), "all", [resources]))


def _files(folder: Path, name: str, parts: list[Resources]) -> dict[str, Any]:
    """A source of files, one for each part."""
    for number, part in enumerate(parts):
        (folder / f"{name}-{number}.ndjson").write_text("\n".join(json.dumps(one) for one in part))
    return {"name": name, "kind": "files", "paths": [str(folder / f"{name}-*.ndjson")]}


def test_somebody_is_drawn(expected: Drawn) -> None:
    digest, cases = expected
    assert digest.startswith("sha256:")
    assert len({case[2] for case in cases}) == len(cases) >= 10


@given(seed=st.integers(0, 2**32), files=st.integers(1, 5))
@settings(max_examples=4)
def test_neither_order_nor_files_matter(
    resources: Resources,
    drawn_from: Callable[..., Drawn],
    expected: Drawn,
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    files: int,
) -> None:
    shuffled = Random(seed).sample(resources, len(resources))
    folder = tmp_path_factory.mktemp("export")
    assert drawn_from(_files(folder, "all", [shuffled[number::files] for number in range(files)])) == expected


@given(seed=st.integers(0, 2**32))
@settings(max_examples=4)
def test_which_source_a_record_comes_from_does_not_matter(
    resources: Resources,
    drawn_from: Callable[..., Drawn],
    expected: Drawn,
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("export")
    parts: tuple[Resources, Resources] = ([], [])
    random = Random(seed)
    for one in resources:
        random.choice(parts).append(one)
    sources = [_files(folder, name, [part]) for name, part in zip(("his", "ris"), parts, strict=True)]
    assert drawn_from(*sources) == expected


@given(page_size=st.integers(1, 400))
@settings(max_examples=3)
def test_the_size_of_pages_does_not_matter(
    resources: Resources, drawn_from: Callable[..., Drawn], expected: Drawn, page_size: int
) -> None:
    with LoopbackServer(sandbox_app(SandboxStore.from_resources(resources, (), ()))) as server:
        source = {"name": "all", "kind": "fhir", "url": f"{server.base_url}/fhir", "page_size": page_size}
        assert drawn_from(source) == expected
