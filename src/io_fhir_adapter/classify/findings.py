"""Findings: what the codes of one Procedure say, and its text where no code does."""

from __future__ import annotations

import msgspec

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.model import Finding, ProcedureFact

__all__ = ["NOT_IO_APPROACH", "Reading", "is_usable", "read_codes", "stands_alone"]

NOT_IO_APPROACH = frozenset({"open", "laparoscopic", "endoscopic"})


class Reading(msgspec.Struct, frozen=True):
    """What the codes of one Procedure say together.

    Attributes:
        findings: One per coding that has a row, in a stable order, each once; else what the text says.
        known_system: Whether any coding is of a system that has a table.
        conflict: Whether one coding says look-alike and another a treatment, or one that it was open, laparoscopic or
            endoscopic and another that it was not.
        from_text: Whether the findings are those of the text: never enough to count.
    """

    findings: tuple[Finding, ...]
    known_system: bool
    conflict: bool
    from_text: bool = False


def read_codes(fact: ProcedureFact, ruleset: Ruleset) -> Reading:
    """Looks up every coding of the Procedure, on the day it was performed; reads its text where none says anything.

    Where a row names no site, the Procedure's body sites do.
    """
    findings: set[Finding] = set()
    known = False
    for code in fact.codes:
        entry = ruleset.entry(code.system, code.code)
        known = known or entry.system in ruleset.table_systems
        row = entry.row_on(fact.day)
        if row is not None:
            findings.add(msgspec.structs.replace(row.finding, code=entry.code))
    if not findings:
        said = ruleset.text_findings([(code.system, code.code) for code in fact.codes], _texts(fact))
        return Reading(_placed(said, fact, ruleset), known, conflict=False, from_text=bool(said))
    main = [finding for finding in findings if finding.role == "main"]
    techniques = {finding.technique == "none" for finding in main}
    ways = {finding.approach in NOT_IO_APPROACH for finding in main if finding.approach != "unspecified"}
    ordered = tuple(sorted(findings, key=_order)) if len(findings) > 1 else tuple(findings)
    return Reading(_placed(ordered, fact, ruleset), known, len(techniques) > 1 or len(ways) > 1)


def is_usable(finding: Finding) -> bool:
    """Whether a finding may make a session: no look-alike, no revision, not through another route."""
    return finding.technique != "none" and finding.role != "revision" and finding.approach not in NOT_IO_APPROACH


def stands_alone(finding: Finding, ruleset: Ruleset) -> bool:
    """Whether a finding says what was done by itself, ours or not, and is not just a word beside another one."""
    return finding.technique == "none" or (
        finding.role == "main" and ruleset.rules.techniques[finding.technique].family != "add-on"
    )


def _texts(fact: ProcedureFact) -> list[str]:
    return [fact.text, *(code.display for code in fact.codes)]


def _placed(findings: tuple[Finding, ...], fact: ProcedureFact, ruleset: Ruleset) -> tuple[Finding, ...]:
    """The findings with the site that bodySite names, where their row names none."""
    if not fact.body_sites or all(finding.site for finding in findings):
        return findings
    return tuple(ruleset.body_sites.refine(finding, fact.body_sites) for finding in findings)


def _order(finding: Finding) -> tuple[str, str, str, str, str]:
    return finding.system, finding.code, finding.technique, finding.agent, finding.rule
