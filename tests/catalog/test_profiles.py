from __future__ import annotations

import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.catalog.profiles import Profile, SizeRule
from app.images import Size

edges = st.integers(1, 99_999)
sizes = st.builds(Size, edges, edges)


@st.composite
def rules(draw: st.DrawFn) -> SizeRule:
    """Rules that some size satisfies."""
    if draw(st.booleans()):
        return SizeRule(
            list=tuple(draw(st.lists(st.builds(Size, st.integers(1, 4096), st.integers(1, 4096)), min_size=1)))
        )
    step = draw(st.sampled_from([1, 1, 2, 8, 16, 64, 100]))
    least = draw(st.none() | st.integers(1, 1024))
    lowest = -(-(least or step) // step) * step
    most = draw(st.none() | st.integers(lowest, 8192))
    pixels = draw(st.none() | st.integers(lowest * lowest, 20_000_000))
    return SizeRule(min=least, max=most, multiple_of=step, max_pixels=pixels)


@given(rules(), sizes)
def test_the_nearest_size_is_always_allowed(rule: SizeRule, size: Size) -> None:
    assert rule.allows(rule.nearest(size))


@given(rules(), sizes)
def test_an_allowed_size_is_its_own_nearest(rule: SizeRule, size: Size) -> None:
    nearest = rule.nearest(size)
    assert rule.nearest(nearest) == nearest
    if rule.allows(size):
        assert nearest == size


@given(rules(), sizes)
def test_a_portrait_becomes_no_landscape(rule: SizeRule, size: Size) -> None:
    assume(not rule.list)
    nearest = rule.nearest(size)
    if size.width > size.height:
        assert nearest.width >= nearest.height - rule.multiple_of
    if size.width == size.height:
        assert abs(nearest.width - nearest.height) <= rule.multiple_of


def test_the_nearest_of_a_strip_takes_no_time() -> None:
    began = time.process_time()
    assert SizeRule(min=512, max_pixels=1_000_000).nearest(Size(99_999, 1)) == Size(1953, 512)
    assert time.process_time() - began < 1  # 50 ms if each size of the strip were tried


@pytest.mark.parametrize(
    ("rule", "size", "nearest"),
    [
        (SizeRule(), "1x99999", "1x99999"),
        (SizeRule(multiple_of=16), "1000x1000", "992x992"),
        (SizeRule(multiple_of=16), "1x1", "16x16"),
        (SizeRule(multiple_of=16), "1023x769", "1024x768"),
        (SizeRule(min=512, max=2048), "4096x2048", "2048x1024"),
        (SizeRule(min=512, max=2048), "256x256", "512x512"),
        (SizeRule(min=512, max=2048), "4096x100", "2048x512"),
        (SizeRule(multiple_of=16, max_pixels=1_062_400), "2048x2048", "1024x1024"),
        (SizeRule(multiple_of=16, max_pixels=1_062_400), "4096x2048", "1440x736"),
        (SizeRule(max=1000, multiple_of=16), "1000x1000", "992x992"),
        (SizeRule(list=(Size(1024, 1024), Size(1536, 1024))), "3000x2000", "1536x1024"),
        (SizeRule(list=(Size(1024, 1024), Size(256, 256), Size(512, 512))), "300x300", "256x256"),
    ],
)
def test_the_nearest_is_close_in_shape_first(rule: SizeRule, size: str, nearest: str) -> None:
    wanted = Size.parse(size)
    assert wanted is not None
    assert str(rule.nearest(wanted)) == nearest


@pytest.mark.parametrize(
    ("rule", "allowed", "refused"),
    [
        (SizeRule(), ["1x1", "99999x1"], []),
        (SizeRule(multiple_of=8), ["8x16"], ["8x9", "9x8"]),
        (SizeRule(min=512), ["512x512"], ["511x512", "512x511"]),
        (SizeRule(max=512), ["512x512", "1x1"], ["513x1", "1x513"]),
        (SizeRule(max_pixels=100), ["10x10", "100x1"], ["10x11"]),
        (SizeRule(list=(Size(8, 16),)), ["8x16"], ["16x8", "8x8"]),
    ],
)
def test_a_rule_allows_its_sizes(rule: SizeRule, allowed: list[str], refused: list[str]) -> None:
    def allows(text: str) -> bool:
        size = Size.parse(text)
        return size is not None and rule.allows(size)

    assert all(map(allows, allowed))
    assert not any(map(allows, refused))


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (SizeRule(), "any"),
        (SizeRule(list=(Size(8, 8), Size(16, 8))), "8x8, 16x8"),
        (
            SizeRule(min=1, max=2, multiple_of=16, max_pixels=9),
            "edges from 1, edges up to 2, edges divisible by 16, at most 9 pixels",
        ),
    ],
)
def test_a_rule_can_be_read(rule: SizeRule, text: str) -> None:
    assert str(rule) == text


def test_a_profile_without_parameters_understands_everything_as_it_was_spelt() -> None:
    assert Profile().understands("anything")
    assert Profile().spelling("guidance", "guidance_scale") == "guidance_scale"


def test_a_profile_with_parameters_understands_those_by_its_own_names() -> None:
    profile = Profile(parameters={"steps": "num_steps"})
    assert profile.understands("steps")
    assert not profile.understands("seed")
    assert profile.spelling("steps", "num_inference_steps") == "num_steps"
    assert not Profile(parameters={}).understands("size")


@pytest.mark.parametrize("text", ["1024x768", "1024X768", " 1024x768 "])
def test_a_size_is_read_as_people_write_it(text: str) -> None:
    assert Size.parse(text) == Size(1024, 768)
    assert str(Size(1024, 768)) == "1024x768"


@pytest.mark.parametrize("text", ["", "auto", "1024", "x", "0x0", "0x1", "1x0", "01x1", "-1x1", "1.5x2", "1x1x1",
                                  "100000x1", "1 x 1", "1*1", "\u0661x\u0661", "1x1\n2"])  # fmt: skip
def test_a_text_that_names_no_size_is_none(text: str) -> None:
    assert Size.parse(text) is None
