"""The HTTP client: what it tries again, how long it waits, whom it trusts, and what it says."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from io_fhir_adapter.config import FhirSourceConfig
from io_fhir_adapter.errors import AdapterError, ConfigError, ForeignOriginError, PullError, TransportError
from io_fhir_adapter.transport.client import Answer, FhirClient, origin_of, retry_after_seconds

NOW = datetime(2026, 1, 30, 3, 0, tzinfo=UTC)
BASE = "https://fhir.example/r4"
JSON = {"content-type": "application/fhir+json"}
Handler = Callable[[httpx.Request], httpx.Response]


def answers(*parts: int | httpx.Response | Exception) -> Handler:
    """Gives these answers one after the other, the last for ever."""
    left = list(parts)

    def handle(request: httpx.Request) -> httpx.Response:
        part = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(part, Exception):
            raise part
        # a fresh one each time: a stream is read once
        if isinstance(part, httpx.Response):
            return httpx.Response(part.status_code, headers=part.headers, content=part.content)
        return httpx.Response(part, json={}, headers=JSON)

    return handle


class Call:
    """A request through the client, with everything that can be seen of it."""

    def __init__(self, handler: Handler, **config: Any) -> None:
        self.waits: list[float] = []
        self.sent: list[httpx.Request] = []
        self._handler = handler
        self._config = FhirSourceConfig.model_validate({"name": "s", "url": BASE, **config})

    def client(self) -> FhirClient:
        def handle(request: httpx.Request) -> httpx.Response:
            self.sent.append(request)
            return self._handler(request)

        async def wait(seconds: float) -> None:
            self.waits.append(seconds)

        return FhirClient(self._config, "sources.s", transport=httpx.MockTransport(handle), wait=wait)

    def get(self, path: str = "Procedure", **params: str) -> Answer:
        async def go() -> Answer:
            async with self.client() as client:
                return await client.get(path, params)

        return asyncio.run(go())

    def failure(self, path: str = "Procedure") -> TransportError:
        with pytest.raises(TransportError) as caught:
            self.get(path)
        return caught.value


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_status_that_may_pass_is_tried_again(status: int) -> None:
    call = Call(answers(status, status, 200))
    assert call.get().status == 200
    assert len(call.sent) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 414, 422, 501])
def test_a_refusal_is_not_tried_again(status: int) -> None:
    call = Call(answers(status))
    error = call.failure()
    assert (error.status, error.transient, len(call.sent)) == (status, False, 1)
    assert f"(HTTP {status})" in error.sentence
    assert error.sentence.startswith(f"{BASE}: ")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_to_elsewhere_are_refused(status: int) -> None:
    call = Call(answers(httpx.Response(status, headers={"location": "https://evil.example/"})))
    error = call.failure()
    assert isinstance(error, ForeignOriginError)
    assert "the server's redirect leads to another origin (https://evil.example:443)" in error.sentence
    assert len(call.sent) == 1


@pytest.mark.parametrize("headers", [{}, {"location": "https://fhir.example/elsewhere"}])
def test_what_is_no_redirect_is_none(headers: dict[str, str]) -> None:
    call = Call(answers(httpx.Response(304 if headers else 302, headers=headers)))
    assert call.failure().code == "IOA-NET-007"
    assert len(call.sent) == 1


@pytest.mark.parametrize("retries", [0, 1, 4])
def test_the_number_of_attempts_is_bounded(retries: int) -> None:
    call = Call(answers(503), retries=retries)
    assert call.failure().transient
    assert len(call.sent) == retries + 1
    assert len(call.waits) == retries


def test_waits_grow_with_jitter_up_to_the_longest() -> None:
    call = Call(answers(500), retries=8, max_retry_wait_s=10)
    call.failure()
    ceilings = [0.5, 1, 2, 4, 8, 10, 10, 10]
    assert all(most / 2 <= wait <= most for wait, most in zip(call.waits, ceilings, strict=True))


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("7", 7, 7.5),
        pytest.param(format_datetime(datetime.now(UTC) + timedelta(600), usegmt=True), 60, 60, id="a date to come"),
        ("3600", 60, 60),
        ("0", 0, 0.5),
        ("soon", 0, 0.5),
        ("-5", 0, 0.5),
        ("²", 0, 0.5),
        ("9" * 400, 60, 60),
        (format_datetime(NOW - timedelta(days=900), usegmt=True), 0, 0.5),
    ],
)
def test_what_the_server_asks_for_is_waited(header: str, least: float, most: float) -> None:
    throttled = httpx.Response(429, headers=[(b"retry-after", header.encode())])
    call = Call(answers(throttled, 200))
    call.get()
    assert least <= call.waits[0] <= most


def test_retry_after_in_both_forms() -> None:
    assert retry_after_seconds("120", NOW) == 120
    assert retry_after_seconds("Fri, 30 Jan 2026 03:01:00 GMT", NOW) == 60
    assert retry_after_seconds("Fri, 30 Jan 2026 04:01:00 +0100", NOW) == 60
    assert retry_after_seconds("Fri, 30 Jan 2026 03:01:00 -0000", NOW) == 60
    assert retry_after_seconds("Thu, 29 Jan 2026 03:00:00 GMT", NOW) == 0
    assert [retry_after_seconds(text, NOW) for text in (None, "", "in a while", "1.5")] == [None] * 4


@pytest.mark.parametrize("error", [httpx.ConnectError("no"), httpx.ReadError("cut"), httpx.RemoteProtocolError("bad")])
def test_a_connection_that_fails_is_tried_again(error: Exception) -> None:
    assert Call(answers(error, 200)).get().status == 200
    failed = Call(answers(error), retries=1).failure()
    assert failed.code == "IOA-NET-001"
    assert type(error).__name__ in failed.sentence


def test_a_timeout_says_so() -> None:
    call = Call(answers(httpx.ReadTimeout("slow")), retries=2)
    assert call.failure().code == "IOA-NET-002"
    assert len(call.sent) == 3


def test_a_certificate_that_is_not_trusted_is_not_tried_again() -> None:
    error = httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED]")
    error.__cause__ = ssl.SSLCertVerificationError("self-signed certificate")
    call = Call(answers(error))
    assert "ca_file" in call.failure().sentence
    assert len(call.sent) == 1


def test_an_answer_that_is_too_large_is_refused() -> None:
    call = Call(answers(httpx.Response(200, content=b" " * ((1 << 20) + 1))), max_response_mib=1)
    assert call.failure().code == "IOA-NET-005"
    assert len(call.sent) == 1
    assert Call(answers(httpx.Response(200, content=b" " * (1 << 20))), max_response_mib=1).get().status == 200


class Slow(httpx.AsyncByteStream):
    """A body in pieces, before each of which the clock moves on; keeps count of them."""

    def __init__(self, piece: bytes, pieces: int, seconds: float) -> None:
        self.now = 0.0
        self.given = 0
        self._piece = piece
        self._pieces = pieces
        self._seconds = seconds

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.given < self._pieces:
            self.now += self._seconds
            await asyncio.sleep(0)
            self.given += 1
            yield self._piece


def size_of(body: Slow, monkeypatch: pytest.MonkeyPatch) -> int:
    async def go() -> int:
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: body.now)
        async with Call(lambda _: httpx.Response(200, stream=body), read_timeout_s=120, retries=0).client() as client:
            return len((await client.get("Procedure")).body)

    return asyncio.run(go())


def test_an_answer_that_drips_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    body = Slow(b"x", 10_000, 119)
    with pytest.raises(TransportError) as caught:
        size_of(body, monkeypatch)
    assert (caught.value.code, caught.value.transient) == ("IOA-NET-002", True)
    assert body.given < 20


def test_an_answer_over_a_slow_line_arrives_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert size_of(Slow(bytes(1 << 16), 200, 15), monkeypatch) == 200 << 16


def test_a_parser_may_ask_for_another_attempt() -> None:
    seen: list[bytes] = []

    def parse(answer: Answer) -> Any:
        seen.append(answer.body)
        try:
            return json.loads(answer.body)
        except ValueError as exc:
            raise PullError("cut", transient=True) from exc

    async def read(*bodies: bytes) -> Any:
        call = Call(answers(*(httpx.Response(200, content=body) for body in bodies)), retries=2)
        async with call.client() as client:
            return await client.read("Procedure", parse)

    assert asyncio.run(read(b'{"a"', b'{"a":1}')) == {"a": 1}
    with pytest.raises(PullError):
        asyncio.run(read(b"{"))
    assert len(seen) == 2 + 3


def test_outcomes_lend_their_codes_and_not_their_texts() -> None:
    issues = [
        {"code": "throttled", "diagnostics": "Erika Mustermann"},
        {"code": "throttled"},
        {"code": "Erika Mustermann"},
        {"code": "not-found"},
    ]
    body = {"resourceType": "OperationOutcome", "issue": issues}
    sentence = Call(answers(httpx.Response(404, json=body, headers=JSON))).failure().sentence
    assert "(HTTP 404, throttled, not-found)" in sentence
    assert "Erika" not in sentence


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"issue":[1]}', b'{"issue":{}}', b"\xff"])
def test_a_broken_outcome_changes_nothing(body: bytes) -> None:
    assert "(HTTP 400)" in Call(answers(httpx.Response(400, content=body, headers=JSON))).failure().sentence


# --- whom it trusts ------------------------------------------------------------------------------------------------


def origins(links: Iterable[str]) -> list[str]:
    """What becomes of links: the absolute URL, or the error's code."""
    client = Call(answers(200), trusted_origins=["https://pages.example:8443"]).client()
    found = []
    for link in links:
        try:
            found.append(client.resolve(link, base=f"{BASE}/Procedure?_count=5"))
        except TransportError as exc:
            found.append(exc.code)
    return found


