"""What the overview and the page of the runs say of a night: in a line, and step by step to what counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from io_fhir_adapter.ledger.runs import Run
from io_fhir_adapter.report.gather import run_facts
from io_fhir_adapter.report.nightly import RunFact
from io_fhir_adapter.serve.pages.wording import Translate, number_in, reason_words_in
from io_fhir_adapter.volume.count import FunnelStep

__all__ = ["Night", "funnel_in", "night_of"]

_REASONS: Final = 2


@dataclass(frozen=True, slots=True)
class Night:
    """One run in a line: how it ended, how long it took, and whether everything that it read was complete.

    ``seconds`` is None where it did not end, ``read`` and ``aside`` count resources of all types.
    """

    run: Run
    seconds: float | None
    read: int
    aside: int
    complete: bool


def funnel_in(t: Translate, language: str, funnel: Iterable[FunnelStep]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The steps by unit, each in per cent of the first of its unit."""
    found: dict[str, list[FunnelStep]] = {}
    for step in funnel:
        found.setdefault(step.unit, []).append(step)
    return [(unit, [_step(t, language, step, steps[0]) for step in steps]) for unit, steps in found.items()]


def _step(t: Translate, language: str, step: FunnelStep, first: FunnelStep) -> dict[str, Any]:
    full = (first.count + first.lost) or 1
    why = [f"{reason_words_in(t, code)} {number_in(language, many)}" for code, many in step.why[:_REASONS]]
    return {
        "name": t(f"dashboard.funnel.{step.code}"),
        "count": step.count,
        "lost": step.lost,
        "why": ", ".join(why) + (" …" if len(step.why) > _REASONS else ""),
        "share": round(100 * step.count / full, 2),
        "was": round(100 * (step.count + step.lost) / full, 2),
    }


def night_of(run: Run) -> Night:
    """A run in a line."""
    facts: list[RunFact] = run_facts(run.summary.get("sources", ()))
    seconds = None
    if run.finished:
        seconds = (datetime.fromisoformat(run.finished) - datetime.fromisoformat(run.started)).total_seconds()
    complete = bool(facts) and all(fact.complete for fact in facts)
    return Night(run, seconds, sum(fact.read for fact in facts), sum(fact.quarantined for fact in facts), complete)
