"""The first page after signing in: where to go on, and how the last night ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from io_fhir_adapter.ledger.runs import last_run
from io_fhir_adapter.serve.people import ROLES, Person

if TYPE_CHECKING:
    from io_fhir_adapter.serve.web import Web

__all__ = ["home_router"]


def home_router(web: Web) -> APIRouter:
    """The page."""
    router = APIRouter()
    anybody = Depends(web.person())

    @router.get("/")
    def home(request: Request, person: Person = anybody) -> Response:
        with web.ledger.read() as connection:
            run = last_run(connection)
        roles = [role for role in ROLES if role in person.roles]
        return web.render(request, "home.html", person, roles=roles, run=run)

    return router
