"""How far a facility is from its seal: each requirement of a programme with its state and the evidence for it.

Values in, values out. What a body asks for comes from the programme's data, with where it was read; what only people
know comes from the configuration and is otherwise said to be unknown. Nothing here is the body's own verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any, Final, Literal

from io_fhir_adapter.classify.programme import Programme
from io_fhir_adapter.classify.programme import Status as ProgrammeStatus
from io_fhir_adapter.report.readiness_facts import Facts, Year
from io_fhir_adapter.report.standards import Tally
from io_fhir_adapter.report.wording import day_words, number

__all__ = ["FOR_NEXT", "STATES", "Readiness", "Requirement", "State", "Status", "readiness_of", "years_later"]

State = Literal["met", "not-yet", "unknown", "person"]
STATES: Final[Mapping[State, str]] = {
    "met": "met", "not-yet": "not yet", "unknown": "unknown", "person": "needs a person",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement.

    Attributes:
        id: Stable name.
        title: In plain words.
        state: How it stands.
        evidence: Why, in one or two sentences.
        value: How many there are, where it is a number; ``possible`` with what people may add.
        wanted: How many are asked for, None where the body names no number or it was not found.
        unit: What ``value`` is, such as ``counted``.
        source: Where the body says so; empty for a proposal of this project.
        note: What to know about the source.
        group: Id of the body's group that it is of, empty where of all or none.
        applies_to: Whom it is asked of, where the body parts them, such as ``training site``.
    """

    id: str
    title: str
    state: State
    evidence: str
    value: int | None = None
    possible: int | None = None
    wanted: int | None = None
    unit: str = ""
    source: str = ""
    note: str = ""
    group: str = ""
    applies_to: str = ""

    @property
    def amount(self) -> str:
        """``207 of 150 counted``, empty where the requirement is no number."""
        if self.value is None:
            return ""
        of = f" of {number(self.wanted)}" if self.wanted is not None else ""
        return f"{number(self.value)}{of} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Status:
    """Where the facility stands in the programme's own words, and what is next.

    Attributes:
        now: The status it has, ``unknown`` where nobody said, empty where the programme names none.
        next: The status it works towards, empty at the last one.
        state: Whether that can be asked for.
        words: All of it in a sentence or two.
    """

    now: str
    next: str
    state: State
    words: str


