"""The command that takes back a submission which was accepted."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from io_fhir_adapter.cli.accounts import PasswordOption, asked_password
from io_fhir_adapter.cli.console import out
from io_fhir_adapter.cli.facility import ConfigOption
from io_fhir_adapter.config import load_config
from io_fhir_adapter.errors import UsageError
from io_fhir_adapter.handover.withdrawing import Approver
from io_fhir_adapter.handover.withdrawing import withdraw as take_back
from io_fhir_adapter.ledger.database import Ledger, open_ledger
from io_fhir_adapter.ledger.outbox import find_item
from io_fhir_adapter.look.passwords import Passwords
from io_fhir_adapter.serve.local_accounts import right_account
from io_fhir_adapter.submit.withdrawal import WITHDRAWING, withdrawn_as

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    example = "io-fhir-adapter withdraw 1f0c9a7e --reason counted-wrongly --config hospital.yaml"
    app.command(epilog=f"Example: {example}")(withdraw)


def withdraw(
    identifier: Annotated[str, typer.Argument(metavar="IDENTIFIER", help="The submission, or how its digest begins.")],
    config: ConfigOption,
    reason: Annotated[str, typer.Option(metavar="CODE", help=f"One of {', '.join(WITHDRAWING)}.")],
    by: Annotated[
        str, typer.Option(metavar="ACCOUNT", help="Where people sign in: a local account with the role approver.")
    ] = "",
    password_file: PasswordOption = None,
) -> int:
    """Take back a submission that was accepted: tell the accreditation system, once. Nothing is deleted."""
    settings = load_config(config)
    ledger = open_ledger(settings.ledger)
    try:
        approver = _approver(ledger, by, password_file) if by else None
        with ledger.read() as connection:
            named = find_item(connection, identifier).identifier
        made = asyncio.run(take_back(settings, ledger, named, reason, approver=approver))
    finally:
        ledger.close()
    out.print(f"withdraws    {named}")
    out.print(f"because      {WITHDRAWING[withdrawn_as(made.item.body)]}")
    out.print(f"withdrawal   {made.item.identifier}{'' if made.fresh else ' (made before)'}")
    out.print(f"state        {made.item.state}{f': {made.item.cause}' if made.item.cause else ''}")
    return 0 if made.item.state in {"accepted", "sent"} else 1


def _approver(ledger: Ledger, name: str, password_file: Path | None) -> Approver:
    password = asked_password(password_file, confirm=False)
    account = right_account(ledger, Passwords(), name, password, lambda: datetime.now(UTC))
    if account is None or account.one_time:
        raise UsageError(
            "the account or its password is not right, or may not sign in now",
            where="--by",
            do="see the accounts list command; a one-time password has to be changed first",
            number=74,
        )
    return Approver(account.name, account.display, account.roles)
