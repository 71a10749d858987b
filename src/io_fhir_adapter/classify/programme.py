"""An accreditation programme as data: threshold, what counts, the design of the sample, the body's own words.

What decides (volume, counts, indication, sample) is apart from what describes (groups, standards, statuses, roles):
only the first is part of the digest, so that a facility may enter titles of its own copy of a document without any
decision being made anew.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from io_fhir_adapter.classify.indications import KINDS
from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.shipped import shipped_path
from io_fhir_adapter.strict_yaml import fault_of, load_yaml

__all__ = [
    "Cycle",
    "Group",
    "GroupThreshold",
    "Programme",
    "Role",
    "Section",
    "Standard",
    "Standards",
    "Status",
    "load_programme",
    "shipped_programmes",
]

Counts = Literal["yes", "no", "review"]

_DESCRIBES = frozenset(
    {"groups", "ungrouped", "group_thresholds", "standards", "statuses", "cycle", "roles", "retention"}
)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VolumeRule(_Part):
    """The annual volume a facility must reach.

    ``several_categories`` says how a session with treatments of several categories counts: ``once``, with all of them
    listed, or ``each``, once per category.
    """

    threshold: int = Field(gt=0)
    source: str = ""
    unit: Literal["session"] = "session"
    unit_proposal: bool = False
    several_categories: Literal["once", "each"] = "once"
    several_categories_proposal: bool = False
    period: Literal["calendar-year"] = "calendar-year"
    period_proposal: bool = False


class StatusRule(_Part):
    """Which statuses count beside ``completed``.

    ``in_progress_ended`` says what becomes of a Procedure that is ``in-progress`` although its period has an end that
    lies in the past: ``not-completed``, as its status says, or ``completed``.
    """

    in_progress_ended: Literal["not-completed", "completed"] = "not-completed"
    source: str = ""
    proposal: bool = False


class IndicationRule(_Part):
    """Which kinds of diagnosis make a procedure oncological."""

    tumour: tuple[str, ...] = ("malignant", "metastasis")
    uncertain: tuple[str, ...] = ("in-situ", "uncertain")

    @field_validator("tumour", "uncertain")
    @classmethod
    def _known_kinds(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        strange = sorted(set(value) - KINDS)
        if strange:
            raise ValueError(f"{strange[0]!r} is no kind of diagnosis; use {', '.join(sorted(KINDS))}")
        return value


class SampleRule(_Part):
    """The design of the case-review sample."""

    size: int = Field(gt=0)
    source: str = ""
    reserves: int = Field(ge=0)
    window_months: int = Field(gt=0)
    ends_days_before: int = Field(ge=0)
    proposal: bool = False


class _Fact(_Part):
    """Something a body says, with where it was read; what no body says is marked as this project's proposal."""

    source: str = ""
    proposal: bool = False
    note: str = ""

    @model_validator(mode="after")
    def _is_sourced(self) -> Self:
        if not self.source and not self.proposal:
            raise ValueError("give its source, or mark it proposal: true")
        return self


class Group(_Fact):
    """A group of the body's own, and our categories that roll up to it.

    ``categories_proposal`` says that the assignment is this project's; ``doubtful`` names the categories of the group
    for which no text was found either way.
    """

    id: str = Field(min_length=1)
    title: str
    categories: tuple[str, ...] = ()
    categories_proposal: bool = False
    doubtful: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _doubtful_are_its_own(self) -> Self:
        strange = sorted(set(self.doubtful) - set(self.categories))
        if strange:
            raise ValueError(f"doubtful names {strange[0]!r}, which is not among its categories")
        return self


class GroupThreshold(_Fact):
    """How many procedures of a group a body asks for in a year; without a group, of all its groups together.

    ``threshold`` is null where the body says that there is one and the number was not found. ``as_of`` is the year of
    the text, ``archived`` whether it is no longer the body's current page.
    """

    group: str | None = None
    applies_to: str
    threshold: int | None = Field(gt=0)
    as_of: str = ""
    archived: bool = False


class Section(_Part):
    """A section of the standards."""

    id: str
    title: str | None = None


class Standard(_Fact):
    """One standard: the letters of its core requirements, and of the extended ones as far as they are known.

    ``extended`` is null where nothing is known of them; letters listed are those that must exist because the letters
    run on, and there may be more. ``title`` is null where the body's text is not public.
    """

    number: int = Field(gt=0)
    section: str
    title: str | None = None
    core: tuple[str, ...] = ()
    extended: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _letters_are_told_apart(self) -> Self:
        letters = [*self.core, *(self.extended or ())]
        if len(set(letters)) != len(letters):
            raise ValueError("a letter is listed twice")
        return self


