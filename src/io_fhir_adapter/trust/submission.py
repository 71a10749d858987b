"""What sender and receiver of a submission must agree on: its identifier systems and its digest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from io_fhir_adapter.canonical_urls import BASE
from io_fhir_adapter.trust.canonical import digest

__all__ = [
    "ENTRY_SYSTEM",
    "FACILITY_SYSTEM",
    "FRAME_SYSTEM",
    "NONCE_SYSTEM",
    "PROGRAMME_SYSTEM",
    "RULESET_SYSTEM",
    "SUBMISSION_SYSTEM",
    "submission_digest",
]

FACILITY_SYSTEM = f"{BASE}/sid/facility"
"""Facility codes as given at registration."""
SUBMISSION_SYSTEM = f"{BASE}/sid/submission"
"""Bundle.identifier: the digest of the submission's content."""
ENTRY_SYSTEM = f"{BASE}/sid/entry"
"""Business identifiers of resources that bring none of their own."""
FRAME_SYSTEM = f"{BASE}/sid/frame"
"""Digests of sampling frames."""
RULESET_SYSTEM = f"{BASE}/sid/ruleset"
"""Digests of the mapping tables and rules that decided."""
NONCE_SYSTEM = f"{BASE}/sid/draw-nonce"
"""The nonce, in hexadecimal, that the draw was ranked with."""
PROGRAMME_SYSTEM = f"{BASE}/CodeSystem/programme"
"""Codes of accreditation programmes; Bundle.meta.tag names one."""

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

    The Provenance entry counts without its id, full URL and time, because its id is made from this digest.

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
        full_url = "" if kind == "Provenance" else entry.get("fullUrl", "")
        entries.append({"fullUrl": full_url, "resource": kept})
    entries.sort(key=digest)
    return digest({"meta": bundle.get("meta", {}), "entry": entries})
