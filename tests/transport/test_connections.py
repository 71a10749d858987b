"""Connections over real sockets: kept alive, compressed, encrypted, through a proxy, redirected, streamed."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import gzip
import ipaddress
import socket
import ssl
import threading
import zlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from io_fhir_adapter.config import FhirSourceConfig
from io_fhir_adapter.errors import AdapterError, ConfigError, ForeignOriginError, TransportError
from io_fhir_adapter.loopback import LoopbackServer
from io_fhir_adapter.transport.client import FhirClient
from io_fhir_adapter.transport.tls import client_certificate_end

Answering = Callable[[Request], Response]
JSON = {"content-type": "application/fhir+json"}


class Server:
    """An ASGI application that answers as it is told and remembers who asked."""

    def __init__(self, answering: Answering) -> None:
        self.requests: list[Request] = []
        self.peers: set[tuple[str, int]] = set()
        self._answering = answering

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for expected in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{expected}.complete"})
            return
        request = Request(scope, receive)
        self.requests.append(request)
        self.peers.add(tuple(scope["client"]))
        await self._answering(request)(scope, receive, send)


def plain(_: Request) -> Response:
    return Response(b"{}", headers=JSON)


def source(url: str, **config: Any) -> FhirSourceConfig:
    return FhirSourceConfig.model_validate({"name": "s", "url": url, "retries": 1, "max_retry_wait_s": 0, **config})


def through(config: FhirSourceConfig, ask: Callable[[FhirClient], Awaitable[Any]], **more: Any) -> Any:
    async def go() -> Any:
        async with FhirClient(config, "sources.s", **more) as client:
            return await ask(client)

    return asyncio.run(go())


async def metadata(client: FhirClient) -> int:
    return (await client.get("metadata")).status


def failure(config: FhirSourceConfig) -> TransportError:
    with pytest.raises(TransportError) as caught:
        through(config, metadata)
    return caught.value


# --- keeping connections --------------------------------------------------------------------------------------------


def test_connections_are_kept() -> None:
    async def ask(client: FhirClient) -> None:
        for _ in range(20):
            await client.get("Procedure")
        await asyncio.gather(*(client.get("Procedure") for _ in range(40)))

    server = Server(plain)
    with LoopbackServer(server) as at:
        through(source(at.base_url, concurrency=3), ask)
    assert len(server.requests) == 60
    assert len(server.peers) <= 3


def test_a_redirect_keeps_the_connection_and_the_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "abc")

    def answering(request: Request) -> Response:
        steps = {"/a": "/b?x=1", "/b": "c"}
        location = steps.get(request.url.path)
        return plain(request) if location is None else Response(status_code=307, headers={"location": location})

    async def ask(client: FhirClient) -> str:
        return (await client.get("a")).url

    server = Server(answering)
    with LoopbackServer(server) as at:
        auth = {"kind": "bearer", "token": {"env": "TOKEN"}}
        assert through(source(at.base_url, auth=auth), ask) == f"{at.base_url}/c"
    assert [str(request.url.path) for request in server.requests] == ["/a", "/b", "/c"]
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer abc"}
    assert len(server.peers) == 1


def test_redirects_without_end() -> None:
    server = Server(lambda _: Response(status_code=302, headers={"location": "/again"}))
    with LoopbackServer(server) as at:
        error = failure(source(at.base_url))
    assert (error.code, len(server.requests)) == ("IOA-NET-007", 6)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_what_is_posted_is_not_redirected(status: int) -> None:
    async def ask(client: FhirClient) -> Any:
        form = b"code=1"
        url = f"{client.base_url}/Procedure/_search"
        return await client.request("POST", url, body=form, content_type="application/x-www-form-urlencoded")

    server = Server(lambda _: Response(status_code=status, headers={"location": "/elsewhere"}))
    with LoopbackServer(server) as at, pytest.raises(TransportError, match="redirects"):
        through(source(at.base_url), ask)
    (request,) = server.requests
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"


# --- sizes ----------------------------------------------------------------------------------------------------------


def packed(body: bytes, **headers: str) -> Answering:
    return lambda _: Response(body, headers={**JSON, "content-encoding": "gzip", **headers})


def body_of(answering: Answering, **config: Any) -> bytes:
    async def ask(client: FhirClient) -> bytes:
        return (await client.get("x")).body

    with LoopbackServer(Server(answering)) as at:
        found = through(source(at.base_url, **config), ask)
    assert isinstance(found, bytes)
    return found


def test_compressed_answers() -> None:
    text = b'{"a": 1}' * 500_000
    assert body_of(packed(gzip.compress(text))) == text
    assert body_of(packed(gzip.compress(text[:50]) + gzip.compress(text[50:]))) == text
    assert body_of(packed(b"")) == b""
    assert body_of(packed(text, **{"content-encoding": "UTF-8"})) == text


def test_a_small_answer_that_unpacks_to_more_than_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = gzip.compress(bytes(200 << 20), 9)
    most = 0
    unpack = zlib.decompressobj

    class Watched:
        def __init__(self, bits: int) -> None:
            self._inner = unpack(bits)

        def decompress(self, data: bytes, length: int) -> bytes:
            nonlocal most
            piece = self._inner.decompress(data, length)
            most = max(most, len(piece))
            return piece

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

    monkeypatch.setattr(zlib, "decompressobj", Watched)
    with pytest.raises(TransportError, match="larger than 8 MiB"):
        body_of(packed(bomb), max_response_mib=8)
    assert 0 < most <= 1 << 20


@pytest.mark.parametrize(
    ("body", "encoding", "code"),
    [
        (gzip.compress(b"x" * 5000)[:-9], "gzip", "IOA-NET-018"),
        (b"no gzip at all", "gzip", "IOA-NET-018"),
        (gzip.compress(gzip.compress(b"x")), "gzip, gzip", "IOA-NET-017"),
        (b"x", "br", "IOA-NET-017"),
    ],
    ids=["cut", "no gzip", "twice", "brotli"],
)
def test_a_body_that_cannot_be_unpacked(body: bytes, encoding: str, code: str) -> None:
    with pytest.raises(TransportError) as caught:
        body_of(packed(body, **{"content-encoding": encoding}))
    assert caught.value.code == code


# --- refusals -------------------------------------------------------------------------------------------------------


async def breaking_off() -> Any:
    yield b"{"
    raise ConnectionAbortedError


def refusing(status: int, kind: str) -> Response:
    """A refusal whose body nobody can read."""
    headers = {**JSON, "retry-after": "7"}
    if kind == "cut off":
        return StreamingResponse(breaking_off(), status, headers)
    return Response(b"no gzip at all", status, {**headers, "content-encoding": kind})


@pytest.mark.parametrize("kind", ["gzip", "br", "cut off"])
@pytest.mark.parametrize(("status", "transient"), [(414, False), (429, True), (503, True)])
def test_a_refusal_is_one_whatever_its_body(status: int, transient: bool, kind: str) -> None:
    with LoopbackServer(Server(lambda _: refusing(status, kind))) as at:
        config = source(at.base_url, retries=0)
        found = [failure(config)]
        with pytest.raises(TransportError) as caught:
            through(config, lambda client: download(client, f"{at.base_url}/file"))
    found.append(caught.value)
    assert [(error.status, error.transient, error.retry_after) for error in found] == [(status, transient, 7)] * 2


def test_a_busy_server_is_asked_again_whatever_the_body_of_its_refusal() -> None:
    left = [refusing(503, "br"), refusing(429, "gzip")]
    server = Server(lambda request: left.pop() if left else plain(request))
    with LoopbackServer(server) as at:
        assert through(source(at.base_url, retries=2), metadata) == 200
    assert len(server.requests) == 3


def test_a_redirect_is_followed_whatever_its_body() -> None:
    def answering(request: Request) -> Response:
        if request.url.path == "/there":
            return plain(request)
        headers = {"location": "/there?system=http://snomed.info/sct", "content-encoding": "br"}
        return Response(b"x", 302, headers)

    server = Server(answering)
    with LoopbackServer(server) as at:
        assert through(source(at.base_url), metadata) == 200
    assert [request.url.path for request in server.requests] == ["/metadata", "/there"]


def test_a_refusal_that_cannot_be_read_is_no_answer() -> None:
    """Whoever judges what an error says must not take it for one that says nothing."""

    async def ask(client: FhirClient) -> Any:
        return await client.request("POST", client.base_url, body=b"{}", retry=False, accept_errors=True)

    with LoopbackServer(Server(lambda _: refusing(422, "cut off"))) as at, pytest.raises(TransportError) as caught:
        through(source(at.base_url), ask)
    assert caught.value.status == 422


def test_a_busy_token_endpoint_is_asked_again_whatever_the_body_of_its_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "word")
    left = [refusing(503, "br")]

    def answering(request: Request) -> Response:
        if request.url.path != "/token":
            return plain(request)
        return left.pop() if left else JSONResponse({"access_token": "abc", "token_type": "bearer"})

    server = Server(answering)
    with LoopbackServer(server) as at:
        auth = {
            "kind": "client-credentials", "client_id": "a", "client_secret": {"env": "SECRET"},
            "token_url": f"{at.base_url}/token",
        }  # fmt: skip
        assert through(source(at.base_url, auth=auth), metadata) == 200
    assert server.requests[-1].headers["authorization"] == "Bearer abc"


# --- downloads ------------------------------------------------------------------------------------------------------


async def download(client: FhirClient, url: str, **more: Any) -> tuple[str, bytes]:
    async with client.stream("GET", url, headers={"Accept": "application/fhir+ndjson"}, **more) as answer:
        return str(answer.url), b"".join([chunk async for chunk in answer.chunks()])


def test_a_download_comes_in_pieces_and_is_not_bounded() -> None:
    async def ask(client: FhirClient) -> tuple[int, int]:
        sizes = []
        async with client.stream("GET", f"{client.base_url}/file") as answer:
            async for chunk in answer.chunks():
                sizes.append(len(chunk))
                if len(sizes) == 1:
                    assert (await client.get("status")).body == b"{}"  # the place is free again
        return sum(sizes), max(sizes)

    async def lines() -> Any:
        for _ in range(64):
            yield b"x" * (1 << 16)

    def answering(request: Request) -> Response:
        return StreamingResponse(lines()) if request.url.path == "/file" else plain(request)

    with LoopbackServer(Server(answering)) as at:
        total, most = through(source(at.base_url, concurrency=1, max_response_mib=1), ask)
    assert total == 4 << 20
    assert most <= 1 << 20


def test_a_download_is_tried_again_until_it_begins() -> None:
    statuses = [503, 200]
    server = Server(lambda _: Response(b"line\n", status_code=statuses.pop(0)))
    with LoopbackServer(server) as at:
        found = through(source(at.base_url), lambda client: download(client, f"{at.base_url}/file"))
        assert found == (f"{at.base_url}/file", b"line\n")
    assert len(server.requests) == 2


def test_a_download_that_breaks_off_says_so() -> None:
    async def half() -> Any:
        yield b"line\n"
        raise ConnectionAbortedError

    def answering(_: Request) -> Response:
        return StreamingResponse(half())

    with LoopbackServer(Server(answering)) as at, pytest.raises(TransportError) as caught:
        through(source(at.base_url), lambda client: download(client, f"{at.base_url}/file"))
    assert caught.value.transient


class Elsewhere:
    """A server that redirects to another one, reached by a name of its own."""

    def __init__(self, target: str, **config: Any) -> None:
        self.sent: list[httpx.Request] = []
        self.looked_up: list[str] = []
        self._target = target
        auth = {"kind": "basic", "username": "u", "password": {"env": "WORD"}}
        self._config = source("https://fhir.example/r4", auth=auth, **config)

    def fetch(self, addresses: list[str], url: str = "https://fhir.example/files/1", **more: Any) -> bytes:
        def handle(request: httpx.Request) -> httpx.Response:
            self.sent.append(request)
            if request.url.host == "fhir.example":
                return httpx.Response(307, headers={"location": self._target})
            return httpx.Response(200, content=b"line\n")

        async def lookup(host: str, port: int) -> list[str]:
            self.looked_up.append(f"{host}:{port}")
            return addresses

        async def ask(client: FhirClient) -> bytes:
            return (await download(client, url, **more))[1]

        found = through(self._config, ask, transport=httpx.MockTransport(handle), lookup=lookup)
        assert isinstance(found, bytes)
        return found


@pytest.fixture(autouse=True)
def _word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORD", "open-sesame")


PUBLIC = "93.184.215.14"
STORAGE = "https://storage.example/bucket/1?signature=abc"


def test_a_file_elsewhere_is_fetched_without_credentials() -> None:
    there = Elsewhere(STORAGE)
    assert there.fetch([PUBLIC], follow_foreign_without_auth=True) == b"line\n"
    home, away = there.sent
    assert "authorization" in home.headers
    assert "authorization" not in away.headers
    assert there.looked_up == ["storage.example:443"]
    # the very address that was looked at is asked, under the name that its certificate must have
    assert str(away.url) == f"https://{PUBLIC}/bucket/1?signature=abc"
    assert (away.headers["host"], away.extensions["sni_hostname"]) == ("storage.example", "storage.example")


def test_a_file_elsewhere_from_the_start() -> None:
    there = Elsewhere(STORAGE)
    assert there.fetch([PUBLIC], url=STORAGE, follow_foreign_without_auth=True) == b"line\n"
    assert ["authorization" in request.headers for request in there.sent] == [False]


def test_a_file_elsewhere_is_not_fetched_unasked() -> None:
    there = Elsewhere(STORAGE)
    with pytest.raises(ForeignOriginError, match=r"redirect leads to another origin \(https://storage\.example:443\)"):
        there.fetch([PUBLIC])
    with pytest.raises(ForeignOriginError, match="link leads to another origin"):
        there.fetch([PUBLIC], url=STORAGE)
    assert len(there.sent) == 1


def test_a_trusted_origin_gets_the_credentials_and_needs_no_look() -> None:
    there = Elsewhere(STORAGE, trusted_origins=["https://storage.example"])
    there.fetch(["10.0.0.1"])
    assert ["authorization" in request.headers for request in there.sent] == [True, True]
    assert there.looked_up == []


def test_credentials_can_be_left_out() -> None:
    there = Elsewhere(STORAGE, trusted_origins=["https://storage.example"])
    there.fetch([], authorised=False)
    assert ["authorization" in request.headers for request in there.sent] == [False, False]


def test_a_named_place_for_downloads_may_lie_inside_and_gets_no_credentials() -> None:
    there = Elsewhere("http://minio.clinic.example:9000/1", download_origins=["http://minio.clinic.example:9000"])
    there.fetch(["10.0.0.1"], follow_foreign_without_auth=True)
    assert ["authorization" in request.headers for request in there.sent] == [True, False]
    assert there.looked_up == []


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "127.0.0.1", "127.1.2.3", "0.0.0.1", "10.1.1.1", "172.16.0.1", "192.168.0.1", "100.64.0.1",
        "224.0.0.1", "255.255.255.255", "::", "::1", "fe80::1%eth0", "fd00:ec2::254", "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "ff02::1",
    ],
)  # fmt: skip
def test_no_request_goes_inside_a_network_because_an_answer_says_so(address: str) -> None:
    there = Elsewhere(STORAGE)
    with pytest.raises(ForeignOriginError) as caught:
        there.fetch([PUBLIC, address], follow_foreign_without_auth=True)
    assert caught.value.code == "IOA-NET-016"
    assert "download_origins" in caught.value.sentence
    assert len(there.sent) == 1


@pytest.mark.parametrize("link", ["http://storage.example/1", "ftp://storage.example/1", "file:///etc/passwd"])
def test_no_file_is_fetched_unencrypted_or_from_no_server(link: str) -> None:
    there = Elsewhere(link)
    with pytest.raises(TransportError, match="unencrypted or unknown place"):
        there.fetch([PUBLIC], follow_foreign_without_auth=True)
    assert len(there.sent) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"])
def test_every_spelling_of_this_machine(host: str) -> None:
    """With the real look-up: whatever a name or number means, it is the address that counts."""
    server = Server(plain)
    with LoopbackServer(server) as at:
        link = f"http://{host}:{at.base_url.rpartition(':')[2]}/1"
        config = source("http://fhir.invalid/r4")
        with pytest.raises(TransportError) as caught:
            through(config, lambda client: download(client, link, follow_foreign_without_auth=True))
    assert caught.value.code in {"IOA-NET-016", "IOA-NET-019"}
    assert server.requests == []


def test_a_place_that_wants_credentials_is_named() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(403)

    async def lookup(host: str, port: int) -> list[str]:
        return [PUBLIC]

    mock = httpx.MockTransport(handle)
    with pytest.raises(TransportError, match="trusted_origins") as caught:
        through(
            source("https://fhir.example"),
            lambda client: download(client, STORAGE, follow_foreign_without_auth=True),
            transport=mock,
            lookup=lookup,
        )
    assert caught.value.status == 403


# --- certificates ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Papers:
    """A certificate authority with a server's and a client's certificate, each with its key, as files."""

    ca: Path
    server: Path
    client: Path
    client_key: Path
    end: dt.datetime


def papers(folder: Path) -> Papers:
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    end = now + dt.timedelta(days=20)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Clinic CA")])

    def made(name: x509.Name, key: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType) -> x509.Certificate:
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(ca_name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - dt.timedelta(days=1)).not_valid_after(end)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
        for extension in (*extensions, identifier, authority):
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(ca_key, hashes.SHA256())

    def usage(*, of_ca: bool) -> x509.KeyUsage:
        return x509.KeyUsage(not of_ca, False, False, False, False, of_ca, of_ca, False, False)

    def key_pem(key: ec.EllipticCurvePrivateKey, password: bytes = b"") -> bytes:
        encryption: Any = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)

    ca = made(ca_name, ca_key, x509.BasicConstraints(ca=True, path_length=0), usage(of_ca=True))
    found = Papers(folder / "ca.pem", folder / "server.pem", folder / "client.pem", folder / "client.key", end)
    found.ca.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    for path, common_name, purpose in (
        (found.server, "127.0.0.1", ExtendedKeyUsageOID.SERVER_AUTH),
        (found.client, "io-fhir-adapter", ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        names = x509.SubjectAlternativeName(
            [x509.DNSName("storage.example"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]
        )
        certificate = made(
            name, key, names, usage(of_ca=False), x509.ExtendedKeyUsage([purpose]),
            x509.BasicConstraints(ca=False, path_length=None),
        )  # fmt: skip
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + key_pem(key))
        if path == found.client:
            found.client_key.write_bytes(key_pem(key, b"key-word"))
    return found


@contextlib.contextmanager
def encrypted(app: Any, shown: Papers, *, asks_client: bool = False) -> Iterator[str]:
    """An HTTPS server on a port of its own."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        log_config=None,
        lifespan="off",
        ssl_certfile=str(shown.server),
        ssl_ca_certs=str(shown.ca),
        ssl_cert_reqs=ssl.CERT_REQUIRED if asks_client else ssl.CERT_NONE,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: server.run(sockets=[listening]), daemon=True)
    listening.listen()
    thread.start()
    try:
        yield f"https://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listening.close()


