from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path

import pytest
import yaml

import app.config.presets
from app.catalog.deployments import Deployment
from app.catalog.profiles import Profile
from app.config.inventory import models
from app.config.loading import PRESETS, load
from app.config.schema import Preset
from app.config.simulated import with_sandbox
from app.dialects import load as load_dialect
from app.images import Operation, Size

FOLDER = Path(str(app.config.presets.__file__)).parent
MARKS = ("[page]", "[old]", "[code]", "[model]", "[guess]")
NETMIND, NEBULA, NEBUL, BFL = "netmind", "nebula", "nebul", "bfl"


def deployments(provider: str) -> dict[str, Deployment]:
    settings = load(None, {f"{provider.upper()}_API_KEY": "secret"})
    return {model.name: model.deployments[0] for model in models(settings, lambda name: load_dialect(name).profile)}


def profile(provider: str, model: str) -> Profile:
    return deployments(provider)[model].profile


def profiles(provider: str) -> dict[str, Profile]:
    return {name: deployment.profile for name, deployment in deployments(provider).items()}


def test_every_file_is_a_preset_and_every_preset_a_file() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_every_fact_of_a_preset_says_how_sure_it_is(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    Preset.model_validate(yaml.safe_load(text))
    lines = text.split("models:", 1)[1].splitlines()
    for number, line in enumerate(lines):
        if re.match(r"    [a-z]", line):
            above = takewhile(lambda text: text.startswith("    #"), reversed(lines[:number]))
            told = " ".join((line, *above))
            assert any(mark in told for mark in MARKS), line


def test_netmind_serves_seven_models() -> None:
    operations = {name: deployment.profile.operations for name, deployment in deployments(NETMIND).items()}
    assert operations == {
        "black-forest-labs/FLUX.1-schnell": {Operation.GENERATIONS},
        "runwayml/stable-diffusion-v1-5": {Operation.GENERATIONS},
        "stabilityai/stable-diffusion-3.5-large": {Operation.GENERATIONS},
        "black-forest-labs/FLUX.1-Fill-dev": {Operation.EDITS},
        "black-forest-labs/FLUX.1-Depth-dev": {Operation.EDITS},
        "black-forest-labs/FLUX.1-Canny-dev": {Operation.EDITS},
        "black-forest-labs/FLUX.1-Redux-dev": {Operation.VARIATIONS},
    }


def test_netmind_draws_one_at_a_time_and_is_always_told_the_format() -> None:
    for deployment in deployments(NETMIND).values():
        assert deployment.profile.max_n == 1
        assert deployment.profile.results == ("b64_json", "url")
        assert deployment.profile.streaming is False
        assert deployment.profile.extra == "refuse"


def test_netmind_takes_a_size_for_generations_only() -> None:
    for deployment in deployments(NETMIND).values():
        assert deployment.profile.understands("size") == (Operation.GENERATIONS in deployment.profile.operations)
        assert not deployment.profile.understands("seed")


def test_netmind_fill_needs_a_mask_and_the_control_models_take_none() -> None:
    fill = profile(NETMIND, "black-forest-labs/FLUX.1-Fill-dev")
    assert (fill.mask, fill.mask_required) == ("white", True)
    for name in ("Depth", "Canny"):
        assert profile(NETMIND, f"black-forest-labs/FLUX.1-{name}-dev").mask == "none"


def test_nebula_block_serves_five_models_under_its_own_names() -> None:
    parameters = {name: set(deployment.profile.parameters or ()) for name, deployment in deployments(NEBULA).items()}
    assert parameters == {
        "stabilityai/stable-diffusion-xl-base-1.0": {"width", "height", "negative_prompt", "steps", "guidance"},
        "black-forest-labs/FLUX.1-schnell": {"width", "height", "steps", "guidance", "seed"},
        "Bytedance/seedream-3-0-t2i-250415": {"width", "height", "guidance"},
        "black-forest-labs/FLUX.1-Fill-dev": {"width", "height", "steps", "guidance"},
        "black-forest-labs/FLUX.1-Kontext-dev": {"width", "height", "guidance"},
    }
    schnell = profile(NEBULA, "black-forest-labs/FLUX.1-schnell")
    assert (schnell.spelling("steps", "steps"), schnell.spelling("guidance", "")) == ("num_steps", "guidance_scale")
    assert all(d.profile.results == ("b64_json",) and d.profile.max_n == 1 for d in deployments(NEBULA).values())


def test_nebula_block_sizes_are_those_of_the_models() -> None:
    seedream = profile(NEBULA, "Bytedance/seedream-3-0-t2i-250415").size
    assert seedream.allows(Size(512, 2048))
    assert not seedream.allows(Size(500, 1024))
    assert not seedream.allows(Size(2064, 1024))
    assert not profile(NEBULA, "black-forest-labs/FLUX.1-schnell").size.allows(Size(1000, 1024))
    assert profile(NEBULA, "stabilityai/stable-diffusion-xl-base-1.0").size.allows(Size(1000, 1024))


def test_nebula_block_fill_repaints_white_at_the_size_of_the_input() -> None:
    fill = profile(NEBULA, "black-forest-labs/FLUX.1-Fill-dev")
    assert (fill.mask, fill.mask_required, fill.default_size) == ("white", True, "input")
    assert (fill.image_field, fill.mask_field, fill.size.multiple_of) == ("image", "mask", 16)
    assert profile(NEBULA, "black-forest-labs/FLUX.1-Kontext-dev").mask == "none"


def test_nebul_does_everything_with_one_model() -> None:
    [(name, deployment)] = deployments(NEBUL).items()
    can = deployment.profile
    assert name == "black-forest-labs/FLUX.1-Kontext-dev"
    assert can.operations == frozenset(Operation)
    assert can.output_formats == ("png", "jpeg", "webp")
    assert (can.max_n, can.mask, can.mask_required, can.image_field) == (10, "alpha", False, "image")
    assert set(can.parameters or ()) == {"n", "size", "quality", "background", "output_format", "guidance", "user"}


def test_black_forest_labs_draws_one_at_a_time_behind_links_and_with_seeds() -> None:
    with_steps = {"flux-2-flex", "flux-pro-1.0-fill", "flux-dev"}
    for name, deployment in deployments(BFL).items():
        can = deployment.profile
        assert (can.max_n, can.results, can.output_formats) == (1, ("url",), ("jpeg", "png")), name
        assert can.understands("seed") and can.understands("output_format"), name
        assert can.understands("steps") == can.understands("guidance") == (name in with_steps), name
        assert can.price_per_image, name
        if Operation.EDITS in can.operations:
            assert can.image_field == ("image" if name == "flux-pro-1.0-fill" else "input_image"), name


def test_black_forest_labs_takes_a_size_except_for_models_that_take_a_shape() -> None:
    sized = {name: can.size for name, can in profiles(BFL).items() if can.understands("width")}
    assert set(profiles(BFL)) - set(sized) == {
        "flux-pro-1.1-ultra",
        "flux-kontext-pro",
        "flux-kontext-max",
        "flux-pro-1.0-fill",
    }
    for name, size in sized.items():
        is_of_the_second = name.startswith("flux-2")
        assert size.allows(Size(64, 80)) == is_of_the_second
        assert size.allows(Size(2048, 2048)) == is_of_the_second
        assert size.allows(Size(1024, 768)) and not size.allows(Size(1000, 768))


def test_black_forest_labs_repaints_white_with_one_model() -> None:
    masked = {name: (can.mask, can.mask_required) for name, can in profiles(BFL).items() if can.mask != "none"}
    assert masked == {"flux-pro-1.0-fill": ("white", True)}


def test_the_sandbox_has_all_of_them_and_gpt_image() -> None:
    settings = with_sandbox(load(None, {}), "http://127.0.0.1:9")
    served = {model.name: model for model in models(settings, lambda name: load_dialect(name).profile)}
    assert set(served) == {"gpt-image-2", *(name for preset in PRESETS for name in deployments(preset))}
    can = served["gpt-image-2"].deployments[0].profile
    assert can.operations == {Operation.GENERATIONS, Operation.EDITS}
    assert (can.results, can.streaming, can.extra, can.max_n, can.mask) == (("b64_json",), True, "refuse", 10, "alpha")
    assert can.size.allows(Size(3840, 2160))
    assert not can.size.allows(Size(1000, 1000))
    assert [d.provider.name for d in served["black-forest-labs/FLUX.1-schnell"].deployments] == ["netmind", "nebula"]
