from __future__ import annotations

import pytest

from app.api.requests.validation import RULES
from app.catalog.parameters import ELSEWHERE, meant_by


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("sede", "seed"),
        ("aspect_ratio", "size"),
        ("negativePrompt", "negative_prompt"),
        ("promt", "prompt"),
        ("response-format", "response_format"),
        ("num_images", "n"),
        ("cfg_scale", "guidance"),
        ("lora", None),
        ("partial_images", None),
        ("x", None),
    ],
)
def test_an_unknown_parameter_leads_to_the_one_that_was_meant(name: str, meant: str | None) -> None:
    assert meant_by(name) == meant


@pytest.mark.parametrize("name", RULES)
def test_every_parameter_is_found_by_a_misspelling(name: str) -> None:
    assert meant_by(f"{name.title()}_") == name


def test_names_from_elsewhere_are_unknown_here_and_lead_to_known_ones() -> None:
    assert ELSEWHERE.keys() & RULES.keys() == set()
    assert set(ELSEWHERE.values()) <= RULES.keys()
