"""Permission to draw: API keys, the gate for their bodies, the admission of a request, and refusals in words.

Keys come from the configuration and from the directory of issued keys (`keyring`). The ledger counts the use of limits
and budgets. Knows no HTTP, no provider and no clock of its own. Begin with `admission`.
"""
