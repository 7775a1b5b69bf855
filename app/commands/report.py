"""Print the configuration as a page to read: the models, their callers, and missing settings. Shows no secret."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from app.catalog.deployments import Deployment, Model
from app.catalog.fitting import takes_size
from app.catalog.money import to_decimal
from app.catalog.profiles import Profile, Timeouts
from app.commands.probe import Finding, Outcome
from app.config.loading import PRESETS, Settings
from app.config.schema import KeySettings
from app.images import Operation

_Row = tuple[str, str]

LONGEST_WORDS = 300  # characters of a provider's words


def report(settings: Settings, models: Sequence[Model], *, has_issued_keys: bool = False) -> str:
    keys = _rows(_keys(settings, has_issued_keys=has_issued_keys))
    parts = [_rows(_server(settings)), _heading("keys", keys)]
    sandbox = "none: the sandbox is served (simulated providers)"
    parts.append(_heading("providers", _rows(_providers(settings)) or sandbox))
    parts += [_heading("models", "\n\n".join(_model(model) for model in models) or "none")]
    if names := _rows(_names(settings)):
        parts.append(_heading("aliases", names))
    missing = list(_missing(settings, models))
    parts.append(_heading("missing", "\n".join(missing) or "nothing"))
    return "\n\n".join(parts) + "\n"


def online_report(findings: Sequence[Finding]) -> str:
    """Print the providers' answers to the request for their models."""
    rows = _rows(row for finding in findings for row in _describe(finding))
    return _heading("online", rows or "no provider is configured: there is nobody to ask") + "\n"


def _describe(finding: Finding) -> Iterator[_Row]:
    why = "".join(character if character.isprintable() else " " for character in finding.why)[:LONGEST_WORDS]
    # A list may be public, so its arrival does not prove the credential.
    credential = "credential not refused" if finding.credential else "no credential sent"
    match finding.outcome:
        case Outcome.UNREACHABLE:
            yield finding.provider, f"NOT REACHABLE  {why}"
        case Outcome.REFUSED:
            what = "CREDENTIAL REFUSED" if finding.credential else "CREDENTIAL MISSING"
            yield finding.provider, f"{what}  {why}"
        case Outcome.CONNECTED:
            yield finding.provider, "reachable; no list of models is known (`models_path`), so nothing was asked"
        case Outcome.UNLISTED:
            yield finding.provider, f"reachable; models not known: {why}"
        case Outcome.LISTED:
            models = "1 model" if finding.count == 1 else f"{finding.count} models"
            yield finding.provider, f"reachable; {credential}; {models} listed"
    for model in finding.not_listed:
        yield "", f"warning: {model!r} is not listed"


def _heading(title: str, text: str) -> str:
    return f"{title}\n" + "\n".join(f"  {line}".rstrip() for line in text.splitlines())


def _rows(rows: Iterable[_Row]) -> str:
    held = list(rows)
    width = max((len(name) for name, _ in held), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in held)


def _server(settings: Settings) -> Iterator[_Row]:
    server = settings.server
    host = f"[{server.host}]" if ":" in server.host else server.host
    yield "listening", f"http://{host}:{server.port}"
    if not settings.sandbox:  # b64_json keeps nothing
        yield "data", str(settings.data_dir)
    yield "limits", f"{server.max_upload_mb:g} MB a file, {server.max_request_mb:g} MB a request"
    yield "queue", f"{settings.queue.max_length} waiting, {settings.queue.max_seconds:g} s at most, per deployment"


def _keys(settings: Settings, *, has_issued_keys: bool) -> Iterator[_Row]:
    if has_issued_keys:
        yield "issued", "in the database; `image-gateway keys list` shows them"
    elif not settings.keys:
        yield "none", "whoever reaches the port is served"
    for key in settings.keys:
        yield key.name, "; ".join((", ".join(key.models), *_limits(key)))


def _limits(key: KeySettings) -> Iterator[str]:
    rates = {
        "requests": key.requests_per_minute,
        "images": key.images_per_minute,
        "megapixels": key.megapixels_per_minute,
    }
    yield from (f"{amount} {measure} a minute" for measure, amount in rates.items() if amount)
    if key.max_concurrency:
        yield f"{key.max_concurrency} at once"
    elif not any(rates.values()):
        yield "no limits"
    if key.project:
        yield f"project {key.project}"
    if key.default_response_format:
        yield f"{key.default_response_format} unless asked otherwise"


