"""The decision: what becomes of each session of one patient, and why.

One function, :func:`decide_patient`, decides everywhere: in files, in the nightly job, on a cluster. It takes
all facts of one patient and gives one decision per session; it knows neither files nor databases.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from io_fhir_adapter.classify.evidence import Background, Evidence, gather, stated_kinds
from io_fhir_adapter.classify.findings import Reading, read_codes
from io_fhir_adapter.classify.rules import CategoryFinding, SessionContext
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.classify.sessions import Session, group_sessions, latest, merge_twice_recorded
from io_fhir_adapter.classify.trail import code_step, indication_step, recorded_step
from io_fhir_adapter.fhir.dates import days_apart
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
_FAMILIES = frozenset({"ablation", "arterial"})
_BY_ORGAN = frozenset({"ablation", "drainage"})
_BONES = {"spine": "bone"}
_RANK = {"counted": 0, "review": 1, "not-counted": 2}
_COUNTS_RANK = {"yes": 0, "review": 1, "no": 2}
_PLANNING = "planning"
_BLEEDING = "bleeding-embolisation"
_NO_CONTEXT = SessionContext()
_Pairs = Sequence[tuple[ProcedureFact, Reading]]


@dataclass(frozen=True, slots=True)
class _Verdict:
    category: str
    decision: DecisionKind
    reason: str
    indication: Indication
    steps: tuple[TrailStep, ...]
    family: str = ""


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
    return _Patient(Background.of(conditions, encounters), ruleset).decide(latest(facts))


class _Patient:
    """The decisions on one patient: each code is read once, each session looked at with what the others say."""

    def __init__(self, background: Background, ruleset: Ruleset) -> None:
        self.background = background
        self.ruleset = ruleset
        self.readings: dict[tuple[str, str], Reading] = {}

    def decide(self, facts: Sequence[ProcedureFact]) -> list[Decision]:
        """Decides on all sessions; of each resource ``facts`` holds one version."""
        self.readings = {(fact.source, fact.id): read_codes(fact, self.ruleset) for fact in facts}
        # Only what the tables know makes a session; what they do not know stands apart, so that an unrelated
        # Procedure never changes a decision, and has a session of its own only on a day without any other.
        mapped = [fact for fact in facts if self._reading(fact).findings]
        rest = [fact for fact in facts if not self._reading(fact).findings]
        sessions = merge_twice_recorded(group_sessions(mapped, self._is_io), self._recorded_twice)
        taken = {day for session in sessions for day in (session.day, *session.merged_days)}
        unknown = group_sessions(rest, self._is_io)
        decisions = [self._decide(session, later) for session, later in self._with_later(sessions)]
        decisions += [self._decide(session, {}) for session in unknown if not session.day or session.day not in taken]
        return sorted(decisions, key=lambda decision: (decision.date, decision.procedures))

    def _reading(self, fact: ProcedureFact) -> Reading:
        return self.readings[fact.source, fact.id]

    def _is_io(self, fact: ProcedureFact) -> bool:
        return any(_is_usable(finding) for finding in self._reading(fact).findings)

    def _system_of(self, fact: ProcedureFact) -> str:
        systems = self.ruleset.systems
        return fact.origin or next((systems.name(code.system) for code in fact.codes), "") or fact.source

    def _recorded_twice(self, first: Session, second: Session) -> bool:
        common = [
            (system, other)
            for word, site, system in self._marks(first)
            for same, there, other in self._marks(second)
            if word == same and (not site or not there or site == there)
        ]
        return bool(common) and all(system != other for system, other in common)

    def _marks(self, session: Session) -> set[tuple[str, str, str]]:
        """What was done in a session, where that tells treatments apart, and who recorded it.

        One system may name an energy, or a part of a chemoembolisation, where another does not.
        """
        techniques = self.ruleset.rules.techniques
        marks: set[tuple[str, str, str]] = set()
        for fact in session.facts:
            if fact.status != "completed":
                continue
            for finding in self._reading(fact).findings:
                if finding.role == "main" and _is_usable(finding):
                    family = techniques[finding.technique].family
                    word = family if family in _FAMILIES else finding.technique
                    site = _BONES.get(finding.site, finding.site) if family in _BY_ORGAN else ""
                    marks.add((word, site, self._system_of(fact)))
        return marks

    def _with_later(self, sessions: Sequence[Session]) -> list[tuple[Session, Mapping[str, int]]]:
        """Each session with the days until the next session of the categories that rules ask about."""
        asked, techniques = self.ruleset.rules.looks_ahead, self.ruleset.rules.ahead_techniques
        candidates = [
            session
            for session in sessions
            if any(
                finding.technique in techniques for fact in session.facts for finding in self._reading(fact).findings
            )
        ]
        if len(candidates) < 2:
            return [(session, {}) for session in sessions]
        days: dict[str, list[str]] = {}
        for session in candidates:
            done = [self._reading(fact) for fact in session.facts if fact.status == "completed"]
            for item in self.ruleset.rules.categories(_usable(done), _NO_CONTEXT):
                if item.category in asked:
                    days.setdefault(item.category, []).append(session.day)
        found: list[tuple[Session, Mapping[str, int]]] = []
        for session in sessions:
            later = {
                category: min(
                    (apart for day in known if day > session.day and (apart := days_apart(session.day, day))), default=0
                )
                for category, known in days.items()
            }
            found.append((session, later))
        return found

    def _decide(self, session: Session, later: Mapping[str, int]) -> Decision:
        pairs = [(fact, self._reading(fact)) for fact in session.facts]
        deciding, done = self._deciding(pairs)
        steps = [recorded_step(session)]
        steps += [
            TrailStep("status", "", f"Procedure/{fact.id} is {fact.status} and adds nothing")
            for fact, _ in pairs
            if fact.status != "completed"
        ]
        verdicts = self._verdicts(deciding, session, later)
        best = min(verdicts, key=self._preference)
        if not done:
            wrong = all(fact.status == "entered-in-error" for fact, _ in deciding)
            best = replace(best, decision="not-counted", reason="entered-in-error" if wrong else "not-completed")
        elif best.decision == "counted" and not session.day:
            best = replace(best, decision="not-counted", reason="undated")
        elif best.decision == "counted" and all(
            f"Procedure/{fact.id}" in session.lonely_children for fact, _ in deciding
        ):
            best = replace(best, decision="review", reason="part-of-missing-procedure")
        findings = {finding for _, reading in deciding for finding in reading.findings}
        categories = [best.category, *(verdict.category for verdict in verdicts if verdict.category != "none")]
        steps += best.steps
        for verdict in verdicts:
            if verdict.category not in {best.category, "none"}:
                steps.append(TrailStep("also", "", f"{verdict.category}: {verdict.reason}"))
        steps.append(TrailStep("decision", f"programme:{self.ruleset.programme.id}", f"{best.decision}: {best.reason}"))
        first = session.facts[0]
        return Decision(
            source=first.source,
            patient=first.patient,
            date=session.day,
            category=best.category,
            decision=best.decision,
            reason=best.reason,
            categories=tuple(dict.fromkeys(categories)),
            findings=tuple(sorted(findings, key=_finding_order)),
            indication=best.indication,
            procedures=tuple(sorted(f"Procedure/{fact.id}" for fact in session.facts)),
            trail=tuple(steps),
        )

    @staticmethod
    def _deciding(pairs: _Pairs) -> tuple[_Pairs, bool]:
        """What decides: the completed Procedures, unless all that is of interest here was not completed."""
        done = [pair for pair in pairs if pair[0].status == "completed"]
        if len(done) == len(pairs):
            return done, True
        if any(_is_usable(finding) for _, reading in done for finding in reading.findings):
            return done, True
        open_ones = [
            (fact, reading)
            for fact, reading in pairs
            if fact.status != "completed" and any(_is_usable(finding) for finding in reading.findings)
        ]
        if open_ones:
            return open_ones, False
        return (done, True) if done else (pairs, False)

    def _preference(self, verdict: _Verdict) -> tuple[int, int, int]:
        counts = self.ruleset.programme.counts_for(verdict.category)
        return (
            _RANK[verdict.decision],
            _COUNTS_RANK[counts] if verdict.category != "none" else 3,
            self.ruleset.category_order[verdict.category],
        )

    def _verdicts(self, pairs: _Pairs, session: Session, later: Mapping[str, int]) -> list[_Verdict]:
        """What becomes of each treatment; a text adds what no code of the session names, and changes nothing."""
        coded = self._treatments([pair for pair in pairs if not pair[1].from_text], session, later)
        named = {verdict.family for verdict in coded}
        read = self._treatments([pair for pair in pairs if pair[1].from_text], session, later)
        verdicts = coded + [verdict for verdict in read if verdict.family not in named]
        return verdicts or [_nothing_found(pairs, self.ruleset)]

    def _treatments(self, pairs: _Pairs, session: Session, later: Mapping[str, int]) -> list[_Verdict]:
        usable = _usable(reading for _, reading in pairs)
        if not usable:
            return []

        def kinds(findings: Sequence[Finding]) -> frozenset[str]:
            own = [fact for fact, _ in _behind(findings, pairs)]
            return stated_kinds(own, self.background, self.ruleset.diagnoses)

        found = self.ruleset.rules.categories(usable, SessionContext(kinds, later))
        return [self._judge(item, pairs, session) for item in found]

    def _judge(self, item: CategoryFinding, pairs: _Pairs, session: Session) -> _Verdict:
        own = _behind(item.findings, pairs)
        main = [finding for finding in item.findings if finding.role == "main"] or list(item.findings)
        evidence = gather(
            [fact for fact, _ in own],
            frozenset(finding.site for finding in main if finding.site),
            session.day,
            self.background,
            self.ruleset.diagnoses,
            self.ruleset.programme.indication,
        )
        need = _need(main)
        other = _other_disease(item.category, need, evidence)
        indication = other or evidence.indication
        steps = [code_step(f) for f in item.findings]
        steps.append(
            TrailStep(
                "category", item.rule, f"{item.category}: {item.meaning or self.ruleset.categories[item.category]}"
            )
        )
        if need == "implied" and other is None:
            implied = next(finding for finding in main if finding.indication == "implied")
            steps.append(TrailStep("indication", implied.rule, "the code itself names a tumour or a cytostatic"))
            if indication.level == "none" or indication.kind not in self.ruleset.programme.indication.tumour:
                indication = Indication("code", implied.system, implied.code, "malignant", "", implied.rule)
        if need != "implied" or indication.level != "code":
            steps.append(indication_step(indication, doubtful=evidence.doubtful))
        decision, reason = self._rule(item, need, evidence, other, indication)
        from_text = any(reading.from_text for _, reading in own)
        if decision == "counted" and any(reading.conflict for _, reading in own):
            decision, reason = "review", "conflicting-codes"
        if decision == "counted" and self._route_open(main, pairs):
            decision, reason = "review", "route-not-coded"
        if from_text and decision != "not-counted":
            decision, reason = "review", "text-only"
        family = self.ruleset.rules.techniques[main[0].technique].family
        return _Verdict(item.category, decision, reason, indication, tuple(steps), family)

    def _rule(
        self, item: CategoryFinding, need: str, evidence: Evidence, other: Indication | None, indication: Indication
    ) -> tuple[DecisionKind, str]:
        programme = self.ruleset.programme
        counts = programme.counts_for(item.category)
        if counts == "no":
            return "not-counted", "planning-only" if item.category == _PLANNING else "category-not-counted"
        if other is not None:
            return "not-counted", "other-disease"
        if indication.level == "none":
            return ("review", "indication-not-found") if need == "expected" else ("not-counted", "no-tumour-indication")
        if indication.kind in programme.indication.uncertain or (evidence.doubtful and need == "required"):
            return "review", "indication-uncertain"
        if item.review:
            return "review", item.review
        return ("counted", "counted") if counts == "yes" else ("review", "category-for-review")

    def _route_open(self, main: Sequence[Finding], pairs: _Pairs) -> bool:
        """Whether nothing in the session says that the treatment was percutaneous.

        An image-guidance code in the session says so for the codes that do not.
        """
        techniques = self.ruleset.rules.techniques
        matters = [finding for finding in main if techniques[finding.technique].route_matters]
        if not matters or any(finding.approach in {"percutaneous", "external"} for finding in matters):
            return False
        return not any(
            finding.technique == "guidance" and finding.approach not in _NOT_IO_APPROACH
            for _, reading in pairs
            for finding in reading.findings
        )


def _is_usable(finding: Finding) -> bool:
    """Whether a finding may make a session: no look-alike, no revision, not through another route."""
    return finding.technique != "none" and finding.role != "revision" and finding.approach not in _NOT_IO_APPROACH


def _usable(readings: Iterable[Reading]) -> list[Finding]:
    """The usable findings, each once, in a stable order."""
    found = {finding for reading in readings for finding in reading.findings if _is_usable(finding)}
    return sorted(found, key=_finding_order) if len(found) > 1 else list(found)


def _finding_order(finding: Finding) -> tuple[str, str, str, str]:
    return finding.system, finding.code, finding.technique, finding.rule


def _behind(findings: Sequence[Finding], pairs: _Pairs) -> _Pairs:
    """The Procedures that the findings come from."""
    used = set(findings)
    return [(fact, reading) for fact, reading in pairs if not used.isdisjoint(reading.findings)]


def _nothing_found(pairs: _Pairs, ruleset: Ruleset) -> _Verdict:
    findings = [finding for _, reading in pairs for finding in reading.findings]
    none = Indication("none")
    if not findings:
        known = any(reading.known_system for _, reading in pairs)
        return _Verdict("none", "not-counted", "no-io-code" if known else "unmapped", none, ())
    steps = tuple(code_step(f) for f in findings)
    techniques = ruleset.rules.techniques
    real = [finding for finding in findings if finding.technique != "none"]
    revised = [f for f in real if f.role == "revision" and f.approach not in _NOT_IO_APPROACH]
    category = "none"
    if revised:
        named = {techniques[finding.technique].category or "none" for finding in revised}
        category = min(named, key=lambda name: ruleset.category_order[name])
        reason = "revision-only"
    elif any(finding.approach in _NOT_IO_APPROACH for finding in real):
        reason = "not-percutaneous"
    elif any(_stands_alone(finding, ruleset) for finding in findings):
        reason = "look-alike"
    else:
        reason = "add-on-only"
    return _Verdict(category, "not-counted", reason, none, steps)


def _stands_alone(finding: Finding, ruleset: Ruleset) -> bool:
    """Whether a finding is a treatment of its own that is none of ours, not just a word beside another one."""
    return finding.technique == "none" or (
        finding.role == "main" and ruleset.rules.techniques[finding.technique].family != "add-on"
    )


def _other_disease(category: str, need: str, evidence: Evidence) -> Indication | None:
    """The disease that was treated in place of a tumour.

    A bleeding is the reason for an embolisation of a bleeding tumour, where one is known; for anything else it is
    another disease, unless the code itself speaks of a tumour.
    """
    if evidence.other_disease is not None or evidence.bleeding is None or need == "implied":
        return evidence.other_disease
    tumour_known = category == _BLEEDING and evidence.indication.level != "none"
    return None if tumour_known else evidence.bleeding


def _need(main: Sequence[Finding]) -> str:
    """The weakest demand among the main findings: one code that implies a tumour speaks for its session."""
    needs = {finding.indication for finding in main}
    return next(need for need in ("implied", "expected", "required") if need in needs)
