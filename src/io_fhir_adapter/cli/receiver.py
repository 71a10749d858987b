"""The command that runs the reference accreditation endpoint."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer

from io_fhir_adapter.classify.programme import load_programme, shipped_programmes
from io_fhir_adapter.cli.accounts import hashed_password
from io_fhir_adapter.cli.console import out
from io_fhir_adapter.errors import AdapterError, UsageError
from io_fhir_adapter.loopback import LoopbackServer, until_stopped
from io_fhir_adapter.receiver.app import Programme, create_app
from io_fhir_adapter.receiver.opening import open_store
from io_fhir_adapter.receiver.registry import load_registry

__all__ = ["register"]

_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_EXAMPLE: Final = "Example: io-fhir-adapter receiver --facilities facilities.yaml --require-signature"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(epilog=_EXAMPLE)(receiver)


def receiver(
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any free one.")] = 8091,
    store: Annotated[
        str, typer.Option(metavar="FILE|URL", help="The receiver's database: a file, or postgresql+psycopg://…")
    ] = "receiver.sqlite",
    facilities: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Who is registered; without it everyone may submit.")
    ] = None,
    require_signature: Annotated[
        bool, typer.Option("--require-signature", help="Refuse what is not signed, also of facilities without keys.")
    ] = False,
    texts: Annotated[
        bool, typer.Option("--texts", help="Take texts that people typed into the forms; refused unless given.")
    ] = False,
    host: Annotated[
        str, typer.Option(help="Address to listen on; another than this machine's own needs --base-url.")
    ] = "127.0.0.1",
    base_url: Annotated[
        str, typer.Option(metavar="URL", help="Where it is reached from outside, behind a reverse proxy with TLS.")
    ] = "",
    verify_store: Annotated[
        bool, typer.Option("--verify-store", help="Say whether all that was taken is there unchanged; end.")
    ] = False,
    hash_password: Annotated[
        str, typer.Option(metavar="NAME", help="Ask for the password of an operator, print the lines to register; end.")
    ] = "",
) -> int:
    """The reference accreditation endpoint: takes submissions of registered facilities, or of all on this machine."""
    if hash_password:
        hashed = hashed_password(hash_password, None)
        typer.echo(f"operators:\n  - name: {hash_password}\n    password_hash: {hashed}")
        return 0
    if verify_store:
        return _verified(store)
    _check_address(host, base_url, open_to_all=facilities is None)
    registry = load_registry(facilities) if facilities is not None else None
    programmes = {code: _programme(code) for code in shipped_programmes()}
    with closing(open_store(store)) as received:
        app = create_app(
            received,
            programmes=programmes,
            registry=registry,
            require_signature=require_signature,
            texts=texts,
            base_url=base_url,
        )
        with LoopbackServer(app, port, host) as server:
            at = base_url.rstrip("/") or server.base_url
            known = f"{len(registry.facilities)} facilities" if registry is not None else "open to every facility"
            out.print(f"receiver at {at}/fhir ({known}), pages at {at}/")
            until_stopped()
    return 0


def _verified(url: str) -> int:
    """Looks through the store; prints the digest of the chain's last link, which the body may note down."""
    with closing(open_store(url)) as received:
        problems, (number, last) = received.problems(), received.last_link()
    if problems:
        raise AdapterError(
            f"{len(problems)} things in the store are not as they were taken, the first: {problems[0]}",
            where="--store",
            do="restore a backup, and find out who changed it",
        )
    typer.echo(f"{number} links, nothing changed; the last is {last}")
    return 0


def _programme(code: str) -> Programme:
    programme = load_programme(code)
    return Programme(programme.title, programme.volume.threshold)


def _check_address(host: str, base_url: str, *, open_to_all: bool) -> None:
    """Refuses to listen where others could read what is sent, or could submit as anybody."""
    if host not in _LOOPBACK and (open_to_all or not base_url):
        raise UsageError(
            "other machines could reach a receiver that is open to everyone, or whose address it does not know",
            where="--host",
            do="give --facilities and --base-url, or listen on this machine alone",
            number=60,
        )
    parts = urlsplit(base_url)
    local = parts.hostname in _LOOPBACK
    if base_url and not (parts.netloc and (parts.scheme == "https" or (parts.scheme == "http" and local))):
        raise UsageError(
            "the address from outside is not encrypted, or no address",
            where="--base-url",
            do="give an address that begins with https://",
            number=61,
        )
