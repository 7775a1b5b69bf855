"""The command line: `serve`, `check`, and the report that `check` prints.

Reads arguments and the environment, and leaves the work to the other packages. Knows no request. Begin with `cli`.
"""
