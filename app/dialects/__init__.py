"""Dialects: how upstreams spell requests and answers, as pure functions without I/O, clock and logging.

`dialect: NAME` in the configuration is the module `app.dialects.NAME`, which offers the three functions of `Dialect`.
Knows no provider but by its profile. Begin with `openai`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Protocol, cast, runtime_checkable

from app.catalog.deployments import Deployment
from app.catalog.profiles import Profile
from app.errors import UpstreamError
from app.events import Event
from app.images import Blob, ImageRequest


@dataclass(frozen=True, slots=True)
class Base64:
    """A blob that is to be sent as base64 text."""

    blob: Blob


Ingredient = bytes | Blob | Base64


@dataclass(frozen=True, slots=True)
class Credential:
    """Where the provider's API key stands in a request: in this header, after this scheme if there is one."""

    header: str = "authorization"  # in lower case
    scheme: str = "Bearer"


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """A request to send. The body is a recipe, rendered in pieces while it is sent, so that no upload is held whole.

    `target` is a path below the provider's base URL, with a leading slash, or an absolute address that an answer named.
    The client sends to addresses of the provider's own only, so the credential goes nowhere else.
    """

    target: str
    content_type: str = ""  # empty: there is no body
    body: tuple[Ingredient, ...] = ()
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    credential: Credential = Credential()


@dataclass(frozen=True, slots=True)
class ResponseHead:
    status: int
    headers: Mapping[str, str]  # names in lower case


class Decoder(Protocol):
    """Turns an answer's bytes, cut anywhere, into events. `feed` and `close` raise UpstreamError when the answer is
    bad."""

    @property
    def done(self) -> bool:
        """True if all that was asked for has come, so that the rest need not be awaited. Valid once the events fed are
        read."""

    @property
    def is_in_text(self) -> bool:
        """True inside the text of an image that was asked for. A piece of nothing but base64 need not be fed then: it
        is `ImageData` as it is."""

    def feed(self, data: bytes) -> Iterable[Event]: ...

    def close(self) -> Iterable[Event | Exchange]:
        """Return the events still due when the body is complete, or `done`. The last is `Done`, or the next
        exchange."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request of an attempt, and the functions that read its answer: `decoder` after a 2xx status, `error` after
    any other. A decoder that ends with one makes the attempt go on: poll a job, fetch a result.

    A failure of a later exchange is perhaps paid for, unless its error `is_final`.
    """

    request: UpstreamRequest
    decoder: Callable[[ResponseHead], Decoder] = field(compare=False)
    error: Callable[[ResponseHead, bytes], UpstreamError] = field(compare=False)
    after: float = 0.0  # seconds of pause before it
    is_repeatable: bool = False  # repeating it draws nothing twice, so a failure that may pass is retried
    job: Mapping[str, Any] | None = None  # JSON values for `resume`; given once, with the first exchange after a submit


class Dialect(Protocol):
    """Three pure functions. `profile` is assumed for a host whose abilities are not stated."""

    profile: Profile

    def encode(self, request: ImageRequest, deployment: Deployment, nonce: str) -> UpstreamRequest:
        """Return the request to send. `request` has been fitted to the deployment: the upstream understands all that it
        holds.

        `nonce` is random text that no upload can foresee, for a form's boundary.
        """

    def decoder(self, request: ImageRequest, head: ResponseHead) -> Decoder:
        """Return the decoder of an answer with a 2xx status."""

    def error(self, head: ResponseHead, body: bytes) -> UpstreamError:
        """Return the error of an answer with any other status; `body` is at most its first 64 KiB."""


@runtime_checkable
class JobDialect(Dialect, Protocol):
    """A dialect whose providers draw in jobs, which outlive a connection."""

    def resume(self, job: Mapping[str, Any], request: ImageRequest) -> Exchange:
        """Return the exchange that takes up the job of an earlier process. `request` has no prompt and no uploads; its
        `n` is the number of images of the job."""


def names() -> tuple[str, ...]:
    """Return the names of the dialects: the modules of this package that encode requests."""
    modules = (module.name for module in iter_modules(__path__))
    return tuple(name for name in modules if hasattr(import_module(f"app.dialects.{name}"), "encode"))


def load(name: str) -> Dialect:
    """Return the dialect of that name. Raises ModuleNotFoundError if there is none."""
    return cast(Dialect, import_module(f"app.dialects.{name}"))
