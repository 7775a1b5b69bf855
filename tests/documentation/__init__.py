"""Holds the documentation to the code: links lead somewhere, each name exists, tables are complete, examples run."""
