"""The pages on which the case review is completed and approved: one module of routes each."""

from __future__ import annotations

from datetime import date

from fastapi import FastAPI

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.serve.pages.approval import approval_router
from io_fhir_adapter.serve.pages.case import case_router
from io_fhir_adapter.serve.pages.cases import cases_router
from io_fhir_adapter.serve.pages.view import View
from io_fhir_adapter.serve.web import NavItem, Web

__all__ = ["install_pages"]


def install_pages(app: FastAPI, web: Web, ruleset: Ruleset, as_of: date | None = None) -> None:
    """Puts the pages of the case review, and their entries in the navigation, into an application.

    Args:
        app: The application.
        web: The shell.
        ruleset: What decides.
        as_of: The local date that the pages work on; each day's own where omitted.
    """
    view = View(web, ruleset, as_of)
    for router in (cases_router(view), case_router(view), approval_router(view)):
        app.include_router(router)
    web.navigation[:0] = [
        NavItem("cases", "/cases", ("viewer", "reviewer", "approver")),
        NavItem("approval", "/approval", ("reviewer", "approver")),
    ]
