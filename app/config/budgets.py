"""The sections `budgets` and `webhook` of the configuration."""

from __future__ import annotations

from base64 import b64decode
from decimal import Decimal
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from app.catalog.money import NANO, to_nano
from app.config.errors import refusal
from app.config.fields import Address, Secret
from app.config.schema import Name
from app.config.sections import Section
from app.ledger.values.directory import THRESHOLDS

MOST_NANO = 1_000_000_000 * NANO  # that fits into a database's whole number, also when it is added up
MOST_THRESHOLD = 1000  # per cent
ENCODED = "whsec_"  # and base64 behind it, as libraries of the Standard Webhooks read it
SHORTEST_SECRET = 24  # characters


def _timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # also ZoneInfoNotFoundError, which is a KeyError
        raise refusal(
            f"{name!r} is no time zone", "write its name as in the IANA database, like Europe/Prague"
        ) from None
    return name


def _amount(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise refusal("is no amount of money", "write a number, like 50 or 0.25")
    try:
        nano = to_nano(value)
    except ValueError:
        raise refusal("is no amount of money", "write a number, like 50 or 0.25") from None
    if not 0 < nano < MOST_NANO:
        raise refusal("is no amount that a budget can have", "write a number above 0, and below a billion")
    return Decimal(str(value))


def _thresholds(values: tuple[int, ...]) -> tuple[int, ...]:
    if any(not 0 < value <= MOST_THRESHOLD for value in values):
        raise refusal("holds a number that is no percentage", f"write whole numbers from 1 to {MOST_THRESHOLD}")
    return tuple(sorted(set(values)))


def _webhook_secret(secret: SecretStr | None) -> SecretStr | None:
    text = secret.get_secret_value() if secret else ""
    if secret is None:
        return None
    if len(text) < SHORTEST_SECRET:
        raise refusal(f"is shorter than {SHORTEST_SECRET} characters", "take the output of `openssl rand -hex 32`")
    if text.startswith(ENCODED):
        try:
            b64decode(text.removeprefix(ENCODED), validate=True)
        except ValueError:
            remedy = f"write base64 behind {ENCODED!r}, or a text that begins otherwise"
            raise refusal(f"begins with {ENCODED!r} and is not base64", remedy) from None
    return secret


TimeZone = Annotated[str, AfterValidator(_timezone)]
Amount = Annotated[Decimal, BeforeValidator(_amount)]
Thresholds = Annotated[tuple[int, ...], AfterValidator(_thresholds)]
WebhookSecret = Annotated[Secret, AfterValidator(_webhook_secret)]


class BudgetSettings(Section):
    """A budget of a project or a key; of everything, if it names neither. `models` are globs."""

    project: Name | None = None
    key: Name | None = None
    models: tuple[str, ...] = Field(("*",), min_length=1)
    amount: Amount
    window: Literal["day", "week", "month", "total"] = "month"
    timezone: TimeZone = "UTC"
    hard: bool = True
    thresholds: Thresholds = THRESHOLDS

    @model_validator(mode="after")
    def _one_owner(self) -> BudgetSettings:
        if self.project is not None and self.key is not None:
            raise refusal("names a project and a key", "state one of them, or neither for everything")
        return self


class WebhookSettings(Section):
    """The receiver of messages that a budget has reached a threshold."""

    url: Address | None = None
    secret: WebhookSecret = Field(None, repr=False)

    @model_validator(mode="after")
    def _signed(self) -> WebhookSettings:
        if self.url is not None and self.secret is None:
            raise refusal("has a `url` and no `secret`", "state the secret that signs its messages, of 24 characters")
        return self
