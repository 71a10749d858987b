"""Sources: where resources are pulled from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from io_fhir_adapter.config.base import Part
from io_fhir_adapter.config.http import AuthConfig, HttpConfig

__all__ = ["BulkConfig", "FhirSourceConfig", "FilesSourceConfig", "PatientsConfig", "SourceConfig"]

_NAME = r"^[a-z0-9][a-z0-9_-]{0,39}$"


class BulkConfig(Part):
    """How a source is exported (``$export``).

    Attributes:
        level: Whose data: the whole server's, one Group's, or all patients'.
        group: The id of the Group.
        since: Whether to ask only for what changed since the last complete export (``_since``). By default not of a
            Group: what happened to a patient before joining it would be missed.
        types: Resource types to ask for.
        type_filter: Values of ``_typeFilter``, such as ``Procedure?date=ge2024-01-01``.
        method: How the export is asked for.
        poll_min_s: Shortest wait between two looks at the status, whatever the server says.
        poll_max_s: Longest wait between two looks at the status, whatever the server says.
        give_up_after_hours: How long an export may take from its kick-off on.
        concurrency: Files downloaded at the same time.
        folder: Where downloaded files lie until they are in the ledger; beside the ledger by default.
        auth: How to sign in for the export, where that is another way than for reading.
    """

    level: Literal["system", "group", "patient"] = "system"
    group: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,64}$")] | None = None
    since: bool | None = None
    types: tuple[Annotated[str, Field(pattern=r"^[A-Z][A-Za-z]+$")], ...] = (
        "Procedure", "Patient", "Encounter", "Condition",
    )  # fmt: skip
    type_filter: tuple[Annotated[str, Field(pattern=r"^[A-Z][A-Za-z]+\?.+$")], ...] = ()
    method: Literal["get", "post"] = "get"
    poll_min_s: float = Field(default=1, ge=0, le=3600)
    poll_max_s: float = Field(default=120, gt=0, le=86_400)
    give_up_after_hours: float = Field(default=24, gt=0, le=24 * 14)
    concurrency: int = Field(default=4, ge=1, le=32)
    folder: Path | None = None
    auth: AuthConfig | None = None

    @property
    def asks_changes(self) -> bool:
        """Whether a night asks only for what changed."""
        return self.level != "group" if self.since is None else self.since

    @model_validator(mode="after")
    def _fits(self) -> BulkConfig:
        if (self.level == "group") != (self.group is not None):
            msg = "level group and group (the Group's id) go together"
            raise ValueError(msg)
        if "Procedure" not in self.types:
            msg = "types must name Procedure; nothing could be counted without it"
            raise ValueError(msg)
        if self.poll_min_s > self.poll_max_s:
            msg = "poll_min_s is longer than poll_max_s"
            raise ValueError(msg)
        return self


class PatientsConfig(Part):
    """Whose Procedures are read from a server that wants a patient in every search.

    Attributes:
        origin: Where the patients are named (``from`` in the file): a Group, a List, the Encounters that a search
            finds, or a CSV file.
        id: The id of the Group or List.
        query: The search for Encounters, such as ``service-type=394914008&date=ge2024-01-01``.
        path: The CSV file.
        column: The column of the file, by its name in the first line; without it every line is one patient.
        system: The values of the file are identifiers of this system; without it they are the server's own ids.
        window_days: Where the server cannot say what changed, the last so many days are read each night.
    """

    origin: Literal["group", "list", "encounters", "csv"] = Field(alias="from")
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,64}$")] | None = None
    query: str = ""
    path: Path | None = None
    column: str | None = None
    system: str | None = None
    window_days: int = Field(default=90, ge=1, le=3660)

    @model_validator(mode="after")
    def _fits(self) -> PatientsConfig:
        if (self.origin in {"group", "list"}) != (self.id is not None):
            msg = "id names the Group or List that patients come from"
            raise ValueError(msg)
        if (self.origin == "csv") != (self.path is not None):
            msg = "path names the CSV file that patients come from"
            raise ValueError(msg)
        if self.origin != "csv" and (self.column or self.system):
            msg = "column and system belong to a CSV file"
            raise ValueError(msg)
        if self.origin != "encounters" and self.query:
            msg = "query belongs to encounters"
            raise ValueError(msg)
        return self


class FhirSourceConfig(HttpConfig):
    """A FHIR server to pull from.

    Attributes:
        name: What it is called in the ledger and in reports.
        strategy: How it is read: by search, by export, patient by patient, or whichever of them it offers.
        bulk: How it is exported.
        patients: Whose Procedures are read patient by patient.
        since: The first day that matters.
        page_size: Resources a page.
        batch_size: Patients or ids named in one search; where None, 100 at first, and more where the server answers
            longer lists whole.
        concurrency: Searches side by side.
        overlap_minutes: How far a night reaches back before the cursor.
        slice_size: Searches that find more are cut into slices by date; 0 never cuts one.
        reconcile_days: After so many days everything is read again, to find what was deleted; 0 for never.
        code_filter: Whether a complete reading by search asks only for codes that the tables may know; ``auto`` where
            there are more than a million Procedures.
    """

    name: Annotated[str, Field(pattern=_NAME)]
    kind: Literal["fhir"] = "fhir"
    strategy: Literal["auto", "search", "bulk", "patient"] = "search"
    bulk: BulkConfig = BulkConfig()
    patients: PatientsConfig | None = None
    since: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")] | None = None
    page_size: int = Field(default=500, ge=1, le=10_000)
    batch_size: int | None = Field(default=None, ge=1, le=1_000)
    concurrency: int = Field(default=4, ge=1, le=32)
    overlap_minutes: int = Field(default=10, ge=0, le=7 * 24 * 60)
    slice_size: int = Field(default=5_000, ge=0, le=1_000_000)
    reconcile_days: int = Field(default=7, ge=0, le=366)
    code_filter: Literal["off", "auto", "on"] = "off"

    @model_validator(mode="after")
    def _names_patients(self) -> FhirSourceConfig:
        if self.strategy == "patient" and self.patients is None:
            msg = "strategy patient needs patients: say where they are named"
            raise ValueError(msg)
        if self.code_filter == "on" and self.strategy in {"bulk", "patient"}:
            msg = "code_filter belongs to searches over everyone; an export takes bulk.type_filter"
            raise ValueError(msg)
        return self

    @field_validator("since", mode="before")
    @classmethod
    def _date_as_text(cls, value: Any) -> Any:
        return None if value is None else str(value)  # YAML reads an unquoted date as one


class FilesSourceConfig(Part):
    """Files or folders to read as a source: an export that another tool drops."""

    name: Annotated[str, Field(pattern=_NAME)]
    kind: Literal["files"]
    paths: tuple[str, ...] = Field(min_length=1)


SourceConfig = Annotated[FhirSourceConfig | FilesSourceConfig, Field(discriminator="kind")]
