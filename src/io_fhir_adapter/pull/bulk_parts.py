"""What stands in the downloaded files of an export, block by block and by type."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from io_fhir_adapter.pull.packing_aside import packed_aside
from io_fhir_adapter.pull.plain_text import blocks_of

__all__ = ["UNREADABLE", "Broken", "Downloaded", "Part", "read_aside", "read_parts", "subject_of"]

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises."""
_DIGEST_SHOWN: Final = 12


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A file of an export that lies complete in the spool folder."""

    file: ManifestFile
    path: Path

    def may_hold(self, resource_type: str) -> bool:
        """Whether resources of that type may stand in it."""
        return self.file.type in {"", resource_type}


class _Subject(msgspec.Struct):
    """Whom a resource is about, of one that cannot be decoded otherwise."""

    subject: Reference | None = None


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

    ``marks`` has those of ``packed``, as :attr:`Seen.parts`, where they were made with it.
    """

    sound: Sequence[Resource]
    broken: Sequence[Broken] = ()
    packed: Sequence[PackedProcedure] = ()
    marks: Sequence[bytes] = ()

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


def read_aside(files: Sequence[Downloaded], packer: Packer) -> Iterator[Part]:
    """The same of all files of Procedures, quicker."""
    for block in packed_aside(packer, [one.path for one in files]):
        if block.packing is not None:
            yield Part(block.packing.others, (), block.packing.packed, block.seen)
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
    for raw in block.split(b"\n"):
        line = raw.strip()
        if not line:
            continue
        header = _header(line)
        if header is None and (better := mended(line)) is not None:
            line, header = better, _header(better)
        if header is not None and header.resourceType != resource_type:
            # in a mixed file it is another pass's; a Parameters line says whose resources follow
            if not mixed and header.resourceType != "Parameters":
                problem = "of a type that was not asked for"
                broken.append(_set_aside(Item("", resource_type, None, "", problem), header.id or "", line))
            continue
        if header is None and mixed and resource_type != "Procedure":
            continue  # of no type: set aside with the Procedures, once
        item = decode_resource(line, "")
        if item.resource is not None and item.resource.id:
            sound.append(item.resource)
        else:
            kept = Item("", resource_type, item.resource, "", item.problem)
            broken.append(_set_aside(kept, (header.id or "") if header is not None else "", line))
    return Part(sound, broken)


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
