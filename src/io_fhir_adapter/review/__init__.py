"""The case review: draw, de-identify, pre-fill, leak scan."""
