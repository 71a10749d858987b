"""Reading resources from servers and files, completely or not at all."""
