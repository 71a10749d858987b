"""Counting decisions and saying the result as a FHIR MeasureReport."""
