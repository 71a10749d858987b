"""Servers: their address, how to sign in, how long to wait, whom else to trust."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, HttpUrl, field_validator, model_validator

from io_fhir_adapter.config.base import Part, SecretRef

__all__ = ["AuthConfig", "AuthKind", "HttpConfig", "bare_address", "is_loopback_host", "one_each"]

AuthKind = Literal["none", "bearer", "basic", "client-credentials", "smart-backend"]

_NEEDED: Final[dict[str, tuple[str, ...]]] = {
    "none": (),
    "bearer": ("token",),
    "basic": ("username", "password"),
    "client-credentials": ("client_id", "client_secret", "token_url"),
    "smart-backend": ("client_id", "key"),
}
_POSSIBLE: Final[dict[str, tuple[str, ...]]] = {
    "client-credentials": ("scopes", "client_auth", "audience"),
    "smart-backend": ("scopes", "token_url", "audience", "algorithm", "key_id", "key_password"),
}
_SECRETS: Final = frozenset({"token", "password", "client_secret", "key"})
_LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1", "[::1]"})


def is_loopback_host(host: str | None) -> bool:
    """Whether a URL's host is this machine itself, by its usual names."""
    return (host or "").lower() in _LOOPBACK_HOSTS


def bare_address(url: HttpUrl, *, forbidden: tuple[str, ...], bare: str, encrypted: str) -> None:
    """Refuses an address with parts that it must not have, or one that is neither encrypted nor this machine itself.

    Args:
        url: The address.
        forbidden: The parts that it must not have, such as ``query``; user name and password always.
        bare: What is said where it has one.
        encrypted: What is said where it is not encrypted.

    Raises:
        ValueError: It is such an address.
    """
    if any(getattr(url, part) for part in ("username", "password", *forbidden)):
        raise ValueError(bare)
    if url.scheme != "https" and not is_loopback_host(url.host):
        raise ValueError(encrypted)


def one_each(scopes: tuple[str, ...]) -> tuple[str, ...]:
    """The same scopes.

    Raises:
        ValueError: An entry holds none or several.
    """
    if any(not scope or any(sign.isspace() for sign in scope) for scope in scopes):
        msg = "write each scope as an entry of its own"
        raise ValueError(msg)
    return scopes


