"""What the receiver took, as a hash chain: submissions, withdrawals and verdicts, each bound to all before it.

A link holds digests and codes only. Whoever keeps one digest sees whether anything before it was changed or taken away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from io_fhir_adapter.receiver.resources import content_of
from io_fhir_adapter.receiver.schema import CHAIN, RESOURCES, SEALS, SUBMISSIONS, VERDICTS, VERSIONS, WITHDRAWALS
from io_fhir_adapter.trust.canonical import digest
from io_fhir_adapter.trust.chain import START, Link, first_broken, link_digest

__all__ = ["append", "last_digest", "store_problems", "submission_link", "verdict_link", "withdrawal_link"]

Json = dict[str, Any]


def submission_link(row: Mapping[str, Any], seal: Mapping[str, Any]) -> Json:
    """What the chain says of an accepted submission: a row of SUBMISSIONS, and its row of SEALS."""
    return {
        **{name: row[name] for name in ("facility", "identifier", "programme", "results")},
        "bundle": digest(row["bundle"]),
        **{name: seal[name] for name in ("signed", "kid", "replaces")},
    }


def withdrawal_link(row: Mapping[str, Any]) -> Json:
    """What the chain says of a withdrawal: a row of WITHDRAWALS."""
    said = ("facility", "identifier", "withdrawn", "reason", "signed", "kid", "results")
    return {**{name: row[name] for name in said}, "bundle": digest(row["bundle"])}


def verdict_link(row: Mapping[str, Any]) -> Json:
    """What the chain says of a verdict: a row of VERDICTS, the body's words as their digest."""
    said = ("facility", "identifier", "number", "verdict", "given_by")
    return {**{name: row[name] for name in said}, "note": digest(row["note"])}


def append(connection: sa.Connection, at: str, kind: str, body: Json) -> None:
    """Add a link. The transaction must be one that writes, so that no other one adds at the same time."""
    last = connection.execute(sa.select(CHAIN).order_by(CHAIN.c.number.desc()).limit(1)).one_or_none()
    number, previous = (last.number + 1, last.digest) if last is not None else (1, START)
    row = {"number": number, "at": at, "kind": kind, "body": body, "digest": link_digest(previous, at, kind, body)}
    connection.execute(sa.insert(CHAIN).values(row))


def last_digest(connection: sa.Connection) -> tuple[int, str]:
    """Number and digest of the last link: what a body may note down or publish. ``0`` and the start where none is."""
    last = connection.execute(sa.select(CHAIN).order_by(CHAIN.c.number.desc()).limit(1)).one_or_none()
    return (last.number, last.digest) if last is not None else (0, START)


def store_problems(connection: sa.Connection) -> Iterator[str]:
    """What in the store is not as it was taken, in words that hold no content; nothing where all is.

    Looked at: the chain itself; each accepted submission, withdrawal and verdict against its link, none missing and
    none too many; each resource's content against its digest, and that no version of it is missing.
    """
    links = connection.execute(sa.select(CHAIN).order_by(CHAIN.c.number)).all()
    broken = first_broken(Link(*row) for row in links)
    if broken is not None:
        yield f"the chain breaks at link {broken}"
    linked: dict[str, list[str]] = {"submission": [], "withdrawal": [], "verdict": []}
    for row in links:
        linked.setdefault(row.kind, []).append(digest(row.body))
    for kind, found in _present(connection):
        if found in linked[kind]:
            linked[kind].remove(found)
        else:
            yield f"a {kind} is not as it was taken, or was put in"
    for kind, left in linked.items():
        for _ in left:
            yield f"a {kind} that was taken is changed or gone"
    yield from _resource_problems(connection)


def _present(connection: sa.Connection) -> Iterator[tuple[str, str]]:
    """Kind and digest of everything that must have a link."""
    columns = [column for column in SEALS.c if column.name != "number"]
    joined = sa.select(SUBMISSIONS, *columns).outerjoin(SEALS, SEALS.c.number == SUBMISSIONS.c.number)
    for row in _rows(connection, joined):
        yield "submission", digest(submission_link(row, row))
    for row in _rows(connection, sa.select(WITHDRAWALS)):
        yield "withdrawal", digest(withdrawal_link(row))
    for row in _rows(connection, sa.select(VERDICTS)):
        yield "verdict", digest(verdict_link(row))


def _rows(connection: sa.Connection, query: sa.Select[Any]) -> Iterator[Json]:
    return (dict(row) for row in connection.execute(query).mappings())


def _resource_problems(connection: sa.Connection) -> Iterator[str]:
    versions: dict[tuple[str, str], list[int]] = {}
    for kind, id_, version in connection.execute(sa.select(VERSIONS.c.kind, VERSIONS.c.id, VERSIONS.c.version)):
        versions.setdefault((kind, id_), []).append(version)
    contents = sa.select(RESOURCES, VERSIONS.c.content).outerjoin(
        VERSIONS,
        sa.and_(
            VERSIONS.c.kind == RESOURCES.c.kind,
            VERSIONS.c.id == RESOURCES.c.id,
            VERSIONS.c.version == RESOURCES.c.version,
        ),
    )
    for row in connection.execute(contents):
        if sorted(versions.get((row.kind, row.id), [])) != list(range(1, row.version + 1)):
            yield f"a version of {row.kind}/{row.id} is gone"
        elif digest(content_of(row.content)) != row.digest:
            yield f"{row.kind}/{row.id} is not as it was stored"
