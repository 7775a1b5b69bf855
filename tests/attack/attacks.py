"""The table of attacks. Each function makes one, to its end, and returns what became of it: a status with the error's
code, `closed` if the gateway ended the connection, or what it did itself."""

import asyncio
import contextlib
import json
import random
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tests.attack.pictures import hostile_pictures
from tests.attack.upstream import LARGE
from tests.live.crowds import EDITS, GENERATIONS, answered
from tests.live.pictures import encoded, heavy
from tests.live.wire import form, request

PATIENCE = 150.0  # seconds: within these the gateway answers, or ends the connection, whatever comes
PAUSE = 25.0  # seconds between two bytes of an upload
UNREAD = 130.0  # seconds: the gateway looks twice, each 60 s, whether a client has taken something


@dataclass(frozen=True, slots=True)
class Target:
    port: int
    key: str
    names: Iterator[str]  # prompts, each of them once

    def post(self, path: str, body: bytes, content_type: str = "application/json", **headers: str) -> bytes:
        known = {"authorization": f"Bearer {self.key}", "content_type": content_type}
        return request("POST", path, body, **{**known, **headers})

    def generation(self, model: str, **more: object) -> bytes:
        return self.post(GENERATIONS, json.dumps({"model": model, "prompt": next(self.names), **more}).encode())

    def edit(self, model: str, *files: tuple[str, tuple[str, bytes]]) -> bytes:
        content_type, body = form(("model", model), ("prompt", next(self.names)), *files)
        return self.post(EDITS, body, content_type)


# --- connections ---


@asynccontextmanager
async def connection(target: Target, limit: int = 65_536) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port, limit=limit)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def pipelining(target: Target) -> str:
    """Ask without end, and read nothing."""
    async with connection(target, limit=1024) as (_, writer):
        try:
            for path in (b"/openapi.json", b"/healthz", b"/healthz", b"/v1/models") * 20:
                writer.write(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path * 5_000)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await writer.drain()
            while not writer.is_closing():  # a write tells, although nothing is read
                await asyncio.sleep(1)
                writer.write(b"G")
        except (ConnectionError, RuntimeError):  # uvloop's, of a transport that is closed
            pass
        return "closed"


