"""References in one form: ``Type/id``, whatever the source wrote.

Literal references may be relative, absolute, versioned or ``urn:uuid:`` (as in transaction Bundles); logical
ones carry an identifier only. All give one key per target within a source.
"""

from __future__ import annotations

from io_fhir_adapter.fhir.structs import Reference

__all__ = ["id_of", "normalise", "reference_key"]

_URN = ("urn:uuid:", "urn:oid:")


def normalise(reference: str | None, resource_type: str) -> str:
    """``Type/id`` of a literal reference, empty where it points nowhere outside its own resource.

    Args:
        reference: As written, such as ``Patient/1``, ``https://host/fhir/Patient/1/_history/2``, ``urn:uuid:…``.
        resource_type: The type expected, used for ``urn:`` references and bare ids.
    """
    if not reference or reference[0] == "#":
        return ""
    if reference.count("/") == 1 and reference[0] != "/" and reference[-1] not in "/ " and "?" not in reference:
        return reference
    for prefix in _URN:
        if reference.startswith(prefix):
            name = reference[len(prefix) :]
            return f"{resource_type}/{name}" if name else ""
    if "?" in reference:  # a conditional reference names its target as well as an id does
        base, _, query = reference.partition("?")
        return f"{base.rpartition('/')[2]}?{query}"
    parts = [part for part in reference.split("/") if part]
    if len(parts) > 3 and parts[-2] == "_history":
        parts = parts[:-2]
    kind, name = parts[-2] if len(parts) > 1 else resource_type, parts[-1] if parts else ""
    if not name.strip() or (name == resource_type and (len(parts) == 1 or kind != name)):  # a type without an id
        return ""
    return f"{kind}/{name}"


def reference_key(reference: Reference | None, resource_type: str) -> str:
    """The key of a Reference, literal first, else ``Type?identifier=system|value``, else empty."""
    if reference is None:
        return ""
    key = normalise(reference.reference, resource_type)
    if key:
        return key
    identifier = reference.identifier
    if identifier is not None and identifier.value:
        return f"{resource_type}?identifier={identifier.system or ''}|{identifier.value}"
    return ""


def id_of(reference: str) -> str:
    """The id behind a normalised reference."""
    return reference.rpartition("/")[2]
