"""The embedded synthetic hospital and its FHIR server."""
