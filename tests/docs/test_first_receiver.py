"""What the manual gives accreditation bodies to begin with: a receiver, and a program that computes a submission."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.docs.blocks import ROOT, Block, blocks_of
from tests.e2e.conftest import here, write_config

from io_fhir_adapter.demo import AS_OF
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.sandbox.hospital import build_hospital
from io_fhir_adapter.sandbox.server import create_app as sandbox_app
from io_fhir_adapter.sandbox.store import SandboxStore


def program(page: str) -> Block:
    """The one program of a page."""
    (found,) = (one for one in blocks_of(ROOT / "docs" / page) if one.language == "python")
    return found


def computed(folder: Path, bundle: Any) -> list[str]:
    """What the program of the page on verifying prints."""
    (folder / "own.py").write_text(program("verifying.md").text, encoding="utf-8")
    (folder / "own.json").write_text(json.dumps(bundle), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "own.py", "own.json"], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_the_receiver_on_the_page_receives(tmp_path: Path, undrawn: None, monkeypatch: pytest.MonkeyPatch) -> None:
    block = program("submission-interface.md")
    receiver: dict[str, Any] = {}
    exec(compile(block.text, block.place, "exec"), receiver)  # noqa: S102 - the manual's own
    ((token, facility),) = receiver["TOKENS"].items()
    monkeypatch.chdir(tmp_path)
    hospital = build_hospital(7, patients=60, procedures=240)
    store = SandboxStore.from_resources(one for found in hospital.resources.values() for one in found)
    with LoopbackServer(sandbox_app(store)) as source, LoopbackServer(receiver["app"]) as body:
        path = write_config(tmp_path, f"{source.base_url}/fhir", f"{body.base_url}/fhir", nonce="task", cases=1)
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        document["facility"]["code"] = facility
        document["submission"]["auth"] = {"kind": "bearer", "token": {"file": "token"}}
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        Path("token").write_text(token, encoding="utf-8")
        assert httpx.post(f"{body.base_url}/fhir", json={}).status_code == 401
        code, out, err = here("run", "--config", str(path), "--as-of", AS_OF.isoformat())
        assert code == 0, err
        assert "accepted: all" in out
        assert "received" in out
        sealed = json.loads(Path("out/submission.json").read_text(encoding="utf-8"))
        identifier = sealed["identifier"]["value"]
        draw = next(task for (_, name), task in receiver["tasks"].items() if "draw-task" in name)
        assert draw["input"][0]["valueString"] in json.dumps(sealed)
        assert here("outbox", "retry", identifier, "--config", str(path))[0] == 1  # it was accepted, once
        assert len(receiver["answers"]) == 1
        code, out, _ = here("withdraw", identifier, "--reason", "sent-in-error", "--config", str(path))
        assert (code, "accepted" in out) == (0, True)
        assert computed(tmp_path, sealed) == ["identifier True", "frame True", "draw True"]
        (drawn,) = (entry["resource"] for entry in sealed["entry"] if entry["resource"]["resourceType"] == "List")
        drawn["entry"].reverse()
        assert computed(tmp_path, sealed) == ["identifier False", "frame True", "draw False"]
        (verdict,) = (task for (_, name), task in receiver["tasks"].items() if "verdict-task" in name)
        assert verdict["status"] == "cancelled"
