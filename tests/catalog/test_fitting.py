from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import dialects
from app.api.requests.validation import RULES
from app.catalog.deployments import Deployment, Provider
from app.catalog.fitting import CONVERTIBLE, Fitted, Misfit, fit
from app.catalog.parameters import ALIASES, PARAMETERS, Weight
from app.catalog.profiles import Profile, SizeRule
from app.config import inventory
from app.config.loading import PRESETS, load
from app.images import ImageRequest, Operation, Size
from tests.dialects.asking import asked, upload

ROOT = Path(__file__).parents[2]
EDITS, GENERATIONS, VARIATIONS = Operation.EDITS, Operation.GENERATIONS, Operation.VARIATIONS


OUR_OWN = ("max_cost", "tags")  # fields of the request that are between the caller and the gateway


def at(profile: Profile, **provider: Any) -> Deployment:
    return Deployment(Provider("host", "openai", "https://host.test", **provider), "model", profile)


def fitted(request: ImageRequest, profile: Profile, **provider: Any) -> Fitted:
    found = fit(request, at(profile, **provider))
    assert isinstance(found, Fitted), found
    return found


def misfit(request: ImageRequest, profile: Profile) -> Misfit:
    found = fit(request, at(profile))
    assert isinstance(found, Misfit)
    return found


def test_the_table_of_parameters_describes_the_code() -> None:
    command = [sys.executable, "scripts/parameter_table.py"]
    rendered = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert (ROOT / "docs/parameters.md").read_text(encoding="utf-8") == rendered, f"run {command} > docs/parameters.md"


@pytest.mark.parametrize("name", sorted(RULES.keys() - {"model", "width", "height", *ALIASES}))
def test_the_table_has_every_parameter_by_name(name: str) -> None:
    rows = (ROOT / "docs/parameters.md").read_text(encoding="utf-8").splitlines()
    assert len([row for row in rows if row.startswith((f"| `{name}`", f"| `{name}="))]) >= len(PRESETS) + 1


@pytest.mark.parametrize("field", [field.name for field in fields(ImageRequest) if field.name not in OUR_OWN])
def test_a_host_that_takes_everything_gets_every_field_of_the_request(field: str) -> None:
    request = ImageRequest(
        Operation.EDITS,
        "model",
        "a fox",
        images=(upload(),),
        mask=upload(),
        markup=upload(),
        n=2,
        size=Size(64, 64),
        response_format="b64_json",
        stream=True,
        partial_images=2,
        parameters={"user": "one"},
        spelt={"user": "you"},
        extra=(("other", b"1"),),
        mask_convention="white",
        raw=True,
    )
    found = fitted(request, Profile(streaming=True, extra="pass")).request
    assert getattr(request, field) != getattr(ImageRequest(GENERATIONS, ""), field), "give the new field a value here"
    assert getattr(found, field) == (1 if field == "n" else getattr(request, field))  # a stream draws one at a time


def test_no_host_gets_the_callers_bound_or_tags() -> None:
    request = ImageRequest(GENERATIONS, "model", "a fox", max_cost=7, tags={"team": "blue"})
    found = fitted(request, Profile(streaming=True, extra="pass")).request
    assert (found.max_cost, found.tags) == (None, {})


def test_a_host_that_knows_no_count_draws_one_at_a_time() -> None:
    request = asked(GENERATIONS, n=3)
    assert fitted(request, Profile(parameters={"size": "size"})).request.n == 1
    assert fitted(request, Profile(parameters={"n": "count"})).request.n == 3
    assert fitted(request, Profile()).request.n == 3


@pytest.mark.parametrize(
    ("name", "works"),
    [("num_images", "say 'n'"), ("inference_steps", "say 'steps'"), ("picture", "send the images as files")],
)
def test_a_field_that_the_gateway_sets_cannot_be_set_by_the_providers_name(name: str, works: str) -> None:
    """Or fifty images would be drawn, and one of them kept."""
    can = Profile(parameters={"n": "num_images", "steps": "inference_steps"}, image_field="picture", extra="pass")
    found = misfit(asked(GENERATIONS, parameters={"steps": 4}, extra=((name, 50),)), can)
    assert (found.param, found.works, found.code) == (name, works, "unknown_parameter")


