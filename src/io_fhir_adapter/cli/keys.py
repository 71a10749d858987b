"""Commands for the key that submissions are signed with: making one, and showing its public half."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from io_fhir_adapter.cli.console import err
from io_fhir_adapter.config import SignatureConfig
from io_fhir_adapter.errors import UsageError
from io_fhir_adapter.owner_only import put_owner_only
from io_fhir_adapter.submit.signing import read_signing_key
from io_fhir_adapter.trust.keys import new_signature_key, public_set
from io_fhir_adapter.trust.signature import ALGORITHMS, SignatureKey

__all__ = ["register"]

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The private key; its owner alone may read it.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(
        no_args_is_help=True, help="The key that submissions are signed with: make one, show its public half."
    )
    group.command("new", epilog="Example: io-fhir-adapter keys new secrets/signing-key.json")(new)
    group.command("show", epilog="Example: io-fhir-adapter keys show secrets/signing-key.json > jwks.json")(show)
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


def show(file: FileArgument) -> int:
    """Print the public key set of a private key: what the accreditation body registers."""
    _print(read_signing_key(SignatureConfig(file=file), "FILE"))
    return 0


def _print(key: SignatureKey) -> None:
    typer.echo(json.dumps(public_set(key), indent=2))
