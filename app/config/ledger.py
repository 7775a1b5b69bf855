"""The sections `database` and `ledger` of the configuration."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, PositiveInt, SecretStr, StringConstraints

from app.config.errors import refusal
from app.config.sections import Section


def _postgres(value: Any) -> Any:
    """Check the URL of a database. It may hold a password, so that no fault quotes it."""
    if not isinstance(value, str):
        return value
    try:
        parts = urlsplit(value.strip())
        _ = parts.port  # the text at a port's place may be the beginning of a password
    except ValueError:
        raise refusal("cannot be read", "write special characters of the password as %2F, %23, %3F, %40 …") from None
    if parts.scheme not in ("postgresql", "postgres"):
        raise refusal(
            "is no URL of a Postgres", "write it like postgresql://user@host/name, or leave it out for SQLite"
        )
    return value.strip()


class DatabaseSettings(Section):
    url: Annotated[SecretStr | None, BeforeValidator(_postgres)] = Field(None, repr=False)
    migrate: bool = True


class LedgerSettings(Section):
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] = "USD"
    unpriced: Literal["refuse", "serve"] = "refuse"
    when_down: Literal["refuse", "serve"] = "refuse"
    in_doubt_days: PositiveInt = 30
    retain_days: PositiveInt = 400
    end_users: Literal[True, False, "hash"] = True
