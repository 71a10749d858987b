"""Styles and scripts that come with the pages, under an address with their digest, so that browsers keep them."""

from __future__ import annotations

import hashlib
import mimetypes
from http import HTTPStatus
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response

from io_fhir_adapter.look.theme import CHART_CSS

__all__ = ["SHARED_ASSETS", "Assets"]

SHARED_ASSETS: Final = Path(__file__).parent / "assets"
"""What all pages need: ``style.css``."""

_DIGITS: Final = 16
_FOREVER: Final = {"Cache-Control": "public, max-age=31536000, immutable"}
_CHARTS: Final = "charts.css"


class Assets:
    """The shared files, those of the folders given, and ``charts.css``, which turns inlined charts dark.

    One digest over all of them stands in every address, so that files may name each other by relative paths.

    Args:
        folders: Where further files lie; looked at once.
    """

    def __init__(self, *folders: Path) -> None:
        self._paths = {
            path.relative_to(folder).as_posix(): path
            for folder in (SHARED_ASSETS, *folders)
            for path in folder.rglob("*")
            if path.is_file()
        }
        made = hashlib.sha256(CHART_CSS.encode())
        for name, path in sorted(self._paths.items()):
            made.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        self._digest = made.hexdigest()[:_DIGITS]

    def address(self, name: str) -> str:
        """The address of a file.

        Raises:
            KeyError: There is no such file; a fault of the page.
        """
        if name not in self._paths and name != _CHARTS:
            raise KeyError(name)
        return f"/assets/{self._digest}/{name}"

    def answer(self, digest: str, name: str) -> Response:
        """The file, where the digest is the one of today's files.

        Raises:
            HTTPException: There is no such file (any more).
        """
        if digest == self._digest and name == _CHARTS:
            return Response(CHART_CSS, media_type="text/css", headers=_FOREVER)
        if digest != self._digest or name not in self._paths:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return FileResponse(self._paths[name], media_type=media_type, headers=_FOREVER)
