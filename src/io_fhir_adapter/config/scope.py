"""Scope: which records are the interventional-oncology service's own, where a source holds more than those."""

from __future__ import annotations

import re
from typing import Final, Literal

from pydantic import field_validator, model_validator

from io_fhir_adapter.config.base import Part
from io_fhir_adapter.fhir.references import normalise

__all__ = ["ScopeConfig", "ScopeRuleConfig"]

_TYPES: Final[dict[str, tuple[str, ...]]] = {
    "organization": ("Organization",),
    "location": ("Location",),
    "practitioner_role": ("PractitionerRole",),
    "performer": ("Practitioner", "PractitionerRole", "Organization", "CareTeam", "Device", "HealthcareService"),
    "service_category": ("HealthcareService",),
}
_LITERAL: Final = re.compile(r"([A-Z][A-Za-z]+)/([A-Za-z0-9.-]{1,64})")
_CODED: Final = frozenset({"practitioner_role", "service_category"})


class ScopeRuleConfig(Part):
    """What a record may say of where it belongs; of several keys all must hold.

    A value is a reference (``Location/7``, or a URL that ends so), ``system|value`` of an identifier, or
    ``system|code`` of a coding. Once read, it is ``Type/id`` or has a ``|``.
    """

    organization: str | None = None
    location: str | None = None
    practitioner_role: str | None = None
    performer: str | None = None
    service_category: str | None = None

    @field_validator("*")
    @classmethod
    def _reference_or_token(cls, value: str | None, info: object) -> str | None:
        if value is None:
            return None
        name = str(getattr(info, "field_name", ""))
        value = value.strip()
        if "|" in value:
            if not value.partition("|")[2]:
                msg = "nothing stands behind the |; write system|value"
                raise ValueError(msg)
            return value
        types = _TYPES[name]
        found = _LITERAL.fullmatch(normalise(value, types[0])) if "/" in value or value.startswith("urn:") else None
        if found is None or found[1] not in types:
            kind = "a coding" if name in _CODED else "an identifier"
            msg = f"write {' or '.join(f'{known}/ID' for known in types[:2])}, or system|value of {kind}"
            raise ValueError(msg)
        return found[0]

    @model_validator(mode="after")
    def _says_something(self) -> ScopeRuleConfig:
        if not self.asks:
            msg = f"name at least one of {', '.join(_TYPES)}"
            raise ValueError(msg)
        return self

    @property
    def asks(self) -> tuple[tuple[str, str], ...]:
        """(key, value) of every key that is given."""
        return tuple((name, value) for name in _TYPES if (value := getattr(self, name)) is not None)


class ScopeConfig(Part):
    """Which records count as the service's own; without ``include`` all do that are not excluded.

    ``when_unknown`` says what becomes of a record that says nothing of what was asked.
    """

    include: tuple[ScopeRuleConfig, ...] = ()
    exclude: tuple[ScopeRuleConfig, ...] = ()
    when_unknown: Literal["review", "include", "exclude"] = "review"