def test_the_hospitals_own_authority(tmp_path: Path) -> None:
    shown = papers(tmp_path)

    async def ask(client: FhirClient) -> tuple[int, dt.datetime | None]:
        return (await client.get("metadata")).status, client.certificate_end

    with encrypted(Server(plain), shown) as url:
        assert through(source(url, ca_file=shown.ca), ask) == (200, shown.end)
        assert failure(source(url)).code == "IOA-NET-009"
        wrong_name = url.replace("127.0.0.1", "localhost")
        assert failure(source(wrong_name, ca_file=shown.ca)).code == "IOA-NET-009"


def test_a_host_elsewhere_must_show_a_certificate_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that was looked at is asked, but it is the name that counts."""
    shown = papers(tmp_path)
    monkeypatch.setattr("io_fhir_adapter.transport.origins._is_public", bool)
    looked_up: list[str] = []
    server = Server(plain)

    async def lookup(host: str, port: int) -> list[str]:
        looked_up.append(host)
        return ["127.0.0.1"]

    async def ask(client: FhirClient, name: str, times: int = 1) -> None:
        for _ in range(times):
            await download(client, url.replace("127.0.0.1", name), follow_foreign_without_auth=True)

    with encrypted(server, shown) as url:
        config = source("https://fhir.invalid", ca_file=shown.ca, client_cert_file=shown.client)
        through(config, lambda client: ask(client, "storage.example", 3), lookup=lookup)
        assert looked_up == ["storage.example"]
        assert len(server.peers) == 1
        assert {request.headers["host"].partition(":")[0] for request in server.requests} == {"storage.example"}
        with pytest.raises(TransportError, match="certificate is not trusted"):
            through(config, lambda client: ask(client, "other.example"), lookup=lookup)
    assert len(server.requests) == 3


def test_an_address_that_fails_is_left_for_the_next_one() -> None:
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        if request.url.host == PUBLIC:
            raise httpx.ConnectError("down")
        return httpx.Response(200, content=b"line\n")

    async def lookup(host: str, port: int) -> list[str]:
        return [PUBLIC, "93.184.215.15"]

    through(
        source("https://fhir.example"),
        lambda client: download(client, STORAGE, follow_foreign_without_auth=True),
        transport=httpx.MockTransport(handle),
        lookup=lookup,
    )
    assert asked == [PUBLIC, "93.184.215.15"]


def test_a_client_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = papers(tmp_path)
    monkeypatch.setenv("KEY_WORD", "key-word")
    with encrypted(Server(plain), shown, asks_client=True) as url:
        config = source(url, ca_file=shown.ca, client_cert_file=shown.client)
        assert through(config, metadata) == 200
        assert client_certificate_end(config) == shown.end
        keys = {"client_key_file": shown.client_key, "client_key_password": {"env": "KEY_WORD"}}
        assert through(source(url, ca_file=shown.ca, client_cert_file=shown.client, **keys), metadata) == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_that_wants_a_client_certificate(tmp_path: Path, version: ssl.TLSVersion) -> None:
    """In TLS 1.3 the refusal comes after the handshake, while the answer is awaited."""
    shown = papers(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.server)
    context.load_verify_locations(shown.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = version
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as wrapped:
                with pytest.raises(ssl.SSLError):
                    wrapped.do_handshake()
                # closed with what the client sent unread, the connection would end before the refusal arrives
                socket.socket.shutdown(wrapped, socket.SHUT_WR)
                while socket.socket.recv(wrapped, 1 << 16):
                    continue

        thread = threading.Thread(target=serve)
        thread.start()
        refused = failure(source(f"https://127.0.0.1:{listening.getsockname()[1]}", ca_file=shown.ca, retries=0))
        thread.join()
    assert (refused.code, refused.transient) == ("IOA-NET-020", False)


def test_client_certificates_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = papers(tmp_path)
    monkeypatch.setenv("KEY_WORD", "wrong")
    for keys in (
        {"client_cert_file": tmp_path / "absent.pem"},
        {"client_cert_file": shown.ca},  # without a key
        {"client_cert_file": shown.client, "client_key_file": shown.client_key},  # a word is needed
        {
            "client_cert_file": shown.client,
            "client_key_file": shown.client_key,
            "client_key_password": {"env": "KEY_WORD"},
        },
    ):
        with pytest.raises(ConfigError) as caught:
            FhirClient(source("https://fhir.example", **keys), "sources.s")
        assert caught.value.code == "IOA-CFG-010"


# --- proxies --------------------------------------------------------------------------------------------------------


def test_a_proxy_with_a_sign_in(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = "Basic " + base64.b64encode(b"user:open-sesame").decode()

    def answering(request: Request) -> Response:
        known = request.headers.get("proxy-authorization") == expected
        return plain(request) if known else Response(status_code=407)

    server = Server(answering)
    with LoopbackServer(server) as at:
        signed = {"proxy": at.base_url, "proxy_username": "user", "proxy_password": {"env": "WORD"}}
        assert through(source("http://fhir.invalid/r4", **signed), metadata) == 200
        assert server.requests[-1].headers["host"] == "fhir.invalid"
        refused = failure(source("http://fhir.invalid/r4", proxy=at.base_url))
        assert (refused.code, refused.transient) == ("IOA-NET-021", False)
        # through a tunnel it is httpx that sees the refusal
        tunnel = failure(source("https://fhir.invalid/r4", proxy=at.base_url))
        assert (tunnel.code, tunnel.transient) == ("IOA-NET-021", False)


def test_the_environments_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, server = Server(plain), Server(plain)
    with LoopbackServer(proxy) as proxy_at, LoopbackServer(server) as at:
        monkeypatch.setenv("HTTP_PROXY", proxy_at.base_url)
        monkeypatch.setenv("http_proxy", proxy_at.base_url)
        assert through(source(at.base_url), metadata) == 200
    assert (len(proxy.requests), len(server.requests)) == (0, 1)


# --- in the run as a whole ------------------------------------------------------------------------------------------


def test_retries_are_bounded_in_the_run_as_a_whole() -> None:
    """With a budget of 3, and one in ten beyond it."""

    async def ask(client: FhirClient) -> list[str]:
        codes = []
        for _ in range(4):
            try:
                await client.get("Procedure")
            except AdapterError as exc:
                codes.append(exc.code)
        return codes

    server = Server(lambda _: Response(status_code=500))
    with LoopbackServer(server) as at:
        codes = through(source(at.base_url, retries=2, retry_budget=3), ask)
    assert codes == ["IOA-NET-004", "IOA-NET-015", "IOA-NET-015", "IOA-NET-015"]
    assert len(server.requests) == 3 + 2 + 1 + 1


def test_a_long_run_earns_more_retries() -> None:
    async def ask(client: FhirClient) -> int:
        for _ in range(100):
            await client.get("Procedure")
        return client.retried

    answered = iter(range(10_000))
    server = Server(lambda _: Response(b"{}", status_code=500 if next(answered) % 11 == 10 else 200))
    with LoopbackServer(server) as at:
        assert through(source(at.base_url, retry_budget=1), ask) == 9


class Recording(httpcore.AsyncMockStream):
    """A connection that remembers how much was asked for at a time."""

    asked: list[int] = []  # noqa: RUF012 - of the one test

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's
        self.asked.append(max_bytes)
        return await super().read(max_bytes, timeout)


class Recorded(httpcore.AsyncMockBackend):
    async def connect_tcp(self, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        return Recording([b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", b"ok"])


def test_answers_are_taken_in_large_pieces() -> None:
    async def ask() -> httpcore.Response:
        async with httpcore.AsyncConnectionPool(network_backend=Recorded([])) as pool:
            return await pool.request("GET", "http://hospital.example/")

    assert asyncio.run(ask()).content == b"ok"
    assert min(Recording.asked) >= 1 << 20
