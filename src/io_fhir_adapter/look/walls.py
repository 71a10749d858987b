"""What protects every page: the headers, and the walls before requests that change something.

Two walls stand before a POST. Where the browser says where the request comes from (``Sec-Fetch-Site``, ``Origin``), it
must come from these pages. And it must carry the form token, which only these pages can know: it is derived from the
session's cookie, or before signing in from a cookie of its own.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import parse_qs, quote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Cookies", "RefusePage", "RefusedError", "Seal", "Walls", "content_policy", "csrf_token", "local_path"]

RefusePage = Callable[[Request, Exception], Response]
"""Makes the answer to a request that is refused, or that failed."""

FIELD: Final = "csrf"
HEADER: Final = "x-csrf-token"
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_FORM: Final = "application/x-www-form-urlencoded"
_MOST_BODY: Final = 4 << 20  # a filled form has a tenth of it
_POLICY: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
    "base-uri": "'none'",
}
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer browsers send Origin: null
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_HSTS: Final = "max-age=31536000"
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f\\]")


class RefusedError(Exception):
    """A request that is not answered with what it asks for, but with a page that says why.

    Attributes:
        status: The HTTP status: 400, 403, 404, 409, 413, 429 or 500.
        reason: The part of ``words`` that says why, below ``error``; empty for the status's own.
    """

    def __init__(self, status: int, reason: str = "") -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason


class Cookies:
    """The names and flags of the cookies.

    Args:
        secure: Whether people reach the service over https. Over plain HTTP, which is for this machine alone,
            browsers refuse the ``__Host-`` prefix, and ``Secure`` would keep the cookie from coming back.
    """

    def __init__(self, secure: bool) -> None:
        self.secure = secure
        prefix = "__Host-" if secure else ""
        self.session = f"{prefix}io-session"
        self.form = f"{prefix}io-form"
        self.provider = f"{prefix}io-provider"

    def put(self, response: Response, name: str, value: str, *, seconds: int | None = None) -> None:
        """Sets a cookie that no script can read and no other site sends along; without ``seconds`` for this visit."""
        response.set_cookie(name, value, max_age=seconds, path="/", secure=self.secure, httponly=True, samesite="lax")

    def drop(self, response: Response, name: str) -> None:
        """Has the browser forget a cookie."""
        response.delete_cookie(name, path="/", secure=self.secure, httponly=True, samesite="lax")

    def secret(self, cookies: Mapping[str, str]) -> str:
        """What the form token hangs on: the session's cookie, else that of the forms before signing in."""
        return cookies.get(self.session) or cookies.get(self.form) or ""


def csrf_token(secret: str) -> str:
    """The form token that belongs to a cookie: whoever cannot read the cookie cannot make it."""
    return hmac.new(secret.encode(), b"form token", hashlib.sha256).hexdigest()


def content_policy(changes: Mapping[str, str] | None = None, nonce: str = "") -> str:
    """The Content-Security-Policy: strict, but for the directives given in ``changes``.

    ``{nonce}`` in a directive is replaced by the page's nonce.
    """
    policy = {**_POLICY, **(changes or {})}
    return "; ".join(f"{name} {value.replace('{nonce}', nonce)}" for name, value in policy.items())


def local_path(text: str) -> str:
    """A path of these pages to go on to; ``/`` where the text leads anywhere else."""
    if not text.startswith("/") or text.startswith("//") or _CONTROL.search(text):
        return "/"
    parts = urlsplit(text)
    if parts.scheme or parts.netloc:
        return "/"
    return quote(text, safe="/?&=%#:@!$'()*+,;~-._")


class Seal:
    """Signs what a cookie keeps for a while, with a key that lives as long as the process."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def close(self, text: str) -> str:
        """The text with its signature, for a cookie."""
        body = base64.urlsafe_b64encode(text.encode()).decode("ascii")
        return f"{body}.{self._sign(body)}"

    def open(self, sealed: str) -> str | None:
        """The text; None where it was not closed here."""
        body, _, signature = sealed.rpartition(".")
        if not hmac.compare_digest(self._sign(body).encode(), signature.encode()):
            return None
        return base64.urlsafe_b64decode(body).decode()

    def _sign(self, body: str) -> str:
        return hmac.new(self._key, body.encode(), hashlib.sha256).hexdigest()


class Walls:
    """ASGI middleware: security headers on every answer, and the two walls before requests that change something.

    Args:
        app: The application inside.
        cookies: The names of the cookies.
        origin: The configured origin; empty for the one that the request was made to.
        refuse: Makes the answer to a request that is refused.
    """

    def __init__(self, app: ASGIApp, *, cookies: Cookies, origin: str, refuse: RefusePage) -> None:
        self._app = app
        self._cookies = cookies
        self._origin = origin
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def protected(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self._protect(MutableHeaders(scope=message))
            await send(message)

        try:
            inner = receive if scope["method"] in _SAFE else await self._checked(scope, receive)
            await self._app(scope, inner, protected)
        except Exception as exc:
            if started:
                raise
            page = await run_in_threadpool(self._refuse, Request(scope), exc)
            await page(scope, receive, protected)

    def _protect(self, headers: MutableHeaders) -> None:
        for name, value in _HEADERS.items():
            headers[name] = value
        headers.setdefault("Content-Security-Policy", content_policy())
        headers.setdefault("Cache-Control", "no-store")
        if self._origin.startswith("https:"):
            headers["Strict-Transport-Security"] = _HSTS

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        """The request's body once more, after it was found to come from these pages.

        Raises:
            RefusedError: It does not.
        """
        request = Request(scope)
        self._check_origin(request)
        body = await _body(receive, request.headers)
        given = request.headers.get(HEADER, "")
        if not given and request.headers.get("content-type", "").partition(";")[0].strip().lower() == _FORM:
            fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=5_000)
            given = fields.get(FIELD, [""])[0]
        secret = self._cookies.secret(request.cookies)
        if not secret or not hmac.compare_digest(csrf_token(secret).encode(), given.encode()):
            raise RefusedError(403, "form")
        return _again(body, receive)

    def _check_origin(self, request: Request) -> None:
        if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
            raise RefusedError(403, "origin")
        origin = request.headers.get("origin")
        own = self._origin or f"{request.url.scheme}://{request.headers.get('host', '')}"
        if origin is not None and origin != own:
            raise RefusedError(403, "origin")


async def _body(receive: Receive, headers: Headers) -> bytes:
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > _MOST_BODY:
        raise RefusedError(413)
    data = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise RefusedError(400)
        data += message.get("body", b"")
        if len(data) > _MOST_BODY:
            raise RefusedError(413)
        if not message.get("more_body", False):
            return bytes(data)


def _again(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the body that was read already, and then what comes after."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
