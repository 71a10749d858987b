"""What the nightly report says, gathered from the ledger."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import date

from sqlalchemy import Connection

from io_fhir_adapter import __version__
from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.config import FacilityConfig
from io_fhir_adapter.ledger.draws import StoredCase, StoredDraw
from io_fhir_adapter.ledger.facts import every_procedure, quarantined
from io_fhir_adapter.ledger.outbox import OutboxItem, item, latest_receipt
from io_fhir_adapter.ledger.verdicts import STATES, latest_verdict
from io_fhir_adapter.model import ProcedureFact
from io_fhir_adapter.report.nightly import (
    CasesDrawn,
    QuarantineReason,
    ReportData,
    RunFact,
    SubmissionState,
    UnmappedCode,
)
from io_fhir_adapter.volume.count import Volume

__all__ = ["DISPLAY_FROM", "TEXT_ONLY", "UnmappedCodes", "gather_report", "run_facts", "unmapped_codes"]

TEXT_ONLY = "(no code)"
DISPLAY_FROM = 5  # patients who share a display before it is taken for a catalogue's word
_SHOWN = 50
_SHOWN_KNOWN = 12  # codes of systems that have a table: ordinary work, as a rule
_POSITIONS = 5
_NOT_LEAVING = ("held", "returned", "superseded")


class UnmappedCodes:
    """Codes of Procedures that no row of the tables matches, told Procedure by Procedure."""

    def __init__(self) -> None:
        self._procedures: Counter[tuple[str, str]] = Counter()
        self._patients: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._displays: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))

    def add(self, fact: ProcedureFact) -> None:
        """Takes one; who tells knows that no row matches."""
        for system, code, display in _codes(fact):
            key = (system, code)
            self._procedures[key] += 1
            self._patients[key].add(fact.patient)
            if display:
                self._displays[key][display].add(fact.patient)

    def rows(self, ruleset: Ruleset, shared_by: int = DISPLAY_FROM) -> list[UnmappedCode]:
        """The codes, as :func:`unmapped_codes` gives them."""
        rows = []
        for (system, code), number in self._procedures.items():
            displays = self._displays[system, code]
            shared = {text: len(who) for text, who in displays.items() if len(who) >= shared_by}
            shown = min(shared, key=lambda text: (-shared[text], text)) if shared else None
            withheld = len(displays) - len(shared)
            rows.append(UnmappedCode(system, code, shown, number, len(self._patients[system, code]), withheld))
        known = ruleset.table_systems
        rows.sort(key=lambda row: (ruleset.systems.name(row.system) in known, -row.procedures, row.system, row.code))
        return rows


def unmapped_codes(connection: Connection, ruleset: Ruleset, shared_by: int = DISPLAY_FROM) -> list[UnmappedCode]:
    """Codes of completed Procedures without a row in the tables, most frequent first.

    A code's display may hold anything a hospital wrote there; it is shown only where ``shared_by`` patients share the
    very same one, and of several the one that most share. Codes of systems that have a table come after those of
    unknown systems.
    """
    found = UnmappedCodes()
    for fact in every_procedure(connection, unmapped_only=True):
        if fact.status == "completed":
            found.add(fact)
    return found.rows(ruleset, shared_by)


def _codes(fact: ProcedureFact) -> list[tuple[str, str, str]]:
    if not fact.codes:
        return [(TEXT_ONLY, "", "")]
    return [(code.system or "(no system)", code.code, code.display) for code in fact.codes]


def gather_report(
    connection: Connection,
    *,
    facility: FacilityConfig,
    ruleset: Ruleset,
    as_of: date,
    volume: Volume,
    previous: Volume | None,
    outcomes: Sequence[Mapping[str, object]],
    draw: StoredDraw | None,
    cases: Sequence[StoredCase],
    submission: str,
    synthetic: bool,
) -> ReportData:
    """Everything that the report shows. ``outcomes`` are sources' outcomes in their JSON form."""
    unmapped = unmapped_codes(connection, ruleset)
    foreign = [row for row in unmapped if ruleset.systems.name(row.system) not in ruleset.table_systems]
    shown = [*foreign[:_SHOWN], *unmapped[len(foreign) : len(foreign) + _SHOWN_KNOWN]]
    return ReportData(
        facility_name=facility.name or facility.code,
        facility_code=facility.code,
        programme_title=ruleset.programme.title,
        as_of=as_of.isoformat(),
        volume=volume,
        previous=previous,
        software_version=__version__,
        ruleset_digest=ruleset.digest,
        runs=tuple(run_facts(outcomes)),
        notes=tuple(_notes(outcomes)),
        quarantine=tuple(_quarantine(connection)),
        cases=CasesDrawn(len(cases), ruleset.programme.sample.size, draw.frame_size, draw.digest) if draw else None,
        submission=_submission(connection, submission),
        unmapped=tuple(shown),
        unmapped_total=len(unmapped),
        category_titles=ruleset.categories,
        synthetic=synthetic,
        scope=ruleset.scope.words if ruleset.scope is not None else "",
    )


def run_facts(outcomes: Sequence[Mapping[str, object]]) -> list[RunFact]:
    """What was read, by resource type, and by source where there are several; out of outcomes in their JSON form."""
    facts = []
    for outcome in outcomes:
        types = outcome["types"]
        assert isinstance(types, dict)  # noqa: S101 - made by SourceOutcome.to_json
        seconds = outcome["seconds"]
        for name, numbers in types.items():
            label = name if len(outcomes) == 1 else f"{outcome['source']}: {name}"
            facts.append(
                RunFact(
                    resource_type=label,
                    read=numbers["read"],
                    quarantined=numbers["quarantined"],
                    pages=numbers["pages"],
                    complete=numbers["complete"],
                    seconds=float(str(seconds)),
                    total=numbers["total"],
                    removed=numbers["removed"],
                    ids=numbers["ids"],
                )
            )
    return facts


def _notes(outcomes: Sequence[Mapping[str, object]]) -> list[str]:
    """What was read in another way than usual, and why."""
    notes = []
    for outcome in outcomes:
        said = outcome["notes"]
        assert isinstance(said, list)  # noqa: S101 - made by SourceOutcome.to_json
        notes += [f"{outcome['source']}: {sentence}." for sentence in said]
    return notes


def _quarantine(connection: Connection) -> list[QuarantineReason]:
    positions: dict[str, list[str]] = defaultdict(list)
    counts: Counter[str] = Counter()
    for entry in quarantined(connection):
        reason = f"{entry.resource_type or 'Resource'}: {entry.reason}"
        counts[reason] += 1
        if len(positions[reason]) < _POSITIONS:
            positions[reason].append(entry.position)
    return [
        QuarantineReason(reason, number, tuple(positions[reason]))
        for reason, number in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    ]


def _signature_words(found: OutboxItem) -> str:
    """Whether what leaves is signed; nothing of what is signed only once it is approved."""
    if found.state in _NOT_LEAVING:
        return ""
    return "signed" if "signature" in json.loads(found.body) else "not signed: no signing key is configured"


def _submission(connection: Connection, identifier: str) -> SubmissionState | None:
    found = item(connection, identifier) if identifier else None
    if found is None:
        return None
    receipt = latest_receipt(connection, identifier)
    said = latest_verdict(connection, identifier)
    words = [
        receipt.sentence if receipt is not None else "",
        STATES[said.state] if said is not None else "",
        _signature_words(found),
    ]
    return SubmissionState(identifier, found.state, "; ".join(filter(None, words)))
