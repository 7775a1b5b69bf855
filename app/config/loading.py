"""Read YAML and environment into frozen models, with cross-checks. Knows nothing of their use.

The layers, from the lowest: the sandbox's names (if nothing has providers), providers whose key is in the environment
(if the file has no providers), the file, `IMAGE_GATEWAY_…`, the command line. Mappings are merged, everything else is
replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import Field, PrivateAttr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from app.config.budgets import BudgetSettings, WebhookSettings
from app.config.cross_checks import OPEN_DOOR, contradictions
from app.config.errors import NO_ADDRESS, Fault, Located, SettingsError, closest, did_you_mean, translate, write_path
from app.config.fields import MasterSecret
from app.config.ledger import DatabaseSettings, LedgerSettings
from app.config.sandbox_names import SANDBOX_NAMES, sandbox_models
from app.config.schema import (
    AliasEntry,
    DataDirectory,
    DefaultModel,
    FilesSettings,
    KeySettings,
    LoggingSettings,
    MetricsSettings,
    ModelSettings,
    Name,
    PagesSettings,
    Preset,
    ProfileSettings,
    ProjectSettings,
    ProviderName,
    ProviderSettings,
    QueueSettings,
    RunsSettings,
    ServerSettings,
)
from app.config.sources import Variables, YamlFile, drop_none, merge, preset_data, read_yaml
from app.images import Operation

PRESETS = ("netmind", "nebula", "nebul", "bfl")  # in the order of the attempts


class Settings(BaseSettings):
    model_config = SettingsConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    server: ServerSettings = ServerSettings()
    queue: QueueSettings = QueueSettings()
    runs: RunsSettings = RunsSettings()
    files: FilesSettings = FilesSettings()
    logging: LoggingSettings = LoggingSettings()
    pages: PagesSettings = PagesSettings()
    metrics: MetricsSettings = MetricsSettings()
    database: DatabaseSettings = DatabaseSettings()
    ledger: LedgerSettings = LedgerSettings()
    webhook: WebhookSettings = WebhookSettings()
    data_dir: DataDirectory = Path("data")
    secret: MasterSecret = Field(None, repr=False)
    providers: dict[ProviderName, ProviderSettings] = {}
    models: dict[Name, ModelSettings] = {}
    aliases: dict[Name, AliasEntry] = {}
    default_model: DefaultModel | None = None
    projects: dict[Name, ProjectSettings] = {}
    keys: tuple[KeySettings, ...] = ()
    budgets: tuple[BudgetSettings, ...] = ()

    _presets: dict[str, Preset] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[PydanticBaseSettingsSource, ...]:
        """Leave the other sources to `load`, which takes the environment as an argument."""
        return (sources["init_settings"],)

    @property
    def sandbox(self) -> bool:
        """True if nothing is configured: the gateway then serves the simulated providers."""
        return not self.providers

    @property
    def default_models(self) -> Mapping[Operation, str]:
        """Return the models of requests that name none."""
        return self.default_model.by_operation if self.default_model else {}

    @property
    def stated_secret(self) -> str | None:
        """Return the secret that everything is derived from, if the configuration states it."""
        return self.secret.get_secret_value() if self.secret else None

    @property
    def database_url(self) -> str | None:
        """Return the address of Postgres; None: SQLite in the data directory."""
        return self.database.url.get_secret_value() if self.database.url else None

    def preset_profile(self, provider: str, model: str) -> ProfileSettings | None:
        """Return the preset's profile of one of the provider's models, by the provider's name for it."""
        preset = self._presets.get(self.providers[provider].preset)
        return preset.models.get(model) if preset else None

    def offering(self, other: Settings, models: Mapping[str, ModelSettings]) -> Settings:
        """Return a copy with the providers of `other`, and with `models`."""
        changed = self.model_copy(update={"providers": other.providers, "models": models})
        changed._presets = other._presets
        return changed


