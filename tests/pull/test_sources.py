"""The sources of one facility: what keeps one of them from being read is that one's failure and nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from io_fhir_adapter.config import Config
from io_fhir_adapter.ledger.runs import start_run
from io_fhir_adapter.pull.sources import pull_sources

Make = Callable[..., Any]
NO_TOKEN = {"kind": "bearer", "token": {"env": "IO_FHIR_ADAPTER_NO_SUCH_SECRET"}}


def pulled(site: Any, kit: Any, *sources: dict[str, Any]) -> list[Any]:
    """One pull of sources of the test's server, into the ledger of its site."""
    given = [{"kind": "fhir", "url": f"{site.url}/fhir", **one} for one in sources]
    config = Config.model_validate({"facility": {"code": "F"}, "sources": given, "ledger": {"path": site.ledger_path}})
    with site.ledger.begin() as connection:
        run = start_run(connection, datetime.now(UTC))
    return asyncio.run(pull_sources(config, site.ledger, kit.ruleset, run, lambda *_: None))


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        ({"auth": NO_TOKEN}, "IOA-CFG-003"),
        ({"strategy": "bulk", "bulk": {"auth": NO_TOKEN}}, "IOA-CFG-003"),
        ({"ca_file": "nowhere.pem"}, "IOA-CFG-004"),
        ({"client_cert_file": "nowhere.pem"}, "IOA-CFG-010"),
        ({"auth": {"kind": "smart-backend", "client_id": "a", "key": {"file": "word"}}}, "IOA-CFG-012"),
        ({"auth": {"kind": "bearer", "token": {"file": "word"}}}, "IOA-CFG-003"),
    ],
    ids=["token", "token of the export", "authority", "certificate", "key", "words for a token"],
)
def test_what_one_source_cannot_sign_in_with_is_its_own_failure(
    make_site: Make, kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: dict[str, Any], code: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("word").write_text("this is nothing of the kind")
    site = make_site()
    first, second = pulled(site, kit, {"name": "broken", **broken}, {"name": "sound"})
    assert f"[{code}]" in first.error
    assert "nothing of the kind" not in first.error
    assert (first.name, first.complete, second.name, second.complete) == ("broken", False, "sound", True)
    assert len(site.ids("Procedure")) == 12
