"""Whom to tell what needs a person, and from when on it does."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from io_fhir_adapter.config.base import Part, SecretRef

__all__ = ["About", "NotifyConfig", "TargetConfig"]

About = Literal[
    "run", "late", "pace", "unmapped", "submission", "verdict", "review", "certificate", "clock", "disk", "backup"
]
"""What there is to tell of."""


class TargetConfig(Part):
    """One place that messages go to.

    Attributes:
        name: Short and lasting: what was told there is remembered under it.
        url: Where, in the manner of Apprise; a secret, since it holds passwords and tokens.
        about: What is told there; everything where omitted.
    """

    name: str = Field(pattern=r"^[a-z0-9_-]{1,40}$")
    url: SecretRef
    about: tuple[About, ...] = ()

    def wants(self, kind: str) -> bool:
        """Whether that is told there."""
        return not self.about or kind in self.about


class NotifyConfig(Part):
    """Telling people; nobody is told where the section is left out.

    Attributes:
        targets: Where messages go to.
        unmapped_share: Of the completed Procedures of the last 30 days, so large a share under codes that were never
            seen before and have no row in the tables is told of.
        pace_from_day: The day of the year from which on the pace is told of; before it a straight line says little.
        late_days: Without a complete run for more than so many days.
    """

    targets: tuple[TargetConfig, ...] = Field(min_length=1)
    unmapped_share: float = Field(default=0.02, ge=0, le=1)
    pace_from_day: int = Field(default=60, ge=1, le=366)
    late_days: int = Field(default=2, ge=1, le=60)

    @field_validator("targets")
    @classmethod
    def _names_differ(cls, value: tuple[TargetConfig, ...]) -> tuple[TargetConfig, ...]:
        if len({target.name for target in value}) != len(value):
            msg = "two targets have the same name"
            raise ValueError(msg)
        return value
