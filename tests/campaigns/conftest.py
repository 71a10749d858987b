"""The fixtures that the campaigns share with the end-to-end tests."""

from tests.e2e.conftest import own_logs

__all__ = ["own_logs"]
