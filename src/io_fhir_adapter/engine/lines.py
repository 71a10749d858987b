"""Decisions in the form of the command contract, the same whatever engine made them."""

from __future__ import annotations

import msgspec

from io_fhir_adapter.model import Decision

__all__ = ["decision_json", "decision_line"]


def decision_json(decision: Decision) -> dict[str, object]:
    """A decision in the form of the command contract."""
    return {
        "source": decision.source,
        "patient": decision.patient,
        "date": decision.date,
        "category": decision.category,
        "decision": decision.decision,
        "reason": decision.reason,
        "findings": [
            {
                "technique": found.technique, "site": found.site, "approach": found.approach, "agent": found.agent,
                "system": found.system, "code": found.code, "rule": found.rule,
            }
            for found in decision.findings
        ],
        "indication": {
            "level": decision.indication.level, "system": decision.indication.system, "code": decision.indication.code,
        },
        "procedures": list(decision.procedures),
        "categories": list(decision.categories),
    }  # fmt: skip


def decision_line(decision: Decision) -> bytes:
    """The same as a line of UTF-8 JSON, with its end."""
    return msgspec.json.encode(decision_json(decision)) + b"\n"
