"""The time that an export's manifest stands for, and the files that it names."""

from __future__ import annotations

import pytest

from io_fhir_adapter.errors import PullError
from io_fhir_adapter.pull.bulk_manifest import Manifest, moment_of

DONE = "2026-02-01T03:10:00.750Z"


@pytest.mark.parametrize(
    ("asked", "stands_for"),
    [
        ("Sun, 01 Feb 2026 03:00:00 GMT", "2026-02-01T03:00:00+00:00"),  # the export took ten minutes
        ("Sun, 01 Feb 2026 03:10:00 GMT", DONE),  # the same second
        ("Sun, 01 Feb 2026 03:09:59 GMT", DONE),  # a Date that the server makes once a second
        ("Sun, 01 Feb 2026 03:09:58 GMT", "2026-02-01T03:09:58+00:00"),
        ("Sun, 01 Feb 2026 04:00:00 GMT", DONE),
        ("", DONE),
        ("yesterday", DONE),
        ("Sun, 01 Feb 2026 03:00:00 +99999999999999999999", DONE),
    ],
)
def test_an_export_stands_for_no_later_time_than_its_kick_off(asked: str, stands_for: str) -> None:
    assert Manifest(transactionTime=DONE).not_after(asked).transactionTime == stands_for


@pytest.mark.parametrize(
    "text",
    [
        "0001-01-01T00:00:00+01:00",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59-01:00",
        "2026-02-01T03:10:00",
        "then",
        "",
    ],
)
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(PullError, match="the manifest's transactionTime is no instant"):
        moment_of(text)
