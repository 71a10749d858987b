"""HTTP with FHIR servers."""
