"""The simulated providers: real HTTP, each in its own wire format, drawing real pictures and failing on request."""
