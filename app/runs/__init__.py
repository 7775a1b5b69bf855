"""Runs: the work of getting the images of one request, which does not belong to a connection. A drawing that was paid
for is kept until its caller has it, also over a restart, and a retry is answered from it.

Knows no HTTP and no provider. Begin with `run`, then read `retention`.
"""
