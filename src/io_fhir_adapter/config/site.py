"""The facility's own settings: who it is, what it adds to the mappings, where things are kept and sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from io_fhir_adapter.config.base import Part, SecretRef
from io_fhir_adapter.config.http import AuthConfig, HttpConfig
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
    "SignatureConfig",
    "SiteTableConfig",
    "SubmissionConfig",
]

_NOWHERE: Final = "https://nowhere.invalid/"  # no request is ever made to it; see RFC 2606
_SENDERS_SCOPES: Final = ("system/*.crus",)  # put what is sent, and look for what the system answers


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


class SignatureConfig(Part):
    """The private key that submissions are signed with.

    Attributes:
        file: A PEM, a JSON Web Key or a set of them; its owner alone may read it.
        kid: What the accreditation system knows it by; the key's own name, else its thumbprint, where omitted.
        password: Of an encrypted PEM.
    """

    file: Path
    kid: str | None = Field(default=None, min_length=1, max_length=200)
    password: SecretRef | None = None


class SubmissionConfig(HttpConfig):
    """The accreditation system, and how submissions get there.

    Attributes:
        channel: ``transaction`` posts the Bundle to the endpoint, ``submit-data`` hands it to the endpoint's
            ``Measure/$submit-data``, ``file-drop`` lays it into a folder and makes no request at all.
        folder: For ``file-drop``.
        automatic: ``volumes`` sends a year's volume, without any case, by itself. True sends the rest as soon as it is
            approved: where people sign in by an approver who looked at it, else under the name in ``approver``.
        approver: Where nobody signs in: the name or office of the responsible authority, who answers for what leaves.
        give_up_after_days: After so many days of failing tries a submission is parked.
        nonce: Who gives the nonce of a draw: ``task`` the accreditation system alone, ``auto`` the facility where the
            system offers none, ``local`` the facility, without announcing the frame.
        nonce_wait_days: For ``auto``: so many days a system that took the announcement may take to give one.
        signing_key: What submissions are signed with; nothing is signed where omitted.
        name_approver: Whether the name of who approved leaves too, beside their role and the token of their account.
    """

    channel: Literal["transaction", "submit-data", "file-drop"] = "transaction"
    folder: Path | None = None
    automatic: bool | Literal["volumes"] = False
    approver: str = Field(default="", max_length=200)
    give_up_after_days: int = Field(default=14, ge=1, le=365)
    nonce: Literal["auto", "local", "task"] = "auto"
    nonce_wait_days: int = Field(default=7, ge=0, le=365)
    signing_key: SignatureConfig | None = None
    name_approver: bool = False

    @field_validator("auth")
    @classmethod
    def _scopes_of_a_sender(cls, value: AuthConfig) -> AuthConfig:
        """What a submission needs, where nothing else is named: what is asked for by itself is what a pull needs."""
        if value.kind != "smart-backend" or value.scopes:
            return value
        return value.model_copy(update={"scopes": _SENDERS_SCOPES})

    @model_validator(mode="before")
    @classmethod
    def _no_network(cls, value: Any) -> Any:
        """Of a file drop: nothing that only a request needs, and no nonce that would have to be asked for."""
        if not isinstance(value, dict) or value.get("channel") != "file-drop":
            return value
        unused = sorted(HttpConfig.model_fields.keys() & value.keys())
        if unused:
            msg = f"a file drop makes no request, so {unused[0]} is never used; remove it"
            raise ValueError(msg)
        if value.get("nonce", "local") != "local":
            msg = "a file drop cannot ask for a nonce; set nonce to local or leave it out"
            raise ValueError(msg)
        return {**value, "url": _NOWHERE, "nonce": "local"}

    @model_validator(mode="after")
    def _a_folder_for_files(self) -> SubmissionConfig:
        if (self.channel == "file-drop") != (self.folder is not None):
            msg = "folder belongs to channel file-drop; give both or neither"
            raise ValueError(msg)
        return self

    @property
    def base_url(self) -> str:
        """Where submissions go: the base URL without a trailing slash, of a file drop the folder."""
        return super().base_url if self.folder is None else str(self.folder)


class ScheduleConfig(Part):
    """When the service does what: five cron fields each, in the facility's time zone.

    Attributes:
        cron: The nightly job.
        jitter_s: Each of them starts up to so many seconds later.
        window: Hours such as ``20:00-06:00`` outside of which nothing is pulled; any hour where omitted.
        reconcile: Complete readings of the sources in a job of their own; in a night that is due by ``reconcile_days``
            where omitted.
        retention: Removing what need not be kept any longer; never by itself where omitted.
        deliver_minutes: So often it looks whether a submission waits to be sent again; 0 for in the night alone.
        verdict_minutes: So often it looks whether it is time to ask for the body's verdict; 0 for in the night alone.
    """

    cron: str = "30 2 * * *"
    jitter_s: int = Field(default=300, ge=0, le=3600)
    window: str | None = Field(default=None, pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")
    reconcile: str | None = None
    retention: str | None = None
    deliver_minutes: int = Field(default=5, ge=0, le=1440)
    verdict_minutes: int = Field(default=60, ge=0, le=1440)

    @field_validator("cron", "reconcile", "retention")
    @classmethod
    def _five_fields(cls, value: str | None) -> str | None:
        if value is not None and len(value.split()) != 5:
            msg = "a schedule has five fields: minute hour day month weekday"
            raise ValueError(msg)
        return value

    @field_validator("window")
    @classmethod
    def _some_hours(cls, value: str | None) -> str | None:
        if value is not None and len(set(value.split("-"))) == 1:
            msg = "the window is empty; write it like 20:00-06:00, or leave it out"
            raise ValueError(msg)
        return value


class OutputConfig(Part):
    """Where the report and the copies of what was made go.

    Attributes:
        folder: The folder.
        pdf: Write the nightly report as one page of PDF too.
    """

    folder: Path = Path("out")
    pdf: bool = False
