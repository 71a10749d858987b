"""YAML as people write it by hand: a key written twice is an error, not the second one's silent victory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

__all__ = ["TWICE", "fault_of", "load_yaml"]

TWICE = "a key is written twice"
"""The ``problem`` of the error for such a key."""


if TYPE_CHECKING:
    from yaml import SafeLoader
else:  # where PyYAML was built with libyaml, reading takes a tenth of the time
    SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _UniqueKeys(SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, TWICE, key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def fault_of(exc: Exception, name: str) -> tuple[str, str]:
    """What is wrong with a document, as far as it can be said, and where: ``name`` with the line if it is known."""
    mark = getattr(exc, "problem_mark", None)
    where = f"{name}:{mark.line + 1}" if mark is not None else name
    return (TWICE if getattr(exc, "problem", "") == TWICE else ""), where


def load_yaml(text: str) -> Any:
    """The document.

    Raises:
        yaml.YAMLError: It is no YAML, or a key is written twice.
        ValueError: A value looks like a date and is none.
    """
    return yaml.load(text, Loader=_UniqueKeys)  # noqa: S506 - a SafeLoader
