"""Black Forest Labs: jobs that are polled, links that hold for some minutes, its own shape of errors."""

from typing import Any

import httpx
import pytest

from app.sandbox import bfl
from app.sandbox.server import Sandbox
from tests.sandbox.pictures import distance, image_of, mask, plain, text

pytestmark = pytest.mark.anyio

GREY = (128, 128, 128)
EDGE = 256
PICTURE = text(plain((EDGE, EDGE)))
WHITE = text(mask("L", 0, 255, (0, 0, EDGE // 2, EDGE), (EDGE, EDGE)))
FILL = "flux-pro-1.0-fill"


@pytest.fixture
def key() -> dict[str, str]:
    return {"x-key": "a-key-of-ours-1234"}


class Caller:
    def __init__(self, client: httpx.AsyncClient, key: dict[str, str]) -> None:
        client.headers.pop("authorization", None)
        self._client, self._key = client, key

    async def submit(self, model: str = "flux-2-pro", **fields: Any) -> httpx.Response:
        body = {"prompt": "a flying cat", **fields}
        if model.startswith("flux-2"):
            body = {"width": 64, "height": 64, **body}
        return await self._client.post(f"/bfl/v1/{model}", json=body, headers=self._key)

    async def status(self, submitted: httpx.Response) -> httpx.Response:
        assert submitted.status_code == 200, submitted.text
        return await self._client.get(submitted.json()["polling_url"], headers=self._key)

    async def ended(self, submitted: httpx.Response) -> dict[str, Any]:
        while (told := (await self.status(submitted)).json())["status"] == "Pending":
            pass
        assert isinstance(told, dict)
        return told

    async def fetch(self, told: dict[str, Any], **headers: str) -> httpx.Response:
        assert told["status"] == "Ready", told
        return await self._client.get(told["result"]["sample"], headers=headers)

    async def drawn(self, model: str = "flux-2-pro", **fields: Any) -> Any:
        answer = await self.fetch(await self.ended(await self.submit(model, **fields)))
        assert answer.status_code == 200
        return image_of(answer.content)


@pytest.fixture
def caller(client: httpx.AsyncClient, key: dict[str, str]) -> Caller:
    return Caller(client, key)


async def test_a_job_is_pending_and_then_ready(caller: Caller, sandbox: Sandbox) -> None:
    submitted = await caller.submit(seed=7, width=96)
    said = submitted.json()
    assert set(said) == {"id", "polling_url", "cost", "input_mp", "output_mp"}
    assert said["polling_url"] == f"{sandbox.base_url}/bfl/v1/get_result?id={said['id']}"
    first, second = [(await caller.status(submitted)).json() for _ in range(2)]
    assert (first["status"], first["result"]) == ("Pending", None)
    assert (second["status"], second["id"]) == ("Ready", said["id"])
    assert (second["result"]["prompt"], second["result"]["seed"]) == ("a flying cat", 7)
    answer = await caller.fetch(second)
    assert answer.headers["content-type"] == "image/jpeg"
    assert image_of(answer.content).size == (96, 64)
    assert sandbox.world.journal.drawings["bfl"] == 1
    asked = [entry["provider"] for entry in sandbox.world.journal.last(9)]
    assert asked == ["bfl", "bfl_status", "bfl_status", "bfl_sample"]


async def test_a_job_is_pending_while_it_is_drawn(key: dict[str, str]) -> None:
    async with (
        Sandbox(seconds_per_drawing=600) as sandbox,
        httpx.AsyncClient(base_url=sandbox.base_url, trust_env=False) as client,
    ):
        caller = Caller(client, key)
        submitted = await caller.submit()
        assert [(await caller.status(submitted)).json()["status"] for _ in range(3)] == ["Pending"] * 3


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer a-key-of-ours-1234"}, {"x-key": ""}])
async def test_without_its_own_credential_it_refuses(
    client: httpx.AsyncClient, caller: Caller, headers: dict[str, str]
) -> None:
    address = (await caller.submit()).json()["polling_url"]
    for answer in (
        await client.post("/bfl/v1/flux-2-pro", json={"prompt": "x"}, headers=headers),
        await client.get(address, headers=headers),
    ):
        assert (answer.status_code, answer.json()) == (403, {"detail": "Not authenticated"})


@pytest.mark.parametrize("headers", [{"x-key": "a-key-of-ours-1234"}, {"authorization": "Bearer x"}])
async def test_the_pictures_host_refuses_a_credential(caller: Caller, headers: dict[str, str]) -> None:
    told = await caller.ended(await caller.submit())
    assert (await caller.fetch(told, **headers)).status_code == 400


async def test_a_link_holds_for_some_minutes(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    told = await caller.ended(await caller.submit())
    monkeypatch.setattr(bfl, "SAMPLE_SECONDS", -1.0)
    assert (await caller.fetch(told)).status_code == 403


async def test_the_same_seed_draws_the_same_and_another_does_not(caller: Caller) -> None:
    first, again, other = [
        (await caller.drawn("flux-2-pro", output_format="png", seed=seed)).tobytes() for seed in (7, 7, 8)
    ]
    assert first == again != other
    assert (await caller.drawn(output_format="png")).tobytes() != (await caller.drawn(output_format="png")).tobytes()


@pytest.mark.parametrize(
    ("model", "fields", "format", "size"),
    [
        ("flux-2-pro", {"output_format": "png"}, "PNG", (64, 64)),
        ("flux-2-max", {"width": 80}, "JPEG", (80, 64)),
        ("flux-2-flex", {"steps": 50, "guidance": 4.5}, "JPEG", (64, 64)),
        ("flux-2-klein-4b", {"input_image": PICTURE}, "JPEG", (64, 64)),
        ("flux-pro-1.1", {}, "JPEG", (1024, 768)),
        ("flux-pro-1.1", {"width": 256, "height": 288, "safety_tolerance": 6}, "JPEG", (256, 288)),
        ("flux-pro-1.1-ultra", {}, "JPEG", (1344, 768)),
        ("flux-kontext-pro", {}, "PNG", (1024, 1024)),
        ("flux-kontext-max", {"input_image": PICTURE, "input_image_2": PICTURE}, "PNG", (256, 256)),
        ("flux-dev", {"width": 256, "height": 256, "steps": 28, "guidance": 3}, "JPEG", (256, 256)),
    ],
)
async def test_a_model_takes_what_is_documented_of_it(
    caller: Caller, model: str, fields: dict[str, Any], format: str, size: tuple[int, int]
) -> None:
    image = await caller.drawn(model, **fields)
    assert (image.format, image.size) == (format, size)


@pytest.mark.parametrize(
    ("model", "fields", "place"),
    [
        ("flux-2-pro", {"width": 100}, "width"),
        ("flux-2-pro", {"height": 48}, "height"),
        ("flux-2-pro", {"width": 4096, "height": 4096}, "width"),
        ("flux-2-pro", {"width": "64"}, "width"),
        ("flux-2-pro", {"steps": 4}, "steps"),
        ("flux-2-pro", {"n": 2}, "n"),
        ("flux-2-pro", {"negative_prompt": "rain"}, "negative_prompt"),
        ("flux-2-pro", {"output_format": "webp"}, "output_format"),
        ("flux-2-pro", {"input_image": f"data:image/png;base64,{PICTURE}"}, "input_image"),
        ("flux-2-pro", {"input_image": "%%%"}, "input_image"),
        ("flux-2-pro", {"input_image": text(b"no picture")}, "input_image"),
        ("flux-2-pro", {"input_image": text(plain((255, 256)))}, "input_image"),
        ("flux-2-pro", {"input_image_9": PICTURE}, "input_image_9"),
        ("flux-2-klein-9b", {"input_image_5": PICTURE}, "input_image_5"),
        ("flux-2-flex", {"steps": 51}, "steps"),
        ("flux-2-flex", {"guidance": 11}, "guidance"),
        ("flux-pro-1.1", {"width": 272}, "width"),
        ("flux-pro-1.1", {"width": 1472}, "width"),
        ("flux-pro-1.1", {"input_image": PICTURE}, "input_image"),
        ("flux-pro-1.1-ultra", {"width": 1024}, "width"),
        ("flux-kontext-pro", {"width": 1024}, "width"),
        ("flux-pro-1.0-fill", {"mask": WHITE}, "image"),
        ("flux-pro-1.0-fill", {"image": PICTURE, "mask": text(plain((256, 272)))}, "mask"),
        ("flux-pro-1.0-fill", {"image": PICTURE, "mask": WHITE, "steps": 14}, "steps"),
        ("flux-dev", {"prompt": ""}, "prompt"),
    ],
)
async def test_a_model_refuses_everything_else_as_fastapi_does(
    caller: Caller, model: str, fields: dict[str, Any], place: str
) -> None:
    answer = await caller.submit(model, **fields)
    assert answer.status_code == 422
    [fault] = answer.json()["detail"]
    assert set(fault) == {"loc", "msg", "type"}
    assert fault["loc"] == ["body", place]


async def test_a_model_that_there_is_not_is_a_404(caller: Caller) -> None:
    answer = await caller.submit("flux-9", width=64)
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


async def test_fill_repaints_where_the_mask_is_white(caller: Caller) -> None:
    image = await caller.drawn(FILL, image=PICTURE, mask=WHITE, output_format="png")
    assert image.size == (EDGE, EDGE)
    assert distance(image, (64, 128), GREY) > 60
    assert distance(image, (192, 128), GREY) == 0


async def test_fill_does_not_look_at_the_masks_transparency(caller: Caller) -> None:
    transparent = mask("RGBA", (255, 255, 255, 255), (0, 0, 0, 0), (0, 0, EDGE // 2, EDGE), (EDGE, EDGE))
    image = await caller.drawn(FILL, image=PICTURE, mask=text(transparent), output_format="png")
    assert distance(image, (64, 128), GREY) == 0
    assert distance(image, (192, 128), GREY) > 60


# --- faults ---


@pytest.mark.parametrize(
    ("fault", "status", "drawings"),
    [
        ("request_moderated", "Request Moderated", 0),
        ("content_moderated", "Content Moderated", 1),
        ("job_failed", "Error", 0),
        ("expired", "Task not found", 1),
    ],
)
async def test_a_job_can_end_otherwise(
    caller: Caller, sandbox: Sandbox, fault: str, status: str, drawings: int
) -> None:
    told = await caller.ended(await caller.submit(prompt=f"a cat [[fault@bfl:{fault}]]"))
    assert (told["status"], told["result"]) == (status, None)
    assert sandbox.world.journal.drawings["bfl"] == drawings
    if status.endswith("Moderated"):
        assert told["details"] == {"Moderation Reasons": ["Violence", "Derivative Works Filter"]}


async def test_a_job_can_be_pending_for_so_many_calls_or_for_ever(caller: Caller) -> None:
    submitted = await caller.submit(prompt="a cat [[fault:pending:3]]")
    words = [(await caller.status(submitted)).json()["status"] for _ in range(4)]
    assert words == ["Pending", "Pending", "Pending", "Ready"]
    submitted = await caller.submit(prompt="a cat [[fault:pending]]")
    assert {(await caller.status(submitted)).json()["status"] for _ in range(20)} == {"Pending"}


async def test_a_job_that_there_is_not_is_not_found(client: httpx.AsyncClient, key: dict[str, str]) -> None:
    told = (await client.get("/bfl/v1/get_result?id=1", headers=key)).json()
    assert (told["id"], told["status"]) == ("1", "Task not found")


async def test_status_calls_have_faults_of_their_own(caller: Caller) -> None:
    submitted = await caller.submit(prompt="a cat [[fault@bfl_status*2:429:retry_after=7]] [[fault@bfl_status*1:503]]")
    answers = [await caller.status(submitted) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [429, 429, 200, 200]
    assert answers[0].headers["retry-after"] == "7"
    assert (await caller.fetch(answers[3].json())).status_code == 200


@pytest.mark.parametrize("fault", ["cut_headers", "cut", "reset", "short"])
async def test_status_answers_can_be_lost(caller: Caller, fault: str) -> None:
    submitted = await caller.submit(prompt=f"a cat [[fault@bfl_status*1:{fault}]]")
    with pytest.raises(httpx.TransportError):
        await caller.status(submitted)
    assert (await caller.ended(submitted))["status"] == "Ready"


async def test_status_answers_can_be_garbage(caller: Caller) -> None:
    submitted = await caller.submit(prompt="a cat [[fault@bfl_status*1:html200]]")
    assert (await caller.status(submitted)).text.startswith("<!DOCTYPE html>")


async def test_a_fault_that_names_no_door_is_the_submits_alone(caller: Caller) -> None:
    assert (await caller.submit(prompt="a cat [[fault:503]]")).status_code == 503
    image = await caller.drawn(prompt="a cat [[fault:chunked]] [[fault@bfl_status:slow:0.01]]")
    assert image.size == (64, 64)


async def test_standing_faults_can_be_limited_to_status_calls_and_pictures(
    client: httpx.AsyncClient, caller: Caller
) -> None:
    for door in ("bfl_status", "bfl_sample"):
        await client.post("/control", json={"provider": door, "fault": "503", "times": 1})
    submitted = await caller.submit()
    assert (await caller.status(submitted)).status_code == 503
    told = await caller.ended(submitted)
    assert [(await caller.fetch(told)).status_code for _ in range(2)] == [503, 200]


async def test_pictures_can_be_cut(caller: Caller) -> None:
    told = await caller.ended(await caller.submit(prompt="a cat [[fault@bfl_sample:cut]]"))
    with pytest.raises(httpx.TransportError):
        await caller.fetch(told)


async def test_a_number_of_status_calls_is_a_number(caller: Caller) -> None:
    answer = await caller.submit(prompt="a cat [[fault:pending:x]]")
    assert "takes a number of status calls" in answer.text
