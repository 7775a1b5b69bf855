"""Black Forest Labs as its SDK and documents describe it: JSON in, a job that is polled at an address of its own, and a
link to the picture that holds for some minutes.

Knows nothing of the other providers.
"""

from __future__ import annotations

import binascii
import re
import time
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pybase64

from app.sandbox import damage
from app.sandbox.delivery import Answer, Piece
from app.sandbox.door import ENDINGS, Door, World, json_answer
from app.sandbox.faults import UNDRAWN, Fault, Faults, without_marks
from app.sandbox.fields import Fields
from app.sandbox.incoming import FilePart, Incoming, file_part
from app.sandbox.order import Handed, Operation, Order, Refusal, floor_to

PREFIX = "/bfl/v1"
SAMPLES = "/bfl/samples"  # the real ones are at another host
SAMPLE_SECONDS = 600.0
PENDING_CALLS = 1  # status calls that say so, at the least
JOBS_KEPT = 256
SMALLEST_EDGE = 256  # of an input, in pixels
DETAILS = {"Moderation Reasons": ["Violence", "Derivative Works Filter"]}
# Ends of a job other than with a picture: the fault to the status.
ENDS = {
    "request_moderated": "Request Moderated",
    "content_moderated": "Content Moderated",
    "job_failed": "Error",
    "expired": "Task not found",
}


@dataclass(frozen=True, slots=True)
class Model:
    """`size`: smallest edge, largest edge, multiple, most pixels; None: it cannot be chosen. A credit is a cent."""

    credits: float
    size: tuple[int, int, int, int] | None = None
    default: tuple[int, int] = (1024, 1024)
    pictures: tuple[str, ...] = ()  # base64 fields
    required: tuple[str, ...] = ()  # of them
    steps: tuple[int, int] | None = None
    guidance: tuple[float, float] | None = None
    output_format: str = "jpeg"


def _numbered(field: str, count: int) -> tuple[str, ...]:
    return (field, *(f"{field}_{number}" for number in range(2, count + 1)))


FLUX_2 = Model(3, (64, 4096, 16, 4_194_304), pictures=_numbered("input_image", 8))
FLUX_1 = Model(4, (256, 1440, 32, 1440 * 1440), default=(1024, 768))
KONTEXT = Model(4, pictures=_numbered("input_image", 4), output_format="png")
MODELS = {
    "flux-2-pro": FLUX_2,
    "flux-2-max": replace(FLUX_2, credits=7),
    "flux-2-flex": replace(FLUX_2, credits=5, steps=(1, 50), guidance=(1.5, 10)),
    "flux-2-klein-4b": replace(FLUX_2, credits=1.4, pictures=_numbered("input_image", 4)),
    "flux-2-klein-9b": replace(FLUX_2, credits=1.5, pictures=_numbered("input_image", 4)),
    "flux-pro-1.1": FLUX_1,
    "flux-pro-1.1-ultra": Model(6, default=(1344, 768)),  # the real one draws four times as many pixels
    "flux-kontext-pro": KONTEXT,
    "flux-kontext-max": replace(KONTEXT, credits=8),
    "flux-pro-1.0-fill": Model(5, pictures=("image", "mask"), required=("image",), steps=(15, 50), guidance=(1.5, 100)),
    "flux-dev": replace(FLUX_1, credits=2.5, steps=(1, 50), guidance=(1.5, 5)),
}


@dataclass(slots=True)
class Job:
    """`prompt` as it was sent, with its marks. `sample` is the picture's name in the gallery, if one was drawn. Times
    are seconds of the monotonic clock."""

    id: str
    prompt: str
    seed: int
    sample: str | None
    ends_at: float
    outcome: str  # the status at its end
    pending: float  # status calls that are still to say so
    submitted_at: float


