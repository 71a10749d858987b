"""A look at everything that may need a person: the ledger, the disk, and the servers' certificates and clocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.config import Config
from io_fhir_adapter.config.notify import NotifyConfig
from io_fhir_adapter.doctor import backup_check, disk_checks, server_checks, servers_of
from io_fhir_adapter.engine.standing import years_under
from io_fhir_adapter.ledger.backup import ledger_file
from io_fhir_adapter.ledger.draws import cases_of, find_draw
from io_fhir_adapter.ledger.outbox import OutboxItem, items
from io_fhir_adapter.ledger.reviews import reviews_of
from io_fhir_adapter.ledger.runs import Run, first_started, last_run
from io_fhir_adapter.ledger.upkeep import Fares, fares
from io_fhir_adapter.ledger.verdicts import STATES, BodyVerdict, latest_verdict
from io_fhir_adapter.notify.incidents import Incident, codes_in, family_words
from io_fhir_adapter.notify.new_codes import NewCodes
from io_fhir_adapter.report.readiness_facts import Year
from io_fhir_adapter.submit.deliver import needs_approval
from io_fhir_adapter.volume.period import due_period

__all__ = ["Look", "failure_incident", "look_at_ledger", "look_at_machine", "look_at_servers"]

_LATELY: Final = timedelta(days=7)
_NEWS: Final = timedelta(days=14)
_AGAIN_ABOVE: Final = 1.05
"""A pace that was told of is well again only so far above the threshold, so that it does not go to and fro."""
_REJECTED: Final = "IOA-SUB-006"
_HOURS_OVER: Final = "IOA-PUL-040"
_TO_DO: Final = {
    "rejected": "read its receipt on the submissions page, correct the cause, then use submit --retry",
    "parked": "find out with the accreditation system why it takes none, then use submit --retry",
}


@dataclass(slots=True)
class Look:
    """What a look found.

    Attributes:
        incidents: What needs a person now.
        unseen: Kinds, or keys, of what could not be looked at: whether that is over cannot be told.
        lapsed: Keys of what its year took with it: neither open any more nor well.
        new_codes: What is known of codes without a row, to be kept; None where it was not looked at.
    """

    incidents: list[Incident] = field(default_factory=list)
    unseen: set[str] = field(default_factory=set)
    lapsed: set[str] = field(default_factory=set)
    new_codes: NewCodes | None = None

    def could_see(self, key: str) -> bool:
        """Whether that could be looked at."""
        return key not in self.unseen and key.partition(" ")[0] not in self.unseen


def look_at_ledger(
    connection: Connection, config: Config, ruleset: Ruleset, now: datetime, today: date, known: set[str]
) -> Look:
    """What the ledger tells.

    Args:
        connection: Reads the ledger.
        config: The facility's configuration, with its ``notify`` section.
        ruleset: What decides.
        now: When.
        today: The local date.
        known: Keys of the incidents that are open.
    """
    wanted, look = _wanted(config), Look()
    found = fares(connection, now, _LATELY)
    run = last_run(connection)
    if found.alive or run is None:
        look.unseen.add("run")
    else:
        look.incidents += _run(run, found)
    look.incidents += _late(found, first_started(connection), wanted, now)
    look.incidents += _submissions(found)
    look.incidents += _verdicts(connection, now)
    look.incidents += _review(connection, config, ruleset, today)
    due = due_period(today, ruleset.programme.sample.ends_days_before).label
    # of the year that tomorrow is in: on its last day there is nothing left to fall short in, which is not well again
    standing = {f"pace {(today + timedelta(days=1)).year}", f"review {due}"}
    look.lapsed = {key for key in known - standing if key.startswith(("pace ", "review "))}
    if found.complete:
        look.incidents += _pace(connection, ruleset, wanted, today, known)
    if ledger_file(config.ledger) is not None:
        check = backup_check(found, now)
        if check.state != "ok" and run is not None:
            look.incidents.append(Incident("backup", "", "old", f"The last backup: {check.text}.", check.do))
    look.new_codes = NewCodes.read(connection, today)
    look.incidents += look.new_codes.above(wanted.unmapped_share)
    return look


def failure_incident(error: str, sources: Iterable[str] = ()) -> Incident:
    """A run that failed by that error; an unforeseen one where it has no code.

    Args:
        error: The error's code or sentence, of which the codes alone are taken.
        sources: Names of the sources that it failed at.
    """
    codes = codes_in(error)
    if not codes:
        do = "see the log of that night; please report it"
        return Incident("run", "", "unforeseen", "The nightly run ended with an unforeseen error.", do)
    where = "".join(f" at source {name}" for name in sources)
    text = f"It failed{where} with {', '.join(codes)}. {family_words(codes[0])}."
    return Incident("run", "", codes[0], text, "see the error codes in the manual; the next night tries again")


def look_at_machine(config: Config) -> Iterator[Incident]:
    """What the machine tells: is there room?"""
    for check in disk_checks(config):
        if check.state != "ok":
            yield Incident("disk", "", check.state, f"{check.text[:1].upper()}{check.text[1:]}.", check.do)


async def look_at_servers(config: Config, now: datetime) -> Look:
    """What every server's answer tells of certificates and clocks, by one request to each."""
    look = Look()
    for name, server in servers_of(config):
        checks = {check.name: check for check in await server_checks(name, server, now)}
        reached = checks[name].state == "ok"
        for about, kind in (("client certificate", "certificate"), ("server certificate", "certificate"),
                            ("clock", "clock")):  # fmt: skip
            check = checks.get(f"{name} {about}")
            subject = f"{about} of {name}" if kind == "certificate" else name
            if check is None and not reached:
                look.unseen.add(f"{kind} {subject}")
            elif check is not None and check.state != "ok":
                made = Incident(
                    "certificate" if kind == "certificate" else "clock", subject, check.state,
                    f"{check.name}: {check.text}." if kind == "certificate" else f"{name}: {check.text}.", check.do,
                )  # fmt: skip
                look.incidents.append(made)
    return look


