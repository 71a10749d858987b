"""A FHIR server for measurements: many Procedures from memory, so fast that the client is what is measured.

``python -m benchmarks.fhir_server NUMBER`` prints its base URL and serves until it is stopped. It knows what a pull
asks: search by ``date``, ``_lastUpdated``, ``_id``, ``patient`` and ``_count`` with opaque ``next`` links, totals, and
``$export``. Everything is synthetic.
"""

from __future__ import annotations

import asyncio
import bisect
import json
import random
import re
import sys
from collections.abc import Callable, Iterator
from datetime import date
from email.utils import formatdate
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from benchmarks.generate import procedure

__all__ = ["Hospital", "main"]

_FIRST: Final = date(2024, 1, 1)
_CHANGED: Final = "2025-06-01T00:00:00.000Z"  # when everything but Procedures was last changed
_NOON: Final = "T12:00:00.000Z"  # of its own day: when a Procedure was last changed
_SEARCHABLE: Final = ("Procedure", "Patient", "Encounter", "Condition")
_IN_ONE_FILE: Final = 100_000  # Procedures
_PIECE: Final = 1 << 18
_BOUND: Final = re.compile(r"(ge|gt|le|lt|eq)?(\d{4}-\d{2}-\d{2}.*)")


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _capability() -> bytes:
    return _json(
        {
            "resourceType": "CapabilityStatement",
            "status": "active",
            "kind": "instance",
            "fhirVersion": "4.0.1",
            "format": ["json"],
            "rest": [
                {
                    "mode": "server",
                    "operation": [
                        {"name": "export", "definition": "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/export"}
                    ],
                    "resource": [
                        {
                            "type": kind,
                            "interaction": [{"code": "read"}, {"code": "search-type"}],
                            "searchParam": [
                                {"name": name, "type": "token"}
                                for name in ("_id", "_lastUpdated", "date", "patient", "code", "status")
                            ],
                        }
                        for kind in _SEARCHABLE
                    ],
                }
            ],
        }
    )


