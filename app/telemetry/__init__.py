"""Log lines, and the redaction of what providers say before it is logged.

Observes and decides nothing. Holds no prompt, no image and no credential unless the configuration allows it. Begin with
`logs`.
"""
