from __future__ import annotations

import pytest

from app.config import loading
from app.config.loading import PRESETS, load
from app.config.sandbox_names import sandbox_models
from app.config.simulated import with_sandbox


def test_the_sandbox_gives_five_providers_on_one_address() -> None:
    settings = with_sandbox(load(None, {}), "http://127.0.0.1:9")
    assert {name: provider.base_url for name, provider in settings.providers.items()} == {
        "netmind": "http://127.0.0.1:9/netmind/v1",
        "nebula": "http://127.0.0.1:9/nebula/api/v1",
        "nebul": "http://127.0.0.1:9/nebul/v1",
        "bfl": "http://127.0.0.1:9/bfl/v1",
        "openai": "http://127.0.0.1:9/openai/v1",
    }
    assert "gpt-image-2" in settings.models
    assert settings.preset_profile("nebula", "black-forest-labs/FLUX.1-schnell") is not None
    assert all(provider.api_key for provider in settings.providers.values())


def test_a_preset_without_a_simulation_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "PRESETS", ("another", *PRESETS))
    settings = with_sandbox(load(None, {}), "http://127.0.0.1:9")
    assert list(settings.providers) == ["netmind", "nebula", "nebul", "bfl", "openai"]


def test_the_names_of_the_sandbox_are_those_of_its_models() -> None:
    settings = with_sandbox(load(None, {}), "http://127.0.0.1:9")
    assert set(sandbox_models()) == settings.models.keys()
    assert {alias.model for alias in settings.aliases.values()} <= settings.models.keys()
