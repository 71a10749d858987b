"""The sandbox's Bulk Data export: kick-off, status, manifest and files, with the faults of real servers.

A job is a snapshot: its files hold the resources as they were at kick-off, whatever happens later.
"""

from __future__ import annotations

import gzip
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request

from io_fhir_adapter.sandbox.bulk_faults import BulkFaults
from io_fhir_adapter.sandbox.faults import FaultPlanner, Refusal
from io_fhir_adapter.sandbox.replies import Reply, json_reply, outcome, refused
from io_fhir_adapter.sandbox.search import QueryError, parse_query
from io_fhir_adapter.sandbox.store import Row, SandboxStore, instant

__all__ = ["EVERYONE", "BulkExports"]

EVERYONE: Final = "everyone"
"""The id of a Group that always exists and holds every patient."""
_STATUS, _FILE = "bulk-status", "bulk-file"
_NDJSON = "application/fhir+ndjson"
_FORMATS = (_NDJSON, "application/ndjson", "ndjson")
_MOST_JOBS = 32
_COMPARTMENT_LINKS = ("subject", "patient")
_BUNDLE_ENTRIES = 1_000


@dataclass(frozen=True)
class _File:
    """One file: its FHIR type (empty where types are mixed), its lines, and how many resources they are."""

    resource_type: str
    lines: Sequence[bytes]
    count: int


@dataclass
class _Job:
    request: str
    started: str
    output: list[_File]
    deleted: list[_File]
    errors: list[_File]
    polls_left: int
    mixed: bool
    key: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def files(self) -> list[_File]:
        """All files, in the order of their numbers."""
        return [*self.output, *self.deleted, *self.errors]


