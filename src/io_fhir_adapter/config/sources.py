"""Sources: where resources are pulled from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from io_fhir_adapter.config.base import Part
from io_fhir_adapter.config.http import HttpConfig

__all__ = ["FhirSourceConfig", "FilesSourceConfig", "SourceConfig"]

_NAME = r"^[a-z0-9][a-z0-9_-]{0,39}$"


class FhirSourceConfig(HttpConfig):
    """A FHIR server to pull from by search."""

    name: Annotated[str, Field(pattern=_NAME)]
    kind: Literal["fhir"] = "fhir"
    since: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")] | None = None
    page_size: int = Field(default=500, ge=1, le=10_000)
    batch_size: int = Field(default=100, ge=1, le=1_000)
    concurrency: int = Field(default=4, ge=1, le=32)
    overlap_minutes: int = Field(default=10, ge=0, le=7 * 24 * 60)

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
