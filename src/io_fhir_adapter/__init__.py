"""io-fhir-adapter: interventional-oncology volumes and case reviews from a hospital's FHIR server."""

from importlib.metadata import version

__all__ = ["__version__"]
__version__ = version("io-fhir-adapter")
