"""Decoding resources: typed by their own ``resourceType``, the broken ones set aside with a reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from io_fhir_adapter.fhir.structs import Bundle, BundleEntry, Condition, Encounter, Header, Patient, Procedure

__all__ = [
    "DAMAGED", "DECODERS", "UNREADABLE", "Item", "Resource", "decode_resource", "expand_bundle", "has_resource",
    "reason_of",
]  # fmt: skip

Resource = Procedure | Patient | Condition | Encounter

DECODERS: Final[dict[str, msgspec.json.Decoder[Resource]]] = {
    "Procedure": msgspec.json.Decoder(Procedure),
    "Patient": msgspec.json.Decoder(Patient),
    "Condition": msgspec.json.Decoder(Condition),
    "Encounter": msgspec.json.Decoder(Encounter),
}
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises."""
_HEADER: Final = msgspec.json.Decoder(Header)
_BUNDLE: Final = msgspec.json.Decoder(Bundle)
_MAX_NESTING = 3
_NOT_JSON, _NOT_UTF_8 = "not valid JSON", "not UTF-8"
DAMAGED: Final = frozenset({_NOT_JSON, _NOT_UTF_8})
"""Problems of the input itself, not of what a resource says: something was lost on the way."""


class Item(msgspec.Struct, frozen=True):
    """One resource as found: decoded where its type matters here, else only named; or the reason why not.

    Attributes:
        position: Where it stood, such as ``file.ndjson:12`` or ``bundle.json entry 3``.
        resource_type: Its type as far as it could be read.
        resource: The decoded struct, None for other types and for broken ones.
        fallback_id: The id its Bundle entry gives it.
        problem: Why it could not be read, empty for good ones.
    """

    position: str
    resource_type: str
    resource: Resource | None
    fallback_id: str = ""
    problem: str = ""


def reason_of(exc: Exception) -> str:
    """What was wrong, with the element path but without any value of the resource."""
    if isinstance(exc, msgspec.ValidationError):
        text = str(exc)
        path = text.rpartition(" - at ")[2].strip("`") if " - at " in text else "$"
        kind = text.partition(" - at ")[0]
        # msgspec repeats a value only for wrong enumerations and tags
        return f"{kind if 'nvalid' not in kind else 'wrong value'} at {path}"
    if isinstance(exc, UnicodeDecodeError):
        return _NOT_UTF_8
    if isinstance(exc, RecursionError):
        return "nested too deeply"
    return _NOT_JSON


def decode_resource(data: bytes | msgspec.Raw, position: str, fallback_id: str = "") -> Item:
    """Decodes one resource that is not a Bundle."""
    resource_type = ""
    try:
        resource_type = _HEADER.decode(data).resourceType
        decoder = DECODERS.get(resource_type)
        resource = decoder.decode(data) if decoder is not None else None
    except UNREADABLE as exc:
        return Item(position, resource_type, None, fallback_id, reason_of(exc))
    if not resource_type:
        return Item(position, "", None, fallback_id, "no resourceType")
    return Item(position, resource_type, resource, fallback_id)


def has_resource(entry: BundleEntry) -> bool:
    """Whether a Bundle entry carries a resource; deletions and outcomes of a transaction do not."""
    return bytes(memoryview(entry.resource)[:4]) not in {b"", b"null"}


def expand_bundle(data: bytes | msgspec.Raw, position: str, depth: int = 0) -> Iterator[Item]:
    """All resources of a Bundle of any type, in order; nested Bundles are opened too."""
    try:
        bundle = _BUNDLE.decode(data)
    except UNREADABLE as exc:
        yield Item(position, "Bundle", None, "", reason_of(exc))
        return
    for number, entry in enumerate(bundle.entry or ()):
        if not has_resource(entry):
            continue
        place = f"{position} entry {number + 1}"
        fallback = (entry.fullUrl or "").rpartition("/")[2].removeprefix("urn:uuid:").removeprefix("urn:oid:")
        item = decode_resource(entry.resource, place, fallback)
        if item.resource_type == "Bundle" and not item.problem and depth < _MAX_NESTING:
            yield from expand_bundle(entry.resource, place, depth + 1)
        else:
            yield item
