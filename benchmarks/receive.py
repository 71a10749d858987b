"""Receiving: submissions a second into our receiver with all that it checks, beside HAPI, which checks none of it.

The same signed Bundles of thirty cases, one of each facility, are posted over HTTP one after the other: to the receiver
on SQLite, on PostgreSQL where the machine has one, and to HAPI with its database in memory where it can be started.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from tests.conftest import make_draw, postgres_server
from tests.interop import servers
from tests.receiver.conftest import sealed_submission

from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.receiver.app import create_app
from io_fhir_adapter.receiver.rates import Rate
from io_fhir_adapter.receiver.registry import Facility, Registry
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.receiver.wire import Limits
from io_fhir_adapter.trust.canonical import canonical_json
from io_fhir_adapter.trust.keys import new_signature_key, public_set
from io_fhir_adapter.trust.signature import sign_bundle

__all__ = ["measure"]

_CASES = 30
_ANY = Rate(burst=1, per_s=0)
_TIMEOUT_S = 120


def _token(number: int) -> str:
    return f"synthetic-token-{number:04d}"


def _made(number: int) -> tuple[list[bytes], Registry]:
    """So many signed submissions, and the registry that knows who sends them."""
    key = new_signature_key("ES256")
    codes = [f"F-{index:03d}" for index in range(number)]
    bundles = []
    for code in codes:
        draw = make_draw(_CASES, 10, facility=code, seed=code)
        bundles.append(canonical_json(sign_bundle(sealed_submission(draw, code, 151), key, when=datetime.now(UTC))))
    facilities = tuple(Facility(code, jwks=public_set(key), client_id=code) for code in codes)
    tokens = {hashlib.sha256(_token(index).encode()).hexdigest(): code for index, code in enumerate(codes)}
    return bundles, Registry(facilities, tokens=tokens)


def _posted(url: str, bundles: list[bytes]) -> float:
    """Submissions a second; every one has to be stored."""
    with httpx.Client(timeout=_TIMEOUT_S, headers={"Content-Type": "application/fhir+json"}) as client:
        began = time.perf_counter()
        for index, body in enumerate(bundles):
            answer = client.post(url, content=body, headers={"Authorization": f"Bearer {_token(index)}"})
            answer.raise_for_status()
        return len(bundles) / (time.perf_counter() - began)


def _ours(url: str, bundles: list[bytes], registry: Registry) -> float:
    limits = Limits(address_rate=_ANY, facility_rate=_ANY)
    with closing(ReceiverStore(url)) as store:
        app = create_app(store, registry=registry, require_signature=True, limits=limits)
        with LoopbackServer(app) as server:
            rate = _posted(f"{server.base_url}/fhir", bundles)
        assert len(store.submissions()) == len(bundles)
    return rate


def measure(folder: Path, number: int) -> dict[str, Any]:
    """All figures for ``number`` submissions of thirty cases."""
    folder = folder / "receive"
    folder.mkdir(parents=True, exist_ok=True)
    bundles, registry = _made(number)
    figures: dict[str, Any] = {"received": number, "received_bytes_each": round(sum(map(len, bundles)) / number)}
    database = folder / "receiver.db"
    for old in folder.glob("receiver.db*"):
        old.unlink()
    figures["receive_sqlite_per_second"] = round(_ours(f"sqlite:///{database}", bundles, registry), 2)
    with postgres_server() as postgres, ExitStack() as stack:
        if postgres is None:
            figures["receive_postgresql"] = "skipped: postgres is not installed"
        else:
            url = stack.enter_context(postgres.database())
            figures["receive_postgresql_per_second"] = round(_ours(url, bundles, registry), 2)
    try:
        with servers.hapi(folder) as url:
            _posted(f"{url}/", bundles[:1])  # the first one loads what the others find loaded
            figures["hapi_store_per_second"] = round(_posted(f"{url}/", bundles[1:]), 2)
    except servers.Unavailable as reason:
        return {**figures, "receive_beside": f"skipped: {reason}"}
    ratio = figures["receive_sqlite_per_second"] / figures["hapi_store_per_second"]
    return {**figures, "receive_rate_to_hapi": round(ratio, 2)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2])), indent=2) + "\n")