def _providers(settings: Settings) -> Iterator[_Row]:
    for name, provider in settings.providers.items():
        preset = "no preset" if provider.preset == "none" else f"preset {provider.preset}"
        credential = "api_key set" if provider.api_key else "no api_key"
        yield name, f"{provider.base_url}  {provider.dialect}  {preset}  {credential}"


def _model(model: Model) -> str:
    aliases = f"  (also {', '.join(model.aliases)})" if model.aliases else ""
    deployments = (
        f"{deployment.name}  priority {deployment.priority}, weight {deployment.weight}\n"
        + "\n".join(f"  {line}" for line in _rows(_deployment(deployment)).splitlines())
        for deployment in model.deployments
    )
    return _heading(f"{model.name}{aliases}", "\n".join(deployments))


def _names(settings: Settings) -> Iterator[_Row]:
    for name, alias in settings.aliases.items():
        default = alias.default_response_format
        yield name, f"{alias.model}; {default} unless asked otherwise" if default else alias.model
    for operation, model in settings.default_models.items():
        yield f"no model, {operation}", model


def _deployment(deployment: Deployment) -> Iterator[_Row]:
    profile = deployment.profile
    yield "operations", ", ".join(operation for operation in Operation if operation in profile.operations)
    yield "sizes", _sizes(profile)
    yield "n", f"{profile.max_n} a request"
    if Operation.EDITS in profile.operations:
        yield "mask", profile.mask + (", required" if profile.mask_required else "")
    yield "timeouts", _seconds(profile.timeout)
    yield "price", _price(profile)


def _price(profile: Profile) -> str:
    price = profile.stated_price
    if price is None:
        return "not known"
    amounts = [tier.per_image for tier in price.tiers if tier.per_image is not None]
    if price.reported is None and len(amounts) == len(price.tiers) == 1:
        return f"{to_decimal(amounts[0]):f}".rstrip("0").rstrip(".") + " an image"
    return f"{len(price.tiers)} tiers" + (f", or `{price.reported}` of the answer" if price.reported else "")


def _sizes(profile: Profile) -> str:
    if not takes_size(profile):
        return "cannot be asked for"
    if profile.default_size is None:
        return str(profile.size)
    default = "the input's" if profile.default_size == "input" else str(profile.default_size)
    return f"{profile.size}; {default} unless asked otherwise"


def _seconds(timeouts: Timeouts) -> str:
    first = f", first byte {timeouts.first_byte:g}" if timeouts.first_byte is not None else ""
    return f"connect {timeouts.connect:g}, read {timeouts.read:g}, total {timeouts.total:g}{first} seconds"


def _missing(settings: Settings, models: Sequence[Model]) -> Iterator[str]:
    if settings.sandbox:
        keys = ", ".join(f"{name.upper()}_API_KEY" for name in PRESETS)
        yield f"real providers: set a key ({keys}), or list them under `providers` in a file"
    if settings.providers and not models:
        yield "there is no model: list what the providers offer under `models`"
    used = {deployment.provider.name for model in models for deployment in model.deployments}
    for name, provider in settings.providers.items():
        if provider.api_key is None:
            yield f"provider {name!r} has no `api_key`: requests go out without a credential"
        if name not in used:
            yield f"provider {name!r} serves no model: name it in a model's `deployments`"
    yield from _find_guesses(settings)
    deployments = [deployment for model in models for deployment in model.deployments]
    unpriced = sum(deployment.profile.stated_price is None for deployment in deployments)
    if unpriced and not settings.sandbox:
        yield f"prices: {unpriced} of {len(deployments)} not known; `price` in a `profile` states one"
    yield from _idle_globs(settings, models)


def _find_guesses(settings: Settings) -> Iterator[str]:
    for name, model in settings.models.items():
        for stated in model.deployments:
            upstream = stated.model or name
            described = model.profile.model_fields_set or stated.profile.model_fields_set
            if not described and settings.preset_profile(stated.provider, upstream) is None:
                dialect = settings.providers[stated.provider].dialect
                yield (
                    f"{stated.provider}/{upstream} has no profile: what it can do is assumed from dialect {dialect!r}; "
                    "state what differs under `profile`"
                )


def _idle_globs(settings: Settings, models: Sequence[Model]) -> Iterator[str]:
    names = [name for model in models for name in (model.name, *model.aliases)]
    for key in settings.keys:
        for glob in key.models:
            # An alias may be a glob that one of the key's names fits.
            is_alias = any(fnmatchcase(alias, glob) or fnmatchcase(glob, alias) for alias in settings.aliases)
            if not is_alias and not any(fnmatchcase(name, glob) for name in names):
                yield f"key {key.name!r}: {glob!r} matches no model"
