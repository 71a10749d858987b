"""What the body's pages read out of the store. Nothing here changes anything."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from io_fhir_adapter.canonical_urls import DRAW_SYSTEM, FRAME_SYSTEM, PROGRAMME_SYSTEM
from io_fhir_adapter.receiver.draws import NONCES
from io_fhir_adapter.receiver.schema import KEYS, SEALS, SUBMISSIONS, VERDICTS, VERSIONS, WITHDRAWALS
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.receiver.verdicts import verdicts_of
from io_fhir_adapter.trust.frame import draw_digest

__all__ = [
    "Frame",
    "Listed",
    "Verdict",
    "bundle_of",
    "frames",
    "history",
    "listed",
    "reports",
    "standing",
]

Json = dict[str, Any]
_COUNTED: Final = ("numerator", "counted")
_RECEIVED: Final = "received"
_WITHDRAWN: Final = "withdrawn"
_COLUMNS: Final = (
    "number", "facility", "identifier", "programme", "period_start", "period_end", "populations", "cases", "received",
    "times",
)  # fmt: skip
_AT_ONCE: Final = 400  # bound parameters of one statement; SQLite takes 999


@dataclass(frozen=True)
class Verdict:
    """What the body said of a submission at a time.

    Attributes:
        state: ``received``, ``accepted``, ``correction-asked``, ``rejected``; ``withdrawn`` where the facility took it
            back.
        at: When, a FHIR instant.
        note: The body's words; of a withdrawal the code of its reason.
        by: Who of the body said it.
    """

    state: str
    at: str
    note: str = ""
    by: str = ""


@dataclass(frozen=True)
class Listed:
    """A submission as lists show it.

    Attributes:
        number: Its number in the order of receipt.
        facility: Code of the facility.
        identifier: The digest of what it says.
        programme: Code of the programme.
        period_start: First day of the period.
        period_end: Last day, inclusive.
        populations: Code and count of each population of the report's first group.
        cases: How many case reviews it holds.
        received: When it came first, a FHIR instant.
        times: How often it came.
        signed: What was found of its signature when it came; empty where nothing was noted.
        key: The id of the key that it is signed with, empty where it is not signed.
        replaces: Identifiers of the submissions that it corrects.
        verdict: The present one.
    """

    number: int
    facility: str
    identifier: str
    programme: str
    period_start: str
    period_end: str
    populations: tuple[tuple[str, int], ...]
    cases: int
    received: str
    times: int
    signed: str
    key: str
    replaces: tuple[str, ...]
    verdict: Verdict

    @property
    def counted(self) -> int:
        """Sessions that count."""
        counts = dict(self.populations)
        return next((counts[code] for code in _COUNTED if code in counts), 0)

    @property
    def review(self) -> int:
        """Sessions that a responsible person may add."""
        return dict(self.populations).get("review", 0)

    @property
    def period(self) -> str:
        """The year, or the two days of a period that is none."""
        year = self.period_start[:4]
        if (self.period_start, self.period_end) == (f"{year}-01-01", f"{year}-12-31"):
            return year
        return f"{self.period_start} – {self.period_end}"


@dataclass(frozen=True)
class Frame:
    """A frame that a facility announced, with the nonce for it.

    Attributes:
        digest: The digest of the frame.
        programme: Code of the programme.
        window: First and last day that cases may come from.
        patients: How many patients it has.
        announced: When.
        nonce: What was given, in hexadecimal.
        used: Whether a draw with it was submitted.
    """

    digest: str
    programme: str
    window: tuple[str, str]
    patients: int
    announced: str
    nonce: str
    used: bool


def listed(store: ReceiverStore, facility: str | None = None, number: int | None = None) -> list[Listed]:
    """All submissions, those of a facility, or one; the newest first."""
    last = (
        sa.select(VERDICTS.c.facility, VERDICTS.c.identifier, sa.func.max(VERDICTS.c.number).label("number"))
        .group_by(VERDICTS.c.facility, VERDICTS.c.identifier)
        .subquery()
    )
    here = (SUBMISSIONS.c.facility, SUBMISSIONS.c.identifier)
    query = (
        sa.select(
            *(SUBMISSIONS.c[name] for name in _COLUMNS),
            SEALS.c.signed, SEALS.c.kid, SEALS.c.replaces,
            VERDICTS.c.verdict, VERDICTS.c.note, VERDICTS.c.given_by, VERDICTS.c.at,
            WITHDRAWALS.c.reason, WITHDRAWALS.c.received.label("taken_back"),
        )
        .outerjoin(SEALS, SEALS.c.number == SUBMISSIONS.c.number)
        .outerjoin(last, sa.and_(last.c.facility == here[0], last.c.identifier == here[1]))
        .outerjoin(
            VERDICTS,
            sa.and_(
                VERDICTS.c.facility == here[0], VERDICTS.c.identifier == here[1], VERDICTS.c.number == last.c.number
            ),
        )
        .outerjoin(WITHDRAWALS, sa.and_(WITHDRAWALS.c.facility == here[0], WITHDRAWALS.c.withdrawn == here[1]))
        .order_by(SUBMISSIONS.c.number.desc())
    )  # fmt: skip
    if facility is not None:
        query = query.where(SUBMISSIONS.c.facility == facility)
    if number is not None:
        query = query.where(SUBMISSIONS.c.number == number)
    with store.reading() as connection:
        rows = connection.execute(query).mappings().all()
    return [
        Listed(
            **{name: row[name] for name in _COLUMNS if name != "populations"},
            populations=tuple((code, count) for code, count in row["populations"]),
            signed=row["signed"] or "",
            key=row["kid"] or "",
            replaces=tuple(row["replaces"] or ()),
            verdict=_present(row),
        )
        for row in rows
    ]


def _present(row: sa.RowMapping) -> Verdict:
    if row["taken_back"] is not None:
        return Verdict(_WITHDRAWN, row["taken_back"], row["reason"])
    if row["verdict"] is None:
        return Verdict(_RECEIVED, row["received"])
    return Verdict(row["verdict"], row["at"], row["note"], row["given_by"])


def standing(rows: Collection[Listed]) -> list[Listed]:
    """What holds: of each facility, programme and period the newest that is neither withdrawn nor rejected."""
    newest: dict[tuple[str, str, str, str], Listed] = {}
    for row in sorted(rows, key=lambda one: one.number):
        if row.verdict.state not in (_WITHDRAWN, "rejected"):
            newest[row.facility, row.programme, row.period_start, row.period_end] = row
    return [newest[place] for place in sorted(newest)]


def bundle_of(store: ReceiverStore, number: int) -> Json | None:
    """The whole Bundle as it came."""
    with store.reading() as connection:
        found: Json | None = connection.execute(
            sa.select(SUBMISSIONS.c.bundle).where(SUBMISSIONS.c.number == number)
        ).scalar_one_or_none()
    return found


def reports(store: ReceiverStore, numbers: Collection[int]) -> dict[int, Json]:
    """The MeasureReport of each submission, in the version that it brought."""
    places: dict[tuple[str, int], list[int]] = defaultdict(list)
    contents: dict[int, Json] = {}
    with store.reading() as connection:
        for some in _portions(sorted(numbers)):
            query = sa.select(SUBMISSIONS.c.number, SUBMISSIONS.c.results).where(SUBMISSIONS.c.number.in_(some))
            for number, results in connection.execute(query):
                for kind, id_, version, *_ in results:
                    if kind == "MeasureReport":
                        places[id_, version].append(number)
        for ids in _portions(sorted({id_ for id_, _ in places})):
            versions = sa.select(VERSIONS.c.id, VERSIONS.c.version, VERSIONS.c.content)
            versions = versions.where(VERSIONS.c.kind == "MeasureReport", VERSIONS.c.id.in_(ids))
            for row in connection.execute(versions):
                for number in places.get((row.id, row.version), ()):
                    contents[number] = row.content
    return contents


def history(store: ReceiverStore, row: Listed) -> list[Verdict]:
    """What became of a submission, in order: its receipt, what the body said, and that it was withdrawn."""
    said = [Verdict(one.verdict, one.at, one.note, one.by) for one in verdicts_of(store, row.identifier)]
    if not said or said[0].state != _RECEIVED:
        said.insert(0, Verdict(_RECEIVED, row.received))
    if row.verdict.state == _WITHDRAWN and said[-1].state != _WITHDRAWN:
        said.append(row.verdict)
    return said


def frames(store: ReceiverStore, facility: str) -> list[Frame]:
    """The frames that a facility announced, the newest first."""
    query = (
        sa.select(NONCES.c.frame, NONCES.c.nonce, VERSIONS.c.updated, VERSIONS.c.content)
        .join(KEYS, sa.and_(KEYS.c.value == NONCES.c.frame, KEYS.c.facility == NONCES.c.facility))
        .join(VERSIONS, sa.and_(VERSIONS.c.kind == KEYS.c.kind, VERSIONS.c.id == KEYS.c.id))
        .where(NONCES.c.facility == facility, KEYS.c.kind == "Group", KEYS.c.by == "identifier")
        .where(KEYS.c.system == FRAME_SYSTEM, VERSIONS.c.version == 1)
        .order_by(VERSIONS.c.updated.desc())
    )
    drawn = sa.select(KEYS.c.value).where(
        KEYS.c.facility == facility, KEYS.c.kind == "List", KEYS.c.by == "identifier", KEYS.c.system == DRAW_SYSTEM
    )
    with store.reading() as connection:
        draws = set(connection.execute(drawn).scalars())
        rows = connection.execute(query).mappings().all()
    return [_frame(row, draw_digest(row["frame"], row["nonce"]) in draws) for row in rows]


def _portions(values: list[Any]) -> Iterator[list[Any]]:
    return (values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE))


def _frame(row: sa.RowMapping, used: bool) -> Frame:
    group: Json = row["content"]
    tags = [tag.get("code") for tag in group.get("meta", {}).get("tag", []) if tag.get("system") == PROGRAMME_SYSTEM]
    periods = [item["period"] for item in group.get("characteristic", []) if "period" in item]
    window = periods[0] if periods else {}
    return Frame(
        digest=row["frame"],
        programme=str(tags[0]) if tags else "",
        window=(str(window.get("start", "")), str(window.get("end", ""))),
        patients=int(group.get("quantity", 0)),
        announced=row["updated"],
        nonce=row["nonce"],
        used=used,
    )
