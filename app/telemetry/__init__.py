"""Log lines, and the redaction of providers' messages before they are logged.

Observes and decides nothing. Holds no prompt, no image and no credential unless the configuration allows it. Begin with
`logs`.
"""
