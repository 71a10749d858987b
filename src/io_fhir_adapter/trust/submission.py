"""What sender and receiver of a submission must agree on: the digest that identifies it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from io_fhir_adapter.trust.approver import is_approver
from io_fhir_adapter.trust.canonical import canonical_json, digest_bytes

__all__ = ["is_volume_alone", "speaks_of_cases", "submission_digest"]

# When something was written down is not part of what was said: the same content gives the same identifier tomorrow.
_TIMES = {
    "Provenance": ("recorded", "id"),
    "MeasureReport": ("date",),
    "Measure": ("date",),
    "Questionnaire": ("date",),
    "QuestionnaireResponse": ("authored",),
}


def submission_digest(bundle: Mapping[str, Any]) -> str:
    """The digest of what a submission Bundle says: all entries in any order, without the times of writing.

    The Provenance entry counts without its id, full URL and time, because its id is made from this digest, and without
    who approved, because what they approve has this digest already. The Bundle's signature does not count either.

    Raises:
        ValueError: An entry has no resource, or a value is not canonical JSON.
    """
    entries: list[dict[str, Any]] = []
    for entry in bundle.get("entry", []):
        resource = entry.get("resource") if isinstance(entry, dict) else None
        if not isinstance(resource, dict):
            raise ValueError("an entry has no resource")  # noqa: TRY004 - the input's fault, not the caller's
        kind = resource.get("resourceType", "")
        dropped = _TIMES.get(kind, ())
        kept = {name: value for name, value in resource.items() if name not in dropped}
        if kind == "Provenance" and isinstance(agents := kept.get("agent"), list):
            kept["agent"] = [agent for agent in agents if not is_approver(agent)]
        full_url = "" if kind == "Provenance" else entry.get("fullUrl", "")
        entries.append({"fullUrl": full_url, "resource": kept})
    # As digest({"entry": entries, "meta": …}) with the entries in the order of their digests, each written once.
    parts = sorted((canonical_json(entry) for entry in entries), key=digest_bytes)
    meta = canonical_json(bundle.get("meta", {}))
    return digest_bytes(b'{"entry":[' + b",".join(parts) + b'],"meta":' + meta + b"}")


def speaks_of_cases(bundle: Mapping[str, Any]) -> bool:
    """Whether a submission says anything but the numbers of a period, be it of patients by token alone."""
    return not _kinds(bundle) <= {"Measure", "MeasureReport", "Provenance"}


def is_volume_alone(bundle: Mapping[str, Any]) -> bool:
    """Whether a submission says the numbers of a period and nothing else; a withdrawal says none."""
    return "MeasureReport" in _kinds(bundle) and not speaks_of_cases(bundle)


def _kinds(bundle: Mapping[str, Any]) -> set[str]:
    return {str(entry["resource"]["resourceType"]) for entry in bundle["entry"]}
