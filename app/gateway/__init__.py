"""The path of a request from its candidates to the events of its answer: attempts, several images, masks, formats,
links.

Gets all that does I/O through protocols of its own. Knows no caller's connection, and no dialect but by its protocol.
Begin with `gateway`, whose functions stand in the order of events.
"""
