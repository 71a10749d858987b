"""Where the data that ships with the package lies: mappings/, config/ and the files of LHC-Forms.

In an installed wheel all are inside the package; in a source checkout the first two stand beside ``src/``, and
LHC-Forms is fetched by ``make assets``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from io_fhir_adapter.errors import MappingError

__all__ = ["FORMS_LACKING", "WEB_ASSETS", "lacking_forms", "shipped_path"]

FORMS_LACKING: Final = "LHC-Forms, which shows the case-review form, is not in this installation"

_PACKAGE = Path(__file__).resolve().parent
WEB_ASSETS: Final = _PACKAGE / "serve" / "assets"
"""What the service gives out to browsers."""

_PLACES = (_PACKAGE / "_data", _PACKAGE.parent.parent)


def shipped_path(*parts: str) -> Path:
    """The path of a shipped file or folder, such as ``shipped_path("mappings", "codes")``.

    Raises:
        MappingError: The installation lacks it.
    """
    for place in _PLACES:
        path = place.joinpath(*parts)
        if path.exists():
            return path
    raise MappingError(
        "a file that ships with the package is missing",
        where="/".join(parts),
        do="install the package again",
    )


def lacking_forms(assets: Path = WEB_ASSETS) -> tuple[str, ...]:
    """The files of LHC-Forms that are missing or are not those of the list beside them (``lforms.sha256``)."""
    rows = [line.split(maxsplit=1) for line in (assets / "lforms.sha256").read_text(encoding="ascii").splitlines()]
    return tuple(name for digest, name in rows if _digest(assets / "lforms" / name) != digest)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
