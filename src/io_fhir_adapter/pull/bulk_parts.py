"""What stands in the downloaded files of an export, block by block and by type."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from io_fhir_adapter.fhir.references import reference_key
from io_fhir_adapter.fhir.structs import Header, Patient, Reference
from io_fhir_adapter.ledger.packed_form import PackedProcedure
from io_fhir_adapter.pull.bulk_files import spooling
from io_fhir_adapter.pull.bulk_manifest import ManifestFile
from io_fhir_adapter.pull.decode import DAMAGED, DECODERS, UNREADABLE, Item, Resource, decode_resource
from io_fhir_adapter.pull.mending import mended
from io_fhir_adapter.pull.packing import Packer
from io_fhir_adapter.pull.packing_aside import Block
from io_fhir_adapter.pull.plain_text import blocks_of

__all__ = [
    "FOREIGN", "Broken", "Downloaded", "Issues", "Keep", "Part", "issues_of", "read_parts", "read_ready",
    "subject_of",
]  # fmt: skip

FOREIGN: Final = "of a type that was not asked for"
"""The problem of a resource in a file of another type."""
_OUTCOME: Final = "OperationOutcome"
_PARAMETERS: Final = "Parameters"  # in a mixed file: whose resources follow
_GRAVE: Final = frozenset({"fatal", "error"})
_DIGEST_SHOWN: Final = 12


Keep = Callable[[str, str], bool]
"""Says whether to keep a resource, by its id and by the reference to its subject."""


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


class _Head(msgspec.Struct, gc=False):
    """Just enough of a resource to say whether it is kept: most Conditions of a hospital are not."""

    resourceType: str = ""
    id: str | None = None
    subject: Reference | None = None


_ISSUES: Final = msgspec.json.Decoder(_Outcome)
_HEADER: Final = msgspec.json.Decoder(Header)
_HEADS: Final = msgspec.json.Decoder(_Head)
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


def subject_of(resource: Resource | _Head) -> str:
    """The patient that a resource is about, as ``Patient/id``; of a Patient itself."""
    if isinstance(resource, Patient) or (isinstance(resource, _Head) and resource.resourceType == "Patient"):
        return f"Patient/{resource.id}"
    return reference_key(resource.subject, "Patient")


def read_parts(
    downloaded: Downloaded,
    resource_type: str,
    packer: Packer | None = None,
    keep: Keep | None = None,
) -> Iterator[Part]:
    """The resources of one type in one file, in bounded memory.

    Args:
        downloaded: The file.
        resource_type: Which.
        packer: Makes Procedures ready at once.
        keep: What to keep; everything where None.
    """
    mixed = not downloaded.file.type
    for block in _blocks_of(downloaded.path):
        packing = packer.pack_lines(block) if packer is not None and not mixed else None
        if packing is not None:
            yield Part(packing.others, (), packing.packed)
        else:
            kept = block if keep is None or mixed else _kept(block, resource_type, keep)
            yield _looked_at(kept, resource_type, keep, mixed=mixed)


def _blocks_of(path: Path) -> Iterator[bytes]:
    with spooling(path.parent):
        yield from blocks_of(path)


def _kept(block: bytes, resource_type: str, keep: Keep) -> bytes:
    """The lines of those that are kept; the block as it is where anything in it needs a closer look."""
    try:
        block.decode()  # a damaged file is told, wherever the damage is
        heads = _HEADS.decode_lines(block)
    except UNREADABLE:
        return block
    lines = [line for raw in block.split(b"\n") if (line := raw.strip())]
    if len(lines) != len(heads) or not all(line.startswith(b"{") and line.endswith(b"}") for line in lines):
        return block  # not one in each line
    if not all(head.id and head.resourceType == resource_type for head in heads):
        return block
    return b"\n".join(line for line, head in zip(lines, heads, strict=True) if keep(head.id or "", subject_of(head)))


def read_ready(blocks: Iterable[Block]) -> Iterator[Part]:
    """The same of blocks of Procedures that a process of its own has looked at."""
    for block in blocks:
        if block.packing is not None:
            yield Part(block.packing.others, (), block.packing.packed)
        if block.text:
            yield _looked_at(block.text, "Procedure", None, mixed=False)


def _looked_at(block: bytes, resource_type: str, keep: Keep | None, *, mixed: bool) -> Part:
    if not mixed:
        try:
            sound = DECODERS[resource_type].decode_lines(block)
        except UNREADABLE:
            return _line_by_line(block, resource_type, keep, mixed=mixed)
        if all(resource.id for resource in sound):
            return Part([one for one in sound if _is_kept(one, keep)])
    return _line_by_line(block, resource_type, keep, mixed=mixed)


def _line_by_line(block: bytes, resource_type: str, keep: Keep | None, *, mixed: bool) -> Part:
    found: dict[str, Resource | Broken] = {}  # of several with one id the last, whether it is sound or not
    nameless: list[Broken] = []
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
            nameless.append(_set_aside(Item("", resource_type, None, "", FOREIGN), "", line))
        else:
            one = _read(line, resource_type, resource_id if kind or not mixed else "")
            if isinstance(one, Broken) and not one.resource_id and _is_kept(one, keep):
                nameless.append(one)
            elif _is_kept(one, keep):
                found[(one.resource_id if isinstance(one, Broken) else one.id) or ""] = one
    sound = [one for one in found.values() if not isinstance(one, Broken)]
    broken = [one for one in found.values() if isinstance(one, Broken)]
    return Part(sound, [*nameless, *broken], issues=issues)


def _read(line: bytes, resource_type: str, resource_id: str) -> Resource | Broken:
    item = decode_resource(line, "")
    if item.resource is not None and item.resource.id:
        return item.resource
    return _set_aside(Item("", resource_type, item.resource, "", item.problem), resource_id, line)


def _is_kept(one: Resource | Broken, keep: Keep | None) -> bool:
    """Whether it is one of those that are kept; what is wrong with the file itself always is told."""
    if keep is None:
        return True
    if isinstance(one, Broken):
        return one.item.problem in DAMAGED or keep(one.resource_id, one.subject)
    return keep(one.id or "", subject_of(one))


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
    elif item.resource_type == "Patient":
        subject = f"Patient/{resource_id}"
    else:
        try:
            subject = reference_key(_SUBJECT.decode(line).subject, "Patient")
        except UNREADABLE:
            subject = ""
    return Broken(msgspec.structs.replace(item, position=place), resource_id, subject)
