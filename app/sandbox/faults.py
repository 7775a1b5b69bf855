"""Which faults a request asks for: the grammar, and the book of those that stand until they are used up.

There are three ways to make a request fail:

    header           x-sandbox-fault: 503:retry_after=7            several separated by ";"
    in the prompt    [[fault:slow:2]] [[fault@nebula:503]] [[fault*2:cut]] [[fault@nebula*2:503:shape=html]]
    standing         POST /control {"provider": "nebula", "fault": "503", "times": 3}

`@NAME` limits a fault to one provider, `*K` to the first K requests with that prompt at that provider. Standing faults
queue: a request takes the first one that fits, and only that one. A request is checked first: what the provider would
refuse is refused, whatever fault was asked for. BFL's status calls and finished pictures take faults that name them
only: `bfl_status`, `bfl_sample`.

    400 … 599        that status; retry_after=SECONDS, shape=NAME (one of SHAPES; the provider's own if not given)
    moderation, quota                a 400 "moderation_blocked", a 429 "insufficient_quota"
    moderation200, failed200         a 200 that carries the failure; in a stream, an error event
    html200, wrongtype               a page instead of JSON; JSON declared as text
    noimage, nullimage, urlonly      no picture; null; an address where base64 was asked for
    badbase64, newlines, unpadded, dataurl, json_escaped, pretty base64 and JSON that are wrong or unusual
    truncated_image, notimage, lying_jpeg                        pictures that are not what they should be
    slow:SECONDS, stall:SECONDS, dribble:BYTES_PER_SECOND        before the head, in mid body, all along the body
    cut_headers, cut, reset, short   the connection ends before the answer, in mid body, by RST, before its length
    endless, endless:base64, gzip, gzipbomb:MEGABYTES, chunked   bodies that never end, are compressed, state no length

At BFL, to a submit: how the job goes on
    pending, pending:CALLS           the job is pending for ever, or for so many status calls
    request_moderated, content_moderated, job_failed, expired    what its status will be
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from app.sandbox.order import Refusal

MARK = re.compile(r"\[\[fault(?:@(\w+))?(?:\*(\d+))?:([^\[\]]+)\]\]")
REMEMBERED_PROMPTS = 10_000

# Nothing is drawn (and nothing counted) for these and for statuses; every other fault happens to a picture drawn.
UNDRAWN = frozenset({"moderation", "moderation200", "failed200", "quota", "html200", "request_moderated", "job_failed"})
NUMBERED = frozenset({"slow", "stall", "dribble"})  # these need a number: seconds, or bytes per second
PLAIN = frozenset(
    {
        "noimage",
        "nullimage",
        "cut",
        "cut_headers",
        "reset",
        "short",
        "chunked",
        "badbase64",
        "truncated_image",
        "notimage",
        "lying_jpeg",
        "json_escaped",
        "newlines",
        "unpadded",
        "dataurl",
        "urlonly",
        "pretty",
        "gzip",
        "gzipbomb",
        "endless",
        "wrongtype",
        "content_moderated",
        "expired",
        "pending",
    }
)
SHAPES = ("failed", "openai", "litellm", "detail", "detail_list", "message", "error_string", "draft", "html", "empty")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: its name (or HTTP status), its bare argument, its options (`retry_after`, `shape`)."""

    name: str
    value: str = ""
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults of one request."""

    items: tuple[Fault, ...] = ()

    def __contains__(self, name: str) -> bool:
        return any(fault.name == name for fault in self.items)

    def get(self, name: str) -> Fault | None:
        return next((fault for fault in self.items if fault.name == name), None)

    def number(self, name: str) -> float | None:
        """Return the fault's argument; None when the fault was not asked for."""
        fault = self.get(name)
        return None if fault is None else float(fault.value)

    @property
    def status(self) -> Fault | None:
        return next((fault for fault in self.items if fault.name.isdigit()), None)


