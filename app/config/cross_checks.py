"""Find contradictions between settings that are right by themselves. Reads the data before its validation, past faults
of single settings, so that all faults are reported at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from hashlib import sha256
from ipaddress import ip_address
from typing import Any

from pydantic import ValidationError

from app.config.errors import Located, Location, did_you_mean, write_path
from app.config.schema import ServerSettings

Entry = Mapping[str, Any]


def contradictions(data: Entry, dialects: Collection[str] | None) -> Iterator[Located]:
    """Return the faults of `data`. `dialects` are the existing names; None: accept any name."""
    if dialects is not None:
        yield from _unknown_dialects(data, dialects)
    yield from _unknown_providers(data)
    yield from _repeated_names(data)
    yield from _repeated_keys(data)
    yield from _open_door(data)


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _entries(data: Entry, section: str) -> Iterator[tuple[str, Entry]]:
    entries = data.get(section)
    if isinstance(entries, Mapping):
        yield from ((str(name), entry) for name, entry in entries.items() if isinstance(entry, Mapping))


def _items(entry: Entry, setting: str) -> Iterator[tuple[int, Any]]:
    items = entry.get(setting)
    if isinstance(items, list | tuple):
        yield from enumerate(items)


def _unknown_dialects(data: Entry, known: Collection[str]) -> Iterator[Located]:
    for name, provider in _entries(data, "providers"):
        dialect = provider.get("dialect")
        if isinstance(dialect, str) and dialect not in known:
            path = ("providers", name, "dialect")
            yield Located(path, f"no dialect is called {dialect!r}", did_you_mean(dialect, known))


def _unknown_providers(data: Entry) -> Iterator[Located]:
    providers = data.get("providers")
    known = [str(name) for name in providers] if isinstance(providers, Mapping) else []
    for name, model in _entries(data, "models"):
        for index, deployment in _items(model, "deployments"):
            provider = deployment.get("provider") if isinstance(deployment, Mapping) else None
            if isinstance(provider, str) and provider not in known:
                path: Location = ("models", name, "deployments", index, "provider")
                remedy = did_you_mean(provider, known) if known else "add it under `providers`"
                yield Located(path, f"no provider is called {provider!r}", remedy)


def _repeated_names(data: Entry) -> Iterator[Located]:
    """Find two models with one name in a list. In a mapping they are refused where the YAML is read."""
    taken: dict[str, Location] = {name: ("models", name) for name, _ in _entries(data, "models")}
    for name, model in _entries(data, "models"):
        for index, alias in _items(model, "aliases"):
            path: Location = ("models", name, "aliases", index)
            if isinstance(alias, str) and alias in taken:
                yield Located(path, f"{alias!r} is taken by {write_path(taken[alias])}", "choose another alias")
            elif isinstance(alias, str):
                taken[alias] = path


def _repeated_keys(data: Entry) -> Iterator[Located]:
    names: dict[str, int] = {}
    digests: dict[str, int] = {}
    for index, key in _items(data, "keys"):
        if not isinstance(key, Mapping):
            continue
        name, digest = key.get("name"), _digest(key)
        if isinstance(name, str) and names.setdefault(name, index) != index:
            yield Located(
                ("keys", index, "name"), f"{name!r} is the name of keys[{names[name]}] too", "choose another name"
            )
        if digest and digests.setdefault(digest, index) != index:
            yield Located(("keys", index), f"is the same key as keys[{digests[digest]}]", "give each its own")


def _digest(key: Entry) -> str | None:
    secret, digest = key.get("key"), key.get("key_sha256")
    if isinstance(secret, str) and secret.strip():
        return sha256(secret.strip().encode()).hexdigest()
    return digest.strip().lower() if isinstance(digest, str) else None


def _open_door(data: Entry) -> Iterator[Located]:
    """Refuse an open address without keys: any caller that reaches the port would spend the account's money. The
    sandbox has no account."""
    try:
        server = ServerSettings.model_validate(data.get("server") or {})
    except ValidationError:
        return
    if data.get("providers") and not data.get("keys") and not server.allow_anonymous and not is_loopback(server.host):
        yield Located(
            ("server", "host"),
            f"{server.host!r} is not a loopback address, and there are no `keys`",
            "add `keys`, listen on 127.0.0.1, or set `server.allow_anonymous: true`",
        )
