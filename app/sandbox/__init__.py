"""The simulated providers: real HTTP, each in its own wire format, with real pictures and with faults on request.

Imports nothing of the gateway, and is never loaded with a real configuration. Begin with `door`, the path of a request
through every provider here.
"""
