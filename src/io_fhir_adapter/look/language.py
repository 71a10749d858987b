"""Texts of pages by key, in German and in English, and the language that a request wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request

from io_fhir_adapter.strict_yaml import load_yaml

__all__ = ["LANGUAGES", "LANGUAGE_COOKIE", "LANGUAGE_COOKIE_S", "Words", "decimal_in", "language_of"]

LANGUAGES: Final = ("en", "de")
"""The languages there are words in; the first is for whoever asks for none of them."""

LANGUAGE_COOKIE: Final = "io-language"
LANGUAGE_COOKIE_S: Final = 365 * 24 * 3600
"""How long a browser keeps the choice of a language, in seconds."""

_SHARED: Final = Path(__file__).parent / "words"


class Words:
    """The texts of one family of pages: what all pages say, and its own.

    Args:
        folder: Where its ``en.yaml`` and ``de.yaml`` lie; each is read when it is first asked for.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def texts(self, language: str) -> Mapping[str, str]:
        """All texts of a language by dotted key, such as ``sign_in.title``."""
        return _texts(self._folder, language)

    def translator(self, language: str) -> Callable[..., str]:
        """``t(key, **values)``: the text in this language, with ``{name}`` in it replaced.

        Raises:
            KeyError: There is no such text; a fault of the page.
        """
        words = self.texts(language)

        def t(key: str, **values: object) -> str:
            text = words[key]
            return text.format(**values) if values else text

        return t


@cache
def _texts(folder: Path, language: str) -> Mapping[str, str]:
    documents = [load_yaml((one / f"{language}.yaml").read_text(encoding="utf-8")) for one in (_SHARED, folder)]
    return dict(text for document in documents for text in _flat(document, ""))


def _flat(part: Mapping[str, Any], prefix: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in part.items():
        key = f"{prefix}{name}"
        found += _flat(value, f"{key}.") if isinstance(value, dict) else [(key, str(value))]
    return found


def decimal_in(value: float, language: str) -> str:
    """A number with one decimal as it is read in a language."""
    shown = f"{value:.1f}"
    return shown.replace(".", ",") if language == "de" else shown


def language_of(request: Request) -> str:
    """The language of the cookie; else the first of Accept-Language that there are words in."""
    chosen = request.cookies.get(LANGUAGE_COOKIE, "")
    if chosen in LANGUAGES:
        return chosen
    for part in request.headers.get("accept-language", "").lower().split(","):
        wanted = part.split(";")[0].strip().split("-")[0]
        if wanted in LANGUAGES:
            return wanted
    return LANGUAGES[0]
