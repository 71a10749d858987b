"""A family of pages: its templates with the words of the request's language, its assets, and the form token.

In a template: ``t(key, **values)`` is a text, ``csrf`` the form token (``{{ csrf_field }}`` the whole field),
``asset(name)`` the address of an asset, ``path``, ``here`` (the address for coming back), ``language``, ``nonce``,
``status``; ``value | decimal(language)`` a number. Pages extend ``shell.html``.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from io_fhir_adapter.look.language import (
    LANGUAGE_COOKIE,
    LANGUAGE_COOKIE_S,
    LANGUAGES,
    Words,
    decimal_in,
    language_of,
)
from io_fhir_adapter.look.static_files import Assets
from io_fhir_adapter.look.walls import Cookies, RefusedError, content_policy, csrf_token, local_path

__all__ = ["Shell", "came_from"]

_TEMPLATES: Final = Path(__file__).parent / "templates"


class Shell:
    """What one family of pages is rendered with.

    Args:
        folder: Holds ``templates`` and ``words``, and ``assets`` where the family has its own.
        cookies: The names of its cookies.

    Attributes:
        assets: What its pages may load.
        environment: Its templates, for filters and globals of its own.
        words: Its texts.
    """

    def __init__(self, folder: Path, cookies: Cookies) -> None:
        self._cookies = cookies
        self.assets = Assets(folder / "assets")
        self.words = Words(folder / "words")
        self.environment = Environment(
            loader=FileSystemLoader([folder / "templates", _TEMPLATES]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.environment.globals["asset"] = self.assets.address
        self.environment.filters["decimal"] = decimal_in

    def render(
        self,
        request: Request,
        template: str,
        status: int = 200,
        *,
        csp: Mapping[str, str] | None = None,
        **values: Any,
    ) -> HTMLResponse:
        """A page.

        Args:
            request: What is answered.
            template: Its file under ``templates``.
            status: The HTTP status.
            csp: Directives of the Content-Security-Policy in place of the strict ones, such as
                ``{"style-src": "'self' 'unsafe-inline'"}``.
            values: What the template shows.
        """
        nonce = secrets.token_urlsafe(16)
        language = language_of(request)
        known = self._cookies.secret(request.cookies)
        secret = known or secrets.token_urlsafe(32)
        token = csrf_token(secret)
        text = self.environment.get_template(template).render(
            {
                "t": self.words.translator(language),
                "language": language,
                "path": request.url.path,
                "here": quote(came_from(request), safe="/"),
                "csrf": token,
                "csrf_field": Markup('<input type="hidden" name="csrf" value="{}">').format(token),
                "nonce": nonce,
                "status": int(status),
                **values,
            }
        )
        response = HTMLResponse(text, status, {"Content-Security-Policy": content_policy(csp, nonce)})
        if not known:
            self._cookies.put(response, self._cookies.form, secret)
        return response

    def switch_language(self, code: str, onward: str) -> Response:
        """Has the browser keep a language, and leads to a path of these pages.

        Raises:
            RefusedError: There are no words in it.
        """
        if code not in LANGUAGES:
            raise RefusedError(HTTPStatus.NOT_FOUND)
        response = RedirectResponse(local_path(onward), HTTPStatus.SEE_OTHER)
        self._cookies.put(response, LANGUAGE_COOKIE, code, seconds=LANGUAGE_COOKIE_S)
        return response


def came_from(request: Request) -> str:
    """The address of a request below its host, for coming back to it."""
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")