class BulkExports:
    """All export jobs of one server.

    Args:
        planner: Says what is switched on.
        store: Gives the store, which may be exchanged while the server runs.
        base_path: Where the FHIR base lies.
    """

    def __init__(self, planner: FaultPlanner, store: Callable[[], SandboxStore], base_path: str) -> None:
        self._planner = planner
        self._store = store
        self._base_path = base_path
        self._jobs: dict[str, _Job] = {}

    @property
    def _faults(self) -> BulkFaults:
        return self._planner.faults.bulk

    def is_meant(self, parts: Sequence[str]) -> bool:
        """Whether a path below the FHIR base is one of the export's."""
        return bool(parts) and (parts[-1] == "$export" or parts[0] in (_STATUS, _FILE))

    def is_open(self, request: Request, parts: Sequence[str]) -> bool:
        """Whether the request needs no sign-in, and must not carry one: files behind addresses that say enough."""
        is_file = bool(parts) and parts[0] == _FILE
        return is_file and ("granted" in request.query_params or not self._faults.requires_token)

    async def answer(self, request: Request, parts: Sequence[str], origin: str) -> Reply:
        """The answer to a request that :meth:`is_meant` to be the export's."""
        match parts, request.method:
            case [*level, "$export"], "GET" | "POST":
                return await self._kick_off(request, level, origin)
            case ["bulk-status", key], "GET" if key in self._jobs:
                return self._status(request, self._jobs[key], origin)
            case ["bulk-status", key], "DELETE" if key in self._jobs:
                if self._faults.refuses_delete:
                    return refused(Refusal(405, "not-supported", "jobs cannot be deleted here"))
                del self._jobs[key]
                return Reply(202, b"")
            case ["bulk-file", key, name], "GET" if key in self._jobs:
                return self._file(request, self._jobs[key], name, parts)
        return refused(Refusal(404, "not-found", "there is no such job or file"))

    async def _kick_off(self, request: Request, level: Sequence[str], origin: str) -> Reply:
        faults = self._faults
        if request.method in faults.refused_methods:
            return refused(Refusal(405, "not-supported", f"no kick-off by {request.method}"))
        if "respond-async" not in request.headers.get("prefer", ""):
            return refused(Refusal(400, "invalid", "the Prefer header must say respond-async"))
        try:
            given = await _parameters(request)
            _refuse({name for name, _ in given} & set(faults.refused_parameters))
            wanted = [(name, value) for name, value in given if name not in faults.ignored_parameters]
            job = self._earlier(request) or self._make(_Wish.of(wanted), level, origin, str(request.url))
        except (QueryError, ValueError) as exc:
            return refused(Refusal(400, getattr(exc, "code", "invalid"), str(exc)))
        if job is None:
            return refused(Refusal(404, "not-found", "there is nothing to export at this path"))
        while len(self._jobs) >= _MOST_JOBS:
            del self._jobs[next(iter(self._jobs))]
        self._jobs[job.key] = job
        where = f"{origin}{self._base_path}/{_STATUS}/{job.key}"
        return Reply(202, b"", {"Content-Location": where})

    def _earlier(self, request: Request) -> _Job | None:
        """The job of a kick-off in the same words, where such are handed out again."""
        told = request.method != "GET" or "no-cache" in request.headers.get("cache-control", "")
        if told or not self._faults.reuses_jobs:
            return None
        return next((job for job in self._jobs.values() if job.request == str(request.url)), None)

    def _make(self, wish: _Wish, level: Sequence[str], origin: str, request: str) -> _Job | None:
        """The job, or None where the level or the Group does not exist."""
        store, faults = self._store(), self._faults
        members: set[str] | None = None
        match level:
            case [] | ["Patient"]:
                pass
            case ["Group", group]:
                members = _members(store, group)
                if members is None and group != EVERYONE:
                    return None
            case _:
                return None
        now = instant(store.now())
        types = store.types if faults.stray_types or not wish.types else [t for t in wish.types if t in store.types]
        types = [one for one in types if one not in faults.lacking_types]
        rows: dict[str, list[Row]] = {}
        for resource_type in types:
            found = _select(store, resource_type, wish, f"{origin}{self._base_path}")
            rows[resource_type] = [row for row in found if _belongs(row, members)] if level else found
        made = _mixed_files(rows, faults.per_file) if faults.by_patient else _typed_files(rows, faults.per_file)
        extra = [line.encode() for line in faults.foreign_lines]
        made = [_File(one.resource_type, [*one.lines, *extra], one.count + len(extra)) for one in made]
        gone: list[_File] = []
        if wish.since is not None and not faults.hides_deleted:
            gone = _deleted_files(store.deleted_since(wish.since), types)
        issues = [msgspec.json.encode(outcome(severity, "exception", "synthetic")) for severity in faults.issues]
        errors = [_File("OperationOutcome", issues, len(issues))] if issues else []
        return _Job(request, now, made, gone, errors, faults.polls, faults.by_patient)

    def _status(self, request: Request, job: _Job, origin: str) -> Reply:
        if job.polls_left > 0:
            job.polls_left -= 1
            headers = {"X-Progress": f"{job.polls_left} to go", **dict(self._planner.retry_after())}
            return Reply(202, b"", headers)
        faults = self._faults
        page = int(request.query_params.get("page", "1"))
        size = faults.per_manifest or max(1, len(job.output))
        first, last = (page - 1) * size, page * size
        base = f"{origin}{self._base_path}"
        shown: dict[str, Any] = {
            "transactionTime": faults.transaction_time or job.started,
            "request": job.request,
            "requiresAccessToken": faults.requires_token,
            **({"outputOrganizedBy": "Patient"} if job.mixed else {}),
            "output": [self._entry(job, number, origin) for number in range(len(job.output))[first:last]],
        }
        if page == 1:
            start, end = len(job.output), len(job.output) + len(job.deleted)
            shown["deleted"] = [self._entry(job, number, origin) for number in range(start, end)]
            errors = [self._entry(job, number, origin) for number in range(end, len(job.files))]
            shown["error"] = [] if faults.issues_first else errors
            shown["output"] = [*errors, *shown["output"]] if faults.issues_first else shown["output"]
        if last < len(job.output):
            shown["link"] = [{"relation": "next", "url": f"{base}/{_STATUS}/{job.key}?page={page + 1}"}]
        return json_reply(200, shown)

    def _entry(self, job: _Job, number: int, origin: str) -> dict[str, Any]:
        faults, file = self._faults, job.files[number]
        suffix = ".ndjson.gz" if faults.gzip_files else ".ndjson"
        path = f"{self._base_path}/{_FILE}/{job.key}/{number}{suffix}"
        entry: dict[str, Any] = {"url": f"{faults.file_origin or origin}{path}"}
        if file.resource_type:
            entry["type"] = file.resource_type
        if faults.count == "right":
            entry["count"] = file.count + faults.count_off_by
        return entry

    def _file(self, request: Request, job: _Job, name: str, parts: Sequence[str]) -> Reply:
        number = name.partition(".")[0]
        if not number.isdigit() or int(number) >= len(job.files):
            return refused(Refusal(404, "not-found", "there is no such file"))
        if self.is_open(request, parts) and "authorization" in request.headers:
            return refused(Refusal(400, "security", "credentials were sent where none belong"))
        faults = self._faults
        if faults.redirect_to and "granted" not in request.query_params:
            return Reply(307, b"", {"Location": f"{faults.redirect_to}{request.url.path}?granted=1"})
        file = job.files[int(number)]
        body = b"\n".join(file.lines) + (b"\n" if file.lines and faults.final_newline else b"")
        if faults.gzip_files:
            return Reply(200, gzip.compress(body, 1, mtime=0), {"Content-Type": "application/gzip"})
        return Reply(200, body, {"Content-Type": _NDJSON}, resource_type=file.resource_type)


