"""uvicorn's HTTP protocol with fewer copies, bounds on each connection, and notice of clients that disconnect.

Knows no endpoint. The API finds the connection of a request in its scope. Begin with `protocol`.
"""
