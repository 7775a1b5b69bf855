"""Image Gateway."""
