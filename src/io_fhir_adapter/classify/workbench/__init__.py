"""The mappings workbench: checking tables, finding what they lack, proposing rows, exchanging them as FHIR."""
