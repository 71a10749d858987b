"""What a stranger can check: canonical JSON, digests, the frame commitment and the ranking of a draw."""
