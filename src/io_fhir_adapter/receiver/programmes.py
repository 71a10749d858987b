"""What the receiver needs to know of accreditation programmes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from io_fhir_adapter.shipped import shipped_path
from io_fhir_adapter.strict_yaml import load_yaml

__all__ = ["Programme", "published_programmes"]


@dataclass(frozen=True)
class Programme:
    """A programme: its title and the sessions that it asks for in a year."""

    title: str
    threshold: int


@cache
def published_programmes() -> Mapping[str, Programme]:
    """The programmes that ship with this project, by code."""
    files = sorted(shipped_path("mappings", "programmes").glob("*.yaml"))
    documents = [load_yaml(path.read_text(encoding="utf-8")) for path in files]
    return {one["id"]: Programme(str(one["title"]), int(one["volume"]["threshold"])) for one in documents}
