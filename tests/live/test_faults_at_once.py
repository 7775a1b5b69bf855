"""Every fault that the simulated providers know, for one caller and for two hundred: each has images, an error that
says so, or a broken connection; and nothing is drawn twice."""

import asyncio
import base64
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.sandbox.server import Sandbox
from tests.live.crowds import (
    GENERATIONS,
    Outcome,
    asking,
    assert_said_nothing_odd,
    call,
    drawn_by,
    fault,
    get,
    simulated,
    tally,
    together,
    working_seconds,
)
from tests.live.loops import in_thread
from tests.live.pictures import encoded
from tests.live.scripted import Scripted, answer, image_json
from tests.live.servers import Config, Process, process, provider, served_by
from tests.live.wire import line, request

pytestmark = pytest.mark.anyio

SHAPES = ("failed", "openai", "litellm", "detail", "detail_list", "message", "error_string", "draft", "html", "empty")
REFUSED, ACCOUNT, BUSY, DOWN = (400, 404, 413, 422), (401, 402, 403), (429,), (500, 502, 503)
PERHAPS_PAID = (408, 504, 520, 522, 524)
MEGABYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Fault:
    """`then`: what is told if there is no other provider, or `images`. `elsewhere`: the next provider is asked."""

    text: str
    then: tuple[str, ...]
    drawn: bool = True
    elsewhere: bool = False
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        return self.text.replace(":", "-").replace("=", "-").replace("_", "-")


def words(text: str) -> list[str]:
    return text.split()


def harmless() -> Iterator[Fault]:
    for text in words("chunked gzip newlines unpadded dataurl json_escaped pretty lying_jpeg wrongtype urlonly"):
        yield Fault(text, ("images",))
    for text in ("slow:0.1", "dribble:50000"):
        yield Fault(text, ("images",))


def perhaps_paid() -> Iterator[Fault]:
    """A drawing that was made and did not arrive: told, never made again."""
    impatient = (("timeout", {"connect": 5, "read": 0.4, "total": 5}),)
    short = (("timeout", {"connect": 5, "read": 1, "total": 1}),)
    broken = ("502 upstream_broken_answer", "200 broken", "200 upstream_broken_answer")
    for text in words("cut cut_headers reset badbase64 truncated_image notimage noimage nullimage"):
        yield Fault(text, broken)
    yield Fault("short", (*broken, "200 images"))  # all of a stream's images have come by then
    for text in ("slow:3", "stall:3"):
        yield Fault(text, ("504 upstream_timeout", "200 broken", "200 upstream_timeout"), settings=impatient)
    for text in ("endless", "endless:base64"):
        told = ("upstream_timeout", "upstream_broken_answer", "broken")
        yield Fault(text, tuple(f"{status} {word}" for status in (200, 502, 504) for word in told), settings=short)
    yield Fault("html200", ("502 upstream_broken_answer",), drawn=False)
    for status in PERHAPS_PAID:
        yield from shaped(status, ("502 upstream_broken_answer", "504 upstream_timeout"))


def failing() -> Iterator[Fault]:
    """Nothing was drawn: the next one is asked."""
    for status in ACCOUNT:
        yield from shaped(status, ("502 upstream_account_refused",), elsewhere=True)
    for status in BUSY:
        yield from shaped(status, ("429 rate_limit_exceeded",), elsewhere=True)
    for status in DOWN:
        yield from shaped(status, ("502 upstream_unavailable", "503 upstream_unavailable"), elsewhere=True)
    yield Fault("quota", ("502 upstream_account_refused",), drawn=False, elsewhere=True)
    yield Fault("failed200", ("502 upstream_unavailable",), drawn=False, elsewhere=True)


def refused() -> Iterator[Fault]:
    """The caller's to change."""
    for status in REFUSED:
        yield from shaped(status, ("refused",))
    for text in ("moderation", "moderation200"):
        yield Fault(text, ("refused",), drawn=False)


def shaped(status: int, then: tuple[str, ...], *, elsewhere: bool = False) -> Iterator[Fault]:
    for shape in SHAPES:
        yield Fault(f"{status}:shape={shape}", then, drawn=False, elsewhere=elsewhere)


