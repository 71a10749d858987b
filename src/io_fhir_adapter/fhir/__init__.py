"""What FHIR is to us: lean input structs, partial dates, references."""
