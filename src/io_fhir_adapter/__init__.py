"""io-fhir-adapter: interventional-oncology volumes and case reviews from a hospital's FHIR server."""

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    """Looks the version up when it is asked for: helper processes, which never do, start in half the time."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version  # noqa: PLC0415

    return version("io-fhir-adapter")
