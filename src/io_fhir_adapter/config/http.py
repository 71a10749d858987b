"""Servers: their address, how to sign in, how long to wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, HttpUrl, field_validator, model_validator

from io_fhir_adapter.config.base import Part, SecretRef

__all__ = ["AuthConfig", "HttpConfig"]


class AuthConfig(Part):
    """How to sign in at a server: nothing, a bearer token, or a user name and password."""

    kind: Literal["none", "bearer", "basic"] = "none"
    token: SecretRef | None = None
    username: str | None = None
    password: SecretRef | None = None

    @model_validator(mode="after")
    def _complete(self) -> AuthConfig:
        if self.kind == "none" and (self.token or self.username or self.password):
            msg = "kind is none, so nothing would be sent; set kind to bearer or basic"
            raise ValueError(msg)
        if self.kind == "bearer" and self.token is None:
            msg = "bearer needs token (a file or an env)"
            raise ValueError(msg)
        if self.kind == "basic" and (self.username is None or self.password is None):
            msg = "basic needs username and password (a file or an env)"
            raise ValueError(msg)
        return self


class HttpConfig(Part):
    """A server and how it is spoken to."""

    url: HttpUrl
    auth: AuthConfig = AuthConfig()
    trusted_origins: tuple[HttpUrl, ...] = ()
    ca_file: Path | None = None
    connect_timeout_s: float = Field(default=10, gt=0, le=600)
    read_timeout_s: float = Field(default=120, gt=0, le=3600)
    retries: int = Field(default=5, ge=0, le=20)
    max_retry_wait_s: float = Field(default=60, ge=0, le=3600)
    max_response_mib: int = Field(default=256, gt=0, le=4096)

    @field_validator("url", "trusted_origins")
    @classmethod
    def _address_only(cls, value: Any) -> Any:
        for url in value if isinstance(value, tuple) else (value,):
            if url.username or url.password:
                msg = "the URL holds a user name or password; name them under auth"
                raise ValueError(msg)
            if url.query or url.fragment:
                msg = "the URL goes on after the path; give the base URL alone"
                raise ValueError(msg)
        return value

    @property
    def base_url(self) -> str:
        """The base URL without a trailing slash."""
        return str(self.url).rstrip("/")