@dataclass(frozen=True)
class Readiness:
    """A facility's way through one programme; ``missing`` are the requirements that keep it from the next status."""

    programme: str
    title: str
    as_of: str
    read_at: str
    status: Status
    requirements: tuple[Requirement, ...]
    years: tuple[Year, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {
            "programme": self.programme, "title": self.title, "as-of": self.as_of, "read-at": self.read_at or None,
            "status": asdict(self.status), "requirements": [asdict(one) for one in self.requirements],
            "years": [year.to_json() for year in self.years], "notes": list(self.notes),
        }  # fmt: skip


def readiness_of(programme: Programme, facts: Facts) -> Readiness:
    """How far the facility is in a programme."""
    found = tuple(_requirements(programme, facts))
    return Readiness(
        programme=programme.id,
        title=programme.title,
        as_of=facts.as_of.isoformat(),
        read_at=facts.read_at,
        status=_status(programme, facts, {one.id: one for one in found}),
        requirements=found,
        years=(facts.running, facts.last),
        notes=tuple(_notes(programme, facts)),
    )


def _requirements(programme: Programme, facts: Facts) -> Iterator[Requirement]:
    if any(role.id == "approving-authority" for role in programme.roles):
        yield _approval(programme, facts)
    if any(status.id == "enrolled" for status in programme.statuses):
        yield _enrolment(programme, facts)
    yield _volume(programme, facts)
    yield from _groups(programme, facts)
    if facts.core is not None and programme.standards is not None:
        yield _core(programme, facts, facts.core)
    if programme.sample.source:
        yield _cases(programme, facts)


def _approval(programme: Programme, facts: Facts) -> Requirement:
    role = next(role for role in programme.roles if role.id == "approving-authority")
    told = facts.standing.approved
    words = f"Given on {day_words(told.isoformat())}, says the configuration" if told else _untold("approved")
    return Requirement("approval", "Approval by the responsible authority", "met" if told else "unknown", words,
                       source=role.source, note=role.duty)  # fmt: skip


def _enrolment(programme: Programme, facts: Facts) -> Requirement:
    status = next(status for status in programme.statuses if status.id == "enrolled")
    told = facts.standing.enrolled
    words = f"Since {day_words(told.isoformat())}, says the configuration" if told else _untold("enrolled")
    return Requirement("enrolment", "Enrolment", "met" if told else "unknown", words, source=status.source,
                       note=status.needs)  # fmt: skip


def _untold(key: str) -> str:
    return f"Only people know: enter the day as standing.{key} in the configuration"


def _volume(programme: Programme, facts: Facts) -> Requirement:
    best = max((facts.last, facts.running), key=lambda year: (year.counted, year.possible))
    state = _reached(best.counted, best.possible, best.threshold)
    if facts.empty:
        words, state = "The ledger holds no Procedure yet", "unknown"
    else:
        words = f"{_year_words(facts.running)}. {_year_words(facts.last)}"
        if state == "person":
            words += ". A responsible person decides whether those for review count"
    rule = programme.volume
    note = "The body names no period; this project takes the calendar year" if rule.period_proposal else ""
    return Requirement(
        "volume",
        "Annual volume",
        state,
        words,
        best.counted,
        best.possible,
        best.threshold,
        "counted",
        rule.source,
        note,
    )


def _reached(sure: int, possible: int, wanted: int) -> State:
    return "met" if sure >= wanted else "person" if possible >= wanted else "not-yet"


def _year_words(year: Year) -> str:
    text = f"{year.label}: {number(year.counted)} of {number(year.threshold)} counted, {number(year.possible)} possible"
    if year.ended or year.projected is None:
        return text
    return (
        f"{text}; {number(year.so_far)} in the first {year.gone} of {year.days} days, in a straight line "
        f"{number(year.projected)} by the year's end (a projection from the days past)"
    )


def _groups(programme: Programme, facts: Facts) -> Iterator[Requirement]:
    """What a body asks for in its groups, beside the volume; every number with its age."""
    titles = {group.id: group.title for group in programme.groups}
    counted = {category for category, counts in programme.counts.items() if counts == "yes"}
    counting = next((group.id for group in programme.groups if counted <= set(group.categories)), None)
    for item in programme.group_thresholds:
        if counting is not None and (item.group, item.threshold) == (counting, programme.threshold):
            continue  # the volume, said once more
        place = f"group {item.group}" if item.group else "all groups"
        title = f"{place[0].upper()}{place[1:]}, {item.applies_to}" + (f": {titles[item.group]}" if item.group else "")
        counts = {
            year.label: [group for group in year.groups if group.id and item.group in (None, group.id)]
            for year in (facts.running, facts.last)
        }
        sums = {label: (sum(g.done for g in of), sum(g.open for g in of)) for label, of in counts.items()}
        done, doubtful = max(sums.values())
        words = ". ".join(
            f"{label}: {number(many)} sessions in the ledger, {number(more)} for review"
            for label, (many, more) in sums.items()
        )
        state: State = "unknown"
        if item.group is None or item.threshold is None:
            words += ". What is asked for was not found" if item.threshold is None else ""
        elif not facts.empty:
            state = _reached(done, done + doubtful, item.threshold)
        age = f"As of {item.as_of}" if item.as_of else ""
        note = "; ".join(part for part in (age, "archived page" if item.archived else "", item.note) if part)
        slug = f"{item.group or 'all'}-{item.applies_to}".lower().replace(",", "").replace(" ", "-")
        many, possible = (done, done + doubtful) if item.group or item.threshold else (None, None)
        yield Requirement(
            f"group-{slug}", title, state, words, many, possible, item.threshold, "in the ledger", item.source, note,
            item.group or "", item.applies_to,
        )  # fmt: skip


def _core(programme: Programme, facts: Facts, core: Tally) -> Requirement:
    state: State = "not-yet"
    if core.met == core.total:
        state = "met"
    elif core.met + core.not_applicable == core.total:
        state = "person"
    if not facts.answered_at:
        words = "Not answered: there is no self-assessment in the ledger (see the standards command)"
    else:
        parts = {"met": core.met, "partly met": core.partly, "not met": core.not_met}
        parts |= {"not applicable": core.not_applicable, "not answered": core.total - core.answered}
        told = ", ".join(f"{many} {name}" for name, many in parts.items() if many)
        words = f"Self-assessment of {day_words(facts.answered_at[:10])}: {told}"
        if state == "person":
            words += ". A person decides whether a core requirement may not apply"
    source = programme.standards.source if programme.standards is not None else ""
    return Requirement(
        "core", "Core requirements of the standards", state, words, core.answered, core.answered, core.total,
        "answered", source, "The facility's own answers; the body's assessors judge",
    )  # fmt: skip


def _cases(programme: Programme, facts: Facts) -> Requirement:
    wanted, work = programme.sample.size, facts.cases
    if work is None:
        state: State = "not-yet"
        done, words = 0, "Nothing was drawn yet"
    elif not work.drawn:
        state, done = "not-yet", 0
        words = f"{work.period}: {number(work.frame)} patients committed to, nobody drawn yet"
    else:
        done = work.signed
        words = (
            f"{work.period}: {work.drawn} of {wanted} drawn from {number(work.frame)} patients, "
            f"{work.prefilled} pre-filled, {work.signed} signed"
        )
        short = work.drawn < wanted
        complete = work.signed >= work.drawn
        state = "not-yet" if not complete else "person" if short else "met"
        if not work.signed and work.prefilled:
            state = "person"
            words += ". Reviewers complete and sign the forms"
        if short:
            words += f". The frame gives no {wanted} patients; ask the body"
    if work is not None and work.approved:
        words += f". Submission: {work.approved}"
    if work is not None and work.verdict:
        words += f". The body's verdict: {work.verdict}"
    return Requirement(
        "case-review", "Internal case review", state, words, done, work.drawn if work else 0, wanted,
        "signed", programme.sample.source, "Done means signed here; the body assesses it",
    )  # fmt: skip


FOR_NEXT: Final = ("volume", "core", "case-review")
"""The requirements that stand between a facility and its next status, whatever that is."""


def _status(programme: Programme, facts: Facts, found: Mapping[str, Requirement]) -> Status:
    """In the programme's own words; they are looked up, and where it has none nothing is said."""
    titles = {status.id: status for status in programme.statuses}
    if not {"enrolled", "accredited", "excellence"} <= titles.keys():
        return Status("", "", "unknown", "The programme's data name no statuses")
    standing = facts.standing
    if standing.accredited is not None:
        return _towards_excellence(programme, facts, titles, found, standing.accredited)
    title = titles["accredited"].title
    missing = [found[name] for name in FOR_NEXT if name in found and found[name].state != "met"]
    now = titles["enrolled"].title if standing.enrolled is not None else "unknown"
    here = (
        f"{now} since {day_words(standing.enrolled.isoformat())}" if standing.enrolled is not None
        else "Whether the facility is enrolled is not known here"
    )  # fmt: skip
    if not missing:
        ready = f"ready for {title}, as far as it can be seen here"
        if standing.enrolled is None:
            return Status(now, title, "person", f"{here}; else {ready}")
        return Status(now, title, "met", f"{here}, {ready}")
    return Status(now, title, _least(missing), f"{here}. Not yet ready for {title}: {_named(missing)}")


def _towards_excellence(
    programme: Programme,
    facts: Facts,
    titles: Mapping[str, ProgrammeStatus],
    found: Mapping[str, Requirement],
    since: date,
) -> Status:
    now, following = titles["accredited"].title, titles["excellence"].title
    here = f"{now} since {day_words(since.isoformat())}"
    if programme.cycle is None:
        return Status(now, following, "unknown", here)
    due = years_later(since, programme.cycle.years)
    rule = f"{following} only at re-certification, after {programme.cycle.years} years"
    if facts.as_of < due:
        return Status(now, following, "not-yet", f"{here}. {rule}: not before {day_words(due.isoformat())}")
    missing = [found[name] for name in FOR_NEXT if name in found and found[name].state != "met"]
    extended = facts.extended
    open_ones = extended.total - extended.met - extended.not_applicable if extended is not None else 0
    if missing or open_ones:
        parts = ([_named(missing)] if missing else []) + (
            [f"extended requirements ({open_ones} not said to be met)"] if open_ones else []
        )
        state = _least(missing) if missing else "not-yet"
        return Status(now, following, state, f"{here}. {rule}. Not yet ready for {following}: {', '.join(parts)}")
    return Status(now, following, "met", f"{here}, ready for {following}, as far as it can be seen here")


def _least(missing: list[Requirement]) -> State:
    return "person" if all(one.state == "person" for one in missing) else "not-yet"


def _named(missing: list[Requirement]) -> str:
    return ", ".join(f"{one.title.lower()} ({STATES[one.state]})" for one in missing)


def years_later(day: date, years: int) -> date:
    """The same day so many years later, 28 February where there is no 29th."""
    try:
        return day.replace(year=day.year + years)
    except ValueError:  # 29 February
        return day.replace(year=day.year + years, day=28)


def _notes(programme: Programme, facts: Facts) -> Iterator[str]:
    yield "States are this project's reading of what a body publishes; the body decides."
    if programme.cycle is not None and programme.cycle.note:
        yield f"{programme.cycle.note}."
    if programme.group_thresholds:
        yield (
            "A session stands in the group of its first category; the body may count otherwise, and in registers of "
            "its own."
        )
    if not facts.read_at and not facts.empty:
        yield "No run has been complete yet: numbers may be too low."