def test_links_are_resolved_and_checked() -> None:
    assert origins(
        [
            "https://fhir.example/r4?_getpages=x%7Cy",
            "https://FHIR.example:443/other/path",
            "/r4?_getpages=x",
            "?page=2",
            "Procedure?page=2",
            "https://pages.example:8443/x",
        ]
    ) == [
        "https://fhir.example/r4?_getpages=x%7Cy",
        "https://fhir.example/other/path",
        "https://fhir.example/r4?_getpages=x",
        "https://fhir.example/r4/Procedure?page=2",
        "https://fhir.example/r4/Procedure?page=2",
        "https://pages.example:8443/x",
    ]


def test_a_link_may_have_a_url_in_its_query() -> None:
    query = "code=http://snomed.info/sct%7C10200004&page=2"
    assert origins([f"/r4/Procedure?{query}", f"Procedure?{query}", f"?{query}"]) == [f"{BASE}/Procedure?{query}"] * 3
    call = Call(answers(200))
    call.get(f"Procedure?{query}")
    assert str(call.sent[0].url) == f"{BASE}/Procedure?{query}"


def test_links_to_elsewhere_are_refused() -> None:
    assert set(
        origins(
            [
                "http://fhir.example/r4?page=2",
                "https://fhir.example:444/r4",
                "https://fhir.example.evil.example/r4",
                "https://evil.example/https://fhir.example/r4",
                "https://fhir.example@evil.example/r4",
                "https://fhir.example\\@evil.example/r4",
                "//evil.example/r4",
                "https://pages.example/x",
                "ftp://fhir.example/r4",
                "javascript:alert(1)",
            ]
        )
    ) <= {"IOA-NET-006", "IOA-NET-011"}


