"""The settings as plain values for an administrator's eyes: everything in effect, and of each secret only that it is
set. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, SecretStr

from app.catalog.money import to_number
from app.catalog.prices import Price, to_json
from app.config.loading import Settings

SET = "(set)"
_DIGESTS = frozenset({"key_sha256"})  # a reader could try keys against it
_HEADERS = frozenset({"headers"})  # a header is a usual place for a credential
# A host may want its key in the address, and a webhook's address may be all that one needs to post to it.
_ADDRESSES = re.compile(r"(?:.*_)?url|models_path")
_WEBHOOK = frozenset({"webhook"})


def without_secrets(settings: Settings) -> dict[str, Any]:
    """Return the settings as JSON can hold them. Settings without a value are left out."""
    return {name: _plain(value, name) for name, value in _stated(settings)}


def _plain(value: Any, name: str, *, is_webhook: bool = False) -> Any:
    if isinstance(value, SecretStr) or name in _DIGESTS:
        return SET
    if name in _HEADERS:
        return dict.fromkeys(value, SET)
    if isinstance(value, Price):
        return _price(value)
    if isinstance(value, BaseModel):
        inner = is_webhook or name in _WEBHOOK
        return {name: _plain(each, name, is_webhook=inner) for name, each in _stated(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each, "") for key, each in value.items()}
    if isinstance(value, Enum):
        return str(value)
    if isinstance(value, bool | int | float) or value is None:
        return value
    if isinstance(value, Collection) and not isinstance(value, str):
        return [_plain(each, "") for each in (value if isinstance(value, tuple | list) else sorted(map(str, value)))]
    text = str(value)
    return _address(text, is_webhook=is_webhook) if _ADDRESSES.fullmatch(name) else text


def _stated(model: BaseModel) -> list[tuple[str, Any]]:
    """Return the fields that have a value, or that are set to none."""
    found = ((name, getattr(model, name)) for name in type(model).model_fields)
    return [(name, value) for name, value in found if value is not None or name in model.model_fields_set]


def _price(price: Price) -> dict[str, Any]:
    """Return a price as the file writes it, in units of the currency."""
    found = json.loads(to_json(price))
    tiers = [{name: _money(each) for name, each in tier.items()} for tier in found["tiers"]]
    stated = {"reported": found["reported"], "at_most": _money(found["at_most"]), "currency": found["currency"]}
    return {"tiers": tiers} | {name: each for name, each in stated.items() if each is not None}


def _money(value: Any) -> Any:
    if isinstance(value, list):
        return {kind: _money(nano) for kind, nano in value}
    return to_number(value) if isinstance(value, int) else value


def _address(text: str, *, is_webhook: bool) -> str:
    """Return an address without a user's name and password, query and fragment; of a webhook the host alone."""
    parts = urlsplit(text)
    host = parts.netloc.rpartition("@")[2]
    query = SET if parts.query else ""
    return urlunsplit(
        (parts.scheme, host, f"/{SET}" if is_webhook and parts.path.strip("/") else parts.path, query, "")
    )
