"""What all tests share: property tests draw the same examples every time, so that a run can be repeated.

``HYPOTHESIS_PROFILE=search`` looks for new ones instead.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile("search", deadline=None, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
