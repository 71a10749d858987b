"""The decision: what becomes of each session of one patient, and why.

One function, :func:`decide_patient`, decides everywhere: in files, in the nightly job, on a cluster. It takes
all facts of one patient and gives one decision per session; it knows neither files nor databases.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from io_fhir_adapter.classify.evidence import Background, Evidence, gather, stated_kinds
from io_fhir_adapter.classify.findings import NOT_IO_APPROACH, Reading, is_usable, read_codes, stands_alone
from io_fhir_adapter.classify.lifespan import set_aside
from io_fhir_adapter.classify.rules import CategoryFinding, SessionContext
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.classify.scope import decide_in_scope
from io_fhir_adapter.classify.sessions import Session, group_sessions, latest, merge_twice_recorded
from io_fhir_adapter.classify.statuses import as_completed, deciding
from io_fhir_adapter.classify.trail import (
    code_step,
    indication_step,
    part_steps,
    programme_step,
    recorded_step,
    status_steps,
    unit_step,
)
from io_fhir_adapter.classify.twins import Twins
from io_fhir_adapter.fhir.dates import days_apart
from io_fhir_adapter.model import (
    ConditionFact,
    Decision,
    DecisionKind,
    EncounterFact,
    Finding,
    Indication,
    PatientFact,
    ProcedureFact,
    TrailStep,
)

__all__ = ["decide_patient"]

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
    people: Sequence[PatientFact] = (),
    *,
    today: str = "",
) -> list[Decision]:
    """One decision per session of one patient, in order of date; one per category where the programme counts each.

    What cannot have been done on its date, before birth or after death, takes part in nothing.

    Args:
        facts: All Procedure facts of the patient; order and repetition do not matter.
        conditions: The patient's Conditions, as far as known.
        encounters: The patient's Encounters, as far as known.
        ruleset: Tables, rules and programme.
        people: The patient's record and those merged into it, as far as known.
        today: Local date, for what ends in the future; where empty, that of the clock in UTC.
    """
    versions = latest(facts)
    if not versions:
        return []
    possible, _ = set_aside(versions[0].patient, versions, people, ruleset)
    settled, ended = as_completed(possible, ruleset, today)
    return _Patient(Background.of(conditions, encounters), ruleset, ended).decide(settled)


class _Patient:
    """The decisions on one patient: each code is read once, each session looked at with what the others say."""

    def __init__(self, background: Background, ruleset: Ruleset, ended: frozenset[tuple[str, str]]) -> None:
        self.background = background
        self.ruleset = ruleset
        self.ended = ended
        self.readings: dict[tuple[str, str], Reading] = {}

    def decide(self, facts: Sequence[ProcedureFact]) -> list[Decision]:
        """Decides on all sessions; of each resource ``facts`` holds one version."""
        self.readings = {(fact.source, fact.id): read_codes(fact, self.ruleset) for fact in facts}
        # Only what the tables know makes a session; what they do not know stands apart, so that an unrelated
        # Procedure never changes a decision, and has a session of its own only on a day without any other.
        mapped = [fact for fact in facts if self._reading(fact).findings]
        rest = [fact for fact in facts if not self._reading(fact).findings]
        twins = Twins(self.ruleset, self._reading)
        sessions = merge_twice_recorded(
            group_sessions(mapped, self._is_io), twins.recorded_twice, twins.coded_on_second
        )
        taken = {day for session in sessions for day in (session.day, *session.merged_days)}
        unknown = group_sessions(rest, self._is_io)
        decisions = [found for session, later in self._with_later(sessions) for found in self._of(session, later)]
        decisions += [
            self._within_scope(session, {}) for session in unknown if not session.day or session.day not in taken
        ]
        return sorted(decisions, key=lambda decision: (decision.date, decision.procedures))

    def _of(self, session: Session, later: Mapping[str, int]) -> Iterable[Decision]:
        """The decision on a session; where the programme counts each category, one on each of them."""
        first = self._within_scope(session, later)
        yield first
        for category in first.categories[1:] if self.ruleset.programme.counts_each else ():
            found = self._within_scope(session, later, category)
            if found.category == category:
                yield found

    def _within_scope(self, session: Session, later: Mapping[str, int], category: str = "") -> Decision:
        scope = self.ruleset.scope
        if scope is None:
            return self._decide(session, later, category)
        encounters = self.background.encounters
        return decide_in_scope(
            session.facts,
            lambda fact: scope.standing(fact, encounters.get((fact.source, fact.encounter))),
            lambda facts: self._decide(replace(session, facts=facts), later, category),
        )

    def _reading(self, fact: ProcedureFact) -> Reading:
        return self.readings[fact.source, fact.id]

    def _is_io(self, fact: ProcedureFact) -> bool:
        return any(is_usable(finding) for finding in self._reading(fact).findings)

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

    def _decide(self, session: Session, later: Mapping[str, int], category: str = "") -> Decision:
        """The decision on a session, or on one category of it: ``none`` where it has not got that."""
        pairs = [(fact, self._reading(fact)) for fact in session.facts]
        chosen, done = deciding(pairs, self.ruleset)
        verdicts = [self._settled(verdict, session, chosen, done) for verdict in self._verdicts(chosen, session, later)]
        asked = [verdict for verdict in verdicts if not category or verdict.category == category]
        best = min(asked or [_nothing_found(pairs, self.ruleset)], key=self._preference)
        programme, each = f"programme:{self.ruleset.programme.id}", self.ruleset.programme.counts_each
        steps = [recorded_step(session), *status_steps(session, self.ended), *part_steps(session), *best.steps]
        others = [verdict for verdict in verdicts if verdict.category not in {best.category, "none"}]
        steps += [TrailStep("also", "", f"{verdict.category}: {verdict.reason}") for verdict in others]
        if others:
            steps.append(unit_step(programme, each=each))
        if best.category != "none":
            steps.append(programme_step(programme, best.category, self.ruleset.programme.counts_for(best.category)))
        steps.append(TrailStep("decision", programme, f"{best.decision}: {best.reason}"))
        first = session.facts[0]
        return Decision(
            source=first.source,
            patient=first.patient,
            date=session.day,
            category=best.category,
            decision=best.decision,
            reason=best.reason,
            categories=tuple(dict.fromkeys([best.category, *(verdict.category for verdict in others)])),
            findings=tuple(
                sorted({finding for _, reading in chosen for finding in reading.findings}, key=_finding_order)
            ),
            indication=best.indication,
            procedures=tuple(sorted(f"Procedure/{fact.id}" for fact in session.facts)),
            trail=tuple(steps),
        )

    def _settled(self, verdict: _Verdict, session: Session, chosen: _Pairs, done: bool) -> _Verdict:
        """The verdict where nothing was completed, or where nobody knows when."""
        if not done:
            wrong = all(fact.status == "entered-in-error" for fact, _ in chosen)
            return replace(verdict, decision="not-counted", reason="entered-in-error" if wrong else "not-completed")
        if verdict.decision == "counted" and not session.day:
            return replace(verdict, decision="not-counted", reason="undated")
        return verdict

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
        if decision == "counted" and (doubt := _inexact(main)):
            decision, reason = "review", doubt
        if from_text and decision != "not-counted":
            decision, reason = "review", "text-only"
        if decision == "counted" and session.lonely_children:
            parts = {f"Procedure/{fact.id}" for fact, _ in _behind(main, own)}
            if parts <= session.lonely_children:
                decision, reason = "review", "part-of-missing-procedure"
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

        An image-guidance code in the session says so for the codes that do not, unless another code beside them names
        an open, laparoscopic or endoscopic way in: then the picture guided the surgeon.
        """
        techniques = self.ruleset.rules.techniques
        matters = [finding for finding in main if techniques[finding.technique].route_matters]
        if not matters or any(finding.approach in {"percutaneous", "external"} for finding in matters):
            return False
        ways = {
            finding.approach for _, reading in pairs for finding in reading.findings if finding.technique == "guidance"
        }
        return not ways or not ways.isdisjoint(NOT_IO_APPROACH)