def load(
    config: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, Any] = MappingProxyType({}),
    dialects: Collection[str] | None = None,
    has_issued_keys: Callable[[Settings], bool] = lambda _: False,
) -> Settings:
    """Load the settings of a file (or of the one that `IMAGE_GATEWAY_CONFIG` names), the environment and the command
    line.

    `overrides` is nested like the file; None in it counts as absent. `dialects` are the names that a provider may state
    as its dialect; None: any. `has_issued_keys` is asked before an open address is refused: keys in the database close
    the door too. Raises SettingsError.
    """
    named = config or (Path(environ["IMAGE_GATEWAY_CONFIG"]) if environ.get("IMAGE_GATEWAY_CONFIG") else None)
    file = read_yaml(named, environ) if named else YamlFile()
    variables = Variables(Settings, environ)
    data = merge(file.data, variables.data)
    if not file.data.get("providers"):
        keys = {name: environ.get(f"{name.upper()}_API_KEY") for name in PRESETS}
        data = merge({"providers": {name: {"api_key": key} for name, key in keys.items() if key}}, data)
    data = merge(data, drop_none(overrides))
    if not data.get("providers") and not data.get("models"):
        data = merge(SANDBOX_NAMES, data)
    unresolved = [fault for fault in file.faults if not variables.origin(fault.path)[0]]
    located = [*unresolved, *_unknown_sections(data)]
    presets, unknown = _take_presets(data)
    located += unknown
    _take_models(data, presets)
    located += contradictions(data, dialects, _offered(data))
    settings: Settings | None = None
    try:
        settings = Settings(**data)
        settings._presets = presets
    except ValidationError as error:
        located += translate(error, Settings)
    if settings is not None and any(fault.path == OPEN_DOOR for fault in located) and has_issued_keys(settings):
        located = [fault for fault in located if fault.path != OPEN_DOOR]
    faults = [*file.repeated, *variables.faults, *_first_per_place(located, variables)]
    if faults or settings is None:
        raise SettingsError(faults)
    return settings


# --- presets ---


def _take_presets(data: dict[str, Any]) -> tuple[dict[str, Preset], list[Located]]:
    """Fill in the settings that the providers leave to their presets. Returns those presets, and the providers without
    one."""
    presets: dict[str, Preset] = {}
    faults: list[Located] = []
    entries = data.get("providers")
    if not isinstance(entries, dict):
        return presets, faults
    for name, stated in list(entries.items()):
        if not isinstance(stated, Mapping | None):
            continue
        entry = {key: value for key, value in (stated or {}).items() if value is not None or key == "models_path"}
        faults += _misspelt(str(name), entry)
        preset = entry.setdefault("preset", name if name in PRESETS else "none")
        if preset in PRESETS:
            taken = presets[preset] = presets.get(preset) or Preset.model_validate(preset_data(preset))
            entry = {name: getattr(taken, name) for name in ("base_url", "dialect", "models_path")} | entry
        elif preset != "none":
            remedy = did_you_mean(str(preset), (*PRESETS, "none"))
            faults.append(Located(("providers", str(name), "preset"), f"no preset is called {preset!r}", remedy))
            entry.setdefault("base_url", "https://unknown")  # the preset would have said it
        if entry.get("dialect", "openai") != "openai":
            entry.setdefault("models_path", None)  # the default is of the OpenAI shape
        entries[name] = entry
    return presets, faults


def _misspelt(name: str, entry: Mapping[str, Any]) -> Iterator[Located]:
    """Return a fault for an entry without an address if its name resembles a preset's."""
    if "base_url" not in entry and "preset" not in entry and name not in PRESETS and (close := closest(name, PRESETS)):
        remedy = f"did you mean {close!r}? If not, {NO_ADDRESS}"
        yield Located(("providers", name, "base_url"), "is missing", remedy)


def _take_models(data: dict[str, Any], presets: Mapping[str, Preset]) -> None:
    """Without a `models` section, offer the models of the providers' presets, in the order of the providers."""
    entries = data.get("providers")
    if data.get("models") or not isinstance(entries, dict):
        return
    models: dict[str, Any] = {}
    for provider, entry in entries.items():
        preset = presets.get(str(entry["preset"])) if isinstance(entry, dict) else None
        for name in preset.models if preset else ():
            models.setdefault(name, {"deployments": []})["deployments"].append({"provider": provider})
    data["models"] = models


def _offered(data: Mapping[str, Any]) -> Collection[str]:
    """Return the names of the models on offer."""
    models = data.get("models")
    if not models and not data.get("providers"):
        return sandbox_models()
    return [str(name) for name in models] if isinstance(models, Mapping) else []


# --- faults ---


def _unknown_sections(data: dict[str, Any]) -> Iterator[Located]:
    """Remove unknown sections: a key that is no field must not become an argument of the model's constructor."""
    for name in [name for name in data if name not in Settings.model_fields]:
        del data[name]
        yield Located((name,), f"no section is called {name!r}", did_you_mean(name, Settings.model_fields))


def _first_per_place(located: Iterable[Located], variables: Variables) -> Iterator[Fault]:
    """Keep the first fault at each place; later ones follow from it."""
    seen: set[object] = set()
    for fault in located:
        if fault.path not in seen:
            seen.add(fault.path)
            variable, rest = variables.origin(fault.path)
            yield Fault(write_path((variable, *rest) if variable else rest), fault.problem, fault.remedy)
