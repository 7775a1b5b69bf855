"""Accounting: turns the attempts of a drawing into money for the ledger.

Knows attempts, their prices, and the ledger's values; no database, no HTTP, and no run. Only the wiring imports it: the
gateway and runs have protocols of their own. Begin with `accounts`.
"""
