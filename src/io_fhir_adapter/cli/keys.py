"""Commands for keys: making the one that submissions are signed with, showing its public half, changing pseudonyms'."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from io_fhir_adapter.cli.console import err, out
from io_fhir_adapter.cli.facility import ConfigOption, facility
from io_fhir_adapter.config import SignatureConfig
from io_fhir_adapter.errors import UsageError
from io_fhir_adapter.ledger.audit import note
from io_fhir_adapter.ledger.lease import only_job
from io_fhir_adapter.ledger.upkeep import has_undrawn
from io_fhir_adapter.owner_only import put_owner_only
from io_fhir_adapter.review.keys import rotate_key
from io_fhir_adapter.submit.signing import read_signing_key
from io_fhir_adapter.trust.keys import new_signature_key, public_set
from io_fhir_adapter.trust.signature import ALGORITHMS, SignatureKey

__all__ = ["register"]

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The private key; its owner alone may read it.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(
        no_args_is_help=True,
        help="The key that submissions are signed with: make one, show its public half; change the pseudonym key.",
    )
    group.command("new", epilog="Example: io-fhir-adapter keys new secrets/signing-key.json")(new)
    group.command("show", epilog="Example: io-fhir-adapter keys show secrets/signing-key.json > jwks.json")(show)
    group.command("rotate", epilog="Example: io-fhir-adapter keys rotate --config hospital.yaml")(rotate)
    app.add_typer(group, name="keys")


def new(
    file: FileArgument,
    alg: Annotated[str, typer.Option(metavar="ALG", help=f"One of {', '.join(ALGORITHMS)}.")] = "ES256",
) -> int:
    """Make a private key in a new file; print the public key set to register with the accreditation body."""
    if alg not in ALGORITHMS:
        raise UsageError(f"{alg!r} is no way to sign", where="--alg", do=f"give {' or '.join(ALGORITHMS)}", number=71)
    key = new_signature_key(alg)
    try:
        put_owner_only(file, json.dumps(key.as_dict(private=True)).encode())
    except FileExistsError as exc:
        raise UsageError(
            "the file exists, and a key is never overwritten", where=str(file), do="give another name", number=72
        ) from exc
    except OSError as exc:
        raise UsageError("the key cannot be written", where=str(file), do="check the path", number=73) from exc
    _print(key)
    err.print(f"the private key is in {file}; name it under submission.signing_key.file, and register what is printed")
    return 0


def rotate(config: ConfigOption) -> int:
    """Make another pseudonym key for the draws to come; cases that are drawn already keep theirs."""
    with facility(config) as opened, only_job(opened.ledger):
        path, now = opened.config.review.key_file, datetime.now(UTC)
        with opened.ledger.begin() as connection:
            if has_undrawn(connection):
                raise UsageError(
                    "a frame was committed to with the present key, and nobody is drawn from it yet",
                    where=str(path), do="wait until the sample is drawn, or use the draw command", number=91,
                )  # fmt: skip
            former = rotate_key(path, f"{now:%Y%m%dT%H%M%SZ}")
            note(connection, at=now, agent="console", role="", action="E", entity="Key/pseudonym", detail="changed")
    out.print(f"the next draw is made with a new key in {path}")
    out.print(f"the one so far is {former}: leave it there until the submission of its last draw is accepted,")
    out.print("and then keep it where copies of keys are kept")
    return 0


def show(file: FileArgument) -> int:
    """Print the public key set of a private key: what the accreditation body registers."""
    _print(read_signing_key(SignatureConfig(file=file), "FILE"))
    return 0


def _print(key: SignatureKey) -> None:
    typer.echo(json.dumps(public_set(key), indent=2))
