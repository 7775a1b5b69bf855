"""Bytes in pieces: push parsers for JSON with pictures in it, for server-sent events and for base64.

All are pure, take any chunking and hold no picture. Knows no HTTP and none of our values. Begin with `json_tap`.
"""
