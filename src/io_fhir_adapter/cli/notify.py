"""Commands for telling people: trying where messages go, showing what is open, telling it now."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Annotated

import typer
from rich.text import Text

from io_fhir_adapter.cli.console import out
from io_fhir_adapter.cli.facility import ConfigOption, Facility, JsonOption, facility
from io_fhir_adapter.config import Config, NotifyConfig, load_config
from io_fhir_adapter.errors import AdapterError, TransportError, UsageError
from io_fhir_adapter.fhir.dates import zone
from io_fhir_adapter.ledger.runs import read_state
from io_fhir_adapter.logs import configure_logs
from io_fhir_adapter.notify.book import BOOK, Book
from io_fhir_adapter.notify.incidents import title_of
from io_fhir_adapter.notify.send import send
from io_fhir_adapter.notify.tell import find, tell

__all__ = ["register"]

TargetOption = Annotated[str, typer.Option("--target", metavar="NAME", help="Only this target.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(
        no_args_is_help=True, help="Telling people what needs one: try the targets, show what is open, tell it now."
    )
    group.command("test", epilog="Example: io-fhir-adapter notify test --config hospital.yaml")(try_targets)
    group.command(epilog="Example: io-fhir-adapter notify show --config hospital.yaml")(show)
    group.command(epilog="Example: io-fhir-adapter notify now --config hospital.yaml")(now)
    app.add_typer(group, name="notify")


def try_targets(config: ConfigOption, target: TargetOption = "") -> int:
    """Send a test message to every target, and say whether it arrived."""
    settings = load_config(config)
    wanted = _wanted(settings, str(config))
    chosen = [one for one in wanted.targets if target in ("", one.name)]
    if not chosen:
        raise UsageError(f"there is no target {target!r}", where="--target", do="see notify.targets", number=80)
    title = f"[{settings.facility.code}] A test"
    failed = 0
    for one in chosen:
        about = ", ".join(one.about) or "everything"
        try:
            send(one, title, f"If you read this, {one.name} is told about: {about}.", kind="info")
        except AdapterError as exc:
            failed += 1
            out.print(Text(f"{one.name:<20} FAILED  {exc.sentence}"))
        else:
            out.print(Text(f"{one.name:<20} sent    told about: {about}"))
    if failed:
        raise TransportError(f"{failed} of {len(chosen)} messages did not arrive", do="see above", number=61)
    return 0


def show(config: ConfigOption, as_json: JsonOption = False) -> int:
    """Show what is open now and who was told; a look at ledger, disk and servers, which tells nobody."""
    with facility(config) as opened:
        _wanted(opened.config, str(config))
        moment = datetime.now(UTC)
        look = find(opened.config, opened.ledger, opened.rules, moment, _today(opened, moment))
        with opened.ledger.read() as connection:
            book = Book.read(read_state(connection, BOOK))
        book.take(look, moment)
    if as_json:
        entries = {key: entry.to_json() for key, entry in sorted(book.entries.items())}
        typer.echo(json.dumps(entries, indent=2, ensure_ascii=False))
        return 0
    for key, entry in sorted(book.entries.items(), key=lambda pair: pair[1].since):
        if key in book.open:
            told = ", ".join(sorted(entry.told)) or "nobody yet"
            out.print(Text(f"{entry.since[:10]}  {title_of(key)} (told: {told})\n            {entry.text}"))
    if not book.open:
        out.print("nothing needs a person")
    return 0


def now(config: ConfigOption) -> int:
    """Look, and tell people what is new and what is over, as after a night; for a timer beside the nightly one."""
    configure_logs()
    with facility(config) as opened:
        _wanted(opened.config, str(config))
        moment = datetime.now(UTC)
        told = tell(opened.config, opened.ledger, opened.rules, moment, _today(opened, moment))
    for message in told.arrived:
        out.print(Text(f"{message.target:<20} {message.title}"))
    if told.failed:
        raise TransportError(f"{len(told.failed)} messages did not arrive", do="use notify test", number=61)
    if not told.arrived:
        out.print("nothing new to tell")
    return 0


def _today(opened: Facility, moment: datetime) -> date:
    return moment.astimezone(zone(opened.config.facility.time_zone)).date()


def _wanted(config: Config, where: str) -> NotifyConfig:
    if config.notify is None:
        raise UsageError("nobody is to be told", where=where, do="add a notify section", number=81)
    return config.notify