class Hospital:
    """Procedures in the order of their dates, as bytes."""

    def __init__(self, number: int, seed: int = 1) -> None:
        rng = random.Random(seed)
        patients = max(number // 12, 1)
        rows: list[tuple[str, bytes]] = []
        for index in range(number):
            resource = procedure(rng, index, patients)
            day = str(resource["performedDateTime"])[:10]
            resource["meta"]["lastUpdated"] = day + _NOON
            rows.append((day, _json(resource)))
        rows.sort(key=lambda row: row[0])
        self.days = [day for day, _ in rows]
        self.changes = [day + _NOON for day in self.days]
        self.procedures = [body for _, body in rows]
        self.patients = patients
        self._files: dict[str, bytes] = {}

    def between(self, query: dict[str, list[str]]) -> tuple[int, int]:
        """The part of the Procedures that the ``date`` and ``_lastUpdated`` parameters leave."""
        start, end = 0, len(self.days)
        for name, keys in (("_lastUpdated", self.changes), ("date", self.days)):
            for text in query.get(name, []):
                found = _BOUND.fullmatch(text)
                if found is None:
                    continue
                low, high = bisect.bisect_left(keys, found[2]), bisect.bisect_right(keys, found[2])
                start = max(start, {"ge": low, "eq": low, "gt": high}.get(found[1] or "eq", 0))
                end = min(end, {"lt": low, "le": high, "eq": high}.get(found[1] or "eq", end))
        return start, max(start, end)

    def export(self) -> list[tuple[str, int, str]]:
        """Type, count and name of each file of an export; made once, since making one takes longer than sending it."""
        number = len(self.procedures)
        if not self._files:
            for start in range(0, number, _IN_ONE_FILE):
                self._files[f"Procedure-{start}"] = _lines(self.procedures[start : start + _IN_ONE_FILE])
            for kind, prefix in (("Patient", "pat"), ("Condition", "con")):
                ids = (f"{prefix}-{index:07d}" for index in range(self.patients))
                self._files[f"{kind}-0"] = _lines([_other(kind, one) for one in ids])
        counts = {"Patient": self.patients, "Condition": self.patients}
        return [
            (kind, counts.get(kind, min(_IN_ONE_FILE, number - int(start))), f"{kind}-{start}")
            for kind, start in (name.split("-") for name in self._files)
        ]

    def file(self, name: str) -> bytes:
        """A file of the export."""
        return self._files[name]


def _lines(resources: list[bytes]) -> bytes:
    return b"\n".join(resources) + b"\n"


def _other(kind: str, resource_id: str) -> bytes:
    """A Patient, Encounter or Condition, made from its id."""
    meta = {"lastUpdated": _CHANGED}
    if kind == "Patient":
        return _json({"resourceType": kind, "id": resource_id, "meta": meta, "gender": "other", "birthDate": "1950"})
    patient = resource_id.split("-")[1]
    subject = {"reference": f"Patient/pat-{patient}"}
    if kind == "Encounter":
        return _json({"resourceType": kind, "id": resource_id, "meta": meta, "status": "finished", "subject": subject})
    code = {"coding": [{"system": "http://fhir.de/CodeSystem/bfarm/icd-10-gm", "code": "C22.0"}]}
    day = {"recordedDate": _FIRST.isoformat()}
    return _json({"resourceType": kind, "id": resource_id, "meta": meta, "subject": subject, "code": code, **day})


def _last(ids: str) -> Iterator[str]:
    return (item.rpartition("/")[2] for item in ids.split(","))


class _Server(asyncio.Protocol):
    """Just enough of HTTP/1.1: keep-alive, one request after the other."""

    def __init__(self, hospital: Hospital, delay_s: float) -> None:
        self.hospital = hospital
        self.delay_s = delay_s
        self.buffer = b""
        self.left = memoryview(b"")
        self.is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, rest = self.buffer.partition(b"\r\n\r\n")
            length = 0
            for line in head.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            if len(rest) < length:
                return
            self.buffer = rest[length:]
            method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
            headers = head.lower()
            host = re.search(rb"\r\nhost: *([^\r]+)", headers)
            base = f"http://{host[1].decode() if host else 'localhost'}/fhir"
            status, body, extra = self.answer(method, target, rest[:length], base)
            if self.delay_s:
                asyncio.get_running_loop().call_later(self.delay_s, self.send, status, body, extra)
            else:
                self.send(status, body, extra)

    def send(self, status: int, body: bytes, extra: dict[str, str]) -> None:
        lines = {
            "Content-Type": "application/fhir+json",
            "Content-Length": str(len(body)),
            "Date": formatdate(usegmt=True),
            **extra,
        }
        head = f"HTTP/1.1 {status} X\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
        self.transport.write(head.encode())
        self.left = memoryview(body)
        self.resume_writing()

    def pause_writing(self) -> None:
        self.is_paused = True

    def resume_writing(self) -> None:
        """Goes on with a body, piece by piece: a large one handed over whole is copied again and again."""
        self.is_paused = False
        while self.left and not self.is_paused:
            piece, self.left = self.left[:_PIECE], self.left[_PIECE:]
            self.transport.write(piece)

    def answer(self, method: str, target: str, body: bytes, base: str) -> tuple[int, bytes, dict[str, str]]:
        parts = urlsplit(target)
        path = parts.path.removeprefix("/fhir").strip("/")
        query: dict[str, list[str]] = {}
        text = parts.query if method == "GET" else "&".join(filter(None, (parts.query, body.decode())))
        for name, value in parse_qsl(text):
            query.setdefault(name, []).append(value)
        path = path.removesuffix("/_search")
        if path == "metadata":
            return 200, _capability(), {}
        if path == "$export":
            return 202, b"", {"Content-Location": f"{base}/jobs/1"}
        if path == "jobs/1":
            return (202, b"", {}) if method == "DELETE" else (200, self.manifest(base), {})
        if path.startswith("files/"):
            return 200, self.hospital.file(path.removeprefix("files/")), {"Content-Type": "application/fhir+ndjson"}
        if path not in _SEARCHABLE:
            return (
                404,
                _json({"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "not-found"}]}),
                {},
            )
        return 200, self.search(path, query, f"{base}/{path}", text), {}

    def search(self, kind: str, query: dict[str, list[str]], url: str, text: str) -> bytes:
        count = int(query.get("_count", ["500"])[0])
        if query.get("_summary") == ["count"]:
            start, end = self.hospital.between(query) if kind == "Procedure" else (0, 0)
            return _json({"resourceType": "Bundle", "type": "searchset", "total": end - start})
        if kind == "Procedure" and "patient" not in query and "_id" not in query:
            start, end = self.hospital.between(query)
            offset = int(query.get("_offset", ["0"])[0])
            found = self.hospital.procedures[start + offset : min(end, start + offset + count)]
            total, more = end - start, start + offset + count < end
            if more:
                plain = re.sub(r"&?_offset=\d+", "", text)
                following = f"{url}?{plain}&_offset={offset + count}"
        else:
            more = False
            ids: list[str] = []
            if "_lastUpdated" in query:
                ids = []
            elif "_id" in query:
                ids = list(_last(query["_id"][0]))
            elif "patient" in query and kind == "Condition":
                ids = [f"con-{item.removeprefix('pat-')}" for item in _last(query["patient"][0])]
            found = [_other(kind, item) for item in ids]
            total = len(found)
        link = [{"relation": "self", "url": f"{url}?{text}"}]
        if more:
            link.append({"relation": "next", "url": following})
        head = _json({"resourceType": "Bundle", "type": "searchset", "total": total, "link": link})
        entries = b",".join([b'{"resource":' + body + b',"search":{"mode":"match"}}' for body in found])
        return head[:-1] + b',"entry":[' + entries + b"]}" if found else head

    def manifest(self, base: str) -> bytes:
        return _json(
            {
                "transactionTime": _CHANGED,
                "request": f"{base}/$export",
                "requiresAccessToken": False,
                "output": [
                    {"type": kind, "url": f"{base}/files/{name}", "count": count}
                    for kind, count, name in self.hospital.export()
                ],
                "error": [],
            }
        )


async def _serve(number: int, delay_s: float, ready: Callable[[str], None]) -> None:
    hospital = Hospital(number)
    hospital.export()
    server = await asyncio.get_running_loop().create_server(lambda: _Server(hospital, delay_s), "127.0.0.1", 0)
    ready(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/fhir")
    await server.serve_forever()


def main() -> None:
    """Serves until stopped; the base URL is the first line printed."""

    def ready(url: str) -> None:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()

    number, delay_s = int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    asyncio.run(_serve(number, delay_s, ready))


if __name__ == "__main__":
    main()
