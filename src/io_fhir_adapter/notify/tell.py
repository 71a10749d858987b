"""Telling people after a night: look, enter it in the book, send what is new or over, enter what arrived.

Nothing here undoes a night: a target that cannot be reached is tried again after the next one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import date, datetime

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.config import Config, NotifyConfig
from io_fhir_adapter.errors import AdapterError, LedgerError
from io_fhir_adapter.ledger.database import Ledger, timestamp
from io_fhir_adapter.ledger.lease import BUSY
from io_fhir_adapter.ledger.runs import change_state, read_state, write_state
from io_fhir_adapter.logs import log
from io_fhir_adapter.notify.book import BOOK, Book, Message
from io_fhir_adapter.notify.look import Look, failure_incident, look_at_ledger, look_at_machine, look_at_servers
from io_fhir_adapter.notify.send import send

__all__ = ["Told", "find", "tell"]


@dataclass(frozen=True, slots=True)
class Told:
    """What was told: messages that arrived, and error codes by those that did not."""

    arrived: tuple[Message, ...] = ()
    failed: tuple[tuple[Message, str], ...] = ()


def find(config: Config, ledger: Ledger, ruleset: Ruleset, now: datetime, today: date, failure: str = "") -> Look:
    """Everything that needs a person now, by one request to each server and a look at ledger and disk.

    Args:
        config: The facility's configuration, with its ``notify`` section.
        ledger: Its ledger.
        ruleset: What decides.
        now: When.
        today: The local date.
        failure: The error code of a run that failed just now, or a word where it has none; empty where none did.
    """
    try:
        with ledger.read() as connection:
            book = Book.read(read_state(connection, BOOK))
            look = look_at_ledger(connection, config, ruleset, now, today, book.open)
    except LedgerError as exc:  # of what the ledger tells nothing can be said to be over
        look = Look([failure_incident(failure or exc.code)], {"run", "late", "pace", "unmapped", "submission", "review",
                                                             "backup"})  # fmt: skip
    if failure and not any(found.kind == "run" for found in look.incidents):
        look.incidents.append(failure_incident(failure))
    look.incidents += look_at_machine(config)
    servers = asyncio.run(look_at_servers(config, now))
    look.incidents += servers.incidents
    look.unseen |= servers.unseen
    return look


def tell(config: Config, ledger: Ledger, ruleset: Ruleset, now: datetime, today: date, *, failure: str = "") -> Told:
    """Tells everybody what is new and what is over; does nothing where nobody is to be told.

    Nor where the run did not begin because another is under way: that one tells.

    Arguments as of :func:`find`. Where the ledger cannot be written, what is found is told and not remembered.
    """
    if config.notify is None or failure == BUSY:
        return Told()
    look = find(config, ledger, ruleset, now, today, failure)
    try:
        book = _entered(ledger, look, now)
    except LedgerError as exc:
        log.warning("incidents not remembered", code=exc.code)
        book = Book()
        book.take(look, now)
        return _sent(config.notify, config.facility.code, book)
    if book is None:
        return Told()
    told = _sent(config.notify, config.facility.code, book)
    book.busy = ""
    try:
        with ledger.begin() as connection:
            write_state(connection, BOOK, book.write())
    except LedgerError as exc:
        log.warning("incidents not remembered", code=exc.code)
    return told


def _entered(ledger: Ledger, look: Look, now: datetime) -> Book | None:
    """The book with what was found, taken by this process; None where another is at it."""
    with ledger.begin() as connection:
        before = read_state(connection, BOOK)
        book = Book.read(before)
        if book.is_busy(now):
            return None
        book.take(look, now)
        book.busy = timestamp(now)
        if look.new_codes is not None:
            write_state(connection, *look.new_codes.state())
        return book if change_state(connection, BOOK, before, book.write()) else None


def _sent(wanted: NotifyConfig, facility: str, book: Book) -> Told:
    targets = {target.name: target for target in wanted.targets}
    book.drop_targets(set(targets))
    arrived, failed = [], []
    for message in list(book.messages(facility, wanted.targets)):
        kind = "success" if message.clear else "info" if book.entries[message.key].news else "warning"
        try:
            send(targets[message.target], message.title, message.text, kind=kind)
        except AdapterError as exc:
            log.warning("message not sent", target=message.target, code=exc.code)
            failed.append((message, exc.code))
        else:
            book.note(message)
            arrived.append(message)
    if arrived:
        log.info("people told", messages=len(arrived))
    return Told(tuple(arrived), tuple(failed))
