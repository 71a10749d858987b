"""From which day on a facility keeps what it counts, by what its programmes say."""

from __future__ import annotations

from datetime import date

from io_fhir_adapter.classify.programme import Programme, load_programme
from io_fhir_adapter.config import Config
from io_fhir_adapter.volume.period import due_period

__all__ = ["horizon_of", "latest_horizon"]


def latest_horizon(programme: Programme, today: date) -> str:
    """The last day that could be the first one kept: nothing that is reported, compared or drawn lies before it."""
    reported = int(due_period(today, programme.sample.ends_days_before).label)
    years = max(1, -(-programme.sample.window_months // 12))
    return f"{reported - years}-01-01"


def horizon_of(config: Config, programme: Programme, today: date) -> str:
    """The first day that is kept: so many whole calendar years before this one, by whichever programme keeps longest.

    Args:
        config: The facility's configuration, which may name more programmes under ``standing``.
        programme: The one that decisions are made under.
        today: The local date.
    """
    others = [load_programme(entry.programme) for entry in config.standing if entry.programme != programme.id]
    return min(
        min(f"{today.year - one.retention.keep_years}-01-01", latest_horizon(one, today))
        for one in (programme, *others)
    )
