"""The report made by another process is the same report."""

from __future__ import annotations

import pytest
from tests.report.test_nightly import data

from io_fhir_adapter.errors import AdapterError
from io_fhir_adapter.report.aside import report_files_aside
from io_fhir_adapter.report.nightly_pdf import report_files


def test_it_is_the_same() -> None:
    assert report_files_aside(data()) == report_files(data())


def test_a_process_that_ends_early_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(AdapterError, match="the process that draws the report ended early") as told:
        report_files_aside(data())
    assert told.value.transient
