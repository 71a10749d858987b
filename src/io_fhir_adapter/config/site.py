"""The facility's own settings: who it is, what it adds to the mappings, where things are kept and sent."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from io_fhir_adapter.config.base import Part, SecretRef
from io_fhir_adapter.config.http import HttpConfig
from io_fhir_adapter.errors import ConfigError
from io_fhir_adapter.fhir.dates import zone

__all__ = [
    "ConceptMapConfig",
    "FacilityConfig",
    "LedgerConfig",
    "MappingsConfig",
    "OutputConfig",
    "ReviewConfig",
    "ScheduleConfig",
    "SiteTableConfig",
    "SubmissionConfig",
]


class FacilityConfig(Part):
    """The department that seeks accreditation."""

    code: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")
    name: str = ""
    time_zone: str = "UTC"
    patient_identifier_systems: tuple[str, ...] = ()  # what tells a person in several sources

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            zone(value)
        except ConfigError as exc:
            raise ValueError(exc.what) from exc
        return value


class SiteTableConfig(Part):
    """A site's own code table."""

    system: str = Field(min_length=1)
    file: Path


class ConceptMapConfig(Part):
    """A site's own FHIR ConceptMap, in JSON."""

    file: Path


class MappingsConfig(Part):
    """Additions to the shipped mappings."""

    site_tables: tuple[SiteTableConfig, ...] = ()
    concept_maps: tuple[ConceptMapConfig, ...] = ()


class LedgerConfig(Part):
    """The local database: a SQLite file, or any SQLAlchemy URL (whose password comes from a secret)."""

    path: Path | None = Path("ledger.sqlite")
    url: str | None = None
    password: SecretRef | None = None

    @model_validator(mode="after")
    def _no_password_in_url(self) -> LedgerConfig:
        if self.url and "@" in self.url and ":" in self.url.partition("://")[2].rpartition("@")[0]:
            msg = "the URL holds a password; name it under ledger.password (a file or an env)"
            raise ValueError(msg)
        return self


class ReviewConfig(Part):
    """The case review.

    Attributes:
        key_file: Where the pseudonym key lies; it never leaves the facility.
        questionnaire: The form in place of the shipped one: a file, or the address of a Questionnaire.
    """

    key_file: Path = Path("pseudonym.key")
    questionnaire: str | None = Field(default=None, min_length=1)


class SubmissionConfig(HttpConfig):
    """The accreditation system's FHIR endpoint.

    Attributes:
        automatic: Send without a person's approval.
        give_up_after_days: After so many days of failing tries a submission is parked.
        nonce: Who gives the nonce of a draw: ``task`` the accreditation system alone, ``auto`` the facility where the
            system offers none, ``local`` the facility, without announcing the frame.
        nonce_wait_days: For ``auto``: so many days a system that took the announcement may take to give one.
    """

    automatic: bool = False
    give_up_after_days: int = Field(default=14, ge=1, le=365)
    nonce: Literal["auto", "local", "task"] = "auto"
    nonce_wait_days: int = Field(default=7, ge=0, le=365)


class ScheduleConfig(Part):
    """When the service runs the nightly job: five cron fields in the facility's time zone."""

    cron: str = "30 2 * * *"
    jitter_s: int = Field(default=300, ge=0, le=3600)

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, value: str) -> str:
        if len(value.split()) != 5:
            msg = "a schedule has five fields: minute hour day month weekday"
            raise ValueError(msg)
        return value


class OutputConfig(Part):
    """Where the report and the copies of what was made go."""

    folder: Path = Path("out")
