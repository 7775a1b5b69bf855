"""The gateway as a process: its first words, its last ones, and how much memory it takes."""

import asyncio
import json
import resource
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.live.crowds import SCHNELL
from tests.live.loops import bound, in_thread
from tests.live.pictures import encoded, heavy, opened, text
from tests.live.scripted import Scripted, answer, image_json
from tests.live.servers import Process, process, provider, served_by
from tests.live.wire import Reply, edit, generate, line, post, request
from tests.waiting import PATIENCE, until

MEGABYTE = 1024 * 1024
SMALL = answer(image_json(text(encoded())), connection="close")


@pytest.fixture(scope="module")
def upstream() -> Iterator[Scripted]:
    with in_thread(Scripted) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(upstream: Scripted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Models `openai` and `nebula_block`, each at a script of its name in that dialect."""
    names = ("openai", "nebula_block")
    providers = {name: provider(f"{upstream.base_url}/{name}/v1", dialect=name) for name in names}
    config = {"providers": providers, "models": {name: served_by(name) for name in names}}
    with process(config, tmp_path_factory.mktemp("memory")) as running:
        for name in names:  # what the first request loads does not count
            upstream.at(name, SMALL)
            assert asyncio.run(generate(running.port, model=name)).status == 200
        yield running


def test_without_a_configuration_it_serves_pictures_and_says_where(tmp_path: Path) -> None:
    with process(None, tmp_path) as running:
        assert running.said[0].startswith(
            f"Image Gateway listens at {running.url}/v1 and serves the sandbox (simulated providers"
        )
        with urllib.request.urlopen(f"{running.url}/v1/models", timeout=PATIENCE) as models:
            model = json.load(models)["data"][0]["id"]
        body = {"model": model, "prompt": "an unmistakable prompt", "size": "64x64"}
        asked = urllib.request.Request(
            f"{running.url}/v1/images/generations",
            json.dumps(body).encode(),
            {"content-type": "application/json", "x-request-id": "the-first"},
        )
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answered:
            assert opened(json.load(answered)["data"][0]["b64_json"]).size == (64, 64)
        [told] = running.lines("the-first", count=1)
        assert (told["status"], told["model"], told["images"]) == (200, model, 1)
        assert "unmistakable" not in running.printed()
        assert running.stop() in (0, -signal.SIGTERM)
        assert "Traceback" not in running.printed()


def test_a_configuration_of_keys_alone_serves_the_sandbox_and_is_not_called_none(tmp_path: Path) -> None:
    with process({"keys": [{"name": "team", "key": "a-key-of-a-caller"}]}, tmp_path) as running:
        assert "serves the sandbox (simulated providers, since no `providers` are configured)" in running.said[0]
        assert "Authorization: Bearer YOUR_KEY" in shlex.split(running.command())


def test_the_first_lines_name_a_model_that_needs_no_picture(tmp_path: Path) -> None:
    models = {"fill": served_by("a", profile={"operations": ["edits"]}), 'it\'s "flux"': served_by("a")}
    config = {"providers": {"a": provider("http://127.0.0.1:9")}, "models": models}
    with process(config, tmp_path) as running:
        command = shlex.split(running.command())
        assert json.loads(command[command.index("-d") + 1])["model"] == 'it\'s "flux"'


def test_a_port_that_is_taken_is_named_with_the_remedy(tmp_path: Path) -> None:
    with closing(bound()) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        done = serve(tmp_path, "--port", str(port))
    assert done.returncode
    assert f"Cannot listen at 127.0.0.1:{port}: another program listens there." in done.stderr
    assert "--port" in done.stderr


@pytest.mark.parametrize(
    ("host", "said"), [("192.0.2.1", "this machine has no such address"), ("::g", "its name is not known here")]
)
def test_an_address_that_is_not_this_machines_is_named_with_the_remedy(tmp_path: Path, host: str, said: str) -> None:
    done = serve(tmp_path, "--host", host, "--port", "0")
    assert done.returncode
    assert f"Cannot listen at {host if '.' in host else f'[{host}]'}:0: {said}" in done.stderr
    assert "--host" in done.stderr


def serve(folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "app", "serve", *options]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


@pytest.mark.anyio
@pytest.mark.parametrize("streams", [">/dev/full 2>&1", "<&- >&- 2>&-"])
async def test_it_serves_although_nothing_that_it_prints_can_be_written(tmp_path: Path, streams: str) -> None:
    with closing(bound()) as free:
        port = free.getsockname()[1]
    started = subprocess.Popen(
        ["/bin/sh", "-c", f'exec "$0" -m app serve --port {port} {streams}', sys.executable],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        async with asyncio.timeout(PATIENCE):
            while not await is_listening(port):
                assert started.poll() is None
                await asyncio.sleep(0.05)
        assert (await generate(port, model=SCHNELL)).status == 200
    finally:
        started.terminate()
        started.wait(PATIENCE)


async def is_listening(port: int) -> bool:
    with suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        return True
    return False


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("providers: {a: {base_url: nonsense}}", "providers.a.base_url"),
        ("models: {flux: {deployments: [{provider: nobody}]}}", "nobody"),
        ("server: {prot: 8000}", "server.prot"),
        ("server: [", "gateway.yaml"),
    ],
)
def test_a_configuration_that_is_wrong_is_refused_with_the_place(tmp_path: Path, config: str, said: str) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(config)
    done = serve(tmp_path, "--config", str(file), "--port", "0")
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


# --- memory ---


def grown(gateway: Process, talk: Any) -> Any:
    """What `talk` returns, during which the process must not have taken much more than it had."""
    before = gateway.memory("VmRSS")
    gateway.forget_memory()
    result = asyncio.run(talk)
    most = gateway.memory() - before
    assert most < 24 * MEGABYTE, f"{most / MEGABYTE:.0f} MiB more"
    return result


@pytest.mark.parametrize(
    ("door", "dialect"),
    [
        ("form", "openai"),
        ("json", "nebula_block"),
        pytest.param("form", "nebula_block", marks=pytest.mark.slow),
        pytest.param("json", "openai", marks=pytest.mark.slow),
    ],
)
def test_forty_megabytes_pass_through_in_little_memory(
    gateway: Process, upstream: Scripted, dialect: str, door: str
) -> None:
    upstream.clear(dialect)
    upstream.at(dialect, SMALL)
    picture = heavy(40 * MEGABYTE)
    encoded_picture = text(picture)
    if door == "form":
        talk = edit(gateway.port, ("image", ("a.png", picture)), ("model", dialect), ("prompt", "x"))
    else:
        images = [{"image_url": f"data:image/png;base64,{encoded_picture}"}]
        body = json.dumps({"model": dialect, "prompt": "x", "images": images}).encode()
        talk = post(gateway.port, "/v1/images/edits", body)
    reply: Reply = grown(gateway, talk)
    assert reply.status == 200, reply
    arrived = upstream.received(dialect)[-1]
    assert int(arrived.headers["content-length"]) == len(arrived.body)
    if dialect == "openai":
        assert (picture in arrived.body) is True
    else:
        assert (arrived.json["image"] == encoded_picture) is True


@pytest.mark.parametrize(
    ("stream", "dialect"),
    [
        (False, "nebula_block"),
        (True, "openai"),
        pytest.param(False, "openai", marks=pytest.mark.slow),
        pytest.param(True, "nebula_block", marks=pytest.mark.slow),
    ],
)
def test_twenty_megabytes_come_back_in_little_memory(
    gateway: Process, upstream: Scripted, dialect: str, stream: bool
) -> None:
    picture = text(heavy(15 * MEGABYTE))
    upstream.clear(dialect)
    upstream.at(dialect, answer(image_json(picture), connection="close"))
    reply: Reply = grown(gateway, generate(gateway.port, model=dialect, stream=stream))
    assert (reply.status, reply.complete) == (200, True)
    assert (picture.encode() in reply.body) is True  # a failure must not print megabytes


@pytest.mark.slow
def test_many_who_read_nothing_hold_little_memory(gateway: Process, upstream: Scripted) -> None:
    """16 pictures of 20 MB each, and nobody who takes them."""
    picture = text(heavy(15 * MEGABYTE))
    upstream.clear("nebula_block")
    upstream.at("nebula_block", answer(image_json(picture), connection="close"))

    async def sixteen() -> None:
        async def slow() -> None:
            async with line(gateway.port, limit=4096) as opened_line:
                body = json.dumps({"model": "nebula_block", "prompt": "x"}).encode()
                await opened_line.send(request("POST", "/v1/images/generations", body, content_type="application/json"))
                assert (await opened_line.head()).status == 200
                await asyncio.sleep(3)

        await asyncio.gather(*(slow() for _ in range(16)))

    before = gateway.memory("VmRSS")
    gateway.forget_memory()
    asyncio.run(sixteen())
    assert gateway.memory() - before < 80 * MEGABYTE


# --- descriptors ---


async def heard(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(12)
    except ConnectionResetError:
        return b""


@pytest.mark.slow
@pytest.mark.anyio
async def test_without_descriptors_new_callers_are_told_and_others_still_get_their_pictures(
    gateway: Process, upstream: Scripted
) -> None:
    """Its own connections were refused as if providers were down, which then cooled down."""
    upstream.at("openai", SMALL)
    async with line(gateway.port) as early:
        crowd: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        used = len(list(Path(f"/proc/{gateway.process.pid}/fd").iterdir()))
        limit = used + 40
        before = resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE, (limit, before[1]))
        try:
            crowd.extend([await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(100)])
            told = [await heard(reader) for reader, _ in crowd[-40:]]
            assert set(told) <= {b"HTTP/1.1 503", b""}
            body = json.dumps({"model": "openai", "prompt": "a red fox"}).encode()
            await early.send(request("POST", "/v1/images/generations", body, content_type="application/json"))
            assert (await early.reply()).status == 200
            await until(lambda: "hardly any descriptor is left" in gateway.printed())
        finally:
            resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE, before)
            for _, writer in crowd:
                writer.transport.abort()
    assert (await generate(gateway.port, model="openai")).status == 200
