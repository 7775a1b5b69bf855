"""The book: projects, keys, budgets, and a ledger of every drawing and its cost, which stays right through crashes and
outages.

The rest calls `Ledger`: *admit*, *sent*, *settle*. It knows no HTTP and no provider. Begin with `ledger`; `connection`
has the journal for the time when the database is away; `life` recovers, beats and watches. `values/` are what it is
told and tells; `book/` is what no request waits for: reports, changes, upkeep. `database/` holds the two databases
behind one protocol.
"""
