"""Charts and the nightly report."""
