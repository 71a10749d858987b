"""Commands for those who run the service: local accounts, and the audit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer
from sqlalchemy import Connection

from io_fhir_adapter.cli.console import out
from io_fhir_adapter.config import ROLES, Role, load_config
from io_fhir_adapter.errors import UsageError
from io_fhir_adapter.ledger.accounts import (
    Account,
    Actor,
    account_of,
    add_account,
    all_accounts,
    disable_account,
    enable_account,
    set_password,
    set_roles,
)
from io_fhir_adapter.ledger.audit import entries, verify_audit
from io_fhir_adapter.ledger.audit_events import audit_event
from io_fhir_adapter.ledger.database import open_ledger
from io_fhir_adapter.ledger.sign_ins import roles_text
from io_fhir_adapter.look.passwords import Passwords, check_password

__all__ = ["PasswordOption", "asked_password", "register"]

_CONSOLE: Final = Actor("console", "")

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The facility's configuration file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The name that is typed at signing in.")]
RolesOption = Annotated[
    list[str] | None, typer.Option("--role", metavar="ROLE", help=f"One of {', '.join(ROLES)}; may be given again.")
]
PasswordOption = Annotated[
    Path | None,
    typer.Option("--password-file", metavar="FILE", help="Read the password from this file, not from the terminal."),
]
OneTimeOption = Annotated[bool, typer.Option("--one-time", help="The password has to be changed at the next sign-in.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(
        no_args_is_help=True, help="Local accounts of the service: who may sign in, and what they may do."
    )
    group.command(epilog="Example: io-fhir-adapter accounts add weber --role reviewer -c hospital.yaml")(add)
    group.command("list", epilog="Example: io-fhir-adapter accounts list --config hospital.yaml")(show)
    group.command(epilog="Example: io-fhir-adapter accounts roles weber --role viewer -c hospital.yaml")(roles)
    group.command(epilog="Example: io-fhir-adapter accounts disable weber --config hospital.yaml")(disable)
    group.command(epilog="Example: io-fhir-adapter accounts enable weber --config hospital.yaml")(enable)
    group.command(epilog="Example: io-fhir-adapter accounts password weber --config hospital.yaml")(password)
    app.add_typer(group, name="accounts")
    app.command(epilog="Example: io-fhir-adapter audit --verify --config hospital.yaml")(audit)


@contextmanager
def _ledger(config: Path, *, write: bool) -> Iterator[Connection]:
    ledger = open_ledger(load_config(config).ledger)
    try:
        with ledger.begin() if write else ledger.read() as connection:
            yield connection
    finally:
        ledger.close()


def add(
    name: NameArgument,
    config: ConfigOption,
    role: RolesOption = None,
    display: Annotated[str, typer.Option("--display", help="The name of the person.")] = "",
    password_file: PasswordOption = None,
    one_time: OneTimeOption = False,
) -> int:
    """Make an account; the password is asked for."""
    given = _roles(role)
    hashed = hashed_password(name, password_file)
    with _ledger(config, write=True) as connection:
        account = add_account(
            connection, name, display, hashed, given, one_time=one_time, by=_CONSOLE, at=datetime.now(UTC)
        )
    _say("added", account)
    return 0


def show(config: ConfigOption, as_json: JsonOption = False) -> int:
    """List the accounts."""
    with _ledger(config, write=False) as connection:
        found = all_accounts(connection)
    now = datetime.now(UTC)
    if as_json:
        typer.echo(json.dumps([account.to_json(now) for account in found], indent=2, ensure_ascii=False))
        return 0
    for account in found:
        state = "disabled" if account.disabled else "locked" if account.locked(now) else "active"
        out.print(f"{account.name:<24} {state:<9} {roles_text(account.roles) or '-':<44} {account.display}")
    if not found:
        out.print("no account yet; make one with accounts add")
    return 0


def roles(name: NameArgument, config: ConfigOption, role: RolesOption = None) -> int:
    """Give an account these roles and no others; its sessions end."""
    given = _roles(role)
    with _ledger(config, write=True) as connection:
        _say("changed", set_roles(connection, name, given, by=_CONSOLE, at=datetime.now(UTC)))
    return 0


def disable(name: NameArgument, config: ConfigOption) -> int:
    """Take signing in from an account; its sessions end."""
    with _ledger(config, write=True) as connection:
        _say("disabled", disable_account(connection, name, by=_CONSOLE, at=datetime.now(UTC)))
    return 0


def enable(name: NameArgument, config: ConfigOption) -> int:
    """Give signing in back to an account; ends a lock-out too."""
    with _ledger(config, write=True) as connection:
        _say("enabled", enable_account(connection, name, by=_CONSOLE, at=datetime.now(UTC)))
    return 0


def password(
    name: NameArgument, config: ConfigOption, password_file: PasswordOption = None, one_time: OneTimeOption = False
) -> int:
    """Give an account another password, which is asked for; its sessions end."""
    with _ledger(config, write=False) as connection:
        known = account_of(connection, name)
    hashed = hashed_password(name, password_file) if known is not None else ""
    with _ledger(config, write=True) as connection:
        account = set_password(connection, name, hashed, one_time=one_time, by=_CONSOLE, at=datetime.now(UTC))
    _say("has a new password", account)
    return 0


def audit(
    config: ConfigOption,
    as_json: JsonOption = False,
    form: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="fhir prints AuditEvents (R4), one a line.")
    ] = "",
    verify: Annotated[
        bool, typer.Option("--verify", help="Only check that nothing in it was changed, left out or put in.")
    ] = False,
) -> int:
    """Show who signed in, looked, signed and approved; --json prints one entry a line, for an archive."""
    if form not in ("", "fhir"):
        raise UsageError(f"there is no format {form!r}", where="--format", do="use --format fhir", number=37)
    facility = load_config(config).facility.code
    with _ledger(config, write=False) as connection:
        if verify:
            number, digest = verify_audit(connection)
            shown = {"entries": number, "digest": digest}
            typer.echo(json.dumps(shown) if as_json else f"{number} entries, each follows from those before; {digest}")
            return 0
        for entry in entries(connection):
            if form:
                typer.echo(json.dumps(audit_event(entry, facility), ensure_ascii=False))
            elif as_json:
                typer.echo(json.dumps(entry.to_json(), ensure_ascii=False))
            else:
                words = (entry.agent, entry.entity, entry.detail, "" if entry.outcome == "0" else "REFUSED")
                out.print(f"{entry.number:>6}  {entry.at[:19]}Z  {entry.action}  {'  '.join(filter(None, words))}")
    return 0


def _say(what: str, account: Account) -> None:
    out.print(f"{account.name} {what}; roles: {roles_text(account.roles) or 'none'}")


def _roles(given: list[str] | None) -> list[Role]:
    unknown = [word for word in given or () if word not in ROLES]
    if unknown:
        raise UsageError(
            f"there is no role {unknown[0]!r}", where="--role", do=f"give one of {', '.join(ROLES)}", number=35
        )
    return [role for role in ROLES if role in (given or ())]


def asked_password(file: Path | None, *, confirm: bool) -> str:
    """A password from a file, else from the terminal, typed twice where it is a new one.

    Raises:
        UsageError: The file cannot be read.
    """
    if file is not None:
        return _from_file(file)
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=confirm))


def hashed_password(name: str, file: Path | None) -> str:
    """The hash of a password that is asked for, or read from a file.

    Raises:
        UsageError: It is too easy to guess, or cannot be read.
    """
    text = asked_password(file, confirm=True)
    check_password(text, name.strip())
    return Passwords().hash(text)


def _from_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(
            "the password cannot be read", where=str(path), do="check the path given with --password-file", number=36
        ) from exc
