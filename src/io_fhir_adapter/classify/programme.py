"""An accreditation programme as data: threshold, what counts, the design of the sample."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.shipped import shipped_path

__all__ = ["Programme", "load_programme"]

Counts = Literal["yes", "no", "review"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VolumeRule(_Part):
    """The annual volume a facility must reach."""

    threshold: int = Field(gt=0)
    source: str = ""
    unit: Literal["session"] = "session"
    unit_proposal: bool = False
    period: Literal["calendar-year"] = "calendar-year"
    period_proposal: bool = False


class IndicationRule(_Part):
    """Which kinds of diagnosis make a procedure oncological."""

    tumour: tuple[str, ...] = ("malignant", "metastasis")
    uncertain: tuple[str, ...] = ("in-situ", "uncertain")


class SampleRule(_Part):
    """The design of the case-review sample."""

    size: int = Field(gt=0)
    source: str = ""
    reserves: int = Field(ge=0)
    window_months: int = Field(gt=0)
    ends_days_before: int = Field(ge=0)
    proposal: bool = False


class Programme(_Part):
    """One accreditation programme; see mappings/programmes/."""

    id: str
    title: str
    version: str
    volume: VolumeRule
    counts: dict[str, Counts]
    counts_source: str = ""
    indication: IndicationRule = IndicationRule()
    sample: SampleRule

    @model_validator(mode="before")
    @classmethod
    def _yes_and_no_are_words(cls, data: Any) -> Any:
        # YAML 1.1 reads an unquoted yes or no as a boolean; an editor of the file need not know that
        if isinstance(data, dict) and isinstance(data.get("counts"), dict):
            words = {True: "yes", False: "no"}
            counts = {k: words.get(v, v) if isinstance(v, bool) else v for k, v in data["counts"].items()}
            return {**data, "counts": counts}
        return data

    def counts_for(self, category: str) -> Counts:
        """What the programme says of a category; one it does not name is for review."""
        return self.counts.get(category, "review")

    @property
    def threshold(self) -> int:
        """The number of counted sessions a facility must reach in a year."""
        return self.volume.threshold

    @property
    def digest(self) -> str:
        """SHA-256 over everything that decides."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def load_programme(name_or_path: str, categories: frozenset[str] | None = None) -> Programme:
    """A shipped programme by id (``iasios``), or any by the path of its YAML file.

    Raises:
        MappingError: There is none, or it is wrong; the element is named.
    """
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        folder = shipped_path("mappings", "programmes")
        path = folder / f"{name_or_path}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
            raise MappingError(
                f"there is no programme {name_or_path!r}",
                do=f"use one of {known}, or the path of a YAML file",
                number=7,
            )
    try:
        programme = Programme.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise MappingError(f"the programme cannot be read ({type(exc).__name__})", where=str(path), number=7) from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise MappingError(f"{place}: {first['msg']}", where=str(path), number=7) from exc
    unknown = sorted(set(programme.counts) - categories) if categories else []
    if unknown:
        raise MappingError(f"counts names {unknown[0]!r}, which is no category", where=str(path), number=7)
    return programme
