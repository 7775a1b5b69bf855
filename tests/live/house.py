"""One gateway before the simulated providers, for all tests that leave nothing behind; and pictures that show what was
done to them."""

import base64
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from app.sandbox.server import Sandbox
from tests.live.loops import in_thread
from tests.live.servers import Config, Gateway, sandbox_providers, serving
from tests.live.wire import Reply

FILL, KONTEXT = "black-forest-labs/FLUX.1-Fill-dev", "black-forest-labs/FLUX.1-Kontext-dev"
DEPTH, REDUX = "black-forest-labs/FLUX.1-Depth-dev", "black-forest-labs/FLUX.1-Redux-dev"
SCHNELL, SDXL = "black-forest-labs/FLUX.1-schnell", "stabilityai/stable-diffusion-xl-base-1.0"
SEEDREAM = "Bytedance/seedream-3-0-t2i-250415"
GPT_IMAGE_2: Config = {
    "operations": ["generations", "edits"],
    "parameters": ["n", "size", "quality", "background", "output_format", "output_compression", "moderation", "user"],
    "size": {"multiple_of": 16, "max": 3840, "max_pixels": 8_294_400},
    "output_formats": ["png", "jpeg", "webp"],
    "results": ["b64_json"],
    "streaming": True,
    "extra": "refuse",
}
GREY, WHITE, BLACK = (128, 128, 128), (255, 255, 255), (0, 0, 0)
Box = tuple[int, int, int, int]


def at(provider: str, model: str, **profile: Any) -> Config:
    return {"deployments": [{"provider": provider, "model": model}], "profile": profile}


def models() -> Config:
    """Each simulated model by a short name."""
    return {
        "gpt": at("openai", "gpt-image-2", **GPT_IMAGE_2),
        "kontext": at("nebul", KONTEXT),
        "fill": at("nebula", FILL),
        "netmind-fill": at("netmind", FILL),
        "reshape": at("nebula", KONTEXT),
        "depth": at("netmind", DEPTH),
        "redux": at("netmind", REDUX),
        "schnell": at("nebula", SCHNELL),
        "netmind-schnell": at("netmind", SCHNELL),
        "sdxl": at("nebula", SDXL),
        "seedream": at("nebula", SEEDREAM),
    }


@dataclass(frozen=True, slots=True)
class House:
    gateway: Gateway
    sandbox: Sandbox

    @property
    def port(self) -> int:
        return self.gateway.port

    def seen(self, prompt: str) -> list[dict[str, Any]]:
        """The fields of the requests that the providers got with this prompt, files by what they are; the newest last.
        Several files of one name are a list."""
        found = [fields_of(entry) for entry in self.sandbox.world.journal.last(200)]
        return [fields for fields in found if fields.get("prompt") == prompt]


def fields_of(entry: dict[str, Any]) -> dict[str, Any]:
    if entry["json"] is not None:
        return {"provider": entry["provider"], **entry["json"]}
    fields: dict[str, Any] = {"provider": entry["provider"]}
    for part in entry["form"] or ():
        value = part.get("value", part)
        if part["name"] in fields:
            before = fields[part["name"]]
            value = [*(before if isinstance(before, list) else [before]), value]
        fields[part["name"]] = value
    return fields


@contextmanager
def house(folder: Path) -> Iterator[House]:
    @asynccontextmanager
    async def both() -> AsyncIterator[House]:
        async with Sandbox() as sandbox:
            config = {"providers": sandbox_providers(sandbox.base_url), "models": models()}
            async with serving(config, folder) as gateway:
                yield House(gateway, sandbox)

    with in_thread(both) as running:
        yield running


# --- pictures ---


def plain(size: tuple[int, int] = (64, 48), colour: Any = GREY) -> Image.Image:
    return Image.new("RGB", size, colour)


def file_of(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def box_of(size: tuple[int, int]) -> Box:
    """Off the centre, so that a picture that was turned or mirrored shows it."""
    return size[0] // 8, size[1] // 8, size[0] // 2, size[1] // 2


def marked(size: tuple[int, int] = (64, 48), said: str = "alpha", format: str = "PNG") -> bytes:
    """A mask that says: repaint `box_of`."""
    inside, outside = {
        "alpha": ((0, 0, 0, 0), (0, 0, 0, 255)),
        "white": (WHITE, BLACK),
        "black": (BLACK, WHITE),
    }[said]
    mask = Image.new("RGBA" if said == "alpha" else "RGB", size, outside)
    mask.paste(inside, box_of(size))
    return file_of(mask, format, **({"quality": 95} if format == "JPEG" else {}))


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def decoded(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def bytes_of(reply: Reply, index: int = 0) -> bytes:
    assert reply.status == 200, reply.body[:2000]
    assert reply.complete
    return base64.b64decode(reply.json()["data"][index]["b64_json"], validate=True)


def picture(reply: Reply, index: int = 0) -> Image.Image:
    return decoded(bytes_of(reply, index))


def near(one: Any, other: Any, tolerance: int = 12) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(one[:3], other[:3], strict=True))


def assert_repainted(image: Image.Image, box: Box, base: Any = GREY, margin: int = 2) -> None:
    """Exactly what lies in `box` has another colour than `base`; `margin`: pixels at its edges that may be either."""
    image = image.convert("RGB")
    left, top, right, bottom = box
    wrong = []
    for x in range(image.width):
        for y in range(image.height):
            inside = left + margin <= x < right - margin and top + margin <= y < bottom - margin
            outside = x < left - margin or x >= right + margin or y < top - margin or y >= bottom + margin
            same = near(image.getpixel((x, y)), base)
            if (inside and same) or (outside and not same):
                wrong.append((x, y))
    assert not wrong, f"{len(wrong)} of {image.width * image.height} pixels are wrong, {wrong[0]} among them"
