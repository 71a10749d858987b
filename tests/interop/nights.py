"""Filling FHIR servers with the synthetic hospital, and nightly jobs that read them, to compare what is left behind."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import yaml

from io_fhir_adapter.config import load_config
from io_fhir_adapter.demo import AS_OF, LOCAL_SYSTEM
from io_fhir_adapter.fhir.references import id_of
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.ledger.facts import decode_fact
from io_fhir_adapter.model import Decision
from io_fhir_adapter.pipeline import Nightly, rules_for
from io_fhir_adapter.sandbox.store import SandboxStore
from io_fhir_adapter.shipped import shipped_path
from io_fhir_adapter.volume.count import Volume

__all__ = ["Site", "Twins", "put_all", "put_if_kept"]

Json = dict[str, Any]
_FHIR_JSON = {"Content-Type": "application/fhir+json"}
_ENTRIES = 200
_TIMEOUT_S = 120
_LONG_AGO = "2020-01-01T00:00:00.000000Z"
_TABLES = {
    "decisions": "select * from decisions",
    "quarantine": "select resource_type, position, reason, code from quarantine",
    "stale": "select patient from stale",
}


def put_all(url: str, resources: Sequence[Mapping[str, Any]]) -> None:
    """Stores resources under their own ids, in transactions of some hundred."""
    with httpx.Client(timeout=_TIMEOUT_S, headers=_FHIR_JSON) as client:
        for start in range(0, len(resources), _ENTRIES):
            entries = [
                {
                    "request": {"method": "PUT", "url": f"{resource['resourceType']}/{resource['id']}"},
                    "resource": resource,
                }
                for resource in resources[start : start + _ENTRIES]
            ]
            bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
            answer = client.post(f"{url}/", content=json.dumps(bundle)).raise_for_status().json()
            statuses = {entry["response"]["status"][:3] for entry in answer["entry"]}
            assert statuses <= {"200", "201"}, statuses


def put_if_kept(url: str, broken: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Stores broken resources (type and raw text); those that the server keeps just as they are.

    What it refuses is not stored. What it takes and tidies up is removed again, being another resource by then.
    One without an id cannot be stored under one, and is not tried.
    """
    kept = []
    with httpx.Client(timeout=_TIMEOUT_S, headers=_FHIR_JSON) as client:
        for resource_type, text in broken:
            sent = json.loads(text)
            if "id" not in sent:
                continue
            place = f"{url}/{resource_type}/{sent['id']}"
            if client.put(place, content=text.encode()).is_error:
                continue
            stored = client.get(place).raise_for_status().json()
            if {**stored, "meta": None} == {**sent, "meta": None}:
                kept.append((resource_type, text))
            else:
                client.delete(place).raise_for_status()
    return kept


@dataclass(frozen=True)
class Twins:
    """Two hospitals that hold the same resources: a server of another maker, and the sandbox."""

    real: str
    sandbox: str
    store: SandboxStore

    def change(self, resources: Sequence[dict[str, Any]]) -> None:
        """Stores new resources, and new versions, in both; each stamps them with its own time."""
        put_all(self.real, resources)
        for resource in resources:
            meta = {name: value for name, value in resource["meta"].items() if name != "lastUpdated"}
            self.store.put({**resource, "meta": meta})

    def delete(self, resource_type: str, ids: Sequence[str]) -> None:
        """Deletes the same resources in both."""
        for resource_id in ids:
            httpx.delete(f"{self.real}/{resource_type}/{resource_id}").raise_for_status()
            self.store.delete(resource_type, resource_id)


class Site:
    """The adapter's own folder at a hospital: configuration and ledger.

    Args:
        folder: Takes both.
        url: Base URL of the hospital's FHIR server.
        more: Further configuration of the source.
    """

    def __init__(self, folder: Path, url: str, **more: Any) -> None:
        folder.mkdir()
        self._ledger = folder / "ledger.sqlite"
        self._config = folder / "hospital.yaml"
        table = {"system": LOCAL_SYSTEM, "file": str(shipped_path("config", "sandbox-local-codes.csv"))}
        settings = {
            "facility": {"code": "INTEROP-1", "time_zone": "Europe/Berlin"},
            # the same name everywhere, since facts and decisions say where they come from
            "sources": [{"name": "hospital", "kind": "fhir", "url": url, **more}],
            "mappings": {"site_tables": [table]},
            "ledger": {"path": "ledger.sqlite"},
        }
        self._config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        self._volume: Volume | None = None

    def night(self) -> Counter[str]:
        """One nightly job that draws and sends nothing; how many different resources of each type it read."""
        config = load_config(self._config)
        ledger = open_ledger(config.ledger)
        try:
            job = Nightly(config, ledger, rules_for(config), as_of=AS_OF)
            night = asyncio.run(job.run(dry_run=True))
        finally:
            ledger.close()
        if night.problem is not None:
            raise night.problem
        assert night.volume is not None
        self._volume = night.volume
        (outcome,) = night.sources
        return Counter({name: found.read for name, found in outcome.types.items()})

    def let_time_pass(self) -> None:
        """As if the last reading of everything were long ago, so that the next night does it again."""
        connection = sqlite3.connect(self._ledger)
        with connection:
            connection.execute("update cursors set value = ? where resource_type = 'reconciled'", [_LONG_AGO])
        connection.close()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of the ledger."""
        connection = sqlite3.connect(self._ledger)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()

    def facts(self) -> dict[str, Json]:
        """Every fact by type and id, without when its server last changed it."""
        found = {}
        for resource_type, resource_id, mapped, known, data in self.rows(
            "select resource_type, id, mapped, known_system, data from facts"
        ):
            fact = msgspec.structs.asdict(decode_fact(resource_type, data))
            del fact["updated"]
            found[f"{resource_type}/{resource_id}"] = {**fact, "mapped": mapped, "known_system": known}
        return found

    def content(self) -> dict[str, Any]:
        """What must be the same whichever server held the resources."""
        tables = {name: sorted(self.rows(query)) for name, query in _TABLES.items()}
        return {"facts": self.facts(), **tables, "volume": self._volume}

    def counted(self) -> list[str]:
        """Ids of the first Procedure of every session that counts, in order."""
        rows = self.rows("select data from decisions where decision = 'counted' order by patient, number")
        return [id_of(msgspec.json.decode(data, type=Decision).procedures[0]) for (data,) in rows]
