"""The inside: HTTP requests read into values, and results answered. Knows no provider and no dialect."""
