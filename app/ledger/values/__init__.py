"""What the book is told and what it tells, as values: drawings and their ends, projects, keys and budgets, limits, the
windows of budgets, the rows of reports, changes and who made them.

Knows no database and no clock: the rest of the gateway imports this of the ledger, and little else. Begin with
`drawings`, which draws the states.
"""
