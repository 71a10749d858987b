"""The decision: what becomes of each session of one patient, and why.

One function, :func:`decide_patient`, decides everywhere: in files, in the nightly job, on a cluster. It takes
all facts of one patient and gives one decision per session; it knows neither files nor databases.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from io_fhir_adapter.classify.evidence import Background, Evidence, gather
from io_fhir_adapter.classify.findings import Reading, read_codes
from io_fhir_adapter.classify.rules import CategoryFinding
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.classify.sessions import Session, group_sessions, merge_twice_recorded
from io_fhir_adapter.model import (
    ConditionFact,
    Decision,
    DecisionKind,
    EncounterFact,
    Finding,
    Indication,
    ProcedureFact,
    TrailStep,
)

__all__ = ["decide_patient"]

_NOT_IO_APPROACH = frozenset({"open", "laparoscopic", "endoscopic"})
_RANK = {"counted": 0, "review": 1, "not-counted": 2}
_COUNTS_RANK = {"yes": 0, "review": 1, "no": 2}


@dataclass(frozen=True, slots=True)
class _Verdict:
    category: str
    decision: DecisionKind
    reason: str
    indication: Indication
    steps: tuple[TrailStep, ...]


def decide_patient(
    facts: Iterable[ProcedureFact],
    conditions: Iterable[ConditionFact],
    encounters: Iterable[EncounterFact],
    ruleset: Ruleset,
) -> list[Decision]:
    """One decision per session of one patient, in order of date.

    Args:
        facts: All Procedure facts of the patient; order and repetition do not matter.
        conditions: The patient's Conditions, as far as known.
        encounters: The patient's Encounters, as far as known.
        ruleset: Tables, rules and programme.
    """
    background = Background(
        {f"Condition/{fact.id}": fact for fact in conditions}, {f"Encounter/{fact.id}": fact for fact in encounters}
    )
    readings: dict[tuple[str, str], Reading] = {}

    def reading(fact: ProcedureFact) -> Reading:
        key = (fact.source, fact.id)
        if key not in readings:
            readings[key] = read_codes(fact, ruleset)
        return readings[key]

    def signature(session: Session) -> frozenset[str]:
        done = [fact for fact in session.facts if fact.status == "completed"]
        found = ruleset.rules.categories(_usable([reading(fact) for fact in done]), frozenset())
        main = [finding for item in found for finding in item.findings if finding.role == "main"]
        # one system may name the energy of an ablation where the other only says that it was one
        ablated = any(ruleset.rules.techniques[finding.technique].family == "ablation" for finding in main)
        words = {item.category for item in found} | {finding.technique for finding in main}
        return frozenset(words | {"ablation"} if ablated else words)

    def system_of(fact: ProcedureFact) -> str:
        return fact.origin or next((ruleset.systems.name(code.system) for code in fact.codes), "") or fact.source

    # Only what the tables know makes a session; what they do not know stands apart, so that an unrelated
    # Procedure never changes a decision, and has a session of its own only on a day without any other.
    mapped: list[ProcedureFact] = []
    rest: list[ProcedureFact] = []
    for fact in facts:
        (mapped if reading(fact).findings else rest).append(fact)
    sessions = merge_twice_recorded(group_sessions(mapped), signature, system_of)
    taken = {day for session in sessions for day in (session.day, *session.merged_days)}
    sessions += [session for session in group_sessions(rest) if not session.day or session.day not in taken]
    decisions = [
        _decide(session, [reading(fact) for fact in session.facts], background, ruleset) for session in sessions
    ]
    return sorted(decisions, key=lambda decision: (decision.date, decision.procedures))


def _usable(readings: Iterable[Reading]) -> list[Finding]:
    """Findings that may make a session: not look-alikes, not revisions, not through another route; each once."""
    found = {
        finding
        for reading in readings
        for finding in reading.findings
        if finding.technique != "none" and finding.role != "revision" and finding.approach not in _NOT_IO_APPROACH
    }
    return sorted(found, key=lambda finding: (finding.system, finding.code, finding.technique, finding.rule))


def _decide(session: Session, readings: Sequence[Reading], background: Background, ruleset: Ruleset) -> Decision:
    pairs = list(zip(session.facts, readings, strict=True))
    done = [(fact, reading) for fact, reading in pairs if fact.status == "completed"]
    steps = [_recorded_step(session)]
    for fact, _ in pairs:
        if fact.status != "completed":
            steps.append(TrailStep("status", "", f"Procedure/{fact.id} is {fact.status} and adds nothing"))
    deciding = done or pairs
    verdicts = _verdicts(deciding, session, background, ruleset)
    best = min(verdicts, key=lambda verdict: _preference(verdict, ruleset))
    if not done:
        reason = "entered-in-error" if _all_status(session, "entered-in-error") else "not-completed"
        best = _Verdict(best.category, "not-counted", reason, best.indication, best.steps)
    elif best.decision == "counted" and not session.day:
        best = _Verdict(best.category, "not-counted", "undated", best.indication, best.steps)
    elif best.decision == "counted" and all(f"Procedure/{fact.id}" in session.lonely_children for fact, _ in done):
        best = _Verdict(best.category, "review", "part-of-missing-procedure", best.indication, best.steps)
    findings = tuple(dict.fromkeys(finding for _, reading in deciding for finding in reading.findings))
    categories = [best.category, *(verdict.category for verdict in verdicts if verdict.category != "none")]
    steps += best.steps
    steps.append(TrailStep("decision", f"programme:{ruleset.programme.id}", f"{best.decision}: {best.reason}"))
    first = session.facts[0]
    return Decision(
        source=first.source,
        patient=first.patient,
        date=session.day,
        category=best.category,
        decision=best.decision,
        reason=best.reason,
        categories=tuple(dict.fromkeys(categories)),
        findings=tuple(sorted(findings, key=lambda finding: (finding.system, finding.code, finding.rule))),
        indication=best.indication,
        procedures=tuple(sorted(f"Procedure/{fact.id}" for fact in session.facts)),
        trail=tuple(steps),
    )


def _recorded_step(session: Session) -> TrailStep:
    text = f"{len(session.facts)} Procedure(s) on {session.day or 'an unknown date'}"
    if session.merged_days:
        text += f", one treatment recorded by two systems, also on {', '.join(session.merged_days)}"
    return TrailStep("session", "", text)


def _all_status(session: Session, status: str) -> bool:
    return all(fact.status == status for fact in session.facts)


def _preference(verdict: _Verdict, ruleset: Ruleset) -> tuple[int, int, int]:
    order = list(ruleset.categories)
    return (
        _RANK[verdict.decision],
        _COUNTS_RANK[ruleset.programme.counts_for(verdict.category)] if verdict.category != "none" else 3,
        order.index(verdict.category),
    )


def _verdicts(
    pairs: Sequence[tuple[ProcedureFact, Reading]], session: Session, background: Background, ruleset: Ruleset
) -> list[_Verdict]:
    usable = _usable(reading for _, reading in pairs)
    facts = [fact for fact, _ in pairs]
    everywhere = frozenset(finding.site for finding in usable)
    stated = gather(
        facts, everywhere, session.day, background, ruleset.diagnoses, ruleset.programme.indication
    ).stated_kinds
    found = ruleset.rules.categories(usable, stated)
    if not found:
        return [_nothing_found(pairs)]
    return [_judge(item, pairs, session, background, ruleset) for item in found]


def _nothing_found(pairs: Sequence[tuple[ProcedureFact, Reading]]) -> _Verdict:
    findings = [finding for _, reading in pairs for finding in reading.findings]
    none = Indication("none")
    if not findings:
        known = any(reading.known_system for _, reading in pairs)
        return _Verdict("none", "not-counted", "no-io-code" if known else "unmapped", none, ())
    real = [finding for finding in findings if finding.technique != "none"]
    steps = tuple(TrailStep("code", f.rule, f"{f.system} {f.code}: {_words(f)}") for f in findings)
    if not real:
        reason = "look-alike"
    elif any(finding.approach in _NOT_IO_APPROACH for finding in real):
        reason = "not-percutaneous"
    elif any(finding.role == "revision" for finding in real):
        reason = "revision-only"
    else:
        reason = "add-on-only"
    return _Verdict("none", "not-counted", reason, none, steps)


def _words(finding: Finding) -> str:
    parts = [finding.technique, finding.site, finding.approach if finding.approach != "unspecified" else ""]
    if finding.agent not in {"none", "unspecified"}:
        parts.append(f"with {finding.agent}")
    if finding.role != "main":
        parts.append(f"({finding.role})")
    return " ".join(part for part in parts if part)


def _judge(
    item: CategoryFinding,
    pairs: Sequence[tuple[ProcedureFact, Reading]],
    session: Session,
    background: Background,
    ruleset: Ruleset,
) -> _Verdict:
    used = set(item.findings)
    own = [(fact, reading) for fact, reading in pairs if used & set(reading.findings)]
    sites = frozenset(finding.site for finding in item.findings if finding.site and finding.role == "main")
    evidence = gather(
        [fact for fact, _ in own], sites, session.day, background, ruleset.diagnoses, ruleset.programme.indication
    )
    main = [finding for finding in item.findings if finding.role == "main"] or list(item.findings)
    steps = [TrailStep("code", f.rule, f"{f.system} {f.code}: {_words(f)}") for f in item.findings]
    steps.append(
        TrailStep("category", item.rule, f"{item.category}: {item.meaning or ruleset.categories[item.category]}")
    )
    need = _need(main)
    indication = evidence.indication
    if need == "implied" and evidence.other_disease is None and indication.level == "none":
        indication = Indication("code", main[0].system, main[0].code, "malignant", "", main[0].rule)
    steps.append(_indication_step(indication))
    counts = ruleset.programme.counts_for(item.category)
    decision, reason = _rule(counts, need, evidence, indication, ruleset)
    if decision == "counted" and any(reading.conflict for _, reading in own):
        decision, reason = "review", "conflicting-codes"
    if decision == "counted" and _route_open(main, pairs, ruleset):
        decision, reason = "review", "route-not-coded"
    return _Verdict(item.category, decision, reason, indication, tuple(steps))


def _indication_step(indication: Indication) -> TrailStep:
    if indication.level == "none":
        return TrailStep("indication", "", "no diagnosis that explains it was found")
    where = f" in {indication.resource}" if indication.resource else ""
    text = f"{indication.kind}, {indication.system} {indication.code}, from {indication.level}{where}"
    return TrailStep("indication", indication.rule, text)


def _need(main: Sequence[Finding]) -> str:
    """The weakest demand among the main findings: one code that implies a tumour speaks for its session."""
    needs = {finding.indication for finding in main}
    return next(need for need in ("implied", "expected", "required") if need in needs)


def _rule(
    counts: str, need: str, evidence: Evidence, indication: Indication, ruleset: Ruleset
) -> tuple[DecisionKind, str]:
    if counts == "no":
        return "not-counted", "category-not-counted"
    if evidence.other_disease is not None:
        return "not-counted", "other-disease"
    if indication.level == "none":
        return ("review", "indication-not-found") if need == "expected" else ("not-counted", "no-tumour-indication")
    if indication.kind in ruleset.programme.indication.uncertain:
        return "review", "indication-uncertain"
    return ("counted", "counted") if counts == "yes" else ("review", "category-for-review")


def _route_open(main: Sequence[Finding], pairs: Sequence[tuple[ProcedureFact, Reading]], ruleset: Ruleset) -> bool:
    """Whether nothing in the session says that the treatment was percutaneous.

    An image-guidance code in the session says so for the codes that do not.
    """
    matters = [f for f in main if ruleset.rules.techniques[f.technique].route_matters]
    if not matters or any(finding.approach in {"percutaneous", "external"} for finding in matters):
        return False
    return not any(
        finding.technique == "guidance" and finding.approach not in _NOT_IO_APPROACH
        for _, reading in pairs
        for finding in reading.findings
    )
