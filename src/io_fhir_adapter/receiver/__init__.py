"""The reference accreditation endpoint."""
