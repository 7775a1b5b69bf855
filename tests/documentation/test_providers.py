"""The tables of providers, in `docs/providers.md` and the README, say what the presets say."""

import inspect
import re
from collections.abc import Iterator

import pytest

from app import dialects
from app.catalog.deployments import Deployment
from app.catalog.fitting import takes_size
from app.catalog.profiles import Profile
from app.config import inventory
from app.config.loading import PRESETS, load
from app.images import Operation
from tests.documentation.pages import ROOT, blocks, page, quoted, rows

SIZES = {"size", "width", "height"}
IN_OTHER_COLUMNS = SIZES | {"n", "seed", "negative_prompt"}


def load_deployments(preset: str) -> list[Deployment]:
    settings = load(None, {f"{preset.upper()}_API_KEY": "x"})
    return [model.deployments[0] for model in inventory.models(settings, lambda name: dialects.load(name).profile)]


def read_table() -> Iterator[tuple[str, str, list[str]]]:
    """The preset, the model and the other cells of each row of `docs/providers.md`."""
    preset = ""
    for first, *cells in rows(page("docs/providers.md")):
        if first.startswith("**"):
            [preset] = quoted(first)
        else:
            [model] = quoted(first)
            yield preset, model, cells


def test_the_table_has_every_model_of_every_preset_in_the_order_in_which_they_are_tried() -> None:
    expected = [(preset, deployment.model) for preset in PRESETS for deployment in load_deployments(preset)]
    assert [(preset, model) for preset, model, _ in read_table()] == expected


@pytest.mark.parametrize(("preset", "model", "cells"), list(read_table()), ids=lambda value: str(value)[:40])
def test_a_row_says_what_the_profile_says(preset: str, model: str, cells: list[str]) -> None:
    operations, sizes, mask, seed, negative_prompt, others = cells
    [profile] = [each.profile for each in load_deployments(preset) if each.model == model]
    assert operations.split(", ") == [str(each) for each in Operation if each in profile.operations]
    assert sizes == describe_sizes(profile)
    assert mask == describe_mask(profile)
    assert (seed, negative_prompt) == tuple(
        "yes" if profile.understands(name) else "no" for name in ("seed", "negative_prompt")
    )
    assert others.split(", ") == sorted((profile.parameters or {}).keys() - IN_OTHER_COLUMNS) or [""]


def describe_sizes(profile: Profile) -> str:
    if not takes_size(profile):
        return "cannot be chosen"
    rule = profile.size
    said = [f"edges {rule.min} to {rule.max}" if rule.max else f"edges from {rule.min}"] if rule.min else []
    said += [f"edges divisible by {rule.multiple_of}"] if rule.multiple_of > 1 else []
    said += [f"{rule.max_pixels:,} pixels"] if rule.max_pixels else []
    return ", ".join(said) + ("; the input's" if profile.default_size == "input" else "")


def describe_mask(profile: Profile) -> str:
    if Operation.EDITS not in profile.operations:
        return ""
    if profile.mask == "none":
        return "none"
    return "required" if profile.mask_required else "optional"


def test_the_table_of_the_readme_has_every_model_under_its_operations() -> None:
    found = {}
    for first, variable, *cells in rows(page("README.md"), "## Providers"):
        for preset in quoted(first):
            assert quoted(variable) == [f"{preset.upper()}_API_KEY"]
            found[preset] = [list(filter(None, re.split(r",\s*", cell))) for cell in cells]
    for preset in PRESETS:
        offered = load_deployments(preset)
        assert found.pop(preset) == [
            [each.model.rpartition("/")[2] for each in offered if operation in each.profile.operations]
            for operation in Operation
        ]
    assert found == {}


def test_what_no_provider_does_by_itself_is_said_of_all_of_them() -> None:
    offered = [each.profile for preset in PRESETS for each in load_deployments(preset)]
    assert all(profile.streaming is False for profile in offered)
    assert {preset for preset in PRESETS if any(each.profile.max_n > 1 for each in load_deployments(preset))} == {
        "nebul"
    }


# --- adding one ---


@pytest.mark.parametrize("function", ["encode", "decoder", "error"])
def test_the_page_on_dialects_shows_the_three_functions_as_they_are(function: str) -> None:
    [shown] = blocks(page("docs/adding-a-provider.md"), "text")
    [parameters] = re.findall(rf"^{function}\((.*?)\)", shown, re.MULTILINE)
    assert ["self", *parameters.split(", ")] == list(inspect.signature(getattr(dialects.Dialect, function)).parameters)


def test_the_shortest_dialect_is_as_short_as_the_page_says() -> None:
    [stated] = re.findall(r"a whole dialect in (\d+) lines", " ".join(page("docs/adding-a-provider.md").split()))
    lines = (ROOT / "app/dialects/nebula_block.py").read_text(encoding="utf-8").splitlines()
    assert abs(len(lines) - int(stated)) <= 10
