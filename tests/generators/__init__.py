"""Generators of clients, unmodified, over the OpenAPI document of a live gateway."""
