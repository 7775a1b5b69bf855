"""The OpenAPI document of the image endpoints, which FastAPI cannot read off them, and its page without a CDN."""

from __future__ import annotations

from fastapi import FastAPI


def describe(app: FastAPI) -> None:
    """Adds the image endpoints to `app`'s document."""
