"""The administrators' pages: local accounts, and the audit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import APIRouter, Depends, Form
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from io_fhir_adapter.errors import UsageError
from io_fhir_adapter.ledger.accounts import (
    Account,
    Actor,
    add_account,
    all_accounts,
    disable_account,
    enable_account,
    set_password,
    set_roles,
)
from io_fhir_adapter.ledger.audit import audit_size, entries, note
from io_fhir_adapter.look.passwords import BusyError, Passwords, one_time_password
from io_fhir_adapter.look.walls import RefusedError
from io_fhir_adapter.serve.people import ROLES, Person, Role

if TYPE_CHECKING:
    from io_fhir_adapter.serve.web import Web

__all__ = ["administration_router"]

_ON_A_PAGE: Final = 50
_NDJSON: Final = "application/x-ndjson"


def administration_router(web: Web, passwords: Passwords) -> APIRouter:
    """The pages.

    Args:
        web: The shell.
        passwords: What hashes.
    """
    router = APIRouter()
    administrator = Depends(web.person("administrator"))
    if web.sign_in.accounts:
        _add_accounts(router, web, passwords)

    @router.get("/audit")
    def audit_page(request: Request, person: Person = administrator, before: int | None = None) -> Response:
        with web.ledger.read() as connection:
            rows = list(entries(connection, newest=_ON_A_PAGE + 1, before=before))
            size = audit_size(connection)
        more = rows[_ON_A_PAGE - 1].number if len(rows) > _ON_A_PAGE else None
        return web.render(
            request, "audit.html", person, entries=rows[:_ON_A_PAGE], size=size, before=before, more=more
        )  # fmt: skip

    @router.get("/audit.ndjson")
    def audit_export(person: Person = administrator) -> Response:
        with web.ledger.begin() as connection:
            note(
                connection, at=web.now(), agent=person.account, role=person.role_text, action="R", entity="Audit",
                detail="export",
            )  # fmt: skip

        def lines() -> Iterator[str]:
            with web.ledger.read() as connection:
                for entry in entries(connection):
                    yield json.dumps(entry.to_json(), ensure_ascii=False) + "\n"

        headers = {"Content-Disposition": 'attachment; filename="audit.ndjson"'}
        return StreamingResponse(lines(), media_type=_NDJSON, headers=headers)

    return router


def _add_accounts(router: APIRouter, web: Web, passwords: Passwords) -> None:
    administrator = Depends(web.person("administrator"))

    def page(
        request: Request, person: Person, status: int = 200, *, problem: str = "", about: Account | None = None,
        password: str = "",
    ) -> Response:  # fmt: skip
        with web.ledger.read() as connection:
            found = all_accounts(connection)
        return web.render(
            request, "accounts.html", person, status, accounts=found, roles=ROLES, now=web.now(), problem=problem,
            about=about, password=password, here="/accounts",
        )  # fmt: skip

    def fresh() -> tuple[str, str]:
        password = one_time_password()
        try:
            return password, passwords.hash(password)
        except BusyError as exc:
            raise RefusedError(HTTPStatus.TOO_MANY_REQUESTS) from exc

    @router.get("/accounts")
    def accounts_page(request: Request, person: Person = administrator) -> Response:
        return page(request, person)

    @router.post("/accounts")
    def add(
        request: Request,
        person: Person = administrator,
        name: Annotated[str, Form(max_length=200)] = "",
        display: Annotated[str, Form(max_length=200)] = "",
        role: Annotated[list[Role] | None, Form()] = None,
    ) -> Response:
        password, hashed = fresh()
        try:
            with web.ledger.begin() as connection:
                account = add_account(
                    connection, name, display, hashed, role or (), one_time=True, by=_actor(person), at=web.now()
                )
        except UsageError as exc:
            return page(request, person, HTTPStatus.UNPROCESSABLE_ENTITY, problem=exc.code)
        return page(request, person, about=account, password=password)

    @router.post("/accounts/{name}/roles")
    def roles(
        name: str,
        person: Person = administrator,
        role: Annotated[list[Role] | None, Form()] = None,
    ) -> Response:
        _not_oneself(person, name)
        with web.ledger.begin() as connection:
            set_roles(connection, name, role or (), by=_actor(person), at=web.now())
        return RedirectResponse("/accounts", HTTPStatus.SEE_OTHER)

    @router.post("/accounts/{name}/disable")
    def disable(name: str, person: Person = administrator) -> Response:
        _not_oneself(person, name)
        with web.ledger.begin() as connection:
            disable_account(connection, name, by=_actor(person), at=web.now())
        return RedirectResponse("/accounts", HTTPStatus.SEE_OTHER)

    @router.post("/accounts/{name}/enable")
    def enable(name: str, person: Person = administrator) -> Response:
        with web.ledger.begin() as connection:
            enable_account(connection, name, by=_actor(person), at=web.now())
        return RedirectResponse("/accounts", HTTPStatus.SEE_OTHER)

    @router.post("/accounts/{name}/password")
    def reset(request: Request, name: str, person: Person = administrator) -> Response:
        _not_oneself(person, name)
        password, hashed = fresh()
        with web.ledger.begin() as connection:
            account = set_password(connection, name, hashed, one_time=True, by=_actor(person), at=web.now())
        return page(request, person, about=account, password=password)


def _actor(person: Person) -> Actor:
    return Actor(person.account, person.role_text)


def _not_oneself(person: Person, name: str) -> None:
    """Nobody takes the administration from themselves by accident, nor gives themselves other roles."""
    if name.strip().lower() == person.account:
        raise RefusedError(HTTPStatus.CONFLICT, "oneself")