def test_links_that_are_no_urls_are_refused() -> None:
    assert origins(["https://fhir.example:port/", "https://[::1/", "https://fhir.example/\n"]) == ["IOA-NET-011"] * 3


def test_no_request_goes_to_a_stranger() -> None:
    call = Call(answers(200))

    async def go() -> None:
        async with call.client() as client:
            await client.get("https://evil.example/r4/Procedure")

    with pytest.raises(ForeignOriginError, match=r"https://evil\.example:443"):
        asyncio.run(go())
    assert call.sent == []


def test_origins_spell_out_their_ports() -> None:
    assert origin_of("HTTPS://Host.Example/x") == ("https", "host.example", 443)
    assert origin_of("http://host:80") == origin_of("http://host/")
    assert origin_of("http://[::1]:8080/") == ("http", "::1", 8080)


# --- credentials ---------------------------------------------------------------------------------------------------


def test_a_bearer_token_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", " secret\n")
    call = Call(answers(200), auth={"kind": "bearer", "token": {"env": "TOKEN"}})
    call.get()
    assert call.sent[0].headers["authorization"] == "Bearer secret"


def test_a_password_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("pass:wörd\n", encoding="utf-8")
    secret = {"file": str(tmp_path / "password")}
    call = Call(answers(200), auth={"kind": "basic", "username": "user", "password": secret})
    call.get()
    assert call.sent[0].headers["authorization"] == "Basic dXNlcjpwYXNzOnfDtnJk"


