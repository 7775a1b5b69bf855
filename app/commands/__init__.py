"""The command line: `serve` and `check`, and the book's own: keys, projects, budgets, usage, the ledger, the database.

Reads arguments and the environment, and leaves the work to the other packages. Knows no request. Begin with `cli`.
"""
