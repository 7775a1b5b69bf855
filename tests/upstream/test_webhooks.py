from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import openai
import pytest

from app.upstream.transport import Connections
from app.upstream.webhooks import Webhook, sign
from tests.live.loops import dead_port, in_thread
from tests.live.scripted import Scripted, answer

pytestmark = pytest.mark.anyio

SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes....").decode()
BODY = json.dumps({"id": "evt_1", "object": "event", "type": "budget.threshold_reached", "created_at": 1, "data": {}})
NOW = 1_790_000_000.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def receiver() -> Iterator[Scripted]:
    with in_thread(Scripted) as running:
        yield running


async def send(url: str, secret: str = SECRET) -> str | None:
    connections = Connections(proxies={})
    try:
        return await Webhook(connections, url, secret, lambda: NOW).send("evt_1", BODY)
    finally:
        await connections.aclose()


@pytest.mark.parametrize("secret", [SECRET, "a-secret-that-is-no-base64-at-all"])
async def test_a_message_is_signed_so_that_openais_sdk_verifies_it(receiver: Scripted, secret: str) -> None:
    assert await send(receiver.at("hook", answer({})), secret) is None
    [received] = receiver.received("hook")
    assert received.method == "POST"
    assert received.body.decode() == BODY
    headers = {name: received.headers[name] for name in ("webhook-id", "webhook-timestamp", "webhook-signature")}
    assert headers["webhook-id"] == "evt_1"
    webhooks = openai.OpenAI(api_key="unused").webhooks
    webhooks.verify_signature(BODY, headers, secret=secret, tolerance=10**10)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        webhooks.verify_signature(BODY + " ", headers, secret=secret, tolerance=10**10)


@pytest.mark.parametrize(
    ("status", "reason"),
    [(400, "status 400"), (500, "status 500"), (302, "status 302, and redirects are not followed")],
)
async def test_a_status_that_is_no_success_is_told(receiver: Scripted, status: int, reason: str) -> None:
    assert await send(receiver.at("hook", answer(b"no", status, "text/plain"))) == reason
    assert len(receiver.received("hook")) == 1


async def test_an_address_that_cannot_be_reached_is_told_without_it() -> None:
    assert await send(f"http://127.0.0.1:{dead_port()}/secret-path") == "no answer: ConnectError"


def test_the_signature_depends_on_everything() -> None:
    one = sign(SECRET, "evt_1", 1, BODY)
    assert one.startswith("v1,")
    assert one == sign(SECRET, "evt_1", 1, BODY)
    others = {
        sign(SECRET, "evt_2", 1, BODY),
        sign(SECRET, "evt_1", 2, BODY),
        sign(SECRET, "evt_1", 1, ""),
        sign("x" * 24, "evt_1", 1, BODY),
    }
    assert len(others | {one}) == 5
