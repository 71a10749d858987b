"""The scheduled service."""
