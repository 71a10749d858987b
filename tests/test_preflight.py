"""The look before the first night: it says what is wrong, and nothing that is wrong ends it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.preflight import Check, run_checks

if TYPE_CHECKING:
    from starlette.requests import Request

NOWHERE = "http://127.0.0.1:9/fhir"
NO_TOKEN = {"kind": "bearer", "token": {"env": "IO_FHIR_ADAPTER_NO_SUCH_SECRET"}}


def checked(folder: Path, **sections: Any) -> dict[str, Check]:
    """The checks of a facility by their names."""
    (folder / "in").mkdir()
    files = [{"name": "files", "kind": "files", "paths": ["in"]}]
    path = folder / "facility.yaml"
    path.write_text(yaml.safe_dump({"facility": {"code": "F-1"}, "sources": files, **sections}), encoding="utf-8")
    return {check.name: check for check in asyncio.run(run_checks(path))}


def test_a_ledger_that_can_lie_nowhere_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    checks = checked(tmp_path, ledger={"path": "file/folder/ledger.sqlite"})
    assert checks["ledger"].state == "fail"
    assert "disk" not in checks
    assert "submission" in checks


def test_the_room_beside_the_ledger_is_told(tmp_path: Path) -> None:
    assert "GiB free" in checked(tmp_path)["disk"].text


@pytest.mark.parametrize("strategy", ["bulk", "search"])
def test_an_export_that_cannot_sign_in_is_said_where_there_is_one(tmp_path: Path, strategy: str) -> None:
    source = {"name": "s", "kind": "fhir", "url": NOWHERE, "retries": 0, "bulk": {"auth": NO_TOKEN}}
    checks = checked(tmp_path, sources=[{**source, "strategy": strategy}])
    assert ("source s export" in checks) is (strategy == "bulk")
    if strategy == "bulk":
        assert checks["source s export"].state == "fail"
        assert "IO_FHIR_ADAPTER_NO_SUCH_SECRET" in checks["source s export"].text


def test_a_source_that_cannot_sign_in_is_said(tmp_path: Path) -> None:
    checks = checked(tmp_path, sources=[{"name": "s", "kind": "fhir", "url": NOWHERE, "auth": NO_TOKEN}])
    assert checks["source s"].state == "fail"
    assert "IO_FHIR_ADAPTER_NO_SUCH_SECRET is empty" in checks["source s"].text
    assert "submission" in checks


@pytest.mark.parametrize(
    ("rest", "state"),
    [
        (None, "warn"),
        ([None, "x", {"resource": None, "operation": None}], "warn"),
        ([{"resource": [None, {"operation": None}, {"operation": [None, {"name": "submit-data"}]}]}], "ok"),
        ([{"operation": [{"name": "$submit-data"}]}], "ok"),
    ],
)
def test_statements_of_any_shape(tmp_path: Path, rest: Any, state: str) -> None:
    async def answer(_: Request) -> JSONResponse:
        return JSONResponse({"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "rest": rest})

    with LoopbackServer(Starlette(routes=[Route("/{path:path}", answer)])) as theirs:
        checks = checked(tmp_path, submission={"url": theirs.base_url, "channel": "submit-data"})
    assert checks["submission"].state == state
