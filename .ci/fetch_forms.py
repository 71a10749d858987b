"""Fetches LHC-Forms, which shows Questionnaires in the browser, into the folder that the service gives it out from.

    python .ci/fetch_forms.py

Nothing of it is committed: `make assets` runs this, and a wheel that is built afterwards holds the files. npm gets the
package by name and version from wherever npm is configured to; each file must then have the SHA-256 digest of the
committed list (`src/io_fhir_adapter/serve/assets/lforms.sha256`), which also says which files are wanted. A new
version is a change of `VERSION` and of that list: `--write` writes it anew.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from io_fhir_adapter.shipped import WEB_ASSETS, lacking_forms

__all__ = ["VERSION", "FetchError", "fetch", "main", "wanted"]

VERSION = "40.1.3"
_LIST = WEB_ASSETS / "lforms.sha256"
_FOLDER = WEB_ASSETS / "lforms"
_INSIDE = "package/dist/lforms/"
_TIMEOUT_S = 300


class FetchError(Exception):
    """Why the files are not there, in one sentence that says what to do."""


def wanted(listed: Path = _LIST) -> dict[str, str]:
    """Path below dist/lforms of the package, to its digest."""
    rows = (line.split(maxsplit=1) for line in listed.read_text(encoding="ascii").splitlines())
    return {name: digest for digest, name in rows}


def fetch(folder: Path = _FOLDER, listed: Path = _LIST, *, npm: str | None = None) -> None:
    """Puts the files into a folder, all or none.

    Args:
        folder: Takes them.
        listed: The list of digests.
        npm: The program; the one on the path where omitted.

    Raises:
        FetchError: npm is missing or cannot fetch the package, or a file is not the one of the list.
    """
    npm = npm or shutil.which("npm")
    if npm is None:
        raise FetchError(
            "npm is not installed, and LHC-Forms comes with it: install Node.js with npm, then make assets"
        )
    with tempfile.TemporaryDirectory() as scratch:
        found = _unpacked(_packed(npm, Path(scratch)), wanted(listed))
    wrong = [name for name, digest in wanted(listed).items() if _digest(found[name]) != digest]
    if wrong:
        raise FetchError(
            f"lforms {VERSION} holds other files than those of {listed.name} ({', '.join(wrong)}): find out why before "
            "you use them"
        )
    for name, data in found.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _packed(npm: str, scratch: Path) -> Path:
    command = [npm, "pack", f"lforms@{VERSION}", "--silent", "--pack-destination", str(scratch)]
    try:
        subprocess.run(command, cwd=scratch, capture_output=True, timeout=_TIMEOUT_S, check=True)  # noqa: S603
    except (subprocess.SubprocessError, OSError) as exc:
        raise FetchError(
            "npm cannot fetch packages: look at its registry and proxy settings, then make assets"
        ) from exc
    return next(scratch.glob("*.tgz"))


def _unpacked(archive: Path, names: dict[str, str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with tarfile.open(archive) as package:
        inside = set(package.getnames())
        for name in names:
            member = package.extractfile(_INSIDE + name) if _INSIDE + name in inside else None
            found[name] = member.read() if member is not None else b""
    return found


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write_list() -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise FetchError("npm is not installed")
    with tempfile.TemporaryDirectory() as scratch:
        found = _unpacked(_packed(npm, Path(scratch)), wanted())
    _LIST.write_text("".join(f"{_digest(data)}  {name}\n" for name, data in found.items()), encoding="ascii")


def main(arguments: list[str]) -> int:
    """Fetches what is not there yet, and returns the exit code."""
    try:
        if arguments == ["--write"]:
            _write_list()
        if lacking_forms():
            fetch()
    except FetchError as exc:
        print(exc, file=sys.stderr)
        return 1
    print(f"LHC-Forms {VERSION} is in {_FOLDER}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
