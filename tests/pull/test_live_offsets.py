"""Pages that are counted from the beginning anew each time: what is deleted meanwhile moves all that follow."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from tests.ledgers import new_ledger

from io_fhir_adapter.config import Config
from io_fhir_adapter.ledger.facts import referenced
from io_fhir_adapter.ledger.runs import start_run
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.pull.sources import pull_sources

if TYPE_CHECKING:
    from starlette.requests import Request

ROWS = 12
PAGE = 5


def server(rows: list[dict[str, Any]], deleted: list[int]) -> Starlette:
    """Gives Procedures by offset, and deletes one of ``deleted`` after each first page."""

    async def answer(request: Request) -> JSONResponse:
        asked = request.query_params
        start = int(asked.get("_offset", "0"))
        found = rows if request.url.path.endswith("/Procedure") else []
        page = [{"resource": one} for one in found[start : start + PAGE]]
        following = f"{request.base_url}fhir/Procedure?_offset={start + PAGE}"
        link = [{"relation": "next", "url": following}] if start + PAGE < len(found) else []
        body = {"resourceType": "Bundle", "type": "searchset", "total": len(found), "link": link, "entry": page}
        if found and not start and deleted:
            del rows[deleted.pop()]
        return JSONResponse(body, media_type="application/fhir+json")

    return Starlette(routes=[Route("/fhir/{kind}", answer)])


@pytest.mark.parametrize("deleted", [[1], [0, 3], [11], []])
def test_nothing_is_skipped_where_something_is_deleted_meanwhile(tmp_path: Path, kit: Any, deleted: list[int]) -> None:
    rows = [kit.procedure(f"p{number:02}", code="other") for number in range(ROWS)]
    ledger = new_ledger(tmp_path / "ledger.sqlite")
    with ledger.begin() as connection:
        run = start_run(connection, datetime.now(UTC))
    with LoopbackServer(server(rows, deleted)) as theirs:
        url = f"{theirs.base_url}/fhir"
        source = {"name": "s", "kind": "fhir", "url": url, "strategy": "search", "page_size": PAGE}
        config = Config.model_validate({"facility": {"code": "F"}, "sources": [source]})
        (outcome,) = asyncio.run(pull_sources(config, ledger, kit.ruleset, run, lambda *_: None))
    with ledger.read() as connection:
        found = referenced(connection, "s", "Procedure")
    ledger.close()
    assert outcome.error == ""
    assert {row["id"] for row in rows} <= found
