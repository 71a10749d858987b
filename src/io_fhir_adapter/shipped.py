"""Where the data that ships with the package lies: mappings/ and config/.

In an installed wheel both are inside the package; in a source checkout they stand beside ``src/``.
"""

from __future__ import annotations

from pathlib import Path

from io_fhir_adapter.errors import MappingError

__all__ = ["shipped_path"]

_PACKAGE = Path(__file__).resolve().parent
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
