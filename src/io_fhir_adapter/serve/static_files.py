"""Styles and scripts that come with the pages, under an address with their digest, so that browsers keep them."""

from __future__ import annotations

import hashlib
import mimetypes
from http import HTTPStatus
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.responses import FileResponse

__all__ = ["Assets"]

_DIGITS: Final = 16
_FOREVER: Final = "public, max-age=31536000, immutable"


class Assets:
    """The files of one folder.

    One digest over all of them stands in every address, so that files may name each other by relative paths.

    Args:
        folder: Where they lie; looked at once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = frozenset(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        made = hashlib.sha256()
        for name in sorted(self._names):
            made.update(name.encode() + b"\0" + hashlib.sha256((folder / name).read_bytes()).digest())
        self._digest = made.hexdigest()[:_DIGITS]

    def address(self, name: str) -> str:
        """The address of a file.

        Raises:
            KeyError: There is no such file; a fault of the page.
        """
        if name not in self._names:
            raise KeyError(name)
        return f"/assets/{self._digest}/{name}"

    def answer(self, digest: str, name: str) -> FileResponse:
        """The file, where the digest is the one of today's files.

        Raises:
            HTTPException: There is no such file (any more).
        """
        if digest != self._digest or name not in self._names:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return FileResponse(self._folder / name, media_type=media_type, headers={"Cache-Control": _FOREVER})