def test_a_byte_order_mark_is_no_part_of_a_secret(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"\xef\xbb\xbfsecret\r\n")
    call = Call(answers(200), auth={"kind": "bearer", "token": {"file": str(tmp_path / "token")}})
    call.get()
    assert call.sent[0].headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    "token", ["canäry", "canary\x7f", "can\nary", "Bearer canary", "\ufeffcanary", "canary\udcff"], ids=ascii
)
def test_a_token_that_no_header_can_hold_is_a_configuration_error(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", token)
    with pytest.raises(ConfigError) as caught:
        Call(answers(200), auth={"kind": "bearer", "token": {"env": "TOKEN"}}).client()
    assert caught.value.code == "IOA-CFG-003"
    assert caught.value.sentence.startswith("sources.s: ")
    assert "can" not in caught.value.sentence.replace("cannot", "")


def test_a_secret_that_is_not_there_is_a_configuration_error() -> None:
    call = Call(answers(200), auth={"kind": "bearer", "token": {"env": "NOT_THERE"}})
    with pytest.raises(ConfigError, match=r"^sources\.s: the secret in environment variable NOT_THERE is empty"):
        call.client()


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_ca_file_that_is_none(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"ca\.pem: the CA file cannot be read"):
        Call(answers(200), ca_file=path).client()


# --- requests ------------------------------------------------------------------------------------------------------


def test_what_is_asked_for() -> None:
    call = Call(answers(200))
    call.get("Condition", patient="Patient/1,Patient/2", note="a&b=ü\\,")
    (request,) = call.sent
    assert str(request.url) == f"{BASE}/Condition?patient=Patient/1,Patient/2&note=a%26b%3D%C3%BC%5C,"
    assert request.headers["accept"].startswith("application/fhir+json")
    assert request.headers["user-agent"] == "io-fhir-adapter"


def test_the_outbox_gets_every_answer_once() -> None:
    async def post(status: int) -> tuple[int, int]:
        call = Call(answers(status))
        async with call.client() as client:
            answer = await client.request("POST", BASE, body=b"{}", retry=False, accept_errors=True)
        assert call.sent[0].headers["content-type"] == "application/fhir+json"
        return answer.status, len(call.sent)

    for status in (200, 302, 404, 422, 429, 500):
        assert asyncio.run(post(status)) == (status, 1)


def test_the_date_of_the_first_answer_is_the_servers_clock() -> None:
    first = httpx.Response(503, headers={"date": "Fri, 30 Jan 2026 03:00:00 GMT"})
    second = httpx.Response(200, headers={"date": "Fri, 30 Jan 2026 04:00:00 GMT"})

    async def go() -> str:
        async with Call(answers(first, second)).client() as client:
            await client.get("Procedure")
            return client.server_date

    assert asyncio.run(go()) == "Fri, 30 Jan 2026 03:00:00 GMT"


def test_fhirpy_goes_the_same_way() -> None:
    found = {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": {"resourceType": "Procedure"}}]}
    call = Call(answers(503, httpx.Response(200, json=found, headers=JSON)))

    async def go() -> Any:
        async with call.client() as client:
            return await client.fhirpy.resources("Procedure").search(status="completed").fetch()

    assert [dict(resource) for resource in asyncio.run(go())] == [{"resourceType": "Procedure"}]
    assert [request.url.path for request in call.sent] == ["/r4/Procedure"] * 2


def test_fhirpy_and_an_answer_that_is_no_json() -> None:
    call = Call(answers(httpx.Response(200, content=b"<html>")), retries=1)

    async def go() -> Any:
        async with call.client() as client:
            return await client.fhirpy.execute("metadata", method="get")

    with pytest.raises(AdapterError, match="no JSON"):
        asyncio.run(go())
    assert len(call.sent) == 2
