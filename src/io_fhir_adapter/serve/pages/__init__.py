"""The pages of the facility: one module of routes each."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

from fastapi import FastAPI

from io_fhir_adapter.classify.ruleset import Ruleset
from io_fhir_adapter.serve.pages.approval import approval_router
from io_fhir_adapter.serve.pages.case import case_router
from io_fhir_adapter.serve.pages.cases import cases_router
from io_fhir_adapter.serve.pages.coverage import coverage_router
from io_fhir_adapter.serve.pages.dashboard import dashboard_router
from io_fhir_adapter.serve.pages.dossier import dossier_router
from io_fhir_adapter.serve.pages.explorer import SEES_DECISIONS, explorer_router
from io_fhir_adapter.serve.pages.figures import Figures
from io_fhir_adapter.serve.pages.readiness import readiness_router
from io_fhir_adapter.serve.pages.runs import runs_router
from io_fhir_adapter.serve.pages.standards import standards_router
from io_fhir_adapter.serve.pages.submissions import submissions_router
from io_fhir_adapter.serve.pages.view import View
from io_fhir_adapter.serve.web import NavItem, Web

__all__ = ["install_pages"]


def install_pages(app: FastAPI, web: Web, ruleset: Ruleset, as_of: date | None = None) -> Callable[[], None]:
    """Puts the pages, and their entries in the navigation, into an application.

    Args:
        app: The application.
        web: The shell.
        ruleset: What decides.
        as_of: The local date that the pages work on; each day's own where omitted.

    Returns:
        To be called after a night: begins to count what the pages show.
    """
    view = View(web, ruleset, as_of)
    figures = Figures(view)
    routers = [
        dashboard_router(view, figures), cases_router(view), case_router(view), approval_router(view),
        readiness_router(view, figures), standards_router(view), submissions_router(view), dossier_router(view),
        explorer_router(view), coverage_router(view), runs_router(view),
    ]  # fmt: skip
    for router in routers:
        app.include_router(router)
    has_standards = ruleset.programme.standards is not None
    web.navigation[:0] = [
        NavItem("dashboard", "/"),
        NavItem("cases", "/cases", ("viewer", "reviewer", "approver")),
        NavItem("approval", "/approval", ("reviewer", "approver")),
        NavItem("readiness", "/readiness"),
        *([NavItem("standards", "/standards")] if has_standards else []),
        NavItem("submissions", "/submissions"),
        NavItem("dossier", "/dossier", ("approver",)),
        NavItem("decisions", "/decisions", SEES_DECISIONS),
        NavItem("coverage", "/coverage"),
        NavItem("runs", "/runs"),
    ]
    return figures.ahead
