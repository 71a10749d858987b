"""Codes to findings, findings to sessions, sessions to decisions."""
