"""Read YAML and environment into frozen models, with cross-checks. Knows nothing of their use.

The layers, from the lowest: providers whose key is in the environment (if the file has no providers), the file,
`IMAGE_GATEWAY_…`, the command line. Mappings are merged, everything else is replaced.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import PrivateAttr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from app.config.cross_checks import contradictions
from app.config.errors import NO_ADDRESS, Fault, Located, SettingsError, closest, did_you_mean, translate, write_path
from app.config.schema import (
    DataDirectory,
    FilesSettings,
    KeySettings,
    LoggingSettings,
    ModelSettings,
    Name,
    Preset,
    ProfileSettings,
    ProviderName,
    ProviderSettings,
    QueueSettings,
    RunsSettings,
    ServerSettings,
)
from app.config.sources import Variables, YamlFile, drop_none, merge, preset_data, read_yaml

PRESETS = ("netmind", "nebula", "nebul", "bfl")  # in the order of the attempts


class Settings(BaseSettings):
    model_config = SettingsConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    server: ServerSettings = ServerSettings()
    queue: QueueSettings = QueueSettings()
    runs: RunsSettings = RunsSettings()
    files: FilesSettings = FilesSettings()
    logging: LoggingSettings = LoggingSettings()
    data_dir: DataDirectory = Path("data")
    providers: dict[ProviderName, ProviderSettings] = {}
    models: dict[Name, ModelSettings] = {}
    keys: tuple[KeySettings, ...] = ()

    _presets: dict[str, Preset] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[PydanticBaseSettingsSource, ...]:
        """Leave the other sources to `load`, which takes the environment as an argument."""
        return (sources["init_settings"],)

    @property
    def sandbox(self) -> bool:
        """True if nothing is configured: the gateway then serves the simulated providers."""
        return not self.providers

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
) -> Settings:
    """Load the settings of a file (or of the one that `IMAGE_GATEWAY_CONFIG` names), the environment and the command
    line.

    `overrides` is nested like the file; None in it counts as absent. `dialects` are the names that a provider may state
    as its dialect; None: any. Raises SettingsError.
    """
    named = config or (Path(environ["IMAGE_GATEWAY_CONFIG"]) if environ.get("IMAGE_GATEWAY_CONFIG") else None)
    file = read_yaml(named, environ) if named else YamlFile()
    variables = Variables(Settings, environ)
    data = merge(file.data, variables.data)
    if not file.data.get("providers"):
        keys = {name: environ.get(f"{name.upper()}_API_KEY") for name in PRESETS}
        data = merge({"providers": {name: {"api_key": key} for name, key in keys.items() if key}}, data)
    data = merge(data, drop_none(overrides))
    unresolved = [fault for fault in file.faults if not variables.origin(fault.path)[0]]
    located = [*unresolved, *_unknown_sections(data)]
    presets, unknown = _take_presets(data)
    located += unknown
    _take_models(data, presets)
    located += contradictions(data, dialects)
    settings: Settings | None = None
    try:
        settings = Settings(**data)
        settings._presets = presets
    except ValidationError as error:
        located += translate(error, Settings)
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
