"""The log line of a refused request says why, and quotes neither the prompt nor a provider that might."""

from typing import Any

import pytest

from app.api.responses.sending import LONGEST_LOGGED
from tests.live.conftest import Start
from tests.live.scripted import Scripted, answer, refusal
from tests.live.servers import Gateway, provider, served_by
from tests.live.wire import Reply, edit, events, generate, post

pytestmark = pytest.mark.anyio

KEY = "a-key-of-a-caller"
PROMPT = "an unmistakable prompt"


async def started(start: Start, upstream: Scripted, *steps: Any, **more: Any) -> Gateway:
    url = upstream.at("mine", *(steps or (answer({"error": {"message": "no"}}, 400),)))
    return await start({"providers": {"mine": provider(url)}, "models": {"m": served_by("mine")}, **more})


async def line_of(gateway: Gateway, reply: Reply) -> dict[str, Any]:
    """The request's line, which has what the caller was told."""
    [line] = await gateway.request_lines()
    assert line["status"] == reply.status
    assert line.get("param") == reply.error()["param"]
    assert PROMPT not in gateway.log.getvalue()
    assert KEY not in gateway.log.getvalue()
    return line


async def test_a_parameter_that_is_refused_is_named_with_the_reason(start: Start, upstream: Scripted) -> None:
    gateway = await started(start, upstream)
    reply = await generate(gateway.port, model="m", prompt=PROMPT, n=11)
    line = await line_of(gateway, reply)
    assert (line["error"], line["param"]) == ("integer_above_max_value", "n")
    assert line["message"] == reply.error()["message"]


async def test_a_model_that_does_not_exist_is_named(start: Start, upstream: Scripted) -> None:
    gateway = await started(start, upstream)
    line = await line_of(gateway, await generate(gateway.port, model="nope", prompt=PROMPT))
    assert line["param"] == "model"
    assert "'nope' does not exist" in line["message"]


async def test_a_form_that_is_refused_says_why(start: Start, upstream: Scripted) -> None:
    gateway = await started(start, upstream)
    line = await line_of(gateway, await edit(gateway.port, ("model", "m"), ("prompt", PROMPT), ("image", "fox.png")))
    assert line["param"] == "image"
    assert "'@'" in line["message"]


async def test_a_key_that_is_missing_or_wrong_is_said_so_and_not_shown(start: Start, upstream: Scripted) -> None:
    gateway = await started(start, upstream, keys=[{"name": "team", "key": KEY}])
    line = await line_of(gateway, await generate(gateway.port, model="m", prompt=PROMPT))
    assert "Send the key" in line["message"]
    wrong = f"{KEY}-of-another"
    assert (await post(gateway.port, "/v1/images/generations", {}, authorization=f"Bearer {wrong}")).status == 401
    line = (await gateway.request_lines(2))[1]
    assert line["error"] == "invalid_api_key"
    assert "Ask the gateway's operator for a key" in line["message"]
    assert wrong not in gateway.log.getvalue()


async def test_a_message_is_short(start: Start, upstream: Scripted) -> None:
    models = {f"{number:0>90}": served_by("mine") for number in range(5)}
    models["m"] = served_by("mine", profile={"operations": ["edits"]})
    gateway = await start({"providers": {"mine": provider(upstream.base_url)}, "models": models})
    reply = await generate(gateway.port, model="m", prompt=PROMPT)
    line = await line_of(gateway, reply)
    assert len(reply.error()["message"]) > LONGEST_LOGGED
    assert line["message"] == reply.error()["message"][:LONGEST_LOGGED] + "…"


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_the_words_of_a_provider_are_left_out_since_they_may_quote_the_prompt(
    start: Start, upstream: Scripted, stream: bool
) -> None:
    refused = answer(refusal(f"the prompt {PROMPT!r} is not allowed", param="prompt"), 400)
    gateway = await started(start, upstream, refused)
    line = await line_of(gateway, await generate(gateway.port, model="m", prompt=PROMPT, stream=stream))
    assert line["param"] == "prompt"
    assert "message" not in line


async def test_the_words_of_a_provider_are_logged_if_prompts_are(start: Start, upstream: Scripted) -> None:
    refused = answer(refusal(f"the prompt {PROMPT!r} is not allowed", param="prompt"), 400)
    gateway = await started(start, upstream, refused, logging={"prompts": True})
    reply = await generate(gateway.port, model="m", prompt=PROMPT)
    assert (await gateway.request_lines())[0]["message"] == reply.error()["message"]


async def test_a_failure_in_the_middle_of_a_stream_is_logged_alike(start: Start, upstream: Scripted) -> None:
    refused = answer(refusal(f"the prompt {PROMPT!r} is not allowed", param="prompt"), 400)
    gateway = await started(start, upstream, 0.1, refused, server={"keepalive_seconds": 0.03})
    reply = await generate(gateway.port, model="m", prompt=PROMPT, stream=True)
    assert events(reply.body)[0][0] == "error"
    [line] = await gateway.request_lines()
    assert (line["status"], line["param"]) == (200, "prompt")
    assert PROMPT not in gateway.log.getvalue()
