"""The configuration as an administrator sees it: everything but secrets."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from app.config.loading import load
from app.config.redacted import SET, without_secrets

HIDDEN = [
    *("provider-key-1", "header-value-1", "query-value-1", "userpart-1", "caller-key-0123456789", "webhook-path-1"),
    *("webhook-secret-0123456789abc", "postgres-password", "master-secret-0123456789abcdef01234567"),
    sha256(b"another key").hexdigest(),
]


def told(tmp_path: Path, **more: Any) -> Any:
    stated = {
        "secret": HIDDEN[8],
        "database": {"url": f"postgresql://gateway:{HIDDEN[7]}@db/book"},
        "webhook": {"url": f"https://hooks.example/services/{HIDDEN[5]}", "secret": HIDDEN[6]},
        "providers": {
            "mine": {
                "base_url": "https://host.example/v1",
                "api_key": HIDDEN[0],
                "headers": {"x-team": HIDDEN[1]},
                "models_path": f"/models?key={HIDDEN[2]}",
            }
        },
        "models": {"m": {"deployments": [{"provider": "mine"}], "profile": {"price": 0.04, "size": {"min": 64}}}},
        "keys": [{"name": "one", "key": HIDDEN[4]}, {"name": "two", "key_sha256": HIDDEN[9]}],
        **more,
    }
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(stated))
    return without_secrets(load(file, {}))


def test_no_secret_is_told_wherever_it_stands(tmp_path: Path) -> None:
    text = json.dumps(told(tmp_path))
    assert [secret for secret in HIDDEN if secret in text] == []


def test_it_is_told_that_a_secret_is_set(tmp_path: Path) -> None:
    found = told(tmp_path)
    provider = found["providers"]["mine"]
    assert (provider["api_key"], provider["headers"], found["secret"]) == (SET, {"x-team": SET}, SET)
    assert [key.get("key") or key.get("key_sha256") for key in found["keys"]] == [SET, SET]
    assert found["webhook"]["url"] == f"https://hooks.example/{SET}"
    assert provider["models_path"] == f"/models?{SET}"


def test_defaults_and_profiles_are_told_as_the_file_writes_them(tmp_path: Path) -> None:
    found = told(tmp_path)
    assert found["server"]["port"] == 8000
    assert found["models"]["m"]["profile"]["size"] == {"min": 64}
    assert found["models"]["m"]["profile"]["price"] == {"tiers": [{"per_image": 0.04}], "currency": "USD"}
    assert found["models"]["m"]["deployments"] == [{"provider": "mine", "weight": 1, "profile": {}}]
    assert found["providers"]["mine"]["base_url"] == "https://host.example/v1"