def test_a_hosts_own_name_may_be_used_where_the_gateway_says_nothing_by_it() -> None:
    can = Profile(parameters={"steps": "inference_steps"}, extra="pass")
    assert fitted(asked(GENERATIONS, extra=(("inference_steps", 4),)), can).request.extra == (
        ("inference_steps", b"4"),
    )


# --- nothing is lost without a word ---

values = st.sampled_from(["x", "auto", "transparent", "png", "jpeg", "gif", 7])
requests = st.builds(
    asked,
    st.sampled_from(Operation),
    prompt=st.none() | st.just("a cat"),
    mask=st.none() | st.just(upload()),
    n=st.integers(1, 10),
    size=st.none() | st.builds(Size, st.integers(1, 2000), st.integers(1, 2000)),
    response_format=st.sampled_from([None, "url", "b64_json"]),
    stream=st.booleans(),
    partial_images=st.integers(0, 3),
    parameters=st.dictionaries(st.sampled_from(list(PARAMETERS)), values),
    extra=st.lists(st.tuples(st.sampled_from(["a", "b"]), st.just(1)), max_size=2).map(tuple),
)
profiles = st.builds(
    Profile,
    operations=st.frozensets(st.sampled_from(Operation), min_size=1),
    parameters=st.none()
    | st.sets(st.sampled_from(["size", *PARAMETERS])).map(lambda names: {n: f"their_{n}" for n in names}),
    size=st.sampled_from([SizeRule(), SizeRule(multiple_of=16), SizeRule(list=(Size(1024, 1024),))]),
    default_size=st.sampled_from([None, "input", Size(512, 512)]),
    max_n=st.integers(1, 10),
    max_images=st.integers(1, 4),
    mask=st.sampled_from(["alpha", "white", "black", "none"]),
    mask_required=st.booleans(),
    output_formats=st.none() | st.just(("png",)),
    results=st.sampled_from([("b64_json",), ("url",), ("b64_json", "url")]),
    streaming=st.sampled_from([None, True, False]),
    extra=st.sampled_from(["pass", "refuse"]),
)
PRESET_DEPLOYMENTS = [
    model.deployments[0]
    for preset in PRESETS
    for model in inventory.models(load(None, {f"{preset.upper()}_API_KEY": "x"}), lambda n: dialects.load(n).profile)
]


@given(requests, profiles.map(at) | st.sampled_from(PRESET_DEPLOYMENTS))
def test_each_wish_is_sent_done_here_reported_or_refused(request: ImageRequest, deployment: Deployment) -> None:
    found, can = fit(request, deployment), deployment.profile
    if isinstance(found, Misfit):
        assert found.reason
        known = {"model", "image", "mask", "markup", "size", "output_format", "a", "b", *PARAMETERS}
        assert found.param in known
        return
    sent = found.request
    for name, value in request.parameters.items():
        if name in sent.parameters:
            assert sent.parameters[name] == value
        elif PARAMETERS[name] is Weight.HINT:
            assert name in found.dropped or value == "auto"
            assert (name, value) != ("background", "transparent")
        else:
            assert PARAMETERS[name] is Weight.SHAPE
            assert name != "output_format" or value in CONVERTIBLE
    assert sent.size == request.size or request.size is None
    assert sent.size is None or can.understands("size") or can.understands("width")
    assert sent.prompt == request.prompt or "prompt" in found.dropped
    assert (sent.images, sent.mask, sent.extra) == (request.images, request.mask, request.extra)
    assert request.mask is None or can.mask != "none"
    assert 1 <= sent.n <= min(request.n, can.max_n)
    assert sent.stream is (request.stream and can.streaming is not False)
    if request.partial_images and not sent.stream:
        assert "partial_images" in found.dropped
    assert found.deployment is deployment


@pytest.mark.parametrize("deployment", PRESET_DEPLOYMENTS, ids=lambda deployment: deployment.name)
def test_every_model_of_the_presets_serves_its_operations(deployment: Deployment) -> None:
    for operation in deployment.profile.operations:
        more = {"mask": upload()} if deployment.profile.mask_required else {}
        assert isinstance(fit(asked(operation, **more), deployment), Fitted)


