"""Findings: what the codes of one Procedure say."""

from __future__ import annotations

import msgspec

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.model import Finding, ProcedureFact

__all__ = ["Reading", "read_codes"]


class Reading(msgspec.Struct, frozen=True):
    """What the codes of one Procedure say together.

    Attributes:
        findings: One per coding that has a row, in a stable order, each once.
        known_system: Whether any coding is of a system that has a table.
        conflict: Whether one coding says look-alike and another a treatment.
    """

    findings: tuple[Finding, ...]
    known_system: bool
    conflict: bool


def read_codes(fact: ProcedureFact, ruleset: Ruleset) -> Reading:
    """Looks up every coding of the Procedure, on the day it was performed."""
    findings: set[Finding] = set()
    known = False
    for code in fact.codes:
        entry = ruleset.entry(code.system, code.code)
        known = known or entry.system in ruleset.table_systems
        row = entry.row_on(fact.day)
        if row is not None:
            findings.add(msgspec.structs.replace(row.finding, code=entry.code))
    techniques = {finding.technique == "none" for finding in findings if finding.role == "main"}
    return Reading(tuple(sorted(findings, key=_order)), known, len(techniques) > 1)


def _order(finding: Finding) -> tuple[str, str, str, str, str]:
    return finding.system, finding.code, finding.technique, finding.agent, finding.rule
