"""SMART Backend Services: what is asked for, and finding the token endpoint.

Source: HL7 SMART App Launch 2, "Backend Services".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from io_fhir_adapter.config.http import is_loopback_host
from io_fhir_adapter.errors import TransportError
from io_fhir_adapter.transport.origins import is_absolute, origin_of, parse_url

__all__ = ["DEFAULT_SCOPES", "advertised_token_url"]

DEFAULT_SCOPES: Final = ("system/Procedure.rs", "system/Patient.rs", "system/Encounter.rs", "system/Condition.rs")


def advertised_token_url(document: bytes, base_url: str) -> str:
    """The token endpoint that a server's SMART configuration names, to the letter.

    A server that is reached without encryption could be anyone, so its word is taken only on this machine.

    Raises:
        TransportError: It names none, or one that is not safe to use.
    """
    try:
        content: Any = json.loads(document)
    except ValueError:
        content = None
    url = content.get("token_endpoint") if isinstance(content, Mapping) else None
    if not isinstance(url, str) or not is_absolute(url):
        raise TransportError(
            "the server's SMART configuration names no token endpoint",
            where=base_url,
            do="name it under auth.token_url",
            number=14,
            transient=False,
        )
    asked, told = origin_of(base_url), origin_of(parse_url(url, base_url, base_url))
    here = is_loopback_host(asked[1])
    if not (told[0] == "https" and (asked[0] == "https" or here)) and not (here and is_loopback_host(told[1])):
        raise TransportError(
            "the server's SMART configuration, or the token endpoint that it names, is not encrypted",
            where=base_url,
            do="reach the server over https, or name the token endpoint under auth.token_url",
            number=14,
            transient=False,
        )
    return url