# --- refusals name the field and what would work ---

SOME = Profile(parameters={"size": "size"}, max_images=2)


@pytest.mark.parametrize(
    ("request_", "profile", "param", "code", "works"),
    [
        (asked(EDITS), Profile(operations=frozenset({GENERATIONS})), "model", "unsupported_operation", "generations"),
        (asked(extra=(("lora", 1),)), SOME, "lora", "unknown_parameter", "leave it out"),
        (asked(EDITS, images=(upload(),) * 3), SOME, "image", "unsupported_parameter", "send fewer"),
        (asked(VARIATIONS, images=(upload(),) * 2), SOME, "image", "unsupported_parameter", "send fewer"),
        (asked(VARIATIONS, images=(upload(),) * 2), Profile(), "image", "unsupported_parameter", "send fewer"),
        (asked(EDITS, mask=upload()), Profile(mask="none"), "mask", "unsupported_parameter", "leave"),
        (asked(EDITS), Profile(mask_required=True), "mask", "missing_required_parameter", "send one"),
        (asked(EDITS, markup=upload()), SOME, "markup", "unsupported_parameter", "leave it out"),
        (asked(size=Size(9, 9)), Profile(parameters={}), "size", "unsupported_parameter", "leave it out"),
        (
            asked(size=Size(1000, 1000)), Profile(size=SizeRule(multiple_of=16)), "size", "invalid_value",
            "992x992 is the nearest",
        ),
        (asked(parameters={"seed": 1}), SOME, "seed", "unsupported_parameter", "leave it out"),
        (asked(parameters={"negative_prompt": "x"}), SOME, "negative_prompt", "unsupported_parameter", "leave it out"),
        (asked(parameters={"background": "transparent"}), SOME, "background", "unsupported_parameter", "leave it out"),
        (asked(parameters={"output_format": "svg"}), SOME, "output_format", "unsupported_parameter", "png, jpeg, webp"),
    ],
)  # fmt: skip
def test_a_misfit_names_its_field_and_a_remedy(
    request_: ImageRequest, profile: Profile, param: str, code: str, works: str
) -> None:
    found = misfit(request_, profile)
    assert (found.param, found.code) == (param, code)
    assert works in found.works


def test_only_edits_need_the_mask() -> None:
    profile = Profile(mask_required=True)
    assert isinstance(fit(asked(), at(profile)), Fitted)
    assert isinstance(fit(asked(VARIATIONS), at(profile)), Fitted)


# --- hints ---


def test_dropped_hints_are_reported_as_the_caller_spelt_them() -> None:
    request = asked(
        parameters={"guidance": 2, "style": "vivid", "quality": "auto"}, spelt={"guidance": "guidance_scale"}
    )
    assert fitted(request, SOME).dropped == ("guidance_scale", "style")
    assert fitted(request, Profile()).dropped == ()


def test_without_an_image_no_known_host_gets_the_input_fidelity() -> None:
    profile, hint = Profile(parameters={"input_fidelity": "input_fidelity"}), {"input_fidelity": "high"}
    assert fitted(asked(parameters=hint), profile).request.parameters == {}
    assert fitted(asked(parameters=hint), profile).dropped == ("input_fidelity",)
    assert fitted(asked(EDITS, parameters=hint), profile).request.parameters == hint
    assert fitted(asked(parameters=hint), Profile()).request.parameters == hint


@pytest.mark.parametrize("profile", [SOME, Profile()])
def test_partial_images_without_a_stream_are_a_hint(profile: Profile) -> None:
    assert fitted(asked(partial_images=2), profile).dropped == ("partial_images",)
    assert fitted(asked(partial_images=2), profile).request.partial_images == 0
    assert fitted(asked(partial_images=0), profile).dropped == ()


def test_a_prompt_of_a_variation_is_a_hint() -> None:
    request = asked(VARIATIONS, prompt="a cat")
    assert fitted(request, SOME).dropped == ("prompt",)
    assert fitted(request, SOME).request.prompt is None
    assert fitted(request, Profile()).request.prompt == "a cat"