async def many_connections(target: Target) -> str:
    """As many as the gateway takes, silent, and some more, which it has to turn away."""
    silent = [asyncio.create_task(drained(target, b"")) for _ in range(700)]
    try:
        done, _ = await asyncio.wait(silent, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(1)
        return "full" if done else "room"
    finally:
        for each in silent:
            each.cancel()
        await asyncio.gather(*silent, return_exceptions=True)


async def half_a_head(target: Target) -> str:
    return await drained(target, b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-More: ")


async def slow_upload(target: Target) -> str:
    """A byte now and then."""
    whole = target.edit("flux", ("image", ("a.png", heavy(1_000_000))))
    async with connection(target) as (reader, writer):
        writer.write(whole[:1_000])
        for number in range(1_000, 1_020):
            try:
                async with asyncio.timeout(PAUSE):
                    return (await reader.readuntil(b"\r\n"))[9:12].decode()
            except TimeoutError:
                writer.write(whole[number : number + 1])
            except (ConnectionError, asyncio.IncompleteReadError):
                return "closed"
        return "endless"


async def reading_nothing(target: Target) -> str:
    """Leave a picture where it is, until the gateway has lost its patience."""
    with socket.socket() as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        opened.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(opened, ("127.0.0.1", target.port))
        body = json.dumps({"model": "flux", "prompt": f"{LARGE} {next(target.names)}"}).encode()
        await loop.sock_sendall(opened, target.post(GENERATIONS, body))
        await asyncio.sleep(UNREAD)
        try:
            found = 0
            while piece := await loop.sock_recv(opened, 1 << 20):
                found += len(piece)
        except ConnectionError:
            return "closed"
        return "closed" if found < 8_000_000 else "all of it"


async def leaving(target: Target) -> str:
    """Go in the middle of an upload."""
    whole = target.edit("flux", ("image", ("a.png", heavy(2_000_000))))
    async with connection(target) as (_, writer):
        writer.write(whole[: random.randrange(len(whole) - 1)])
        await asyncio.sleep(random.random())
    return "left"


# --- heads ---

BLANK, MANY = " " * 60_000, 60_000
LONG_HEADERS = (
    *(
        {name: f"{begin}{BLANK}x"}
        for name, begin in (("range", "bytes="), ("authorization", "Bearer"), ("accept", "a"))
    ),
    {"content_type": "multipart/form-data" + ";" * MANY},
    {"content_type": 'multipart/form-data; boundary="' + "\\" * MANY},
    {"content_type": f"application/json;{BLANK}charset"},
    {"accept": "text/html;q=0," * 4_000},
    {"x_forwarded_for": "1," * (MANY // 2)},
    {"forwarded": "for=1;" * 9_000},
    {"idempotency_key": "x" * MANY},
    {"origin": "http://" + "a." * (MANY // 2)},
    {"cookie": "a=b;" * 12_000},
    {"range": "bytes=" + "0-0," * 12_000},
)


async def long_headers(target: Target) -> str:
    headers = {
        "authorization": f"Bearer {target.key}",
        "content_type": "application/json",
        **random.choice(LONG_HEADERS),
    }
    places = (("POST", GENERATIONS), ("POST", EDITS), ("GET", "/files/0.png"), ("GET", "/v1/models"), ("GET", "/docs"))
    method, path = random.choice(places)
    return await told(target, request(method, path, b"{}" if method == "POST" else None, **headers))


async def wrong_keys(target: Target) -> str:
    key = random.choice(("wrong", "", "x" * 5_000, target.key + " ", target.key[:-1]))
    return await told(target, target.post(GENERATIONS, b"{}", authorization=f"Bearer {key}x"))


# --- bodies ---

FLOODS = (
    b"[" * 900_000,
    b'{"a":' * 150_000 + b"1" + b"}" * 150_000,
    b'{"model":"flux","prompt":"' + b"\\u0041" * 160_000 + b'","n":"x"}',
    b'{"model":"flux","prompt":"a fox","seed":1e999}',
    b'{"model":"flux","prompt":"a fox","a":[' + b"{}," * 300_000 + b"{}]}",
    b'{"model":"flux","prompt":"a fox",' + b",".join(b'"%d":0' % number for number in range(90_000)) + b"}",
    b'{"model":"flux","prompt":"a fox","images":[{"image_url":"data:image/png;base64,' + b"\\n" * 4_000_000 + b'"}]}',
    b'{"model":"flux","prompt":"a fox","images":[{"image_url":"' + b"\\u0041" * 1_000_000 + b'"}]}',
    b'{"model":"flux","prompt":"a fox","images":[' + b'{"image_url":"x"},' * 10_000 + b"{}]}",
)
BROKEN_FORMS = (
    b"",
    b"--b\r\n" * 200_000,
    b"--b\r\nContent-Disposition: form-data" + b";" * 1_000_000,
    b'--b\r\nContent-Disposition: form-data; name="' + b"\\" * 500_000 + b'"\r\n\r\nx\r\n--b--\r\n',
    b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + b"\r\n--" * 1_000_000,
    b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n' + b"x" * 3_000_000,
    b'--b\r\nContent-Disposition: form-data; name="n"\r\n\r\n1\r\n' * 30_000 + b"--b--\r\n",
    b"--b\r\n" + b"x: y\r\n" * 200_000 + b"\r\n",
)


async def json_floods(target: Target) -> str:
    flood = random.choice(FLOODS).replace(b"a fox", next(target.names).encode())
    return await told(target, target.post(random.choice((GENERATIONS, EDITS)), flood))


async def broken_forms(target: Target) -> str:
    return await told(target, target.post(EDITS, random.choice(BROKEN_FORMS), "multipart/form-data; boundary=b"))


async def unknown_fields(target: Target) -> str:
    return await told(target, target.generation("flux", x=[[]] * 340_000))


async def hostile_uploads(target: Target) -> str:
    good, hostile = ("a.png", encoded((12, 8))), ("b.png", random.choice(hostile_pictures()))
    image, mask = random.choice(((good, hostile), (hostile, good)))
    return await told(target, target.edit("convert", ("image", image), ("mask", mask)))


# --- providers ---


def provider(model: str, **more: object) -> Callable[[Target], Awaitable[str]]:
    async def ask(target: Target) -> str:
        return await told(target, target.generation(model, stream=random.random() < 0.3, **more))

    return ask


# --- what became of it ---


async def told(target: Target, asked: bytes) -> str:
    try:
        reply = await answered(target.port, asked, PATIENCE)
    except (OSError, EOFError):
        return "closed"
    if not reply.complete:
        return f"{reply.status} broken"
    if reply.status == 200:
        return "200 error" if b"\nevent: error\n" in b"\n" + reply.body else "200"
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}, error
    return f"{reply.status} {error['code'] or error['type']}"


async def drained(target: Target, asked: bytes) -> str:
    """The status of what was said until the gateway closed."""
    async with connection(target) as (reader, writer):
        try:
            writer.write(asked)
            return (await reader.read())[9:12].decode() or "closed"
        except ConnectionError:
            return "closed"


@dataclass(frozen=True, slots=True)
class Attack:
    """`ends`: how it may end, beside the answers of a gateway that is full. `crowd`: how many at a time; `pause`:
    seconds that each takes between two."""

    make: Callable[[Target], Awaitable[str]]
    ends: str
    crowd: int = 2
    pause: float = 0.5

    def allows(self, end: str) -> bool:
        return any(fnmatchcase(end, pattern) for pattern in (*self.ends.split(), *FULL))


FULL = ("503*", "429*", "closed")
REFUSED = "400* 413*"
ATTACKS = {
    "pipelining without reading": Attack(pipelining, "closed", 4, 5.0),
    "connections up to the limit": Attack(many_connections, "full", 1, 20.0),
    "half a head": Attack(half_a_head, "closed", 8),
    "an upload of single bytes": Attack(slow_upload, "408", 8),
    "callers who never read": Attack(reading_nothing, "closed", 4, 5.0),
    "callers who leave": Attack(leaving, "left", 4),
    "long headers": Attack(long_headers, "200 40? 40?\\ * 431*", 4),
    "wrong keys": Attack(wrong_keys, "401*", 4, 0.1),
    "JSON floods": Attack(json_floods, f"{REFUSED} 200", 4),  # 200: unknown fields go through
    "broken forms": Attack(broken_forms, REFUSED, 4),
    "unknown fields": Attack(unknown_fields, REFUSED),
    "hostile uploads": Attack(hostile_uploads, f"{REFUSED} 200", 4),
    "hostile pictures of a provider": Attack(provider("pictures", output_format="webp"), "502* 200*", 4),
    "4,000 strings of a provider": Attack(provider("strings"), "502* 200*"),
    "a skeleton of a provider": Attack(provider("skeleton"), "502* 200*"),
    "a provider that cuts": Attack(provider("cut"), "502* 200*"),
}
