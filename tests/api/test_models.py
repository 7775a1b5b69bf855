from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.api.models import capabilities
from app.config.inventory import models
from app.config.loading import load
from app.dialects import load as load_dialect

CONFIG = """
providers: {a: {base_url: "http://127.0.0.1:9/v1"}, b: {base_url: "http://127.0.0.1:9/v1"}}
models: {flux: {deployments: [{provider: a, profile: %s}, {provider: b, profile: %s}]}}
"""
NO_SIZE = "{parameters: [seed]}"


@pytest.fixture
def told(tmp_path: Path) -> Any:
    """The capabilities of a model with two deployments of these profiles."""

    def told(first: str, second: str = NO_SIZE) -> dict[str, Any]:
        path = tmp_path / "config.yaml"
        path.write_text(CONFIG % (first, second))
        [model] = models(load(path, {}), lambda name: load_dialect(name).profile)
        return capabilities(model)

    return told


def test_each_size_of_a_list_is_an_entry_and_bounds_are_told_in_words(told: Any) -> None:
    first = "{parameters: [size], size: {list: [64x64, 128x64]}}"
    assert told(first)["sizes"] == ["64x64", "128x64"]
    assert told(first, "{parameters: [size], size: {list: [64x64, 32x32]}}")["sizes"] == ["64x64", "128x64", "32x32"]
    assert told(first, "{parameters: [size], size: {max: 99, multiple_of: 8}}")["sizes"] == [
        "64x64",
        "128x64",
        "edges up to 99, edges divisible by 8",
    ]
    assert told("{parameters: [seed], size: {list: [64x64]}}")["sizes"] == []


def test_sizes_are_told_to_programs_as_rules_each_once(told: Any) -> None:
    listed = "{parameters: [size], size: {list: [64x64, 128x64]}}"
    bounded = "{parameters: [size], size: {min: 32, max: 99, multiple_of: 8, max_pixels: 9000}}"
    bounds = {"min": 32, "max": 99, "multiple_of": 8, "max_pixels": 9000}
    assert told(listed, bounded)["size_rules"] == [{"sizes": ["64x64", "128x64"]}, bounds]
    assert told(bounded, bounded)["size_rules"] == [bounds]
    assert told(NO_SIZE)["size_rules"] == []


@pytest.mark.parametrize("stated", ["[size]", "[width, height]", "{size: geometry}"])
def test_a_size_that_is_taken_is_taken_in_every_spelling_of_the_gateways_own(told: Any, stated: str) -> None:
    assert told(f"{{parameters: {stated}}}")["parameters"] == ["height", "seed", "size", "width"]


def test_a_model_that_lets_nobody_choose_the_size_names_no_spelling_of_it(told: Any) -> None:
    assert told(NO_SIZE)["parameters"] == ["seed"]
    assert told(NO_SIZE, "{}")["parameters"] is None