def _usable(readings: Iterable[Reading]) -> list[Finding]:
    """The usable findings, each once, in a stable order."""
    found = {finding for reading in readings for finding in reading.findings if is_usable(finding)}
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
    revised = [f for f in real if f.role == "revision" and f.approach not in NOT_IO_APPROACH]
    category = "none"
    if revised:
        named = {techniques[finding.technique].category or "none" for finding in revised}
        category = min(named, key=lambda name: ruleset.category_order[name])
        reason = "revision-only"
    elif any(finding.approach in NOT_IO_APPROACH for finding in real):
        reason = "not-percutaneous"
    elif any(stands_alone(finding, ruleset) for finding in findings):
        reason = "look-alike"
    else:
        reason = "add-on-only"
    return _Verdict(category, "not-counted", reason, none, steps)


def _other_disease(category: str, need: str, evidence: Evidence) -> Indication | None:
    """The disease that was treated in place of a tumour.

    A bleeding is the reason for an embolisation of a bleeding tumour, where one is known; for anything else it is
    another disease, unless the code itself speaks of a tumour.
    """
    if evidence.other_disease is not None or evidence.bleeding is None or need == "implied":
        return evidence.other_disease
    tumour_known = category == _BLEEDING and evidence.indication.level != "none"
    return None if tumour_known else evidence.bleeding


def _inexact(main: Sequence[Finding]) -> str:
    """Why a person must look at what a code was mapped to, unless another code says the same without doubt."""
    sure = {finding.technique for finding in main if not finding.review}
    return next((finding.review for finding in main if finding.review and finding.technique not in sure), "")


def _need(main: Sequence[Finding]) -> str:
    """The weakest demand among the main findings: one code that implies a tumour speaks for its session."""
    needs = {finding.indication for finding in main}
    return next(need for need in ("implied", "expected", "required") if need in needs)
