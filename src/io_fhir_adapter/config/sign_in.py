"""Who may sign in at the service: local accounts, an OpenID provider, and how long a session lasts."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, get_args

from pydantic import Field, HttpUrl, field_validator, model_validator

from io_fhir_adapter.config.base import Part, SecretRef
from io_fhir_adapter.config.http import HttpConfig, bare_address, one_each

__all__ = ["ROLES", "OidcConfig", "OidcRolesConfig", "Role", "SignInConfig"]

Role = Literal["viewer", "reviewer", "approver", "administrator"]
"""What a person may do; see docs/signing-in.md."""

ROLES: Final[tuple[Role, ...]] = get_args(Role)

_PROVIDER_READ_S: Final = 15
_PROVIDER_CONNECT_S: Final = 5


class OidcRolesConfig(Part):
    """Which values of the roles claim give which role."""

    viewer: tuple[str, ...] = ()
    reviewer: tuple[str, ...] = ()
    approver: tuple[str, ...] = ()
    administrator: tuple[str, ...] = ()

    def given(self, values: frozenset[str]) -> frozenset[Role]:
        """The roles that these values of the claim give."""
        return frozenset(role for role in ROLES if values & frozenset(getattr(self, role)))


class OidcConfig(Part):
    """An OpenID Connect provider, such as the hospital's Keycloak, ADFS or Entra ID.

    Attributes:
        issuer: The provider's issuer identifier, kept as written: it must be what the provider's tokens say.
        client_id: As registered with the provider.
        client_secret: The registered secret.
        roles_claim: Where in the ID token the roles stand; a path with dots, such as ``realm_access.roles``.
        roles: Which values of that claim give which role.
        scopes: What to ask for; ``openid`` is always among it.
        trusted_origins: Other origins of the same provider, where its endpoints do not lie at the issuer's.
        ca_file: PEM file of the certificate authority to trust instead of the public ones.
        proxy: The proxy that requests to the provider go through.
    """

    issuer: str
    client_id: str = Field(min_length=1)
    client_secret: SecretRef
    roles_claim: str = Field(default="roles", min_length=1)
    roles: OidcRolesConfig
    scopes: tuple[str, ...] = ("openid", "profile")
    trusted_origins: tuple[HttpUrl, ...] = ()
    ca_file: Path | None = None
    proxy: HttpUrl | None = None

    @field_validator("issuer")
    @classmethod
    def _encrypted(cls, value: str) -> str:
        bare_address(
            HttpUrl(value),  # the text is kept as it is: tokens are compared with it
            forbidden=("query", "fragment"),
            bare="an issuer is an address without user name, password, query or fragment",
            encrypted="a provider is reached over https",
        )
        return value

    @field_validator("scopes")
    @classmethod
    def _with_openid(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return one_each(value) if "openid" in value else ("openid", *one_each(value))

    @property
    def http(self) -> HttpConfig:
        """How the provider is spoken to: bounded tightly, for a person waits."""
        return HttpConfig(
            url=HttpUrl(self.issuer),
            trusted_origins=self.trusted_origins,
            ca_file=self.ca_file,
            proxy=self.proxy,
            connect_timeout_s=_PROVIDER_CONNECT_S,
            read_timeout_s=_PROVIDER_READ_S,
            retries=1,
            max_retry_wait_s=1,
            max_response_mib=1,
        )


class SignInConfig(Part):
    """Signing in at the service's pages.

    Attributes:
        accounts: Whether local accounts may sign in.
        oidc: The provider that people sign in at.
        session_idle_minutes: A session ends after so long without a request.
        session_hours: A session ends after so long, used or not.
        public_url: The address that people reach the service at, where that is not this machine itself.
    """

    accounts: bool = False
    oidc: OidcConfig | None = None
    session_idle_minutes: int = Field(default=15, ge=1, le=480)
    session_hours: int = Field(default=8, ge=1, le=24)
    public_url: HttpUrl | None = None

    @field_validator("public_url")
    @classmethod
    def _an_origin(cls, value: HttpUrl | None) -> HttpUrl | None:
        if value is not None:
            alone = "give scheme, host and port alone, such as https://accreditation.hospital.example"
            if (value.path or "/") != "/":
                raise ValueError(alone)
            bare_address(
                value,
                forbidden=("query", "fragment"),
                bare=alone,
                encrypted="people sign in over https; put a proxy with a certificate before the service",
            )
        return value

    @model_validator(mode="after")
    def _some_way(self) -> SignInConfig:
        if not self.accounts and self.oidc is None:
            msg = "nobody could sign in; set accounts to true, or name a provider under oidc"
            raise ValueError(msg)
        if self.oidc is not None and self.public_url is None:
            msg = "oidc needs public_url, the address that the provider sends people back to"
            raise ValueError(msg)
        return self

    @property
    def origin(self) -> str:
        """The origin of ``public_url`` without a trailing slash, empty where there is none."""
        return str(self.public_url).rstrip("/") if self.public_url is not None else ""
