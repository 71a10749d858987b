"""The case-review forms that this project publishes: known word for word, so that another under their name is seen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from io_fhir_adapter.errors import MappingError
from io_fhir_adapter.shipped import shipped_path

__all__ = ["canonical_of", "is_altered", "is_published", "published_form"]

Json = Mapping[str, Any]

_WRITTEN: Final = ("id", "meta", "text")
"""What is dropped when a form leaves."""


def canonical_of(form: Json) -> str:
    """A Questionnaire's URL and version, as a response names it."""
    return f"{form.get('url')}|{form.get('version', '')}"


def published_form(canonical: str) -> Json | None:
    """The published form of that URL and version."""
    return _forms().get(canonical)


def is_published(resource: Any) -> bool:
    """Whether a resource is a published form, without a word more or less."""
    return isinstance(resource, dict) and _forms().get(canonical_of(resource)) == resource


def is_altered(form: Json) -> bool:
    """Whether a form has the URL and version of a published one, and is another."""
    return canonical_of(form) in _forms() and not is_published(form)


@lru_cache(maxsize=1)
def _forms() -> Mapping[str, Json]:
    """The published forms as they leave, by URL and version.

    Raises:
        MappingError: One cannot be read.
    """
    found: dict[str, Json] = {}
    for path in sorted(shipped_path("mappings", "questionnaires").glob("*.json")):
        try:
            form = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            raise MappingError(
                "a published form cannot be read", where=str(path), do="install the package again", number=56
            ) from exc
        found[canonical_of(form)] = {name: value for name, value in form.items() if name not in _WRITTEN}
    return found
