"""Telling people what needs a person: each thing once, and once more when it is over."""
