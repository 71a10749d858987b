"""Where a facility stands with a programme: what only people know."""

from __future__ import annotations

from datetime import date
from typing import Any

from pydantic import Field, field_validator, model_validator

from io_fhir_adapter.config.base import Part

__all__ = ["StandingConfig"]


class StandingConfig(Part):
    """What no record tells of one programme; a date that is left out is not known.

    Attributes:
        programme: The programme's id, such as ``iasios``.
        approved: The responsible authority agreed to the application on this day.
        enrolled: The facility is enrolled since this day.
        accredited: The facility is accredited since this day, for the first time or again.
    """

    programme: str = Field(min_length=1)
    approved: date | None = None
    enrolled: date | None = None
    accredited: date | None = None

    @field_validator("approved", "enrolled", "accredited", mode="before")
    @classmethod
    def _day(cls, value: Any) -> date | None:
        # pydantic alone takes numbers and moments too
        if value is None or type(value) is date:  # as YAML reads a day without quotes
            return value
        try:
            return date.fromisoformat(value if isinstance(value, str) else "")
        except ValueError as exc:
            msg = "write the day as YYYY-MM-DD"
            raise ValueError(msg) from exc

    @model_validator(mode="after")
    def _in_order(self) -> StandingConfig:
        if self.enrolled and self.accredited and self.accredited < self.enrolled:
            msg = "accredited lies before enrolled"
            raise ValueError(msg)
        return self
