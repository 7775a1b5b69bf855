from __future__ import annotations

from typing import Any

import pytest

from app.api.requests.rules import Choice
from app.api.requests.validation import build
from app.errors import InvalidRequest
from app.images import ImageRequest, Operation, Size
from tests.api.requests.feeding import unknown

BASE: dict[str, Any] = {"model": "m", "prompt": "p"}


def read(**fields: Any) -> ImageRequest:
    return read_for(Operation.GENERATIONS, **fields)


def read_for(operation: Operation, /, **fields: Any) -> ImageRequest:
    return build(operation, {**BASE, **fields}.items())


def read_text(**fields: str) -> ImageRequest:
    return build(Operation.EDITS, {**BASE, **fields}.items(), textual=True)


def refused(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read(**fields)
    return caught.value


def refused_text(**fields: str) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read_text(**fields)
    return caught.value


def test_the_least_request_has_every_default() -> None:
    assert read() == ImageRequest(Operation.GENERATIONS, "m", "p")


def test_null_counts_as_absent() -> None:
    nothing = dict.fromkeys(("n", "size", "quality", "stream", "seed", "width", "response_format", "unheard_of"))
    assert read(**nothing) == read()


@pytest.mark.parametrize("name", ["model", "prompt"])
def test_model_and_prompt_are_required(name: str) -> None:
    for value in ({name: None}, {name: ""}):
        fault = refused(**value)
        assert fault.param == name
        assert fault.code == ("empty_string" if value[name] == "" else "missing_required_parameter")
    assert refused(**{name: 5}).code == "invalid_type"


@pytest.mark.parametrize("stated", [{}, {"model": None}, {"model": ""}])
def test_a_request_without_a_model_gets_the_default(stated: dict[str, Any]) -> None:
    assert build(Operation.GENERATIONS, {"prompt": "p", **stated}.items(), default_model=lambda: "m") == read()


def test_the_default_is_not_asked_for_where_a_model_is_named() -> None:
    def asked() -> str:
        raise AssertionError("asked")

    assert build(Operation.GENERATIONS, BASE.items(), default_model=asked) == read()
    wrong: Any
    for wrong in (5, [], False, 0):
        with pytest.raises(InvalidRequest, match="Invalid type for 'model'"):
            build(Operation.GENERATIONS, {**BASE, "model": wrong}.items(), default_model=asked)


def test_a_missing_model_is_told_where_the_models_are() -> None:
    assert "GET /v1/models" in refused(model=None).message


def test_a_prompt_is_blank_or_up_to_32000_code_points_long() -> None:
    assert read(prompt="  ").prompt == "  "
    assert read(prompt="🦊" * 32_000).prompt == "🦊" * 32_000
    fault = refused(prompt="x" * 32_001)
    assert (fault.param, fault.code) == ("prompt", "string_above_max_length")


@pytest.mark.parametrize(
    ("value", "code", "told"),
    [
        (0, "integer_below_min_value", "Expected a value >= 1, but got 0 instead."),
        (-1, "integer_below_min_value", "got -1"),
        (11, "integer_above_max_value", "Expected a value <= 10, but got 11 instead."),
        (1.5, "invalid_type", "expected an integer, but got a decimal number instead."),
        ("2", "invalid_type", "expected an integer, but got a string instead."),
        (True, "invalid_type", "expected an integer, but got a boolean instead."),
        ([1], "invalid_type", "but got an array instead."),
        ({}, "invalid_type", "but got an object instead."),
        (10**4000, "integer_above_max_value", "got 1000"),
    ],
)
def test_n_is_an_integer_from_1_to_10(value: Any, code: str, told: str) -> None:
    fault = refused(n=value)
    assert (fault.param, fault.code, fault.type) == ("n", code, "invalid_request_error")
    assert told in fault.message
    assert len(fault.message) < 200


def test_a_whole_float_is_an_integer() -> None:
    assert read(n=2.0).n == 2
    assert type(read(n=2.0).n) is int


@pytest.mark.parametrize(
    ("text", "size"),
    [("auto", None), ("1024x768", Size(1024, 768)), ("1024X1024", Size(1024, 1024)), (" 8x9", Size(8, 9))],
)
def test_a_size_is_auto_or_width_by_height(text: str, size: Size | None) -> None:
    assert read(size=text).size == size
    assert read_text(size=text).size == size


@pytest.mark.parametrize("text", ["bogus", "0x0", "100000x16", "16385x16", "1024", "-1x5", "1024x1024x3", "", "٣x٣"])
def test_another_size_is_refused_as_openai_does(text: str) -> None:
    fault = refused(size=text)
    assert (fault.param, fault.code, fault.type) == ("size", "invalid_value", "image_generation_user_error")
    assert refused(size=123).code == "invalid_type"


def test_width_and_height_are_a_size() -> None:
    assert read(width=512, height=256).size == Size(512, 256)
    assert read_text(width="512", height="256").size == Size(512, 256)
    assert read(width=512, height=256, size="512x256").size == Size(512, 256)
    assert read(width=512, height=256, size="auto").size == Size(512, 256)
    assert read(width=512, height=256).parameters == {}


def test_width_and_height_need_each_other_and_agree_with_the_size() -> None:
    assert (refused(width=512).param, refused(width=512).code) == ("height", "missing_required_parameter")
    assert refused(height=512, size="512x512").param == "width"
    assert refused(width=512, height=256, size="256x512").param == "size"
    assert refused(width=0, height=5).code == "integer_below_min_value"
    assert refused(width=20_000, height=5).code == "integer_above_max_value"


@pytest.mark.parametrize(
    ("name", "ours"), [("guidance_scale", "guidance"), ("num_steps", "steps"), ("num_inference_steps", "steps")]
)
def test_another_spelling_means_the_same_and_is_remembered(name: str, ours: str) -> None:
    request = read(**{name: 4})
    assert request.parameters == {ours: 4}
    assert request.spelt == {ours: name}
    assert read(**{ours: 4}).spelt == {}
    assert read(**{name: 4, ours: 4}).parameters == {ours: 4}
    fault = refused(**{name: 4, ours: 5})
    assert name in fault.message
    assert ours in fault.message


def test_the_values_that_mean_nothing_said_are_absent() -> None:
    assert read(seed=-1, negative_prompt="", user="").parameters == {}
    assert read(seed=0, negative_prompt="x").parameters == {"seed": 0, "negative_prompt": "x"}


def test_the_last_of_several_images_has_a_seed_that_can_be_said() -> None:
    assert read(seed=2**64 - 10, n=10).n == 10
    assert read(seed=-1, n=10).n == 10
    for seed, n in ((2**64 - 1, 2), (2**64 - 9, 10)):
        fault = refused(seed=seed, n=n)
        assert (fault.param, fault.code) == ("seed", "integer_above_max_value")
        assert f"Expected a value <= {2**64 - n}" in fault.message


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("seed", [0, 2**63, 2**64 - 1], [-2, 2**64, "x", 1.5]),
        ("guidance", [0, 3.5, 100], [-1, 100.1, "x", True]),
        ("steps", [1, 1000], [0, 1001, "x"]),
        ("output_compression", [0, 100], [-1, 101, "50"]),
        ("frame_count", [2, 16], [1, 17]),
        ("frame_duration_ms", [20, 10_000], [19]),
        ("quality", ["low", "medium", "high", "xhigh", "max", "auto", "standard", "hd"], ["ultra", "", 1]),
        ("background", ["transparent", "opaque", "auto"], ["red"]),
        ("moderation", ["low", "auto"], ["none"]),
        ("complexity", ["low", "medium", "high"], ["max"]),
        ("style", ["vivid", "watercolour"], [7]),
        ("output_format", ["png", "webp", "jpeg", "gif", "svg"], ["bmp", "PNG"]),
        ("safety_identifier", ["x"], [5]),
        ("svg", [{"model": "gpt-5", "reasoning": {"effort": "low"}}], [{}, {"model": 5}, "gpt-5", []]),
    ],
)
def test_an_optional_parameter_is_kept_or_refused_by_its_name(name: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert read(**{name: value}).parameters == {name: value}
    for value in bad:
        fault = refused(**{name: value})
        assert (fault.param or "").partition(".")[0] == name
        assert fault.code


def test_a_value_that_is_not_one_of_a_list_is_told_the_list() -> None:
    assert refused(moderation="x").message == "Invalid value: 'x'. Supported values are: 'low' and 'auto'."
    assert refused(background="x").message.endswith("Supported values are: 'transparent', 'opaque', and 'auto'.")
    assert len(refused(background="x" * 10_000).message) < 200
    with pytest.raises(InvalidRequest, match=r"^Invalid value: '1h'\. Supported value is: '1d'\.$"):
        Choice(("1d",)).read("bucket_width", "1h")


def test_jpg_is_jpeg_and_a_user_may_be_a_number() -> None:
    assert read(output_format="jpg", user=123).parameters == {"output_format": "jpeg", "user": "123"}


def test_response_format_stream_and_partial_images_are_fields_of_their_own() -> None:
    request = read(response_format="url", stream=True, partial_images=3)
    assert (request.response_format, request.stream, request.partial_images) == ("url", True, 3)
    assert request.parameters == {}
    assert read(partial_images=2).partial_images == 2
    assert refused(stream="yes").message == "Invalid type for 'stream': expected a boolean, but got a string instead."
    assert refused(partial_images=4).code == "integer_above_max_value"
    assert refused(partial_images=-1).code == "integer_below_min_value"
    assert refused(response_format="base64").code == "invalid_value"


def test_several_streamed_images_are_no_contradiction() -> None:
    assert read(stream=True, n=2).n == 2


def test_a_compressed_png_is_a_contradiction() -> None:
    fault = refused(output_format="png", output_compression=50)
    assert (fault.param, fault.code) == ("output_compression", "invalid_png_output_compression")
    assert fault.type == "image_generation_user_error"
    assert read(output_format="png", output_compression=100).parameters["output_compression"] == 100
    assert read(output_compression=50).parameters == {"output_compression": 50}


def test_a_transparent_jpeg_is_a_contradiction() -> None:
    for kind in ("jpeg", "jpg"):
        fault = refused(output_format=kind, background="transparent")
        assert (fault.param, fault.code) == ("background", "invalid_value")


def test_unknown_fields_pass_in_order() -> None:
    extra = {"zeta": 1, "alpha": {"b": [None]}, "lora": "x"}
    assert unknown(read(**extra)) == tuple(extra.items())


def test_a_parameter_of_another_operation_counts_as_unknown() -> None:
    assert unknown(read(mask_convention="odd")) == (("mask_convention", "odd"),)
    assert read_for(Operation.EDITS, mask_convention="white").mask_convention == "white"
    assert unknown(read_for(Operation.VARIATIONS, partial_images=2)) == (("partial_images", 2),)


@pytest.mark.parametrize("operation", Operation)
def test_how_closely_an_input_is_kept_to_is_a_hint_everywhere(operation: Operation) -> None:
    assert read_for(operation, input_fidelity="high").parameters == {"input_fidelity": "high"}


@pytest.mark.parametrize("prompt", [None, ""])
def test_a_variation_may_do_without_a_prompt(prompt: str | None) -> None:
    assert read_for(Operation.VARIATIONS, prompt=prompt).prompt is None
    assert read_for(Operation.VARIATIONS).prompt == "p"


@pytest.mark.parametrize("text", ["true", "True", "TRUE", "1"])
def test_a_forms_text_may_say_yes_in_several_ways(text: str) -> None:
    assert read_text(stream=text).stream is True


@pytest.mark.parametrize("text", ["false", "False", "0"])
def test_a_forms_text_may_say_no_in_several_ways(text: str) -> None:
    assert read_text(stream=text).stream is False


def test_numbers_of_a_form_are_text() -> None:
    request = read_text(n="2", guidance="3.5", steps="20", seed="-1", user="5", output_compression=" 50 ")
    assert request.n == 2
    assert request.parameters == {"guidance": 3.5, "steps": 20, "user": "5", "output_compression": 50}
    assert type(read_text(guidance="3").parameters["guidance"]) is int


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n", "abc"),
        ("n", "2.5"),
        ("n", ""),
        ("n", "1_0"),
        ("n", "٣"),
        ("guidance", "nan"),
        ("guidance", "inf"),
        ("guidance", "1e999"),
        ("guidance", ""),
        ("stream", "yes"),
        ("stream", ""),
        ("stream", "null"),
        ("quality", ""),
        ("size", ""),
        ("svg", "gpt-5"),
    ],
)
def test_text_that_is_no_such_value_is_refused(name: str, text: str) -> None:
    fault = refused_text(**{name: text})
    assert fault.param == name
    assert fault.code in ("invalid_type", "invalid_value", "decimal_above_max_value")


def test_text_that_is_no_integer_is_told_so() -> None:
    assert refused_text(n="abc").message == (
        "Invalid type for 'n': expected an integer, but got a string value that is no integer."
    )
