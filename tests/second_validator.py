"""A second implementation of FHIR R4, fhircraft, to check what leaves against R4's invariants.

The library loads its models of R4B and R5 as well, which takes three times as long and which nothing here asks: they
are left out. What has to be loaded still takes ten seconds; tests that ask for it share one process.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest

__all__ = ["r4"]

_LEFT_OUT = tuple(f"fhircraft.fhir.resources.datatypes.{release}" for release in ("R4B", "R5"))


class _Empty(ModuleType):
    """A module in which every name that may be one is a class of its own, which nothing is an instance of."""

    def __getattr__(self, name: str) -> type:
        if not name[0].isupper():
            raise AttributeError(name)
        made = type(name, (), {})
        setattr(self, name, made)
        return made


class _LeavingOut(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, is_package=True) if fullname.startswith(_LEFT_OUT) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Empty(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing in it."""


@cache
def r4() -> Any:
    """The library's models, by resource type; skips the test where the library is not installed."""
    sys.meta_path.insert(0, _LeavingOut())  # for good: some of it is asked for only when it comes to be needed
    return pytest.importorskip("fhircraft").R4
