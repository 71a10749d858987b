"""The dossier of the year that is due: its sealed submission, and what the ledger knows beside it."""

from __future__ import annotations

from datetime import date

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.errors import SubmitError
from io_fhir_adapter.ledger.approvals import Approval, approval_of, clears
from io_fhir_adapter.ledger.assessments import assessment_of
from io_fhir_adapter.ledger.database import Ledger
from io_fhir_adapter.ledger.outbox import OutboxItem, item, latest_receipt
from io_fhir_adapter.report.dossier import Dossier, make_dossier
from io_fhir_adapter.report.standards import checklist
from io_fhir_adapter.report.wording import day_words
from io_fhir_adapter.submit.resting import noted
from io_fhir_adapter.volume.period import Period, due_period
from io_fhir_adapter.volume.tally import count_ledger

__all__ = ["dossier_of"]

_KEPT = {
    "held": "it waits for approval",
    "returned": "an approver returned it",
    "superseded": "what it rests on has changed",
    "rejected": "the accreditation system rejected it",
}


def dossier_of(ledger: Ledger, rules: Ruleset, today: date) -> Dossier:
    """The dossier of the submission that was sealed last for the year that is due.

    Args:
        ledger: Its ledger.
        rules: What decides.
        today: The local date.

    Raises:
        SubmitError: Nothing is sealed yet (40), or what is sealed is of another programme (41).
        LedgerError: The submission is not the one that its identifier names.
    """
    programme, scoped = rules.programme, rules.scope is not None
    period = due_period(today, programme.sample.ends_days_before)
    before = Period.year(str(int(period.label) - 1))
    with ledger.read() as connection:
        made = noted(connection, period.label)
        sealed = item(connection, made.identifier) if made is not None and made.identifier else None
        if sealed is None:
            raise SubmitError(
                f"no submission of {period.label} is sealed yet",
                where=ledger.name,
                do="the submit command or the next night seals it; a dossier is made from nothing else",
                number=40,
            )
        known = assessment_of(connection, programme.id)
        said, receipt = approval_of(connection, sealed.identifier), latest_receipt(connection, sealed.identifier)
        volume, previous = (
            count_ledger(connection, year, programme, scoped=scoped, today=today.isoformat())
            for year in (period, before)
        )
    lines = checklist(programme, known.response if known else None) if programme.standards is not None else ()
    return make_dossier(
        sealed.body,
        programme,
        rules.categories,
        volume,
        previous,
        standards=lines,
        assessed=f"taken on {day_words(known.at[:10])}, {known.digest}" if known is not None else "",
        approval=_approval(said),
        delivery=sealed.state + (f", answered on {day_words(receipt.received[:10])}" if receipt is not None else ""),
        draft=_draft(sealed, said),
    )


def _approval(said: Approval | None) -> str:
    return f"{said.verdict} on {day_words(said.at[:10])} by a person in the role {said.role}" if said else ""


def _draft(sealed: OutboxItem, said: Approval | None) -> str:
    """Why the papers must not be handed on yet; an approval is of the very bytes."""
    if sealed.state in _KEPT:
        return _KEPT[sealed.state]
    return "" if clears(said, sealed.body) else "nobody approved the submission yet"
