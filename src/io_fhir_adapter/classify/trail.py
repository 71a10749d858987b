"""Steps of the reasoning behind a decision, in plain words."""

from __future__ import annotations

from io_fhir_adapter.classify.sessions import Session
from io_fhir_adapter.model import Finding, Indication, TrailStep

__all__ = ["code_step", "indication_step", "recorded_step"]


def recorded_step(session: Session) -> TrailStep:
    """What the session holds."""
    text = f"{len(session.facts)} Procedure(s) on {session.day or 'an unknown date'}"
    if session.merged_days:
        text += f", one treatment recorded by two systems, also on {', '.join(session.merged_days)}"
    return TrailStep("session", "", text)


def code_step(finding: Finding) -> TrailStep:
    """What one code, or the text, says."""
    return TrailStep("code", finding.rule, f"{finding.system} {finding.code}: {_words(finding)}".lstrip())


def _words(finding: Finding) -> str:
    parts = [finding.technique, finding.site, finding.approach if finding.approach != "unspecified" else ""]
    if finding.agent not in {"none", "unspecified"}:
        parts.append(f"with {finding.agent}")
    if finding.role != "main":
        parts.append(f"({finding.role})")
    return " ".join(part for part in parts if part)


def indication_step(indication: Indication, *, doubtful: bool) -> TrailStep:
    """Which diagnosis stands behind it, and where it was found."""
    if indication.level == "none":
        return TrailStep("indication", "", "no diagnosis that explains it was found")
    where = f" in {indication.resource}" if indication.resource else ""
    text = f"{indication.kind}, {indication.system} {indication.code}, from {indication.level}{where}"
    if doubtful:
        text += "; not stated as the reason and not the likely one"
    return TrailStep("indication", indication.rule, text)