class Jobs:
    """The newest jobs."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()

    def add(self, job: Job) -> None:
        self._jobs[job.id] = job
        if len(self._jobs) > JOBS_KEPT:
            self._jobs.popitem(last=False)

    def find(self, id: str) -> Job | None:
        return self._jobs.get(id)

    def of_sample(self, name: str) -> Job | None:
        return next((job for job in self._jobs.values() if job.sample == name), None)


class Bfl:
    """`name`: of the provider, or of one of its other doors."""

    def __init__(self, name: str = "bfl") -> None:
        self.name = name

    def read(self, operation: Operation, incoming: Incoming) -> Order:  # noqa: ARG002 - the model decides
        name = incoming.path.removeprefix(f"{PREFIX}/")
        model = MODELS.get(name)
        if model is None:
            raise Refusal("Not Found", status=404)
        try:
            return _order(name, model, Fields(incoming, form=False))
        except Refusal as refusal:
            refusal.status = 422
            raise

    def answer(self, order: Order, pictures: Sequence[Handed]) -> dict[str, object]:
        raise NotImplementedError("A submit is answered with a job.")

    def error(self, refusal: Refusal) -> dict[str, object]:
        """Return the error in FastAPI's shape."""
        if refusal.status != 422:
            return {"detail": refusal.message}
        place = ["body", refusal.param] if refusal.param else ["body"]
        return {"detail": [{"loc": place, "msg": refusal.message, "type": "value_error"}]}


class _BflDoor(Door):
    def __init__(self, name: str, jobs: Jobs, world: World) -> None:
        super().__init__(Bfl(name), "generations", world)
        self._jobs = jobs

    def _check_credential(self, incoming: Incoming) -> None:
        if not incoming.headers.get("x-key", "").strip():
            raise Refusal("Not authenticated", status=403)


class SubmitDoor(_BflDoor):
    """Draw at once, and report it when the job has ended."""

    async def _whole(self, order: Order, origin: str, faults: Faults) -> Answer:
        if "html200" in faults:
            return Answer(200, (("content-type", "text/html"),), (Piece(damage.HTML),))
        seed = next(self._world.seeds) if order.seed is None else order.seed
        sample = None
        if not any(fault.name in UNDRAWN for fault in faults.items):
            [data] = await self._drawn(replace(order, seed=seed), faults)
            media_type = f"image/{order.output_format}"
            sample = self._world.gallery.hang(data, ENDINGS[media_type], media_type)
        job = self._job(order, seed, sample, faults)
        self._jobs.add(job)
        megapixels = round(order.width * order.height / 1_000_000, 2)
        said: dict[str, object] = {
            "id": job.id,
            "polling_url": f"{origin}{PREFIX}/get_result?id={job.id}",
            "cost": MODELS[order.model].credits,
            "input_mp": 0.0,
            "output_mp": megapixels,
        }
        return json_answer(damage.json_text(said, faults), faults)

    def _job(self, order: Order, seed: int, sample: str | None, faults: Faults) -> Job:
        now = time.monotonic()
        outcome = next((status for fault, status in ENDS.items() if fault in faults), "Ready")
        return Job(
            id=str(uuid.uuid4()),
            prompt=order.echo["prompt"],
            seed=seed,
            sample=sample,
            ends_at=now + self._world.seconds_per_drawing,
            outcome=outcome,
            pending=_pending_calls(faults.get("pending")),
            submitted_at=now,
        )


class StatusDoor(_BflDoor):
    async def _answer(self, incoming: Incoming) -> tuple[Answer, Faults]:
        faults = Faults()
        try:
            self._check_credential(incoming)
            job = self._jobs.find(incoming.query.get("id", ""))
            header = incoming.headers.get("x-sandbox-fault", "")
            faults = self._world.book.take(self._provider.name, header, job.prompt if job else "", named=True)
            if refusal := damage.refusal_asked_for(faults):
                raise refusal
            if "html200" in faults:
                return Answer(200, (("content-type", "text/html"),), (Piece(damage.HTML),)), faults
            told = _told(job, incoming)
            return json_answer(damage.json_text(told, faults), faults), faults
        except Refusal as refusal:
            return self._refused(refusal, faults), faults


class SampleDoor(_BflDoor):
    """Signed links: they need no credential, and no credential is to reach them."""

    async def _answer(self, incoming: Incoming) -> tuple[Answer, Faults]:
        faults = Faults()
        try:
            if {"x-key", "authorization"} & incoming.headers.keys():
                raise Refusal("A credential was sent to the host of the pictures.", status=400)
            name = incoming.path.rpartition("/")[2]
            job, found = self._jobs.of_sample(name), self._world.gallery.get(name)
            if job is None or found is None or time.monotonic() > job.ends_at + SAMPLE_SECONDS:
                raise Refusal("Server failed to authenticate the request: the signature has expired.", status=403)
            faults = self._world.book.take(self._provider.name, "", job.prompt, named=True)
            if refusal := damage.refusal_asked_for(faults):
                raise refusal
            return Answer(200, (("content-type", found[0]),), (Piece(found[1]),)), faults
        except Refusal as refusal:
            return self._refused(refusal, faults), faults


