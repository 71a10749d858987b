"""The ways on which a submission gets to the accreditation system, behind one small interface.

A channel sends the bytes that the outbox has and says what came back; it keeps nothing, and sending again is harmless
on each of them. Another way is another class here and a line in :data:`CHANNELS`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Protocol

from io_fhir_adapter.config import SubmissionConfig
from io_fhir_adapter.durable import write_whole
from io_fhir_adapter.errors import TransportError
from io_fhir_adapter.submit.receipts import Verdict, judge, judge_file, judge_operation
from io_fhir_adapter.transport.client import FhirClient, retry_after_seconds
from io_fhir_adapter.trust.canonical import canonical_json

__all__ = [
    "CHANNELS",
    "OPERATION",
    "Answered",
    "Channel",
    "FileDrop",
    "SubmitData",
    "Transaction",
    "dropped_name",
    "open_channel",
]

Clock = Callable[[], datetime]

_Opener = Callable[[SubmissionConfig, Clock], AbstractAsyncContextManager["Channel"]]

OPERATION: Final = "Measure/$submit-data"
"""DEQM's operation, below the base URL."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of sending.

    Attributes:
        verdict: What became of the submission.
        status: HTTP status of the answer; 0 where there was none.
        body: The answer whole.
    """

    verdict: Verdict
    status: int = 0
    body: bytes = b""


class Channel(Protocol):
    """A way to the accreditation system; ``answers_later`` says whether the receipt comes after sending."""

    @property
    def answers_later(self) -> bool:
        """Whether :meth:`look` has to be asked for the receipt of what was sent."""
        ...

    async def send(self, body: bytes, identifier: str, last: bytes) -> Answered:
        """Sends a submission; what fails is told by the verdict.

        Args:
            body: The Bundle as the outbox has it.
            identifier: The submission.
            last: The answer that was judged last, empty where there was none: it is not taken for a new one.
        """
        ...

    async def look(self, body: bytes, identifier: str) -> Answered | None:
        """The receipt of what was sent earlier, None where it is not there yet."""
        ...


class _AtOnce:
    """A channel on which the answer to sending is the receipt."""

    answers_later: Final = False

    def __init__(self, client: FhirClient, now: Clock) -> None:
        self._client = client
        self._now = now

    async def look(self, body: bytes, identifier: str) -> None:  # noqa: ARG002 - as the interface has it
        """Nothing comes later."""
        return

    async def _post(
        self, path: str, body: bytes, bundle: Mapping[str, Any], judged: Callable[..., Verdict]
    ) -> Answered:
        url = f"{self._client.base_url}/{path}" if path else self._client.base_url
        try:
            answer = await self._client.request("POST", url, body=body, retry=False, accept_errors=True)
        except TransportError as exc:
            return Answered(Verdict("transient", exc.sentence))
        wait = retry_after_seconds(answer.headers.get("retry-after"), self._now())
        content_type = answer.headers.get("content-type", "")
        return Answered(
            judged(answer.status, content_type, answer.body, bundle, retry_after=wait), answer.status, answer.body
        )


class Transaction(_AtOnce):
    """FHIR's transaction: the Bundle is posted to the base URL, and its response is the receipt."""

    async def send(self, body: bytes, identifier: str, last: bytes) -> Answered:  # noqa: ARG002
        """Posts the Bundle."""
        return await self._post("", body, json.loads(body), judge)


class SubmitData(_AtOnce):
    """DEQM's ``$submit-data``: the MeasureReport, and the whole Bundle beside it, so that a signature stays checkable.

    What has no MeasureReport, such as a withdrawal, is no data of a measure: it is posted as the transaction it is.
    """

    async def send(self, body: bytes, identifier: str, last: bytes) -> Answered:  # noqa: ARG002
        """Calls the operation."""
        bundle = json.loads(body)
        resources = (entry["resource"] for entry in bundle["entry"])
        report = next((one for one in resources if one["resourceType"] == "MeasureReport"), None)
        if report is None:
            return await self._post("", body, bundle, judge)
        parts = [{"name": "measureReport", "resource": report}, {"name": "resource", "resource": bundle}]
        parameters = canonical_json({"resourceType": "Parameters", "parameter": parts})
        return await self._post(OPERATION, parameters, bundle, judge_operation)


class FileDrop:
    """A folder that people or a transfer tool take submissions from, and put receipts into.

    ``NAME.json`` is the Bundle, ``NAME.sha256`` its digest as ``sha256sum --check`` reads it, written last; the receipt
    comes back as ``NAME.receipt.json``. Files are whole as soon as they bear their names.

    Args:
        folder: The folder.
    """

    answers_later: Final = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def send(self, body: bytes, identifier: str, last: bytes) -> Answered:
        """Lays the Bundle into the folder; a receipt that was judged already is put aside."""
        return await asyncio.to_thread(self._drop, body, dropped_name(identifier), last)

    async def look(self, body: bytes, identifier: str) -> Answered | None:
        """Judges the receipt where it lies in the folder."""
        return await asyncio.to_thread(self._found, body, dropped_name(identifier))

    def _drop(self, body: bytes, name: str, last: bytes) -> Answered:
        receipt = self._receipt(name)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if last and receipt.is_file() and receipt.read_bytes() == last:
                receipt.replace(self._folder / f"{name}.receipt-{sha256(last).hexdigest()[:8]}.json")
            write_whole(self._folder / f"{name}.json", body)
            write_whole(self._folder / f"{name}.sha256", f"{sha256(body).hexdigest()}  {name}.json\n".encode())
        except OSError as exc:
            why = exc.strerror or type(exc).__name__
            return Answered(Verdict("transient", f"the folder {self._folder} cannot be written to ({why})"))
        return Answered(Verdict("sent", f"it lies in {self._folder} as {name}.json and waits for its receipt"))

    def _found(self, body: bytes, name: str) -> Answered | None:
        try:
            receipt = self._receipt(name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as exc:
            why = exc.strerror or type(exc).__name__
            return Answered(Verdict("transient", f"{name}.receipt.json cannot be read ({why})"))
        return Answered(judge_file(receipt, json.loads(body)), 0, receipt)

    def _receipt(self, name: str) -> Path:
        return self._folder / f"{name}.receipt.json"


def dropped_name(identifier: str) -> str:
    """What a submission is called in a folder: its identifier as every file system takes it."""
    return "".join(sign if sign.isascii() and (sign.isalnum() or sign in "._-") else "-" for sign in identifier)


def _by_http(kind: Callable[[FhirClient, Clock], Channel]) -> _Opener:
    @asynccontextmanager
    async def opened(config: SubmissionConfig, now: Clock) -> AsyncIterator[Channel]:
        async with FhirClient(config, "submission") as client:
            yield kind(client, now)

    return opened


@asynccontextmanager
async def _file_drop(config: SubmissionConfig, _now: Clock) -> AsyncIterator[Channel]:
    yield FileDrop(Path(config.base_url))


CHANNELS: Final[Mapping[str, _Opener]] = {
    "transaction": _by_http(Transaction),
    "submit-data": _by_http(SubmitData),
    "file-drop": _file_drop,
}
"""Every channel by the name that ``submission.channel`` gives it."""


def open_channel(config: SubmissionConfig, now: Clock) -> AbstractAsyncContextManager[Channel]:
    """The configured channel, for as long as the block lasts.

    Args:
        config: The accreditation system.
        now: The clock.
    """
    return CHANNELS[config.channel](config, now)