# --- sizes ---


def test_a_size_that_follows_the_input_is_left_to_the_inputs() -> None:
    picture = replace(upload(), size=Size(641, 479))
    found = fitted(asked(EDITS, images=(picture,)), Profile(default_size="input", size=SizeRule(multiple_of=16)))
    assert (found.request.size, found.mapped) == (None, ())


@pytest.mark.parametrize("default", ["input", Size(512, 512)])
def test_a_size_that_was_asked_for_is_not_derived(default: Any) -> None:
    found = fitted(asked(EDITS, size=Size(320, 320)), Profile(default_size=default))
    assert (found.request.size, found.mapped) == (Size(320, 320), ())


def test_a_default_size_is_sent_unless_one_is_asked_for_and_reported_unless_it_is_the_inputs() -> None:
    profile = Profile(default_size=Size(512, 512))
    assert fitted(asked(), profile).request.size == Size(512, 512)
    for size, mapped in ((Size(512, 512), ()), (Size(640, 480), ("size=512x512",))):
        found = fitted(asked(EDITS, images=(replace(upload(), size=size),)), profile)
        assert (found.request.size, found.mapped) == (Size(512, 512), mapped)


def test_a_default_size_is_neither_sent_nor_reported_if_no_size_can_be_chosen() -> None:
    found = fitted(asked(EDITS), Profile(parameters={}, default_size=Size(512, 512)))
    assert (found.request.size, found.mapped) == (None, ())


# --- results ---


@pytest.mark.parametrize(
    ("profile", "urls", "wanted", "sent"),
    [
        (Profile(), "store", None, None),
        (Profile(), "store", "url", "url"),
        (Profile(), "store", "b64_json", "b64_json"),
        (Profile(results=("b64_json",)), "store", "url", None),
        (Profile(results=("url",)), "store", "b64_json", None),
        (SOME, "store", None, "b64_json"),
        (SOME, "store", "url", "b64_json"),
        (SOME, "pass", "url", "url"),
        (SOME, "pass", "b64_json", "b64_json"),
        (SOME, "pass", None, "b64_json"),
    ],
)
def test_the_result_is_asked_for_as_the_host_can_give_it(
    profile: Profile, urls: str, wanted: str | None, sent: str | None
) -> None:
    assert fitted(asked(response_format=wanted), profile, urls=urls).request.response_format == sent


@pytest.mark.parametrize(
    ("profile", "sent"),
    [
        (Profile(), {"output_format": "jpeg", "output_compression": 50}),
        (Profile(output_formats=("png",)), {}),
        (Profile(output_formats=("png", "jpeg")), {"output_format": "jpeg", "output_compression": 50}),
        (Profile(parameters={}), {}),
        (Profile(parameters={"output_format": "format"}), {"output_format": "jpeg"}),
    ],
)
def test_a_format_that_the_host_does_not_give_is_left_to_the_gateway(profile: Profile, sent: dict[str, Any]) -> None:
    request = asked(parameters={"output_format": "jpeg", "output_compression": 50})
    assert fitted(request, profile).request.parameters == sent


# --- several images ---


def test_the_parts_of_a_call_draw_with_the_seeds_that_follow() -> None:
    whole = fitted(asked(n=5, parameters={"seed": 40}), Profile(max_n=2))
    assert whole.request.n == 2
    parts = [whole.part(0, 2), whole.part(2, 2), whole.part(4, 1)]
    assert [(part.request.n, part.request.parameters["seed"]) for part in parts] == [(2, 40), (2, 42), (1, 44)]
    assert whole.request.parameters["seed"] == 40


def test_a_part_without_a_seed_gets_none() -> None:
    assert fitted(asked(n=2), Profile(max_n=1)).part(1, 1).request.parameters == {}


def test_streams_are_drawn_one_by_one() -> None:
    assert fitted(asked(n=4, stream=True), Profile()).request.n == 1
    assert fitted(asked(n=4, stream=True), Profile(streaming=False)).request.n == 4
