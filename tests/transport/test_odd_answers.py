"""Links and dates that are none, in whatever way."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest

from io_fhir_adapter.errors import TransportError
from io_fhir_adapter.pull.asked import is_ahead
from io_fhir_adapter.transport.origins import parse_url
from io_fhir_adapter.transport.retry import retry_after_seconds
from io_fhir_adapter.transport.wire import skew

NEVER = ("", "soon", "Mon, 01 Jan 2025 00:00:00 +99999999999999999999999", "Mon, 99 Jan 2025 00:00:00 GMT")


@pytest.mark.parametrize("link", ["http://xn--a/fhir", "http://[base]/fhir", "http://h:99999999/", "http://xn--0/"])
def test_a_link_that_is_no_url(link: str) -> None:
    with pytest.raises(TransportError, match="no URL"):
        parse_url(link, httpx.URL("http://h.example/fhir"), "here")


@pytest.mark.parametrize("date", NEVER)
def test_a_date_that_is_none(date: str) -> None:
    assert skew(date, 0.0) is None
    assert retry_after_seconds(date, datetime.now(UTC)) is None


@pytest.mark.parametrize(
    ("instant", "ahead"), [("2025-01-01T00:00:00Z", False), ("9000-01-01T00:00:00Z", True), ("1-01-01T00:00:00Z", True)]
)
def test_a_cursor_that_cannot_be_read_is_none(instant: str, ahead: bool) -> None:
    assert is_ahead(instant, None) is ahead
