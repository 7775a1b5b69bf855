"""Bytes that outlive a moment: uploads, the recordings of runs, files behind signed links, the data directory.

All of it is bounded, in memory and on disk. Knows no request and no model. Begin with `spool`, then read `recording`
and `files`.
"""
