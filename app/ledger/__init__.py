"""The book: projects, keys, budgets, and a ledger of every drawing and its cost, which stays right through crashes and
outages.

The rest calls `Ledger`: *admit*, *sent*, *settle*. It knows no HTTP and no provider. `database/` holds the two
databases behind one protocol, and is the only place that knows SQL. Begin with `ledger`; `drawings` draws the states.
`connection` has the journal for the time when the database is away; `life` recovers, beats and watches.
"""