class AuthConfig(Part):
    """How to sign in at a server.

    Attributes:
        kind: ``none``; ``bearer`` a token that lasts; ``basic`` a user name and password; ``client-credentials`` OAuth
            with a client secret; ``smart-backend`` SMART Backend Services, signed with a private key.
        token: For ``bearer``.
        username: For ``basic``.
        password: For ``basic``.
        client_id: As registered with the server.
        client_secret: For ``client-credentials``.
        client_auth: Whether client_id and secret travel in the Authorization header or in the form.
        token_url: The token endpoint, kept as written; ``smart-backend`` asks the server for it where it is absent.
        scopes: What to ask for; for ``smart-backend`` reading what a pull needs, where it is empty.
        audience: For servers that want another ``aud`` than the token endpoint's address.
        key: For ``smart-backend``: the private key as PEM, JWK or JWKS.
        key_id: ``kid`` of the registered key, and which one of a JWKS to take.
        key_password: Of an encrypted PEM.
        algorithm: By default that of the key: RS384 for RSA, ES384 for P-384.
    """

    kind: AuthKind = "none"
    token: SecretRef | None = None
    username: str | None = None
    password: SecretRef | None = None
    client_id: str | None = None
    client_secret: SecretRef | None = None
    client_auth: Literal["header", "form"] = "header"
    token_url: str | None = None
    scopes: tuple[str, ...] = ()
    audience: str | None = None
    key: SecretRef | None = None
    key_id: str | None = None
    key_password: SecretRef | None = None
    algorithm: Literal["RS384", "ES384"] | None = None

    @field_validator("token_url")
    @classmethod
    def _encrypted(cls, value: str | None) -> str | None:
        if value is not None:
            bare_address(
                HttpUrl(value),  # the text is kept as it is: servers compare it with the audience
                forbidden=("fragment",),
                bare="the token endpoint is an address without user name, password or fragment",
                encrypted="a token endpoint is reached over https",
            )
        return value

    @field_validator("scopes")
    @classmethod
    def _one_each(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return one_each(value)

    @model_validator(mode="after")
    def _complete(self) -> AuthConfig:
        needed = _NEEDED[self.kind]
        given = self.model_fields_set - {"kind"}
        given = {name for name in given if getattr(self, name) is not None}
        if self.kind == "none" and given:
            msg = (
                "kind is none, so nothing would be sent; set kind to bearer, basic, client-credentials or smart-backend"
            )
            raise ValueError(msg)
        if any(getattr(self, name) is None for name in needed):
            names = [f"{name} (a file or an env)" if name in _SECRETS else name for name in needed]
            msg = f"{self.kind} needs {' and '.join([', '.join(names[:-1]), names[-1]] if names[1:] else names)}"
            raise ValueError(msg)
        stray = given - {*needed, *_POSSIBLE.get(self.kind, ())}
        if stray:
            msg = f"{min(stray)} has no meaning for kind {self.kind}; remove it, or correct kind"
            raise ValueError(msg)
        return self


class HttpConfig(Part):
    """A server and how it is spoken to.

    Attributes:
        url: The base URL.
        auth: How to sign in.
        trusted_origins: Other origins of the same server: links may lead there, and credentials go there too.
        download_origins: Other origins that files may be downloaded from, without credentials; addresses inside the
            hospital's network are reached only where they are named here.
        ca_file: PEM file of the certificate authority to trust instead of the public ones.
        client_cert_file: PEM file of this client's certificate (mutual TLS).
        client_key_file: Its private key, where it does not stand in the same file.
        client_key_password: Of an encrypted private key.
        proxy: The proxy that all requests go through; the proxy settings of the environment are not used.
        proxy_username: Where the proxy wants one.
        proxy_password: Where the proxy wants one.
        connect_timeout_s: Seconds to connect.
        read_timeout_s: Seconds to wait for the next part of an answer.
        retries: How often one request is tried again.
        retry_budget: How many requests of one run may be tried again in all, beyond one in ten.
        max_retry_wait_s: The longest wait between tries.
        max_response_mib: The largest answer, uncompressed.
    """

    url: HttpUrl
    auth: AuthConfig = AuthConfig()
    trusted_origins: tuple[HttpUrl, ...] = ()
    download_origins: tuple[HttpUrl, ...] = ()
    ca_file: Path | None = None
    client_cert_file: Path | None = None
    client_key_file: Path | None = None
    client_key_password: SecretRef | None = None
    proxy: HttpUrl | None = None
    proxy_username: str | None = None
    proxy_password: SecretRef | None = None
    connect_timeout_s: float = Field(default=10, gt=0, le=600)
    read_timeout_s: float = Field(default=120, gt=0, le=3600)
    retries: int = Field(default=5, ge=0, le=20)
    retry_budget: int = Field(default=200, ge=0, le=1_000_000)
    max_retry_wait_s: float = Field(default=60, ge=0, le=3600)
    max_response_mib: int = Field(default=256, gt=0, le=4096)

    @field_validator("url", "trusted_origins", "download_origins", "proxy")
    @classmethod
    def _address_only(cls, value: Any) -> Any:
        for url in value if isinstance(value, tuple) else (value,):
            if url is None:
                continue
            if url.username or url.password:
                msg = "the URL holds a user name or password; name them under auth, or under proxy_password"
                raise ValueError(msg)
            if url.query or url.fragment:
                msg = "the URL goes on after the path; give the base URL alone"
                raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _belongs_together(self) -> HttpConfig:
        if self.client_cert_file is None and (self.client_key_file or self.client_key_password):
            msg = "a client key without client_cert_file is never used"
            raise ValueError(msg)
        if self.proxy is None and (self.proxy_username or self.proxy_password):
            msg = "proxy_username and proxy_password without proxy are never used"
            raise ValueError(msg)
        if (self.proxy_username is None) != (self.proxy_password is None):
            msg = "a proxy wants proxy_username and proxy_password, or neither"
            raise ValueError(msg)
        return self

    @property
    def base_url(self) -> str:
        """The base URL without a trailing slash."""
        return str(self.url).rstrip("/")
