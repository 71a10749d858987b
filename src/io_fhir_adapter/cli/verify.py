"""The command that checks a submission as the accreditation body would."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from io_fhir_adapter.cli.console import out
from io_fhir_adapter.errors import InputError
from io_fhir_adapter.receiver.checks import Rules, Withdrawal, check_transaction
from io_fhir_adapter.receiver.wire import RefusedError
from io_fhir_adapter.trust.verify import Finding, signature_finding, verify_submission

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(epilog="Example: io-fhir-adapter verify submission.json")(verify)


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The submission, a FHIR Bundle in a JSON file.")],
    jwks: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The facility's public keys (JWKS), to check the signature.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Check a submission from its Bundle alone: structure, counts, frame, draw, cases, nothing that names a person."""
    document = _read(bundle)
    keys = _keys(jwks) if jwks is not None else None
    findings = [_structure(document), signature_finding(document, keys), *verify_submission(document)]
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            mark = ("ok  ", "green") if finding.holds else ("FAIL", "red")
            out.print(Text.assemble(mark, f"  {finding.check:<10} {finding.words}"))
    return 0 if all(finding.holds for finding in findings) else 1


def _read(path: Path) -> dict[str, Any]:
    document = _parsed(path, "give the submission as it was sent")
    if not isinstance(document, dict) or document.get("resourceType") != "Bundle":
        raise InputError("the file is no Bundle", where=str(path), do="give the submission as it was sent", number=6)
    return document


def _keys(path: Path) -> dict[str, Any]:
    document = _parsed(path, "give the public keys that the facility registered")
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise InputError("the file is no JWKS", where=str(path), do="give what keys show prints", number=7)
    return document


def _parsed(path: Path, do: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise InputError("the file cannot be read", where=str(path), do="check the path", number=2) from exc
    except (ValueError, RecursionError) as exc:
        raise InputError("the file is no JSON", where=str(path), do=do, number=6) from exc


def _structure(bundle: dict[str, Any]) -> Finding:
    """What the reference endpoint would say to it."""
    try:
        found = check_transaction(bundle, Rules())
    except RefusedError as exc:
        first, more = exc.issues[0], len(exc.issues) - 1
        where = f"{first.expression}: " if first.expression else ""
        return Finding("structure", False, f"{where}{first.text}" + (f" (and {more} more)" if more else ""))
    if isinstance(found, Withdrawal):
        return Finding("structure", True, f"a withdrawal of {found.withdrawn}, reason: {found.reason}")
    counted = dict(found.populations).get("numerator", 0)
    return Finding("structure", True, f"valid FHIR R4, {len(found.targets)} entries, {counted} counted, strata agree")