@dataclass(frozen=True)
class _Wish:
    """What a kick-off asks for."""

    types: tuple[str, ...]
    since: datetime | None
    filters: Mapping[str, tuple[tuple[tuple[str, str], ...], ...]]

    @classmethod
    def of(cls, given: Iterable[tuple[str, str]]) -> _Wish:
        """Raises ValueError where a value does not fit."""
        types: list[str] = []
        since = None
        filters: dict[str, list[tuple[tuple[str, str], ...]]] = {}
        for name, value in given:
            if name == "_type":
                types += [part for part in value.split(",") if part]
            elif name == "_since":
                since = datetime.fromisoformat(value)
                if since.tzinfo is None:
                    raise ValueError("_since is an instant")
            elif name == "_typeFilter":
                resource_type, _, query = value.partition("?")
                filters.setdefault(resource_type, []).append(tuple(parse_qsl(query, keep_blank_values=True)))
            elif name == "_outputFormat" and value not in _FORMATS:
                raise ValueError("the output format is not supported")
        return cls(tuple(dict.fromkeys(types)), since, {name: tuple(found) for name, found in filters.items()})


def _refuse(names: Collection[str]) -> None:
    """Raises QueryError where there are any."""
    if names:
        raise QueryError(f"not supported: {', '.join(sorted(names))}", "not-supported")


async def _parameters(request: Request) -> list[tuple[str, str]]:
    given = parse_qsl(request.url.query, keep_blank_values=True)
    if request.method == "POST":
        try:
            content = msgspec.json.decode(await request.body())
            for parameter in content["parameter"]:
                value = next((str(held) for name, held in parameter.items() if name.startswith("value")), "")
                given.append((parameter["name"], value))
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as exc:
            raise ValueError("the body is no Parameters resource") from exc
    return given


def _select(store: SandboxStore, resource_type: str, wish: _Wish, base: str) -> list[Row]:
    found: dict[int, Row] = {}
    for pairs in wish.filters.get(resource_type, ((),)):
        for row in store.select(parse_query(resource_type, pairs, base=base, zone=store.zone)):
            found.setdefault(id(row), row)
    if wish.since is None:
        return list(found.values())
    since = round(wish.since.timestamp() * 1_000_000)
    return [row for row in found.values() if row.updated is None or row.updated >= since]


def _members(store: SandboxStore, group: str) -> set[str] | None:
    row = store.read("Group", group)
    if row is None:
        return None
    members = msgspec.json.decode(row.body).get("member", [])
    return {member["entity"]["reference"] for member in members}


def _patient_of(row: Row) -> str:
    """The patient whose compartment a resource lies in, empty for none."""
    if row.resource_type == "Patient":
        return f"Patient/{row.id}"
    content = msgspec.json.decode(row.body)
    for name in _COMPARTMENT_LINKS:
        link = content.get(name) if isinstance(content, dict) else None
        if isinstance(link, dict) and isinstance(link.get("reference"), str):
            return str(link["reference"])
    return ""


def _belongs(row: Row, members: Collection[str] | None) -> bool:
    patient = _patient_of(row)
    return bool(patient) and (members is None or patient in members)


def _line(row: Row) -> bytes:
    return b" ".join(row.body.splitlines())


def _typed_files(rows: Mapping[str, Sequence[Row]], size: int) -> list[_File]:
    files = []
    for resource_type, found in rows.items():
        for start in range(0, len(found), size):
            lines = [_line(row) for row in found[start : start + size]]
            files.append(_File(resource_type, lines, len(lines)))
    return files


def _mixed_files(rows: Mapping[str, Sequence[Row]], size: int) -> list[_File]:
    """Files of whole patients, each after a line that names the patient; what belongs to none comes last."""
    by_patient: dict[str, list[bytes]] = {}
    for found in rows.values():
        for row in found:
            by_patient.setdefault(_patient_of(row), []).append(_line(row))
    files: list[_File] = []
    lines: list[bytes] = []
    count = 0
    for patient, held in sorted(by_patient.items(), key=lambda item: (not item[0], item[0])):
        header = {"name": "header", "valueReference": {"reference": patient}}
        lines += [msgspec.json.encode({"resourceType": "Parameters", "parameter": [header]}), *held]
        count += len(held)
        if count >= size:
            files.append(_File("", lines, count))
            lines, count = [], 0
    return [*files, _File("", lines, count)] if lines else files


def _deleted_files(gone: Iterable[tuple[str, str]], types: Collection[str]) -> list[_File]:
    """Transaction Bundles of DELETE entries."""
    urls = [f"{resource_type}/{resource_id}" for resource_type, resource_id in gone if resource_type in types]
    bundles = []
    for start in range(0, len(urls), _BUNDLE_ENTRIES):
        entries = [{"request": {"method": "DELETE", "url": url}} for url in urls[start : start + _BUNDLE_ENTRIES]]
        bundles.append(msgspec.json.encode({"resourceType": "Bundle", "type": "transaction", "entry": entries}))
    return [_File("Bundle", bundles, len(bundles))] if bundles else []