def parse_fault(text: str) -> Fault:
    """Parse `NAME`, `NAME:ARG`, `NAME:key=value,key=value`. Raises Refusal naming the known faults."""
    name, _, argument = text.strip().partition(":")
    value, options = "", {}
    for piece in filter(None, argument.split(",")):
        key, equals, content = piece.partition("=")
        if equals:
            options[key.strip()] = content.strip()
        else:
            value = piece.strip()
    _check(name, value, options)
    return Fault(name, value, options)


def parse_faults(text: str) -> tuple[Fault, ...]:
    return tuple(parse_fault(piece) for piece in text.split(";") if piece.strip())


def without_marks(prompt: str) -> str:
    """Return the prompt as it is drawn."""
    return " ".join(MARK.sub(" ", prompt).split())


def _check(name: str, value: str, options: dict[str, str]) -> None:
    if not (name in PLAIN | UNDRAWN | NUMBERED or re.fullmatch(r"[45]\d\d", name)):
        known = ", ".join(sorted(PLAIN | UNDRAWN | NUMBERED))
        raise Refusal(f"Unknown fault {name!r}. Known: 400 to 599, {known}.", code="unknown_fault")
    if name in NUMBERED and not re.fullmatch(r"\d+(\.\d+)?", value):
        raise Refusal(f"The fault {name!r} needs a number, as in {name + ':2'!r}.", code="unknown_fault")
    if name == "gzipbomb" and value and not value.isdigit():
        raise Refusal("The fault 'gzipbomb' takes megabytes, as in 'gzipbomb:64'.", code="unknown_fault")
    if name == "pending" and value and not value.isdigit():
        raise Refusal("The fault 'pending' takes a number of status calls, as in 'pending:3'.", code="unknown_fault")
    if name == "endless" and value not in ("", "whitespace", "base64"):
        raise Refusal("The fault 'endless' takes 'whitespace' or 'base64'.", code="unknown_fault")
    if options.get("shape", SHAPES[0]) not in SHAPES:
        raise Refusal(f"Unknown shape {options['shape']!r}. Known: {', '.join(SHAPES)}.", code="unknown_fault")


@dataclass(slots=True)
class Standing:
    """A fault that stands until it was taken `times` times (None: until the book is cleared)."""

    provider: str | None
    faults: tuple[Fault, ...]
    times: int | None


class FaultBook:
    """The standing faults, and how often a prompt's limited faults were taken."""

    def __init__(self) -> None:
        self._standing: list[Standing] = []
        self._taken: OrderedDict[tuple[str, str], int] = OrderedDict()

    def stand(self, fault: str, *, provider: str | None = None, times: int | None = None) -> None:
        """Let a fault stand. Raises Refusal for one that is not known."""
        self._standing.append(Standing(provider, parse_faults(fault), times))

    def clear(self) -> None:
        self._standing.clear()
        self._taken.clear()

    def take(self, provider: str, header: str, prompt: str, *, named: bool = False) -> Faults:
        """Return the faults of this request, and count it. `named`: only those that name the provider. Raises Refusal
        for one that is not known."""
        of_prompt, standing = self._of_prompt(provider, prompt, named=named), self._of_standing(provider, named=named)
        return Faults((*parse_faults(header), *of_prompt, *standing))

    def _of_prompt(self, provider: str, prompt: str, *, named: bool) -> Iterable[Fault]:
        marks = MARK.findall(prompt)
        if not marks:
            return ()
        key = (provider, prompt)
        taken = self._taken.pop(key, 0)
        self._taken[key] = taken + 1
        if len(self._taken) > REMEMBERED_PROMPTS:
            self._taken.popitem(last=False)
        return [
            parse_fault(text)
            for only, first, text in marks
            if only in ((provider,) if named else ("", provider)) and (not first or taken < int(first))
        ]

    def _of_standing(self, provider: str, *, named: bool) -> tuple[Fault, ...]:
        for entry in self._standing:
            if entry.provider in ((provider,) if named else (None, provider)) and entry.times != 0:
                if entry.times is not None:
                    entry.times -= 1
                return entry.faults
        return ()
