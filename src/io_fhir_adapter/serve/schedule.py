"""When jobs are due: cron in the facility's time zone across its clock changes, intervals, and the hours of pulling.

Nothing here has a clock or a ledger of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Final, Protocol

from apscheduler.triggers.cron import CronTrigger

from io_fhir_adapter.errors import ConfigError
from io_fhir_adapter.fhir.dates import zone
from io_fhir_adapter.ledger.jobs import StoredJob
from io_fhir_adapter.ledger.runs import Run

__all__ = ["Cron", "Every", "Rule", "Window", "due_at_start", "implausible", "missed"]

_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class Rule(Protocol):
    """When something is due."""

    @property
    def text(self) -> str:
        """The rule as it is remembered: another text, another rule."""
        ...

    def after(self, moment: datetime) -> datetime:
        """The first time after a moment, UTC."""
        ...


@dataclass(frozen=True, slots=True)
class Every:
    """So many minutes after it was last begun."""

    minutes: int

    @property
    def text(self) -> str:
        """As :attr:`Rule.text`."""
        return f"every {self.minutes} minutes"

    def after(self, moment: datetime) -> datetime:
        """As :meth:`Rule.after`."""
        return moment.astimezone(UTC) + timedelta(minutes=self.minutes)


@dataclass(frozen=True, slots=True)
class Cron:
    """Five cron fields in a time zone, Sunday being 0 or 7.

    An hour that the change of the clocks leaves out is made up for right after it; of one that comes twice only the
    first counts.

    Attributes:
        expression: The five fields.
        time_zone: IANA name.
        where: What configured it, for messages.

    Raises:
        ConfigError: The expression is wrong.
    """

    expression: str
    time_zone: str
    where: str = "schedule.cron"
    _trigger: CronTrigger = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            *first, weekdays = self.expression.split()
            fields = " ".join((*first, _weekdays(weekdays)))
            trigger = CronTrigger.from_crontab(fields, timezone=zone(self.time_zone))
        except ValueError as exc:
            raise ConfigError(
                f"{self.expression!r} is no cron expression", where=self.where, do="write it like 30 2 * * *", number=8
            ) from exc
        object.__setattr__(self, "_trigger", trigger)

    @property
    def text(self) -> str:
        """As :attr:`Rule.text`."""
        return f"{self.expression} {self.time_zone}"

    def after(self, moment: datetime) -> datetime:
        """As :meth:`Rule.after`.

        Raises:
            ConfigError: There is no such day.
        """
        moment = moment.astimezone(UTC)
        while True:
            found: datetime | None = self._trigger.get_next_fire_time(None, moment + timedelta(microseconds=1))
            if found is None:
                raise ConfigError(
                    f"{self.expression!r} never comes", where=self.where, do="name a day that there is", number=13
                )
            moment = found.astimezone(UTC)
            if not _is_second(found):
                return moment


def _weekdays(text: str) -> str:
    """The weekdays by name: APScheduler counts them from Monday, cron from Sunday."""
    named: list[str] = []
    for part in text.split(","):
        days, _, step = part.partition("/")
        first, _, last = ("0", "", "6") if days == "*" and step else days.partition("-")
        if not first.isdigit():
            named.append(part)
            continue
        end = int(last or (6 if step else first))
        if not (int(first) <= end <= len(_DAYS) and (not step or int(step))):
            raise ValueError(text)
        named += [_DAYS[day % len(_DAYS)] for day in range(int(first), end + 1, int(step or 1))]
    return ",".join(named)


def _is_second(moment: datetime) -> bool:
    """Whether the clock showed this an hour before already."""
    return moment.fold == 1 and moment.utcoffset() != moment.replace(fold=0).utcoffset()


@dataclass(frozen=True, slots=True)
class Window:
    """The hours of a day in which sources are read; all of them where ``text`` is empty.

    Attributes:
        text: Such as ``20:00-06:00``, local time; the end is not part of it.
        tz: The facility's time zone.
    """

    text: str
    tz: tzinfo

    def is_open(self, now: datetime) -> bool:
        """Whether sources may be read."""
        if not self.text:
            return True
        opens, closes = map(time.fromisoformat, self.text.split("-"))
        local = now.astimezone(self.tz).time()
        return opens <= local < closes if opens < closes else local >= opens or local < closes

    def left(self, now: datetime) -> float | None:
        """For how many seconds they may still be read, None for as long as it takes."""
        if not self.text:
            return None
        closes = time.fromisoformat(self.text.partition("-")[2])
        local = now.astimezone(self.tz)
        end = datetime.combine(local.date(), closes, self.tz)
        if local.time() >= closes:
            end = datetime.combine(local.date() + timedelta(days=1), closes, self.tz)
        return (end.astimezone(UTC) - now.astimezone(UTC)).total_seconds()  # else two local times are compared


def missed(rule: Rule, last: Run | None, now: datetime) -> bool:
    """Whether a night passed without a run since the last one, so that it is to be caught up at once.

    A run that was cut off counts as missed. Before the first run nothing is missed: the first pull is the largest, and
    waits for its hour.
    """
    if last is None:
        return False
    return last.state == "running" or rule.after(datetime.fromisoformat(last.started)) <= now


def due_at_start(rule: Rule, stored: StoredJob | None, last: Run | None, now: datetime) -> datetime:
    """When a job is due as the service starts.

    What was missed is caught up once, however often; what a run by hand made up for since is not.

    Args:
        rule: When it is due.
        stored: What the ledger knows of it.
        last: The last run, for the nightly job alone.
        now: When.
    """
    if stored is None:
        return now if missed(rule, last, now) else rule.after(now)
    due = datetime.fromisoformat(stored.due)
    if due <= now:
        made_up = last is not None and last.state == "complete" and datetime.fromisoformat(last.started) >= due
        return rule.after(now) if made_up else due
    return due if stored.rule == rule.text and not implausible(rule, due, now) else rule.after(now)


def implausible(rule: Rule, due: datetime, now: datetime) -> bool:
    """Whether a time is so far away that the clock must have been wrong when it was worked out."""
    return due > rule.after(rule.after(now)) + timedelta(hours=1)
