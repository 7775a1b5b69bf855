"""Find contradictions between settings that are right by themselves. Reads the data before its validation, past faults
of single settings, so that all faults are reported at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from hashlib import sha256
from ipaddress import ip_address
from typing import Any

from pydantic import ValidationError

from app.catalog.spelling import nearest
from app.config.errors import Located, Location, did_you_mean, write_path
from app.config.schema import ServerSettings

Entry = Mapping[str, Any]

OPEN_DOOR: Location = ("server", "host")  # where an open address without keys is a fault


def contradictions(data: Entry, dialects: Collection[str] | None, models: Collection[str]) -> Iterator[Located]:
    """Return the faults of `data`. `dialects` are the existing names; None: accept any name. `models` are the names of
    the models on offer."""
    if dialects is not None:
        yield from _unknown_dialects(data, dialects)
    yield from _unknown_providers(data)
    yield from _repeated_names(data, models)
    yield from _unknown_models(data, models)
    yield from _repeated_keys(data)
    yield from _unknown_owners(data)
    yield from _repeated_budgets(data)
    yield from _open_door(data)
    yield from _shared_port(data)
    yield from _other_currencies(data)


def _shared_port(data: Entry) -> Iterator[Located]:
    """Find metrics at the port that the gateway itself listens at."""
    metrics, server = data.get("metrics"), data.get("server")
    port = metrics.get("port") if isinstance(metrics, Mapping) else None
    default = ServerSettings.model_fields["port"].default
    own = server.get("port", default) if isinstance(server, Mapping) else default
    if port is not None and port != 0 and str(port) == str(own):
        yield Located(("metrics", "port"), "is the gateway's own port", "choose another, or leave it out")


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


def _repeated_names(data: Entry, models: Collection[str]) -> Iterator[Located]:
    """Find aliases that are names already. Two equal keys of a mapping are refused where the YAML is read."""
    taken: dict[str, Location] = {name: ("models", name) for name in models}
    for name, model in _entries(data, "models"):
        for index, alias in _items(model, "aliases"):
            path: Location = ("models", name, "aliases", index)
            if isinstance(alias, str) and alias in taken:
                yield Located(path, f"{alias!r} is taken by {write_path(taken[alias])}", "choose another alias")
            elif isinstance(alias, str):
                taken[alias] = path
    for alias in _aliases(data):
        if alias in taken:
            path = ("aliases", alias)
            yield Located(path, f"{alias!r} is taken by {write_path(taken[alias])}", "choose another alias")


def _unknown_models(data: Entry, models: Collection[str]) -> Iterator[Located]:
    """Find aliases and defaults that lead to no model."""
    aliases = _aliases(data)
    own_aliases = (alias for _, model in _entries(data, "models") for _, alias in _items(model, "aliases"))
    known = [*models, *(str(alias) for alias in own_aliases)]
    names = (*known, *aliases)
    for alias, (path, target) in aliases.items():
        if target not in names:
            yield _unknown_model(path, target, known)
        elif _is_circular(alias, aliases):
            yield Located(path, "leads back to itself", "name a model")
    default = data.get("default_model")
    stated = default if isinstance(default, Mapping) else {"": default}
    for operation, name in stated.items():
        if isinstance(name, str) and name not in names and not any(fnmatchcase(name, glob) for glob in names):
            path = ("default_model", str(operation)) if operation else ("default_model",)
            yield _unknown_model(path, name, names)


def _unknown_model(path: Location, name: str, known: Collection[str]) -> Located:
    near = nearest(name, known)
    return Located(
        path, f"no model is called {name!r}", f"did you mean {near!r}?" if near else did_you_mean(name, known)
    )


def _aliases(data: Entry) -> dict[str, tuple[Location, str]]:
    """Return the model to which each alias of the top level leads, and where the file says so."""
    entries = data.get("aliases")
    found: dict[str, tuple[Location, str]] = {}
    for name, entry in entries.items() if isinstance(entries, Mapping) else ():
        if isinstance(entry, str):
            found[str(name)] = ("aliases", str(name)), entry
        elif isinstance(entry, Mapping) and isinstance(entry.get("model"), str):
            found[str(name)] = ("aliases", str(name), "model"), entry["model"]
    return found


def _is_circular(alias: str, aliases: Mapping[str, tuple[Location, str]]) -> bool:
    """True if the alias leads back to itself. One that only leads to such an alias is not at fault."""
    passed = set[str]()
    name = alias
    while name in aliases and name not in passed:
        passed.add(name)
        _, name = aliases[name]
    return name == alias


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


def _unknown_owners(data: Entry) -> Iterator[Located]:
    """Find keys and budgets of a project or a key that the file does not have."""
    projects = data.get("projects")
    known = {
        "project": [str(name) for name in projects] if isinstance(projects, Mapping) else [],
        "key": [str(key["name"]) for _, key in _items(data, "keys") if isinstance(key, Mapping) and "name" in key],
    }
    for section, kinds in (("keys", ("project",)), ("budgets", ("project", "key"))):
        for index, entry in _items(data, section):
            for kind in kinds:
                name = entry.get(kind) if isinstance(entry, Mapping) else None
                if isinstance(name, str) and name not in known[kind]:
                    remedy = did_you_mean(name, known[kind]) if known[kind] else f"add it under `{kind}s`"
                    yield Located((section, index, kind), f"no {kind} is called {name!r}", remedy)


def _repeated_budgets(data: Entry) -> Iterator[Located]:
    """Find two budgets that count the same."""
    counted: dict[tuple[str, ...], int] = {}
    for index, budget in _items(data, "budgets"):
        if isinstance(budget, Mapping):
            models = budget.get("models") or ["*"]
            globs = {str(glob) for glob in models} if isinstance(models, list | tuple) else {str(models)}
            which = (
                *("*" if "*" in globs else repr(sorted(globs)), repr(budget.get("project")), repr(budget.get("key"))),
                *(budget.get("window") or "month", budget.get("timezone") or "UTC"),
            )
            first = counted.setdefault(tuple(map(str, which)), index)
            if first != index:
                yield Located(("budgets", index), f"counts the same as budgets[{first}]", "state one of them")


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
            OPEN_DOOR,
            f"{server.host!r} is not a loopback address, and there are no `keys`",
            "add `keys`, make one (`image-gateway keys create`), listen on 127.0.0.1, or set "
            "`server.allow_anonymous: true`",
        )


def _other_currencies(data: Entry) -> Iterator[Located]:
    """Refuse a price in another currency than the ledger's: the two cannot be added up."""
    ledger = data.get("ledger")
    ours = ledger.get("currency", "USD") if isinstance(ledger, Mapping) else "USD"
    for name, model in _entries(data, "models"):
        places: list[tuple[Location, Any]] = [(("models", name), model)]
        places += [(("models", name, "deployments", index), each) for index, each in _items(model, "deployments")]
        for path, entry in places:
            profile = entry.get("profile") if isinstance(entry, Mapping) else None
            stated = profile.get("currency") if isinstance(profile, Mapping) else None
            if isinstance(stated, str) and stated != ours:
                problem = f"{stated!r} is not the currency of the ledger, {ours!r}"
                yield Located((*path, "profile", "currency"), problem, f"state prices in {ours}, or `ledger.currency`")
