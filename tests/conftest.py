"""What all tests share: property tests draw the same examples every time, so that a run can be repeated.

``HYPOTHESIS_PROFILE=search`` looks for new ones instead.
"""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings

from io_fhir_adapter.submit.frame import draw_list, frame_group
from io_fhir_adapter.trust.drawn import Place
from io_fhir_adapter.trust.frame import Commitment, rank

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile("search", deadline=None, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_xdist_auto_num_workers() -> int:
    """One more worker than processors: many tests wait for a server, a browser or a command of their own."""
    return (os.cpu_count() or 1) + 1


# Hospitals of many thousand resources stay in memory from test to test; looking through them often finds nothing.
gc.set_threshold(200_000, 50, 50)


def script(name: str) -> ModuleType:
    """A script of .ci/, which is no package, as a module."""
    path = Path(__file__).resolve().parents[1] / ".ci" / name
    spec = importlib.util.spec_from_file_location(f"ci_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class SyntheticDraw:
    """A frame of synthetic tokens and a true draw from it."""

    commitment: Commitment
    nonce: str
    places: tuple[Place, ...]

    @property
    def tokens(self) -> list[str]:
        return [place.token for place in self.places if place.role == "case"]

    @property
    def group(self) -> dict[str, Any]:
        return frame_group(self.commitment)

    @property
    def drawn(self) -> dict[str, Any]:
        return draw_list(self.commitment.digest, self.nonce, "local", self.places)


@pytest.fixture(scope="session")
def synthetic_draw() -> Callable[..., SyntheticDraw]:
    """Makes a draw: ``synthetic_draw(cases=3, reserves=2, size=120, facility="F-001")``."""

    def make(
        cases: int = 3, reserves: int = 2, size: int = 120, facility: str = "F-001", seed: str = ""
    ) -> SyntheticDraw:
        tokens = sorted(hashlib.sha256(f"{seed}{number}".encode()).hexdigest() for number in range(size))
        ruleset = "sha256:" + "b" * 64
        commitment = Commitment(
            "iasios", facility, "2024-12-02", "2025-12-01", ruleset, tuple(tokens), (cases, reserves)
        )
        nonce = "ab" * 32
        order = rank(bytes.fromhex(nonce), tokens)[: cases + reserves]
        places = [Place(token, "case" if index < cases else "reserve") for index, token in enumerate(order)]
        return SyntheticDraw(commitment, nonce, tuple(places))

    return make
