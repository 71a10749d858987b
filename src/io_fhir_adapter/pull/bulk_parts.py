"""What stands in the downloaded files of an export, block by block and by type."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from io_fhir_adapter.fhir.references import reference_key
from io_fhir_adapter.fhir.structs import Header, Patient, Reference
from io_fhir_adapter.ledger.packed_form import PackedProcedure
from io_fhir_adapter.pull.bulk_manifest import ManifestFile
from io_fhir_adapter.pull.decode import DECODERS, Item, Resource, decode_resource
from io_fhir_adapter.pull.mending import mended
from io_fhir_adapter.pull.packing import Packer
from io_fhir_adapter.pull.packing_aside import Block
from io_fhir_adapter.pull.plain_text import blocks_of

__all__ = [
    "FOREIGN", "UNREADABLE", "Broken", "Downloaded", "Issues", "Part", "issues_of", "read_parts", "read_ready",
    "subject_of",
]  # fmt: skip

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises."""
FOREIGN: Final = "of a type that was not asked for"
"""The problem of a resource in a file of another type."""
_OUTCOME: Final = "OperationOutcome"
_PARAMETERS: Final = "Parameters"  # in a mixed file: whose resources follow
_GRAVE: Final = frozenset({"fatal", "error"})
_DIGEST_SHOWN: Final = 12


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A file of an export that lies complete in the spool folder."""

    file: ManifestFile
    path: Path

    def may_hold(self, resource_type: str) -> bool:
        """Whether resources of that type may stand in it."""
        return self.file.type in {"", resource_type}


@dataclass(frozen=True, slots=True)
class Issues:
    """What a server says about an export: how many errors, and how many warnings and remarks."""

    grave: int = 0
    slight: int = 0

    def __add__(self, other: Issues) -> Issues:
        return Issues(self.grave + other.grave, self.slight + other.slight)


class _Issue(msgspec.Struct):
    severity: str = ""


class _Outcome(msgspec.Struct):
    issue: list[_Issue] | None = None


class _Subject(msgspec.Struct):
    """Whom a resource is about, of one that cannot be decoded otherwise."""

    subject: Reference | None = None


_ISSUES: Final = msgspec.json.Decoder(_Outcome)
_HEADER: Final = msgspec.json.Decoder(Header)
_SUBJECT: Final = msgspec.json.Decoder(_Subject)


@dataclass(frozen=True, slots=True)
class Broken:
    """A line that is no sound resource of the type wanted."""

    item: Item
    resource_id: str
    subject: str


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive resources of one type: sound ones, decoded and with an id, or those to be looked at one by one.

    ``issues`` is what the server says between them.
    """

    sound: Sequence[Resource]
    broken: Sequence[Broken] = ()
    packed: Sequence[PackedProcedure] = ()
    issues: Issues = field(default_factory=Issues)

    @property
    def size(self) -> int:
        """How many resources."""
        return len(self.packed) + len(self.sound) + len(self.broken)


def subject_of(resource: Resource) -> str:
    """The patient that a resource is about, as ``Patient/id``; of a Patient itself."""
    if isinstance(resource, Patient):
        return f"Patient/{resource.id}"
    return reference_key(resource.subject, "Patient")


def read_parts(downloaded: Downloaded, resource_type: str, packer: Packer | None = None) -> Iterator[Part]:
    """The resources of one type in one file, in bounded memory; Procedures made ready at once by a ``packer``."""
    for block in blocks_of(downloaded.path):
        packing = packer.pack_lines(block) if packer is not None and downloaded.file.type else None
        if packing is not None:
            yield Part(packing.others, (), packing.packed)
        else:
            yield _looked_at(block, resource_type, mixed=not downloaded.file.type)


def read_ready(blocks: Iterable[Block]) -> Iterator[Part]:
    """The same of blocks of Procedures that a process of its own has looked at."""
    for block in blocks:
        if block.packing is not None:
            yield Part(block.packing.others, (), block.packing.packed)
        else:
            yield _looked_at(block.text, "Procedure", mixed=False)


def _looked_at(block: bytes, resource_type: str, *, mixed: bool) -> Part:
    if not mixed:
        try:
            sound = DECODERS[resource_type].decode_lines(block)
        except UNREADABLE:
            return _line_by_line(block, resource_type, mixed=mixed)
        if all(resource.id for resource in sound):
            return Part(sound)
    return _line_by_line(block, resource_type, mixed=mixed)


def _line_by_line(block: bytes, resource_type: str, *, mixed: bool) -> Part:
    sound: list[Resource] = []
    broken: list[Broken] = []
    issues = Issues()
    for raw in block.split(b"\n"):
        line = raw.strip()
        if not line:
            continue
        header = _header(line)
        if header is None and (better := mended(line)) is not None:
            line, header = better, _header(better)
        kind, resource_id = (header.resourceType, header.id or "") if header is not None else ("", "")
        if kind == _OUTCOME:
            issues += issues_of(line)
        elif kind == _PARAMETERS or (mixed and not _is_for(resource_type, kind)):
            continue
        elif kind not in {"", resource_type}:
            # without its id, which a sound resource of the type wanted may have too
            broken.append(_set_aside(Item("", resource_type, None, "", FOREIGN), "", line))
        else:
            item = decode_resource(line, "")
            if item.resource is not None and item.resource.id:
                sound.append(item.resource)
            else:
                kept = Item("", resource_type, item.resource, "", item.problem)
                broken.append(_set_aside(kept, resource_id if kind or not mixed else "", line))
    return Part(sound, broken, issues=issues)


def _is_for(resource_type: str, kind: str) -> bool:
    """Whether a line of a mixed file is for the pass of that type; of no type, for that of the Procedures, once."""
    return kind == resource_type or (not kind and resource_type == "Procedure")


def issues_of(line: bytes) -> Issues:
    """What an OperationOutcome says; what cannot be read, or says nothing, is an error."""
    try:
        found = _ISSUES.decode(line).issue or [_Issue("error")]
    except UNREADABLE:
        found = [_Issue("error")]
    grave = sum(issue.severity in _GRAVE for issue in found)
    return Issues(grave, len(found) - grave)


def _header(line: bytes) -> Header | None:
    try:
        return _HEADER.decode(line)
    except UNREADABLE:
        return None


def _set_aside(item: Item, resource_id: str, line: bytes) -> Broken:
    place = "" if resource_id else f"without an id, content {hashlib.sha256(line).hexdigest()[:_DIGEST_SHOWN]}"
    if item.resource is not None:
        subject = subject_of(item.resource)
    else:
        try:
            subject = reference_key(_SUBJECT.decode(line).subject, "Patient")
        except UNREADABLE:
            subject = ""
    return Broken(msgspec.structs.replace(item, position=place), resource_id, subject)
