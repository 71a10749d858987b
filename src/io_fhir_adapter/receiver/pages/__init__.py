"""The accreditation body's pages: facilities, volumes, submissions, case reviews, verdicts, exports."""

from __future__ import annotations

from io_fhir_adapter.receiver.pages.site import PAGE_PATHS, body_pages

__all__ = ["PAGE_PATHS", "body_pages"]