def _wanted(config: Config) -> NotifyConfig:
    assert config.notify is not None  # noqa: S101 - who is told nothing does not look
    return config.notify


def _run(run: Run, found: Fares) -> Iterator[Incident]:
    if run.state == "running":
        yield Incident("run", "", "cut off", "The last run was cut off.", "nothing: the next one goes on; see why")
    elif run.state == "failed":
        codes = codes_in(run.error)
        if _HOURS_OVER in codes:
            return  # it goes on where it ended; told as late where it never comes to its end
        if codes == (_REJECTED,) and any(item.state in _TO_DO for item in found.waiting):
            return  # told as what it is
        yield failure_incident(run.error, _sources(run, lambda source: bool(source["error"])))
    elif names := _sources(run, lambda source: not source["complete"]):
        text = f"The last run could not prove that it read everything of {', '.join(names)}; nothing was drawn or sent."
        yield Incident("run", "", "incomplete", text, "run check, and see the nightly report")


def _sources(run: Run, which: Callable[[dict[str, Any]], bool]) -> list[str]:
    return [str(source["source"]) for source in run.summary.get("sources", ()) if which(source)]


def _late(found: Fares, first: str, wanted: NotifyConfig, now: datetime) -> Iterator[Incident]:
    since = found.complete or first
    if not since or now - datetime.fromisoformat(since) <= timedelta(days=wanted.late_days):
        return
    text = f"The last complete run ended on {found.complete[:10]}." if found.complete else "No run was complete yet."
    yield Incident("late", "", "late", text, "run doctor and check, and see whether the service or its timer is up")


def _submissions(found: Fares) -> Iterator[Incident]:
    for item in found.waiting:
        if item.state in _TO_DO:
            text = f"What was sealed on {item.created[:10]} for {item.period} is {item.state}."
            yield Incident("submission", item.period, item.state, text, _TO_DO[item.state])


def _verdicts(connection: Connection, now: datetime) -> Iterator[Incident]:
    newest: dict[str, tuple[OutboxItem, BodyVerdict]] = {}
    for item in items(connection):
        said = latest_verdict(connection, item.identifier)
        if said is not None and (item.period not in newest or said.seen > newest[item.period][1].seen):
            newest[item.period] = (item, said)
    for item, said in newest.values():
        if now - datetime.fromisoformat(said.seen) > _NEWS:
            continue
        text = f"Of what was sealed on {item.created[:10]} for {item.period} it says: {STATES[said.state]}."
        do = "see the submissions page, which shows the body's own words"
        yield Incident("verdict", item.period, f"{said.state} {said.seen}", text, do, over=True)


def _review(connection: Connection, config: Config, ruleset: Ruleset, today: date) -> Iterator[Incident]:
    programme = ruleset.programme
    due = due_period(today, programme.sample.ends_days_before).label
    draw = find_draw(connection, programme.id, due)
    if draw is None or not needs_approval(config):
        return
    numbers = {case.number for case in cases_of(connection, draw.id)}
    signed = {number for number, review in reviews_of(connection, draw.id).items() if review.state == "signed"}
    if numbers - signed:
        text = f"{len(numbers & signed)} of {len(numbers)} cases are signed."
        yield Incident("review", due, "cases", text, "complete and sign the others on the pages of the case review")
    elif any(item.period == due and item.state == "held" for item in items(connection)):
        text = f"All {len(numbers)} cases are signed; the submission waits for approval."
        yield Incident(
            "review", due, "approval", text, "let somebody who signed none of them look at it and approve it"
        )


def _pace(
    connection: Connection, ruleset: Ruleset, wanted: NotifyConfig, today: date, known: set[str]
) -> Iterator[Incident]:
    (volume, groups), _ = years_under(connection, ruleset, today)
    year = Year.of(volume, today, groups)
    if year.ended or year.gone < wanted.pace_from_day or year.projected is None or year.so_far >= year.threshold:
        return
    enough = year.threshold * (_AGAIN_ABOVE if f"pace {year.label}" in known else 1)
    if year.projected >= enough:
        return
    text = (
        f"{year.so_far} sessions counted in the first {year.gone} of {year.days} days of {year.label}; carried on in a "
        f"straight line {year.projected} by its end, and {year.threshold} are needed. {year.review} wait for review."
    )
    yield Incident("pace", year.label, "below", text, "see the sessions for review, and the codes without a mapping")
