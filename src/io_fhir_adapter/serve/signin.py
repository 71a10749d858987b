"""Signing in and out: the pages for local accounts and for coming back from a provider, and changing the password."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Form
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from io_fhir_adapter.errors import UsageError
from io_fhir_adapter.ledger.accounts import Account, Actor, set_password
from io_fhir_adapter.ledger.audit import note
from io_fhir_adapter.ledger.sign_ins import (
    begin_sign_in,
    clear_sign_ins,
    end_sign_in,
    find_sign_in,
    roles_text,
)
from io_fhir_adapter.logs import log
from io_fhir_adapter.look.passwords import SHORTEST, BusyError, Passwords, check_password
from io_fhir_adapter.look.walls import RefusedError, Seal, local_path
from io_fhir_adapter.serve.local_accounts import UNKNOWN, right_account
from io_fhir_adapter.serve.oidc import CALLBACK, JOURNEY, DistrustError, Identity, Journey, Provider
from io_fhir_adapter.serve.people import Person

if TYPE_CHECKING:
    from io_fhir_adapter.serve.web import Web

__all__ = ["sign_in_router"]


def sign_in_router(web: Web, passwords: Passwords) -> APIRouter:
    """The pages.

    Args:
        web: The shell.
        passwords: What hashes.
    """
    router = APIRouter()
    settings = web.sign_in

    @router.get("/language/{code}")
    def language(code: str, next: str = "/") -> Response:  # noqa: A002 - as it stands in the address
        return web.shell.switch_language(code, next)

    @router.get("/sign-in")
    def sign_in_page(request: Request, next: str = "/") -> Response:  # noqa: A002
        if web.who(request) is not None:
            return RedirectResponse(local_path(next), HTTPStatus.SEE_OTHER)
        return _sign_in_page(web, request, local_path(next))

    if settings.accounts:
        _add_local(router, web, passwords)
    if settings.oidc is not None:
        _add_provider(router, web, Provider(settings.oidc, settings.origin, web.now))

    @router.post("/sign-out")
    def sign_out(request: Request) -> Response:
        secret = request.cookies.get(web.cookies.session, "")
        with web.ledger.begin() as connection:
            person = find_sign_in(connection, secret, web.now(), web.limits)
            account = end_sign_in(connection, secret)
            if account:
                role = roles_text(person.roles) if person is not None else ""
                note(
                    connection, at=web.now(), agent=account, role=role, action="E", entity=f"Account/{account}",
                    detail="sign-out",
                )  # fmt: skip
        response = RedirectResponse("/sign-in", HTTPStatus.SEE_OTHER)
        web.cookies.drop(response, web.cookies.session)
        return response

    return router


def _sign_in_page(web: Web, request: Request, path: str, status: int = 200, problem: str = "") -> Response:
    settings = web.sign_in
    return web.render(
        request, "sign_in.html", None, status, next=path, problem=problem, accounts=settings.accounts,
        provider=settings.oidc is not None,
    )  # fmt: skip


def _signed_in(web: Web, request: Request, person: Person, path: str, *, detail: str) -> Response:
    """Begins a session under a new secret, whatever the browser had before."""
    now = web.now()
    with web.ledger.begin() as connection:
        clear_sign_ins(connection, now, web.limits)
        end_sign_in(connection, request.cookies.get(web.cookies.session, ""))
        secret = begin_sign_in(
            connection, account=person.account, display=person.name, roles=person.roles, at=now,
            one_time=person.one_time,
        )  # fmt: skip
        note(
            connection, at=now, agent=person.account, role=person.role_text, action="E",
            entity=f"Account/{person.account}", detail=detail,
        )  # fmt: skip
    response = RedirectResponse("/password" if person.one_time else path, HTTPStatus.SEE_OTHER)
    web.cookies.put(response, web.cookies.session, secret)
    web.cookies.drop(response, web.cookies.form)
    return response


def _add_local(router: APIRouter, web: Web, passwords: Passwords) -> None:
    @router.post("/sign-in")
    def sign_in(
        request: Request,
        name: Annotated[str, Form(max_length=200)] = "",
        password: Annotated[str, Form(max_length=1000)] = "",
        next: Annotated[str, Form(max_length=2000)] = "/",  # noqa: A002
    ) -> Response:
        path = local_path(next)
        account = _right_account(web, passwords, name, password)
        if account is None:
            return _sign_in_page(web, request, path, HTTPStatus.UNAUTHORIZED, "wrong")
        person = Person(account.name, account.display, account.roles, account.one_time)
        return _signed_in(web, request, person, path, detail="sign-in")

    @router.get("/password")
    def password_page(request: Request) -> Response:
        return web.render(request, "password.html", _own(web, request), problem="", shortest=SHORTEST)

    @router.post("/password")
    def change_password(
        request: Request,
        old: Annotated[str, Form(max_length=1000)] = "",
        new: Annotated[str, Form(max_length=1000)] = "",
        again: Annotated[str, Form(max_length=1000)] = "",
    ) -> Response:
        person = _own(web, request)

        def refused(problem: str) -> Response:
            status = HTTPStatus.UNPROCESSABLE_ENTITY
            return web.render(request, "password.html", person, status, problem=problem, shortest=SHORTEST)

        if new != again:
            return refused("differ")
        try:
            check_password(new, person.account)
        except UsageError:
            return refused("weak")
        if _right_account(web, passwords, person.account, old) is None:
            return refused("old")
        if new == old:
            return refused("same")
        hashed = _hashed(passwords, new)
        by = Actor(person.account, person.role_text)
        with web.ledger.begin() as connection:
            account = set_password(connection, person.account, hashed, one_time=False, by=by, at=web.now())
        person = Person(account.name, account.display, account.roles)
        return _signed_in(web, request, person, "/", detail="sign-in after a new password")


def _own(web: Web, request: Request) -> Person:
    """Who is signed in with a local account, also with a one-time password."""
    person = web.someone(request)
    if person.account.startswith("oidc:"):
        raise RefusedError(HTTPStatus.NOT_FOUND)
    return person


def _hashed(passwords: Passwords, password: str) -> str:
    try:
        return passwords.hash(password)
    except BusyError as exc:
        raise RefusedError(HTTPStatus.TOO_MANY_REQUESTS) from exc


def _right_account(web: Web, passwords: Passwords, name: str, password: str) -> Account | None:
    """The account where name and password are right and it may sign in; the same work is done where it is not."""
    try:
        return right_account(web.ledger, passwords, name, password, web.now)
    except BusyError as exc:
        raise RefusedError(HTTPStatus.TOO_MANY_REQUESTS) from exc


def _add_provider(router: APIRouter, web: Web, provider: Provider) -> None:
    seal = Seal()

    @router.get("/sign-in/oidc")
    async def depart(next: str = "/") -> Response:  # noqa: A002
        journey = Journey.new(local_path(next), web.now())
        response = RedirectResponse(await provider.departure(journey), HTTPStatus.SEE_OTHER)
        sealed = seal.close(json.dumps(asdict(journey)))
        web.cookies.put(response, web.cookies.provider, sealed, seconds=int(JOURNEY.total_seconds()))
        return response

    @router.get(CALLBACK)
    async def arrive(request: Request) -> Response:
        text = seal.open(request.cookies.get(web.cookies.provider, ""))
        journey = Journey(**json.loads(text)) if text is not None else None
        try:
            identity = await provider.arrival(journey, request.query_params)
        except DistrustError as exc:
            response = await asyncio.to_thread(_turned_away, web, request, exc.reason)
        else:
            path = journey.path if journey is not None else "/"
            response = await asyncio.to_thread(_vouched_for, web, request, identity, path)
        web.cookies.drop(response, web.cookies.provider)  # a journey ends once, however
        return response


def _turned_away(web: Web, request: Request, reason: str) -> Response:
    log.warning("sign-in refused", reason=reason)
    with web.ledger.begin() as connection:
        note(
            connection, at=web.now(), agent=UNKNOWN, role="", action="E", entity="Account/oidc", outcome="4",
            detail=f"sign-in failed: {reason}",
        )  # fmt: skip
    problem = "denied" if reason == "denied" else "provider"
    return _sign_in_page(web, request, "/", HTTPStatus.UNAUTHORIZED, problem)


def _vouched_for(web: Web, request: Request, identity: Identity, path: str) -> Response:
    if not identity.roles:
        with web.ledger.begin() as connection:
            note(
                connection, at=web.now(), agent=identity.account, role="", action="E",
                entity=f"Account/{identity.account}", outcome="4", detail="sign-in refused: no roles",
            )  # fmt: skip
        raise RefusedError(HTTPStatus.FORBIDDEN, "no_roles")
    person = Person(identity.account, identity.name, identity.roles)
    return _signed_in(web, request, person, path, detail="sign-in")