FAULTS = [*harmless(), *perhaps_paid(), *failing(), *refused()]
SLOW = {"slow:3", "stall:3", "endless", "endless:base64"}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:  # one for all
    with in_thread(Sandbox) as running:
        yield running


def before(sandbox: Sandbox, faults: list[Fault]) -> Config:
    """Each fault is a provider of its own, so that none cools down for another: openai-N draws and fails, nebula-N
    draws if it may. `alone-…` knows one, `backed-…` both."""
    providers: Config = {}
    models: Config = {}
    for number, each in enumerate(faults):
        bad, good = f"openai-{number}", f"nebula-{number}"
        headers = {"x-sandbox-fault": each.text}
        providers[bad] = simulated(sandbox.base_url, headers=headers, retries=0, **dict(each.settings))
        providers[good] = simulated(sandbox.base_url, "nebula")
        models |= {f"alone-{each.name}": drawn_by(bad), f"backed-{each.name}": drawn_by(bad, good)}
    return {"providers": providers, "models": models, "queue": {"max_length": 1000}}


@asynccontextmanager
async def gateway_before(sandbox: Sandbox, folder: Path, faults: list[Fault], **more: Any) -> AsyncIterator[Process]:
    with process({**before(sandbox, faults), **more}, folder) as gateway:
        try:
            yield gateway
            assert_said_nothing_odd(gateway)
        finally:
            gateway.process.kill()


