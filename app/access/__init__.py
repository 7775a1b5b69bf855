"""Permission to draw: API keys, the use that each has made of its limits, and the admission of a request.

Identity comes from the configuration (`keyring`); usage belongs to the process (`limits`). Knows no HTTP, no provider
and no clock of its own. Begin with `admission`.
"""
