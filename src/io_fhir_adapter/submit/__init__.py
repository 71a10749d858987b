"""Sealing a submission, sending it, and judging the answer."""
