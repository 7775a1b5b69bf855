"""The sections of the configuration as models: every setting with its default. Knows no file and no environment."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    model_validator,
)

from app.catalog.parameters import PARAMETERS
from app.catalog.prices import Price
from app.catalog.profiles import DefaultSize, Profile, Seconds, SizeRule, Spellings, Timeouts
from app.config.errors import did_you_mean, refusal
from app.config.fields import Address, CallerKey, Digest, HostName, HttpHeaders, Origin, Secret
from app.config.prices import read_price
from app.config.sections import Section, layer_of
from app.images import Operation, ResponseFormat, Size

MEGABYTE = 1024 * 1024

_MAPPABLE = ("prompt", "n", "size", "width", "height", *PARAMETERS)


def _size(value: Any) -> Any:
    size = Size.parse(value) if isinstance(value, str) else value
    if not isinstance(size, Size):
        raise refusal("is no size", "write WIDTHxHEIGHT in pixels, like 1024x768")
    return size


def _default_size(value: Any) -> Any:
    return value if value in (None, "input") else _size(value)


def _parameters(value: Any) -> Any:
    """Read a list as a mapping from each name to itself."""
    mapping = dict.fromkeys(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else value
    if isinstance(mapping, dict):
        for name in mapping:
            if name not in _MAPPABLE:
                raise refusal(f"no parameter is called {name!r}", did_you_mean(str(name), _MAPPABLE))
        mapping = {ours: ours if theirs is None else theirs for ours, theirs in mapping.items()}
    return mapping


def read_alias(value: Any) -> Any:
    """Read a name as the model that an alias leads to."""
    return {"model": value} if isinstance(value, str) else value


def read_default_model(value: Any) -> Any:
    """Read a name as the model of every operation."""
    return dict.fromkeys(Operation, value) if isinstance(value, str) else value


def _expand_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise refusal("names a user who has no home", "write the path out") from None


# Names appear in response headers.
Name = Annotated[str, StringConstraints(pattern=r"^[!-~]+( [!-~]+)*$")]
ProviderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+$")]
# path of the list of models, below `base_url`; None: the provider has none
ModelsPath = Annotated[str, StringConstraints(pattern=r"^/[!-~]*$")] | None


class ServerSettings(Section):
    host: str = Field("127.0.0.1", min_length=1)
    port: int = Field(8000, ge=0, le=65535)
    max_upload_mb: PositiveFloat = 50
    max_request_mb: PositiveFloat = 256
    max_uploads_mb: PositiveFloat = 4096
    min_upload_rate: int = Field(1024, ge=0)
    default_response_format: ResponseFormat = "b64_json"
    keepalive_seconds: PositiveFloat = 15
    json_keepalive_after: NonNegativeFloat | None = None
    drain_seconds: NonNegativeFloat = 30
    remote_images: bool = False
    list_aliases: bool = True
    allow_anonymous: bool = False
    forwarded_allow_ips: str = "127.0.0.1"
    cors_origins: tuple[Origin, ...] = ()
    allowed_hosts: tuple[HostName, ...] = ()

    @model_validator(mode="after")
    def _agree(self) -> ServerSettings:
        if self.max_uploads_mb < self.max_request_mb:
            problem = f"`max_uploads_mb` ({self.max_uploads_mb:g}) is below `max_request_mb` ({self.max_request_mb:g})"
            raise refusal(problem, "make it several times as large: it is for all requests at once")
        return self

    @property
    def max_uploads_bytes(self) -> int:
        return int(self.max_uploads_mb * MEGABYTE)

    @property
    def max_upload_bytes(self) -> int:
        return int(self.max_upload_mb * MEGABYTE)

    @property
    def max_request_bytes(self) -> int:
        return int(self.max_request_mb * MEGABYTE)


class QueueSettings(Section):
    max_length: int = Field(100, ge=0)
    max_seconds: NonNegativeFloat = 60


class RunsSettings(Section):
    on_disconnect: Literal["finish", "cancel"] = "finish"
    retain_seconds: NonNegativeFloat = 600
    memory_mb: PositiveFloat = 256
    disk_mb: NonNegativeFloat = 4096

    @property
    def memory_bytes(self) -> int:
        return int(self.memory_mb * MEGABYTE)

    @property
    def disk_bytes(self) -> int:
        return int(self.disk_mb * MEGABYTE)


class MetricsSettings(Section):
    """`port`: the metrics have a port of their own, which asks for no key."""

    host: str = Field("127.0.0.1", min_length=1)
    port: int | None = Field(None, ge=0, le=65535)


class FilesSettings(Section):
    lifetime_seconds: PositiveFloat = 3600
    public_url: Address | None = None
    max_mb: PositiveFloat = 1024

    @property
    def max_bytes(self) -> int:
        return int(self.max_mb * MEGABYTE)


class PagesSettings(Section):
    enabled: bool = True


class LoggingSettings(Section):
    format: Literal["auto", "text", "json"] = "auto"
    requests: bool = True
    client: bool = True
    prompts: bool = False


# How the settings of a profile are read, where their annotations do not say it.
_READERS: dict[Any, Any] = {
    int: PositiveInt,
    float: NonNegativeFloat,
    str: Annotated[str, StringConstraints(min_length=1)],
    Seconds: PositiveFloat,
    tuple[Size, ...]: tuple[Annotated[Size, BeforeValidator(_size)], ...],
    DefaultSize: Annotated[DefaultSize, BeforeValidator(_default_size)],
    Price: Annotated[Price, BeforeValidator(read_price)],
    Spellings: Annotated[dict[str, str] | None, BeforeValidator(_parameters)],
}


class TimeoutSettings(layer_of(Timeouts, _READERS)):  # type: ignore[misc]  # its base is made of the dataclass
    """Timeouts in seconds."""


class SizeSettings(layer_of(SizeRule, _READERS)):  # type: ignore[misc]
    """Allowed sizes: a `list` alone, or bounds."""

    @model_validator(mode="after")
    def _agree(self) -> SizeSettings:
        if self.list and self.model_fields_set - {"list"}:
            raise refusal("a list of sizes leaves nothing to bounds", "state either `list` or the bounds")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise refusal("`min` is above `max`", "exchange them")
        return self

    def over(self, below: SizeRule) -> SizeRule:
        """Lay each bound over the one below. A list, or an empty section, replaces bounds, and bounds replace a
        list."""
        is_alone = below.list or self.list or not self.model_fields_set
        rule: SizeRule = super().over(SizeRule() if is_alone else below)
        return rule


class ProfileSettings(layer_of(Profile, _READERS | {SizeRule: SizeSettings, Timeouts: TimeoutSettings})):  # type: ignore[misc]
    """A layer over a profile."""

    @model_validator(mode="after")
    def _agree(self) -> ProfileSettings:
        if isinstance(self.default_size, Size) and self.size and self.size.model_fields_set:
            rule = self.size.over(SizeRule())
            if not rule.allows(self.default_size):
                problem = f"`default_size` {self.default_size} is none that `size` allows ({rule})"
                raise refusal(problem, f"write {rule.nearest(self.default_size)}, say")
        return self


class ProviderSettings(Section):
    """A provider's entry. `preset`, `dialect` and `base_url` hold the final values: the preset's have been filled
    in."""

    preset: str = "none"
    dialect: str = "openai"
    base_url: Address
    models_path: ModelsPath = "/models"
    api_key: Secret = None
    headers: HttpHeaders = Field(default_factory=dict, repr=False)
    timeout: TimeoutSettings = TimeoutSettings()
    max_concurrency: PositiveInt | None = None
    retries: int = Field(1, ge=0, le=10)
    retry_timeouts: bool = False
    urls: Literal["store", "pass"] = "store"


class DeploymentSettings(Section):
    provider: str
    model: Name | None = None
    priority: int | None = None
    weight: PositiveInt = 1
    max_concurrency: PositiveInt | None = None
    profile: ProfileSettings = ProfileSettings()


class ModelSettings(Section):
    aliases: tuple[Name, ...] = ()
    deployments: tuple[DeploymentSettings, ...] = Field(min_length=1)
    profile: ProfileSettings = ProfileSettings()


class AliasSettings(Section):
    """A name at the top level that leads to a model. The file may state the model alone."""

    model: Name
    default_response_format: ResponseFormat | None = None


class DefaultModels(Section):
    """The models of requests that name none. The file may state one for all operations."""

    generations: Name | None = None
    edits: Name | None = None
    variations: Name | None = None

    @property
    def by_operation(self) -> dict[Operation, str]:
        return {operation: name for operation in Operation if (name := getattr(self, operation))}


class LimitSettings(Section):
    """The limits of a key or a project."""

    requests_per_minute: PositiveInt | None = None
    images_per_minute: PositiveInt | None = None
    megapixels_per_minute: PositiveInt | None = None
    max_concurrency: PositiveInt | None = None


class ProjectSettings(LimitSettings):
    """A project: limits for all of its keys together."""


class KeySettings(LimitSettings):
    """A virtual key. `models` and `operations` are globs."""

    name: Name
    key: CallerKey = Field(None, repr=False)
    key_sha256: Digest = Field(None, repr=False)
    project: Name | None = None
    models: tuple[str, ...] = Field(("*",), min_length=1)
    operations: tuple[str, ...] = Field(("*",), min_length=1)
    default_response_format: ResponseFormat | None = None

    @model_validator(mode="after")
    def _one_secret(self) -> KeySettings:
        if (self.key is None) == (self.key_sha256 is None):
            problem = "has neither `key` nor `key_sha256`" if self.key is None else "has both `key` and `key_sha256`"
            raise refusal(problem, "state one of them")
        return self

    @property
    def sha256(self) -> bytes:
        """Return the key's digest."""
        if self.key is not None:
            return sha256(self.key.get_secret_value().encode()).digest()
        return bytes.fromhex(self.key_sha256 or "")


AliasEntry = Annotated[AliasSettings, BeforeValidator(read_alias)]
DefaultModel = Annotated[DefaultModels, BeforeValidator(read_default_model)]


class Preset(Section):
    """A provider of the package: one file of `app/config/presets/`."""

    base_url: Address
    dialect: str
    models_path: ModelsPath = None
    models: dict[Name, ProfileSettings]


DataDirectory = Annotated[Path, AfterValidator(_expand_home)]