def _pending_calls(fault: Fault | None) -> float:
    if fault is None:
        return PENDING_CALLS
    return int(fault.value) if fault.value else float("inf")


def _told(job: Job | None, incoming: Incoming) -> dict[str, object]:
    """Return the answer to one status call, and count the call."""
    told: dict[str, object] = {
        "id": incoming.query.get("id"),
        "status": "Task not found",
        "result": None,
        "progress": None,
        "details": None,
        "preview": None,
    }
    if job is None:
        return told
    if job.pending > 0 or time.monotonic() < job.ends_at:
        job.pending -= 1
        return {**told, "status": "Pending", "progress": 0.4}
    told["status"] = job.outcome
    if job.outcome.endswith("Moderated"):
        told["details"] = DETAILS
    elif job.outcome == "Error":
        told["details"] = {"error": "The worker ran out of memory."}
    elif job.outcome == "Ready":
        told["result"] = {
            "sample": f"{incoming.origin}{SAMPLES}/{job.sample}?se=soon&sig=secret",
            "prompt": without_marks(job.prompt),
            "seed": job.seed,
            "start_time": job.submitted_at,
            "end_time": job.ends_at,
            "duration": job.ends_at - job.submitted_at,
        }
    return told


# --- what is asked for ---


def _order(name: str, model: Model, fields: Fields) -> Order:
    names = ["prompt", "seed", "output_format", "safety_tolerance", *model.pictures]
    names += ["width", "height"] if model.size else []
    names += ["steps"] if model.steps else []
    names += ["guidance"] if model.guidance else []
    fields.only(names)
    if model.steps:
        fields.integer("steps", *model.steps, default=model.steps[1])
    if model.guidance and not model.guidance[0] <= fields.number("guidance", model.guidance[0]) <= model.guidance[1]:
        message = f"Input should be from {model.guidance[0]} to {model.guidance[1]}"
        raise Refusal(message, param="guidance")
    fields.integer("safety_tolerance", 0, 6, 2)
    pictures = {
        field: _picture(fields, field) for field in model.pictures if fields.has(field) or field in model.required
    }
    images = [part for field, part in pictures.items() if field != "mask"]
    mask = pictures.get("mask")
    if mask and _edges(mask) != _edges(images[0]):
        raise Refusal("Image and mask must have the same dimensions", param="mask")
    prompt = fields.text("prompt")
    width, height = _size(fields, model, images)
    return Order(
        "edits" if images else "generations",
        name,
        prompt,
        width,
        height,
        seed=fields.integer("seed", 0, 2**32 - 1, 0) if fields.has("seed") else None,
        images=tuple(part.data for part in images),
        mask=mask.data if mask else None,
        output_format=fields.choice("output_format", ("jpeg", "png"), model.output_format),
        echo={"prompt": prompt},
    )


def _size(fields: Fields, model: Model, images: Sequence[FilePart]) -> tuple[int, int]:
    width, height = _edges(images[0]) if images else model.default
    if model.size is None:
        exact = "mask" in model.pictures  # the others draw about one megapixel, in multiples of 16
        return (width, height) if exact or not images else (floor_to(width, 16), floor_to(height, 16))
    low, high, multiple, most = model.size
    if images:
        width, height = floor_to(width, 16), floor_to(height, 16)
    width, height = fields.integer("width", low, high, width), fields.integer("height", low, high, height)
    for name, edge in (("width", width), ("height", height)):
        if edge % multiple:
            raise Refusal(f"Input should be a multiple of {multiple}", param=name)
    if width * height > most:
        raise Refusal(f"Input should be at most {most} pixels", param="width")
    return width, height


def _picture(fields: Fields, name: str) -> FilePart:
    text = fields.text(name)
    if re.match(r"data:", text):
        raise Refusal("Invalid base64: send it without the 'data:' prefix", param=name)
    try:
        part = file_part(name, None, None, pybase64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise Refusal("Invalid base64", param=name) from None
    if part.facts is None or part.facts.format not in ("png", "jpeg", "webp"):
        raise Refusal("Invalid image", param=name)
    if min(_edges(part)) < SMALLEST_EDGE:
        raise Refusal(f"Image dimensions must be at least {SMALLEST_EDGE}x{SMALLEST_EDGE}", param=name)
    return part


def _edges(part: FilePart) -> tuple[int, int]:
    return (part.facts.width, part.facts.height) if part.facts else (0, 0)
