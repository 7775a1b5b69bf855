"""The book outside of the money path: changes of the directory, reports, usage, prices as they were, messages about
budgets, and the upkeep: rollups, cleaning, the proof that it adds up.

No request for images waits for it. It knows no HTTP. Begin with `book`; `registry` changes, `reports` reads.
"""
