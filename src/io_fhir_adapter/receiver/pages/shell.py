"""What every page of the body is made with: the store, who looks at it, names, and the templates."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse

from io_fhir_adapter.fhir.form_words import category_title
from io_fhir_adapter.fhir.forms import items
from io_fhir_adapter.look.language import language_of
from io_fhir_adapter.look.shell import Shell
from io_fhir_adapter.look.walls import Cookies
from io_fhir_adapter.receiver.programmes import Programme
from io_fhir_adapter.receiver.store import ReceiverStore
from io_fhir_adapter.shipped import shipped_path

__all__ = ["Body", "NavItem", "SignInFirstError", "absent", "category_words"]

_FOLDER: Final = Path(__file__).parents[1]
_CATEGORY: Final = "proc.category"


@dataclass(frozen=True)
class NavItem:
    """An entry of the navigation: its text below ``nav`` in the words, and where it leads."""

    key: str
    path: str


class SignInFirstError(Exception):
    """Nobody of the body asks."""


class Body:
    """The body's pages.

    Args:
        store: What facilities submitted.
        programmes: Code to programme.
        operator: Who asks, by name; None for nobody that may look.
        names: Facility code to name, where there is one.
        public_url: Where the pages are reached from outside; empty for where they listen.

    Attributes:
        store: The store.
        programmes: Code to programme.
        cookies: The cookie that the form token hangs on.
        origin: Scheme and host that forms must come from, empty for those of the request.
        shell: Templates, words and assets.
    """

    def __init__(
        self,
        store: ReceiverStore,
        programmes: Mapping[str, Programme],
        operator: Callable[[Request], str | None],
        names: Mapping[str, str],
        public_url: str,
    ) -> None:
        self.store = store
        self.programmes = programmes
        self._operator = operator
        self._names = names
        parts = urlsplit(public_url)
        self.origin = f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""
        self.cookies = Cookies(self.origin.startswith("https:"))
        self.shell = Shell(_FOLDER, self.cookies)
        self.shell.environment.filters.update(moment=_moment, digest=_digest, number=_number)
        self.shell.environment.globals.update(
            navigation=[
                NavItem("overview", "/"),
                NavItem("submissions", "/submissions"),
                NavItem("exports", "/exports"),
            ],
            programme_title=self.title,
            facility_name=self.name,
        )

    def person(self, request: Request) -> str:
        """Who looks, by name. Hashes a password: not for the event loop.

        Raises:
            SignInFirstError: Nobody who may.
        """
        name = self._operator(request)
        if name is None:
            raise SignInFirstError
        return name

    def name(self, facility: str) -> str:
        """What a facility is called; its code where nothing else is known."""
        return self._names.get(facility) or facility

    def title(self, programme: str) -> str:
        """What a programme is called; its code where nothing else is known."""
        known = self.programmes.get(programme)
        return known.title if known is not None else programme

    def threshold(self, programme: str) -> int | None:
        """What a programme asks for in a year, None where that is not known."""
        known = self.programmes.get(programme)
        return known.threshold if known is not None else None

    def render(self, request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A page."""
        language = language_of(request)
        return self.shell.render(
            request,
            template,
            status,
            category=lambda code: category_words(code, language),
            known_words=self.shell.words.texts(language),
            **values,
        )


def category_words(code: str, language: str) -> str:
    """The title of a category, the code where there is none."""
    return category_title(code, _titles().get(code, code), language)


@cache
def _titles() -> Mapping[str, str]:
    """The titles of the categories as the published case review words them."""
    path = shipped_path("mappings", "questionnaires", "io-case-review.json")
    form = json.loads(path.read_text(encoding="utf-8"))
    options = [option for item in items(form) if item.get("linkId") == _CATEGORY for option in item["answerOption"]]
    return {option["valueCoding"]["code"]: option["valueCoding"]["display"] for option in options}


def absent() -> HTTPException:
    """There is no such page."""
    return HTTPException(HTTPStatus.NOT_FOUND)


def _moment(text: str) -> str:
    """An instant for people, in UTC to the minute; what is none as it stands."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return text


def _digest(text: str) -> str:
    """The first digits of a digest, to tell it from others."""
    return f"{text.removeprefix('sha256:')[:12]}…" if len(text) > 20 else text


def _number(value: int) -> str:
    """A whole number, its thousands apart by a narrow space as both languages allow."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
