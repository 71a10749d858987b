"""Commands on the outbox: what was sealed and sent, every attempt of it in words, and sending it again."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from io_fhir_adapter.cli.console import one_line, out, show_delivered
from io_fhir_adapter.cli.facility import ConfigOption, JsonOption, facility, needs_endpoint
from io_fhir_adapter.errors import UsageError
from io_fhir_adapter.ledger.approvals import approval_of
from io_fhir_adapter.ledger.audited import note_retried
from io_fhir_adapter.ledger.outbox import OutboxItem, Receipt, find_item, items, receipts_of, retry, retry_parked
from io_fhir_adapter.ledger.verdicts import STATES, BodyVerdict, latest_verdict, verdicts_of
from io_fhir_adapter.pipeline import Nightly

__all__ = ["register"]

_IN_WORDS: Final = {
    "held": "waits for approval",
    "queued": "waits to be sent",
    "sending": "is being sent",
    "sent": "sent, waiting for its receipt",
    "accepted": "accepted",
    "rejected": "rejected",
    "parked": "parked: it was tried for long enough, a person decides",
    "returned": "returned by an approver",
    "superseded": "superseded before it left",
}

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The submission's identifier, or its first digits.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(
        no_args_is_help=True,
        help="What was sealed and sent: list it, show the attempts and receipts of one, send it again.",
    )
    group.command("list", epilog="Example: io-fhir-adapter outbox list --config hospital.yaml")(show_all)
    group.command("show", epilog="Example: io-fhir-adapter outbox show 3f9a2c --config hospital.yaml")(show)
    group.command("retry", epilog="Example: io-fhir-adapter outbox retry 3f9a2c --config hospital.yaml")(send_again)
    app.add_typer(group, name="outbox")


def show_all(config: ConfigOption, as_json: JsonOption = False) -> int:
    """List every submission, the newest first."""
    with facility(config) as opened, opened.ledger.read() as connection:
        found = [(item, latest_verdict(connection, item.identifier)) for item in items(connection)]
    if as_json:
        typer.echo(json.dumps([_item_json(item, said) for item, said in found], indent=2))
        return 0
    if not found:
        out.print("the outbox is empty; the night puts submissions there, or the submit command")
    for item, said in found:
        words = _state_words(item) + (f"; {STATES[said.state]}" if said is not None else "")
        out.print(Text(f"{item.identifier[:19]}…  {item.period}  sealed {item.created[:16]}Z  {words}"))
    return 0


def show(identifier: IdArgument, config: ConfigOption, as_json: JsonOption = False) -> int:
    """Show one submission: where it stands, every attempt and what was answered, what the body says of it."""
    with facility(config) as opened, opened.ledger.read() as connection:
        item = find_item(connection, identifier)
        answers, said = receipts_of(connection, item.identifier), verdicts_of(connection, item.identifier)
        approval = approval_of(connection, item.identifier)
    if as_json:
        told = {
            **_item_json(item, said[-1] if said else None),
            "receipts": [_receipt_json(answer) for answer in answers],
            "verdicts": [_verdict_json(one) for one in said],
        }
        typer.echo(json.dumps(told, indent=2))
        return 0
    out.print(Text(item.identifier, style="bold"))
    out.print(Text(f"year {item.period}, sealed {item.created[:16]}Z, {len(item.body):,} bytes"))
    out.print(Text(f"state      {_state_words(item)}"))
    if item.state == "queued":
        out.print(Text(f"           next attempt {item.next_attempt[:16]}Z"))
    if approval is not None:
        out.print(Text(f"approval   {approval.verdict} {approval.at[:16]}Z in the role {approval.role}"))
    for answer in answers:
        how = f"HTTP {answer.status}, {len(answer.body):,} bytes kept" if answer.status else "no HTTP answer"
        out.print(Text(f"{answer.received[:16]}Z  {answer.verdict}: {answer.sentence} ({how})"))
    cut_off = item.attempts - len(answers)
    if cut_off > 0:
        out.print(Text(f"{cut_off} more attempt(s) were cut off before anything was answered", style="dim"))
    for one in said:
        note = f": {one_line(one.note)}" if one.note else ""
        out.print(Text(f"{one.at[:16]}  the body: {one.state}, {STATES[one.state]}{note}"))
    return 0


def send_again(
    config: ConfigOption,
    identifier: Annotated[
        str, typer.Argument(metavar="[ID]", help="The submission's identifier, or its first digits.")
    ] = "",
    all_parked: Annotated[bool, typer.Option("--all", help="All that are parked.")] = False,
) -> int:
    """Send a submission again that was parked or rejected, now; what was approved stays approved."""
    if bool(identifier) == all_parked:
        raise UsageError("name one submission, or all that are parked", do="give an ID or --all", number=60)
    with facility(config) as opened:
        needs_endpoint(opened.config, config)
        job = Nightly(opened.config, opened.ledger, opened.rules)
        with job.alone():
            now = datetime.now(UTC)
            with opened.ledger.begin() as connection:
                if all_parked:
                    again = retry_parked(connection, now)
                    out.print(f"{len(again)} parked submission(s) queued again")
                else:
                    again = [find_item(connection, identifier).identifier]
                    retry(connection, again[0], now)
                for one in again:
                    note_retried(connection, one, now)
            outcomes = asyncio.run(job.deliver())
    show_delivered(outcomes)
    return 0 if all(outcome.state in {"accepted", "sent"} for outcome in outcomes) else 1


def _state_words(item: OutboxItem) -> str:
    words = _IN_WORDS[item.state]
    tried = f" (attempt {item.attempts})" if item.attempts > 1 else ""
    return f"{words}{tried}" + (f": {item.cause}" if item.cause and item.state not in {"held", "returned"} else "")


def _item_json(item: OutboxItem, said: BodyVerdict | None) -> dict[str, Any]:
    return {
        "identifier": item.identifier, "period": item.period, "created": item.created, "state": item.state,
        "attempts": item.attempts, "next-attempt": item.next_attempt if item.state == "queued" else None,
        "cause": item.cause, "verdict": said.state if said is not None else None,
    }  # fmt: skip


def _receipt_json(answer: Receipt) -> dict[str, Any]:
    return {
        "received": answer.received, "status": answer.status or None, "verdict": answer.verdict,
        "sentence": answer.sentence, "body": answer.body.decode(errors="replace"),
    }  # fmt: skip


def _verdict_json(one: BodyVerdict) -> dict[str, Any]:
    return {"state": one.state, "note": one.note, "at": one.at, "seen": one.seen}