@pytest.fixture(scope="module")
def gateway(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with process(before(sandbox, FAULTS), tmp_path_factory.mktemp("faults")) as running:
        yield running
        assert_said_nothing_odd(running)
        running.process.kill()


class Drawings:
    """Counted from now on."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._journal, self._before = sandbox.world.journal, dict(sandbox.world.journal.drawings)

    def of(self, provider: str) -> int:
        return self._journal.drawings[provider] - self._before[provider]


def assert_told(each: Fault, outcome: Outcome) -> None:
    if each.then == ("images",):
        assert outcome.kind == "images", outcome
    elif each.then == ("refused",):
        assert outcome.kind == "error", outcome
        assert outcome.status in (400, 404, 413, 422), outcome
        assert outcome.header("x-should-retry") == "false"
    else:
        assert f"{outcome.status} {outcome.error or outcome.kind}" in each.then, outcome
        if outcome.kind == "error" and outcome.status != 200 and not each.elsewhere:
            assert outcome.header("x-should-retry") == "false", outcome


@pytest.mark.parametrize(
    "each", [pytest.param(each, id=each.name, marks=[pytest.mark.slow] * (each.text in SLOW)) for each in FAULTS]
)
async def test_one_caller_is_told_the_truth_and_nothing_is_drawn_twice(
    gateway: Process, sandbox: Sandbox, each: Fault
) -> None:
    drawings = Drawings(sandbox)
    backed = await call(gateway.port, asking(model=f"backed-{each.name}"))
    assert drawings.of("openai") == each.drawn
    assert drawings.of("nebula") == each.elsewhere
    if each.elsewhere:
        assert backed.kind == "images", backed
    else:
        assert_told(each, backed)
    for number, stream in enumerate((False, True), start=2):
        assert_told(each, await call(gateway.port, asking(model=f"alone-{each.name}", stream=stream)))
        assert drawings.of("openai") == each.drawn * number
    assert drawings.of("nebula") == each.elsewhere


def chosen(*texts: str) -> list[Fault]:
    return [each for each in FAULTS if each.text in texts]


CROWDED = chosen(
    *words(
        "cut cut_headers reset short badbase64 truncated_image notimage noimage html200 slow:3 stall:3 chunked gzip"
    ),
    *words("400:shape=draft 401:shape=detail 429:shape=openai 503:shape=html 504:shape=empty"),
)


@pytest.mark.slow
@pytest.mark.parametrize("each", [pytest.param(each, id=each.name) for each in CROWDED])
async def test_two_hundred_callers_are_told_the_truth_and_nothing_is_drawn_twice(
    sandbox: Sandbox, tmp_path: Path, each: Fault
) -> None:
    """Some of them find the first provider cooling down already, and are served by the other."""
    async with gateway_before(sandbox, tmp_path, [each]) as gateway:
        drawings = Drawings(sandbox)
        model = f"backed-{each.name}"
        outcomes = await together(
            call(gateway.port, asking(str(number), model, stream=number % 2 == 0)) for number in range(200)
        )
        images = sum(outcome.kind == "images" for outcome in outcomes)
        for outcome in outcomes:
            if outcome.kind != "images":
                assert_told(each, outcome)
        assert tally(outcomes).total() == 200
        if each.then == ("images",):
            assert (images, drawings.of("openai"), drawings.of("nebula")) == (200, 200, 0)
        elif each.elsewhere:
            assert (images, drawings.of("openai"), drawings.of("nebula")) == (200, 0, 200)
        elif "200 images" in each.then:  # who asked for a stream; nobody has cost more than one drawing
            assert 100 <= images < 200
            assert drawings.of("openai") + drawings.of("nebula") == 200
        else:  # who was served was served by the other, and who was not has cost one drawing at most
            assert drawings.of("nebula") == images
            assert drawings.of("openai") == (200 - images) * each.drawn
            assert images < 200


@pytest.mark.slow
async def test_all_faults_at_once_do_not_get_into_each_others_way(sandbox: Sandbox, tmp_path: Path) -> None:
    faults = [each for each in FAULTS if not each.text.startswith("endless")]
    async with gateway_before(sandbox, tmp_path, faults) as gateway:
        models = [(each, f"alone-{each.name}", stream) for each in faults for stream in (False, True)]
        drawings = Drawings(sandbox)
        asked = [(each, call(gateway.port, asking(model=model, stream=stream))) for each, model, stream in models]
        outcomes = await together(one for _, one in asked)
        for (each, _), outcome in zip(asked, outcomes, strict=True):
            assert_told(each, outcome)
        assert drawings.of("openai") == sum(each.drawn for each, _ in asked)


@pytest.mark.slow
async def test_a_bomb_and_an_answer_without_an_end_take_little_memory(sandbox: Sandbox, tmp_path: Path) -> None:
    """What arrives is passed on or goes to disk, and a provider that never ends is left after its `total`."""
    impatient = (("timeout", {"connect": 5, "read": 5, "total": 2}),)
    faults = [Fault(text, (), settings=impatient) for text in ("gzipbomb:128", "endless", "endless:base64")]
    async with gateway_before(sandbox, tmp_path, faults) as gateway:
        await call(gateway.port, asking(model=f"alone-{faults[1].name}"))
        rested = gateway.memory("VmRSS")
        gateway.forget_memory()

        async def read_away(model: str) -> None:
            async with line(gateway.port) as opened:
                body = json.dumps(asking(model=model)).encode()
                await opened.send(request("POST", GENERATIONS, body, content_type="application/json"))
                await opened.head()
                try:
                    while await opened.piece():
                        pass
                except EOFError:
                    pass

        await together(read_away(f"alone-{each.name}") for each in faults for _ in range(3))
        assert gateway.memory() - rested < 96 * MEGABYTE


@pytest.mark.slow
async def test_whatever_it_has_answered_a_gateway_that_is_not_asked_does_nothing(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """Nothing that was started for a request outlives its answer, be it an error."""
    async with gateway_before(sandbox, tmp_path, chosen("400:shape=openai", "cut", "chunked")) as gateway:
        models = ("nobody", "alone-400-shape-openai", "alone-cut", "alone-chunked")
        for _ in range(8):
            await together(call(gateway.port, asking(model=model)) for model in models for _ in range(25))
        await asyncio.sleep(0.5)
        before = working_seconds(gateway)
        await asyncio.sleep(2)
        assert working_seconds(gateway) - before < 0.1


# --- white space ---


@asynccontextmanager
async def patient(sandbox: Sandbox, folder: Path, after: float = 0.2, **providers: Config) -> AsyncIterator[Process]:
    """White space after so many seconds. Each provider has a model of its name."""
    config: Config = {
        "providers": {"openai": simulated(sandbox.base_url, retries=0), **providers},
        "models": {"flux": drawn_by("openai"), **{name: served_by(name) for name in providers}},
        "server": {"json_keepalive_after": after, "keepalive_seconds": 0.1},
    }
    with process(config, folder) as gateway:
        try:
            yield gateway
            assert_said_nothing_odd(gateway)
        finally:
            gateway.process.kill()


SDK = """
import json, openai, sys
client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none")
try:
    image = client.images.generate(model="flux", prompt=sys.argv[2], size="64x64").data[0].b64_json
    print(json.dumps({"image": len(image)}))
except openai.APIStatusError as error:
    print(json.dumps({"status": error.status_code, "code": error.code}))
except openai.APIError as error:
    print(json.dumps({"error": type(error).__name__}))
"""


async def asked_by_the_sdk(gateway: Process, prompt: str) -> Any:
    command = [sys.executable, "-c", SDK, gateway.url, prompt]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def test_white_space_keeps_the_line_alive_and_json_is_json_all_the_same(
    sandbox: Sandbox, upstream: Scripted, tmp_path: Path
) -> None:
    async with patient(sandbox, tmp_path, after=1, slow=provider(f"{upstream.base_url}/slow/v1")) as gateway:
        drawn = asyncio.Event()
        upstream.at("slow", drawn, answer(image_json(base64.b64encode(encoded()).decode())))
        async with line(gateway.port) as opened:
            body, began = json.dumps(asking(model="slow")).encode(), time.monotonic()
            await opened.send(request("POST", GENERATIONS, body, content_type="application/json"))
            assert (await opened.head()).status == 200
            pieces = [await opened.piece() for _ in range(3)]
            drawn.set()
            while piece := await opened.piece():
                pieces.append(piece)
            took = time.monotonic() - began
        spaces = [piece for piece in pieces if piece == b" "]
        assert 3 <= len(spaces) <= took / 0.1, pieces[:12]  # a tenth of a second is `keepalive_seconds`
        assert pieces[: len(spaces)] == spaces  # all of it before the answer
        document = json.loads(b"".join(pieces))
        assert document["data"][0]["b64_json"]
        assert document["gateway"]["provider"] == "slow"
        # Who is quick, or fails quickly, has a status of its own.
        assert (await call(gateway.port, asking(fault("400")))).status == 400


@pytest.mark.parametrize(
    ("faults", "told", "drawn"),
    [
        pytest.param(["slow:0.7"], "image", 1, marks=pytest.mark.slow),
        # told again, not drawn again
        pytest.param(["slow:0.7", "cut"], "upstream_broken_answer", 1, marks=pytest.mark.slow),
        pytest.param(["slow:0.7", "truncated_image"], "upstream_broken_answer", 1, marks=pytest.mark.slow),
    ],
)
async def test_the_sdk_reads_what_came_after_white_space_and_its_retry_joins_the_run(
    sandbox: Sandbox, tmp_path: Path, faults: list[str], told: str, drawn: int
) -> None:
    async with patient(sandbox, tmp_path) as gateway:
        drawings = Drawings(sandbox)
        found = await asked_by_the_sdk(gateway, fault(*faults))
        assert found.get("code", next(iter(found))) == told, found
        assert drawings.of("openai") == drawn
        if told != "image":
            first = await call(gateway.port, asking(fault(*faults)))
            assert (first.status, first.kind) == (200, "broken")


@pytest.mark.slow
async def test_a_failure_after_white_space_that_cost_nothing_is_made_good_by_the_sdks_retry(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    config: Config = {
        "providers": {"openai": simulated(sandbox.base_url, retries=0)},
        "models": {"flux": drawn_by("openai")},
        "server": {"json_keepalive_after": 0.2, "keepalive_seconds": 0.1},
    }
    with process(config, tmp_path) as gateway:
        drawings = Drawings(sandbox)
        found = await asked_by_the_sdk(gateway, "[[fault*1:slow:0.7]] [[fault*1:503]]")
        assert found == {"image": found.get("image")}
        assert drawings.of("openai") == 1
        assert (await get(gateway.port, "/healthz")).status == 200
        gateway.process.kill()