class Standards(_Fact):
    """The document an applicant is measured against."""

    title: str
    published: str = ""
    sections: tuple[Section, ...]
    standards: tuple[Standard, ...]

    @model_validator(mode="after")
    def _sections_exist(self) -> Self:
        known = {section.id for section in self.sections}
        for standard in self.standards:
            if standard.section not in known:
                raise ValueError(f"standard {standard.number} is in section {standard.section!r}, which is not listed")
        numbers = [standard.number for standard in self.standards]
        if len(set(numbers)) != len(numbers):
            raise ValueError("a standard is listed twice")
        return self


class Status(_Fact):
    """A status a facility may have, in the order they are reached."""

    id: str
    title: str
    needs: str = ""


class Cycle(_Fact):
    """For how long a status holds."""

    years: int = Field(gt=0)


class Role(_Fact):
    """Someone a facility names."""

    id: str
    title: str
    duty: str = ""


class RetentionRule(_Fact):
    """For how many whole calendar years before the current one facts and decisions are kept."""

    keep_years: int = Field(ge=2, le=100)


class Programme(_Part):
    """One accreditation programme; see mappings/programmes/.

    ``groups`` to ``retention`` describe and never decide. ``ungrouped`` names the categories that roll up to no group
    on purpose.
    """

    id: str
    title: str
    version: str
    volume: VolumeRule
    counts: dict[str, Counts]
    counts_source: str = ""
    status: StatusRule = StatusRule()
    indication: IndicationRule = IndicationRule()
    sample: SampleRule
    groups: tuple[Group, ...] = ()
    ungrouped: tuple[str, ...] = ()
    group_thresholds: tuple[GroupThreshold, ...] = ()
    standards: Standards | None = None
    statuses: tuple[Status, ...] = ()
    cycle: Cycle | None = None
    roles: tuple[Role, ...] = ()
    retention: RetentionRule = RetentionRule(keep_years=10, proposal=True)

    @model_validator(mode="before")
    @classmethod
    def _yes_and_no_are_words(cls, data: Any) -> Any:
        # YAML 1.1 reads an unquoted yes or no as a boolean; an editor of the file need not know that
        if isinstance(data, dict) and isinstance(data.get("counts"), dict):
            words = {True: "yes", False: "no"}
            counts = {k: words.get(v, v) if isinstance(v, bool) else v for k, v in data["counts"].items()}
            return {**data, "counts": counts}
        return data

    @model_validator(mode="after")
    def _groups_are_told_apart(self) -> Self:
        ids = [group.id for group in self.groups]
        placed = [*(category for group in self.groups for category in group.categories), *self.ungrouped]
        for names, what in ((ids, "group"), (placed, "category")):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"the {what} {twice!r} is listed twice")
        for item in self.group_thresholds:
            if item.group is not None and item.group not in ids:
                raise ValueError(f"group_thresholds names {item.group!r}, which is no group")
        return self

    def group_of(self, category: str) -> str | None:
        """The id of the body's group that a category rolls up to; ``None`` where there is none."""
        return next((group.id for group in self.groups if category in group.categories), None)

    def counts_for(self, category: str) -> Counts:
        """What the programme says of a category; one it does not name is for review."""
        return self.counts.get(category, "review")

    @property
    def counts_each(self) -> bool:
        """Whether a session counts once for each of its categories, and not once alone."""
        return self.volume.several_categories == "each"

    @property
    def takes_ended_for_completed(self) -> bool:
        """Whether what is in progress and has an end in the past counts as completed."""
        return self.status.in_progress_ended == "completed"

    @property
    def threshold(self) -> int:
        """The number of counted sessions a facility must reach in a year."""
        return self.volume.threshold

    @property
    def digest(self) -> str:
        """SHA-256 over everything that decides."""
        return hashlib.sha256(self.model_dump_json(exclude=set(_DESCRIBES)).encode()).hexdigest()


def shipped_programmes() -> tuple[str, ...]:
    """The ids of the programmes that come along."""
    return tuple(sorted(path.stem for path in shipped_path("mappings", "programmes").glob("*.yaml")))


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
            known = ", ".join(shipped_programmes())
            raise MappingError(
                f"there is no programme {name_or_path!r}",
                do=f"use one of {known}, or the path of a YAML file",
                number=7,
            )
    try:
        programme = Programme.model_validate(load_yaml(path.read_text(encoding="utf-8")))
    except ValidationError as exc:
        first = exc.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the programme"
        raise MappingError(f"{place}: {first['msg']}", where=str(path), number=7) from exc
    except (OSError, ValueError, yaml.YAMLError) as exc:
        twice, where = fault_of(exc, str(path))
        what = twice or f"the programme cannot be read ({type(exc).__name__})"
        raise MappingError(what, where=where, do="correct it there", number=7) from exc
    named = {"counts": programme.counts, "ungrouped": programme.ungrouped}
    named.update({f"groups, {group.id}": group.categories for group in programme.groups})
    for place, names in named.items():
        unknown = sorted(set(names) - categories) if categories else []
        if unknown:
            raise MappingError(f"{place}: {unknown[0]!r} is no category", where=str(path), number=7)
    return programme
