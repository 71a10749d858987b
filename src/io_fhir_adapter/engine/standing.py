"""How far the facility is on its way through a programme, the configured one or another, from what the ledger holds."""

from __future__ import annotations

from datetime import date

from sqlalchemy import Connection

from io_fhir_adapter.classify.ruleset import Ruleset, rules_for
from io_fhir_adapter.config import Config
from io_fhir_adapter.engine.recount import count_under
from io_fhir_adapter.report.gather_readiness import gather_readiness, group_counts
from io_fhir_adapter.report.readiness_facts import Facts, GroupCount
from io_fhir_adapter.submit.resting import noted
from io_fhir_adapter.volume.count import Volume
from io_fhir_adapter.volume.period import Period, due_period

__all__ = ["CountedYear", "facts_under", "rules_under", "years_as_decided", "years_under"]

CountedYear = tuple[Volume, tuple[GroupCount, ...]]
"""The volume of a year, and its sessions by the body's groups."""


def rules_under(config: Config, rules: Ruleset, programme: str) -> Ruleset:
    """The facility's tables under another programme; its own rules where it is named, or none is."""
    if programme in ("", rules.programme.id):
        return rules
    return rules_for(config.model_copy(update={"programme": programme}))


def years_under(connection: Connection, rules: Ruleset, today: date) -> tuple[CountedYear, CountedYear]:
    """The year under way and the one before; the costly part, for whoever asks often.

    Args:
        connection: Reads the ledger.
        rules: Tables, rules and the programme to count for; with other rules than the ledger was decided with, every
            patient is decided on anew and nothing of it is kept.
        today: The local date.
    """
    return _years(connection, rules, today, as_decided=False)


def years_as_decided(connection: Connection, rules: Ruleset, today: date) -> tuple[CountedYear, CountedYear]:
    """The same of the decisions in the ledger, whatever rules they were made with: the numbers of the last night.

    Args:
        connection: Reads the ledger.
        rules: Has the programme.
        today: The local date.
    """
    return _years(connection, rules, today, as_decided=True)


def _years(connection: Connection, rules: Ruleset, today: date, *, as_decided: bool) -> tuple[CountedYear, CountedYear]:
    years = [Period.year(str(today.year)), Period.year(str(today.year - 1))]
    running, last = (
        (counted.volume, group_counts(rules.programme, counted.done, counted.open))
        for counted in count_under(connection, rules, years, today=today.isoformat(), as_decided=as_decided)
    )
    return running, last


def facts_under(
    connection: Connection,
    config: Config,
    rules: Ruleset,
    today: date,
    years: tuple[CountedYear, CountedYear],
    *,
    configured: bool,
) -> Facts:
    """All that readiness rests on.

    Args:
        connection: Reads the ledger.
        config: Says what only people know.
        rules: Has the programme.
        today: The local date.
        years: Of :func:`years_under`.
        configured: Whether it is the programme that the facility submits under; of another nothing was ever sealed.
    """
    programme = rules.programme
    due = due_period(today, programme.sample.ends_days_before).label
    standing = next((entry for entry in config.standing if entry.programme == programme.id), None)
    made = noted(connection, due) if configured else None
    return gather_readiness(
        connection, programme, standing, as_of=today, due=due, running=years[0], last=years[1],
        submission=made.identifier if made is not None else "",
    )  # fmt: skip
