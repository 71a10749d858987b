"""Steps of the reasoning behind a decision, in plain words."""

from __future__ import annotations

from io_fhir_adapter.classify.sessions import Session
from io_fhir_adapter.model import Finding, Indication, TrailStep, status_name

__all__ = [
    "code_step",
    "indication_step",
    "part_steps",
    "programme_step",
    "recorded_step",
    "status_steps",
    "unit_step",
]


def recorded_step(session: Session) -> TrailStep:
    """What the session holds."""
    text = f"{len(session.facts)} Procedure(s) on {session.day or 'an unknown date'}"
    if session.merged_days:
        text += f", one treatment recorded by two systems, also on {', '.join(session.merged_days)}"
    return TrailStep("session", "", text)


def status_steps(session: Session, ended: frozenset[tuple[str, str]]) -> list[TrailStep]:
    """What was not completed; and what the programme takes for completed, as (source, id)."""
    steps = []
    for fact in session.facts:
        if (fact.source, fact.id) in ended:
            text = f"Procedure/{fact.id} is in-progress, ended on {fact.end_day} and is taken for completed"
            steps.append(TrailStep("status", "programme:status.in_progress_ended", text))
        elif fact.status != "completed":
            steps.append(TrailStep("status", "", f"Procedure/{fact.id} is {status_name(fact.status)} and adds nothing"))
    return steps


def part_steps(session: Session) -> list[TrailStep]:
    """The parts of a Procedure that cannot vouch for them."""
    return [
        TrailStep("part-of", "", f"{part} is part of a Procedure that is not there or was not completed")
        for part in sorted(session.lonely_children)
    ]


def unit_step(programme: str, *, each: bool) -> TrailStep:
    """How a session of several categories counts."""
    text = "each category of the session is decided and counted by itself" if each else "the session is decided once"
    return TrailStep("unit", f"{programme}:volume.several_categories", text)


_COUNTS = {
    "yes": "the programme counts this category",
    "review": "the programme leaves this category to a responsible person",
    "no": "the programme does not count this category",
}


def programme_step(programme: str, category: str, counts: str) -> TrailStep:
    """What the programme says of the category."""
    return TrailStep("programme", f"{programme}:counts.{category}", _COUNTS[counts])


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
