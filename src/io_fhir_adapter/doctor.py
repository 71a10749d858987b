"""A look at what runs for years with nobody looking: is the ledger whole, does the key fit, is there room, is it late?

It changes nothing but that it makes the output folder: no ledger is made or upgraded, no key is made, and nothing is
read from the sources.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from sqlalchemy import Connection

from io_fhir_adapter.config import Config, FhirSourceConfig, load_config
from io_fhir_adapter.config.http import HttpConfig
from io_fhir_adapter.errors import AdapterError, ConfigError
from io_fhir_adapter.ledger.audit import audit_size
from io_fhir_adapter.ledger.backup import ledger_file
from io_fhir_adapter.ledger.chain import check_chain
from io_fhir_adapter.ledger.database import Ledger, known_schemas, open_ledger
from io_fhir_adapter.ledger.draws import cases_of
from io_fhir_adapter.ledger.soundness import check_database, check_hashes, check_schema, has_table
from io_fhir_adapter.ledger.upkeep import Fares, Waiting, fares, newest_drawn
from io_fhir_adapter.preflight import Check, signature_check
from io_fhir_adapter.report.output import check_folder
from io_fhir_adapter.review.keys import key_of, pseudonym_key
from io_fhir_adapter.shipped import FORMS_LACKING, lacking_forms
from io_fhir_adapter.transport.client import FhirClient
from io_fhir_adapter.transport.hints import Hint, connection_hints, failure_hints

__all__ = ["backup_check", "disk_checks", "examine", "server_checks", "servers_of"]

_State = Literal["ok", "warn", "fail"]

_GIB: Final = 1 << 30
_ROOM: Final = _GIB
_LEAST_ROOM: Final = 100 << 20
_LATE: Final = timedelta(days=2)
_TOO_LATE: Final = timedelta(days=7)
_BACKUP_OLD: Final = timedelta(days=8)
_LATELY: Final = timedelta(days=7)
_MANY_SET_ASIDE: Final = 100
_SHARE_SET_ASIDE: Final = 0.01
_PATIENCE: Final = {
    "queued": timedelta(days=3),
    "sending": timedelta(days=3),
    "held": timedelta(days=14),
    "sent": timedelta(days=7),
}

_TO_DO: Final = {
    "held": "somebody approves or returns it",
    "sent": "see whether the folder's files reached the body, and put its receipt beside them",
}


async def examine(path: Path, now: datetime) -> list[Check]:
    """All that is looked at; one that fails does not keep the others from being made.

    Args:
        path: The facility's configuration.
        now: When.

    Raises:
        ConfigError: The configuration itself cannot be used; nothing else can be looked at.
    """
    config = load_config(path)
    checks = [Check("configuration", "ok", f"{path}, facility {config.facility.code}")]
    checks += _ledger(config, now)
    checks += disk_checks(config)
    checks.append(_tried("output folder", lambda: _output(config)))
    if config.sign_in is not None:
        do = "install the wheel of a release; in a checkout, run make assets"
        lacking = lacking_forms()
        checks.append(Check("case forms", "fail" if lacking else "ok", FORMS_LACKING if lacking else "LHC-Forms",
                            do if lacking else ""))  # fmt: skip
    if config.submission is not None:
        checks.append(signature_check(config.submission))
    for name, server in servers_of(config):
        checks += await server_checks(name, server, now)
    return checks


def servers_of(config: Config) -> list[tuple[str, HttpConfig]]:
    """Every server that requests are made to, with its name."""
    servers: list[tuple[str, HttpConfig]] = [
        (f"source {source.name}", source) for source in config.sources if isinstance(source, FhirSourceConfig)
    ]
    if config.submission is not None and config.submission.folder is None:
        servers.append(("submission", config.submission))
    return servers


def _tried(name: str, look: Callable[[], Check]) -> Check:
    try:
        return look()
    except AdapterError as exc:
        return Check(name, "fail", f"{exc.where}: {exc.what}" if exc.where else exc.what, exc.do)


def _ledger(config: Config, now: datetime) -> Iterator[Check]:
    file = ledger_file(config.ledger)
    if file is not None and not file.is_file():
        do = "for a new facility run check and then run; where there was one, restore a backup"
        yield Check("ledger", "fail", f"{file}: there is no ledger", do)
        return
    ledger = open_ledger(config.ledger, upgrade=False)

    def read(name: str, look: Callable[[Connection], Check]) -> Check:
        def within() -> Check:
            with ledger.read() as connection:
                return look(connection)

        return _tried(name, within)

    try:
        schema = read("ledger schema", lambda connection: _schema(connection, ledger))
        yield schema
        if schema.state == "fail":
            return
        yield read("ledger integrity", lambda connection: _integrity(connection, ledger, file))
        yield read("ledger chains", lambda connection: _chains(connection, ledger))
        if schema.state == "ok":
            yield read("pseudonym key", lambda connection: _key(connection, config))
        else:
            yield _tried("pseudonym key", lambda: _key(None, config))
        with ledger.read() as connection:
            found = fares(connection, now, _LATELY)
        yield from _runs(found, now)
        yield from _outbox(found, now)
        yield _quarantine(found)
        if file is not None:
            yield backup_check(found, now)
    except AdapterError as exc:
        yield Check("ledger", "fail", f"{ledger.name}: {exc.what}", exc.do)
    finally:
        ledger.close()


def _schema(connection: Connection, ledger: Ledger) -> Check:
    found, newest = check_schema(connection, ledger.name), known_schemas()[0]
    if found == newest:
        return Check("ledger schema", "ok", f"{found}, that of this version")
    do = "run backup before anything else; the next command that works on the ledger upgrades it"
    return Check("ledger schema", "warn", f"{found}, older than {newest} of this version", do)


def _integrity(connection: Connection, ledger: Ledger, file: Path | None) -> Check:
    if file is None:
        return Check("ledger integrity", "ok", "PostgreSQL looks after its files; run pg_amcheck to have it look")
    check_database(connection, ledger.name)
    return Check("ledger integrity", "ok", f"{file}, every page and reference")


def _chains(connection: Connection, ledger: Ledger) -> Check:
    check_hashes(connection, ledger.name)
    links = check_chain(connection) if has_table(connection, "chain") else 0
    audited = audit_size(connection) if has_table(connection, "audit") else 0
    return Check("ledger chains", "ok", f"{links} links of the chain of draws, {audited} entries of the audit")


def _key(connection: Connection | None, config: Config) -> Check:
    name, file = "pseudonym key", config.review.key_file
    draw = newest_drawn(connection) if connection is not None else None
    if not file.exists():
        if draw is None:
            return Check(name, "ok", f"{file}: made at the first draw")
        do = "restore it from where copies of keys are kept; see the manual on a lost key"
        return Check(name, "fail", f"{file}: missing, and cases were drawn with it", do)
    pseudonym_key(file)
    if connection is None or draw is None:
        return Check(name, "ok", f"{file}: nobody else can read it; no case to compare it with")
    cases = cases_of(connection, draw, None)
    key_of(file, config.facility.code, cases)
    return Check(name, "ok", f"{file}: nobody else can read it; it fits the {len(cases)} patients of the last draw")


def _runs(found: Fares, now: datetime) -> Iterator[Check]:
    if found.alive:
        yield Check("job", "ok", f"under way ({found.holder})")
    elif found.holder:
        yield Check("job", "warn", f"one died ({found.holder})", "nothing: the next one takes over; look why it died")
    else:
        yield Check("job", "ok", "none under way")
    last = found.last
    if last is None:
        yield Check("last run", "warn", "none yet", "run check, and then run")
        return
    if last.state == "running" and not found.alive:
        yield Check("last run", "warn", f"began {last.started[:16]}Z and was cut off", "nothing: the next one goes on")
    elif last.state == "failed":
        yield Check(
            "last run", "warn", f"began {last.started[:16]}Z and failed: {last.error}", "see the error's number"
        )
    do = "run check for the servers, and look whether the service or the timer that starts run is up"
    if not found.complete:
        yield Check("last complete run", "fail", "none yet", do)
        return
    age = now - datetime.fromisoformat(found.complete)
    state: _State = "fail" if age > _TOO_LATE else "warn" if age > _LATE else "ok"
    text = f"ended {found.complete[:16]}Z, {_ago(age)}"
    yield Check("last complete run", state, text, "" if state == "ok" else do)


def _ago(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    return f"{hours:.0f} hours ago" if hours < 48 else f"{age.days} days ago"


def _outbox(found: Fares, now: datetime) -> Iterator[Check]:
    checks = [check for item in found.waiting if (check := _waiting(item, now)) is not None]
    yield from checks or [Check("outbox", "ok", "nothing waits longer than it should")]


def _waiting(item: Waiting, now: datetime) -> Check | None:
    name, text = f"outbox {item.period}", f"sealed {item.created[:16]}Z, {item.state}"
    if item.state == "parked":
        return Check(name, "fail", text, "find out with the accreditation system why, then run submit --retry")
    if item.state == "rejected":
        return Check(name, "fail", text, "read its receipt in the output folder, correct the cause, run submit --retry")
    patience = _PATIENCE.get(item.state)
    if patience is None or now - datetime.fromisoformat(item.created) < patience:
        return None
    do = _TO_DO.get(item.state, "run submit, and see what it says")
    return Check(name, "warn", text, do)


def _quarantine(found: Fares) -> Check:
    total = found.facts + found.set_aside
    share = found.set_aside / total if total else 0.0
    text = f"{found.set_aside:,} resources ({share:.1%}), {found.lately:,} of them read in the last {_LATELY.days} days"
    many = found.set_aside > _MANY_SET_ASIDE and share > _SHARE_SET_ASIDE
    do = "the nightly report names the reasons; have those who run the source correct them"
    return Check("quarantine", "warn" if many else "ok", text, do if many else "")


def backup_check(found: Fares, now: datetime) -> Check:
    """How old the last copy of the ledger is."""
    do = "run backup every night or week, onto another disk"
    if not found.copied:
        return Check("backup", "warn", "none was ever made with backup", do)
    age = now - datetime.fromisoformat(found.copied)
    late = age > _BACKUP_OLD
    return Check("backup", "warn" if late else "ok", f"made {found.copied[:16]}Z, {_ago(age)}", do if late else "")


def disk_checks(config: Config) -> Iterator[Check]:
    """How much room there is beside the ledger; nothing of a ledger that is no file."""
    file = ledger_file(config.ledger)
    if file is None or not file.parent.is_dir():
        return
    free, size = shutil.disk_usage(file.parent).free, file.stat().st_size if file.is_file() else 0
    text = f"{free / _GIB:.1f} GiB free, the ledger takes {size / _GIB:.2f}"
    state: _State = "fail" if free < _LEAST_ROOM else "warn" if free < max(_ROOM, size) else "ok"
    yield Check("disk", state, text, "" if state == "ok" else f"make room in {file.parent}")


def _output(config: Config) -> Check:
    check_folder(config.output.folder)
    return Check("output folder", "ok", f"{config.output.folder} can be written to")


async def server_checks(name: str, server: HttpConfig, now: datetime) -> list[Check]:
    """What a server's answer tells of clocks and certificates; whether it can do its part is for ``check`` to say."""
    once = server.model_copy(update={"retries": 0})
    hints: list[Hint] = []
    try:
        try:
            async with FhirClient(once, name) as client:
                await client.fhirpy.execute("metadata", method="get")
                hints += connection_hints(client, once, now)
            checks = [Check(name, "ok", "reached")]
        except ConfigError:
            raise
        except AdapterError as exc:
            checks = [Check(name, "warn", f"not looked at: {exc.what}", "run check, which says what to fix")]
            hints += failure_hints(exc, once, now)
        except ValueError:
            checks = [Check(name, "warn", "not looked at: the answer is no JSON", "run check, which says what to fix")]
    except ConfigError as exc:  # what this machine is to show or to trust, not the server
        return [Check(name, "fail", exc.what, exc.do)]
    return [*checks, *(Check(f"{name} {hint.about}", hint.state, hint.text, hint.do) for hint in hints)]
