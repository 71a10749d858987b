"""The whole job against accreditation endpoints of other makers: their answers are judged, and nothing is there twice.

These run after the tests that read from the same servers: what a submission stores there would be counted.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.conftest import same_nonces
from tests.interop.leaving import Facility, facility

from io_fhir_adapter.ledger.outbox import OutboxItem, latest_receipt
from io_fhir_adapter.submit.channels import Answered, open_channel
from io_fhir_adapter.trust.keys import new_signature_key

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]

Json = dict[str, Any]
OURS = "https://io-fhir-adapter.example/fhir"


def sent_again(sender: Facility, found: OutboxItem) -> Answered:
    """What the endpoint says when the same bytes come once more."""
    assert sender.config.submission is not None

    async def send() -> Answered:
        assert sender.config.submission is not None
        async with open_channel(sender.config.submission, lambda: datetime.now(UTC)) as channel:
            return await channel.send(found.body, found.identifier, b"")

    return asyncio.run(send())


def statuses(body: bytes) -> Counter[str]:
    return Counter(entry["response"]["status"][:3] for entry in json.loads(body)["entry"])


def conditional(bundle: Json) -> list[str]:
    """The conditional URLs of a submission."""
    return [url for entry in bundle["entry"] if "?" in (url := entry["request"]["url"])]


def stored(url: str, searches: list[str]) -> Counter[int]:
    """How many resources each search finds."""
    with httpx.Client(timeout=60) as client:
        return Counter(len(client.get(f"{url}/{one}").raise_for_status().json().get("entry", [])) for one in searches)


@pytest.mark.xdist_group("hapi")
def test_a_year_at_hapi(hapi: str, records: Path, tmp_path: Path) -> None:
    key = new_signature_key("EdDSA")
    with same_nonces(), facility(tmp_path / "facility", records, key, url=hapi, nonce_wait_days=0) as sender:
        sender.assess("met")
        night = sender.night()
        assert night.problem is None
        assert night.sample is not None
        assert night.sample.draw.nonce_origin == "local"  # HAPI takes the announcement, and nobody gives a nonce
        sender.review()
        sender.night()
        first = sender.approve()
        assert (first.state, first.cause) == ("accepted", "")
        bundle = json.loads(first.body)
        with sender.ledger.read() as connection:
            receipt = latest_receipt(connection, first.identifier)
        assert receipt is not None
        assert statuses(receipt.body) == {"201": len(bundle["entry"]) - 1, "200": 1}  # the frame was there
        searches = conditional(bundle)
        assert stored(hapi, searches) == {1: len(searches)}

        again = sent_again(sender, first)
        assert again.verdict.kind == "accepted", again.verdict.sentence
        assert statuses(again.body) == {"200": len(bundle["entry"])}
        assert stored(hapi, searches) == {1: len(searches)}

        sender.assess("partly-met")
        sender.night()
        second = sender.approve()
        assert (second.state, second.identifier == first.identifier) == ("accepted", False)
        corrected = json.loads(second.body)
        assert f'"{first.identifier}"' in json.dumps(corrected["entry"][-1]["resource"]["entity"])
        assert conditional(corrected) == searches
        assert stored(hapi, searches) == {1: len(searches)}
        assessed = next(one for one in searches if one.endswith("standards"))
        (found,) = httpx.get(f"{hapi}/{assessed}").json()["entry"]
        assert int(found["resource"]["meta"]["versionId"]) > 1
        assert "partly-met" in json.dumps(found["resource"])

        taken_back = sender.withdraw(second.identifier).item
        assert (taken_back.state, taken_back.cause) == ("accepted", "")
        (statement,) = json.loads(taken_back.body)["entry"]
        kept = httpx.get(f"{hapi}/{statement['request']['url']}").raise_for_status().json()
        assert kept["activity"]["coding"][0]["code"] == "NULLIFY"
        assert not sender.night().problem

    with facility(tmp_path / "facility", records, key, url=hapi, channel="submit-data") as sender:
        sender.assess("not-met")
        sender.night()
        third = sender.approve()
        assert third.state == "rejected"  # this server has no such operation, and says so
        assert "refused" in third.cause
        assert stored(hapi, searches) == {1: len(searches)}


@pytest.mark.xdist_group("medplum")
def test_an_answer_that_is_half_a_success_is_none(empty_medplum: str, few_records: Path, tmp_path: Path) -> None:
    key = new_signature_key("ES256")
    with same_nonces(), facility(tmp_path / "facility", few_records, key, url=empty_medplum, nonce="local") as sender:
        sender.night()
        sender.review()
        sender.night()
        found = sender.approve()
        assert (found.state, found.cause) == ("accepted", "")
        bundle = json.loads(found.body)
        searches = conditional(bundle)
        assert sent_again(sender, found).verdict.kind == "accepted"
        assert stored(empty_medplum, searches) == {1: len(searches)}

        place, patient = next((n, one) for n, one in enumerate(bundle["entry"]) if "Patient?" in one["request"]["url"])
        patient["request"]["url"] = "Patient/nobody"
        half = sent_again(sender, replace(found, body=json.dumps(bundle).encode()))
        assert (half.status, half.verdict.kind) == (200, "rejected")
        assert statuses(half.body) == {"200": len(bundle["entry"]) - 1, "400": 1}
        assert f"1 of {len(bundle['entry'])} entries were refused, the first is entry {place}" in half.verdict.sentence
