from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalog.deployments import Provider
from app.catalog.redaction import QUOTED, body_without_secrets, without_quotes, without_secrets

PROVIDER = Provider(
    "mine", "openai", "http://host.test", api_key="plain word", headers={"api-key": "teal/Secret99", "x-team": "art"}
)


@pytest.mark.parametrize("secret", ["plain word", "teal/Secret99", r"teal\/Secret99"])
def test_a_credential_is_taken_out_however_it_is_spelt(secret: str) -> None:
    assert without_secrets(f"the key {secret} of team art is wrong", PROVIDER) == "the key […] of team art is wrong"


def test_a_body_that_is_no_text_stays_as_it_is() -> None:
    assert body_without_secrets(b"\xff\x00teal/Secret99\xfe", PROVIDER) == b"\xff\x00" + "[…]".encode() + b"\xfe"


def test_a_text_without_credentials_stays_as_it_is() -> None:
    assert without_secrets("nothing here", Provider("a", "openai", "http://a")) == "nothing here"


def test_a_prompt_is_taken_out_in_whatever_case() -> None:
    assert without_quotes("while drawing 'A Red Fox', out of memory", ["a red fox "]) == (
        "while drawing '[…]', out of memory"
    )


def test_the_beginning_of_a_long_prompt_is_taken_out_too() -> None:
    prompt = "a red fox in the snow, looking at the camera, in the style of a woodcut"
    assert without_quotes(f"too long: {prompt[:40]}… (see above)", [prompt]) == "too long: […]… (see above)"


def test_a_prompt_of_a_letter_or_two_is_not_looked_for() -> None:
    assert without_quotes("a text about nothing", ["a", None, ""]) == "a text about nothing"


@given(st.text(max_size=60), st.text(min_size=QUOTED, max_size=80), st.text(max_size=60))
def test_nothing_that_is_long_enough_to_be_a_quote_is_left(before: str, prompt: str, after: str) -> None:
    left = without_quotes(before + prompt + after, [prompt])
    stripped = prompt.strip()
    if len(stripped) >= QUOTED:
        assert stripped not in left
