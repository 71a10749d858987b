"""What the sandbox's authorisation server asks for, and what goes wrong there: a plain value, off by default."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AuthPlan"]


@dataclass(frozen=True)
class AuthPlan:
    """Who may ask for tokens, and what goes wrong.

    Attributes:
        required: Whether FHIR requests need a token that was issued here; metadata and the discovery stay open.
        client_id: The one client.
        client_secret: Its secret; empty where it has none.
        keys: Its public keys (JWKs with ``kid``); empty where it has none.
        audience: The ``aud`` that assertions must carry; by default the advertised token endpoint, to the letter.
        advertised: The token endpoint that the discovery names; by default the one here.
        scopes: What may be granted; anything else asked for is ``invalid_scope``.
        lifetime_s: How long a token lasts.
        uses: For how many requests a token is good; 0 for any number.
        told_lifetime_s: What ``expires_in`` says where that is something else; 0 leaves it out.
        token_status: What the token endpoint answers instead; 0 for what is right.
        token_status_times: How often; None for always.
        refused_times: So many FHIR requests are 401 although their token is good; None for all.
        clock_ahead_s: How far the clock that assertions are checked against is ahead of this machine's.
    """

    required: bool = False
    client_id: str = "io-fhir-adapter"
    client_secret: str = ""
    keys: tuple[dict[str, str], ...] = ()
    audience: str = ""
    advertised: str = ""
    scopes: tuple[str, ...] = (
        "system/Procedure.rs",
        "system/Patient.rs",
        "system/Encounter.rs",
        "system/Condition.rs",
    )
    lifetime_s: float = 300.0
    uses: int = 0
    told_lifetime_s: float | None = None
    token_status: int = 0
    token_status_times: int | None = None
    refused_times: int | None = 0
    clock_ahead_s: float = 0.0
