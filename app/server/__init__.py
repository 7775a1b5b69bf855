"""uvicorn's HTTP protocol with fewer copies, bounds on each connection, and word of clients that leave.

Knows no endpoint. The API finds the connection of a request in its scope. Begin with `protocol`.
"""
