"""The shared parts of the endpoints of `/v1/organization` and `/v1/gateway`: the endpoint, the book, the reading of a
query or a body, and pages.

Refuses to know the ledger's code: the API knows its values, and the protocols in `book`. Begin with `endpoint`.
"""
