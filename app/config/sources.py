"""The sources of settings: a YAML file, environment variables, the files of the presets. Alone in reading YAML; knows
no setting by name but the port."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic_settings import BaseSettings, EnvSettingsSource

from app.config.errors import Fault, Located, Location, SettingsError, closest, did_you_mean, write_path
from app.config.interpolation import interpolate

PREFIX = "IMAGE_GATEWAY_"

_MOST_LEVELS = 64  # levels of nesting: the loader would go on to the end of its stack
_MOST_ALIASED = 100_000  # values that aliases stand for
_LONG_VALUE = 64  # characters of a text that counts as one value

_PLAIN_NUMBER = re.compile(r"[0-9]{1,9}")
# Kubernetes sets variables of these names, after the prefix, for a service whose name begins with the gateway's.
_SERVICE_ADDRESS = re.compile(r"(\w+_)?port=(tcp|udp|sctp)://.*", re.DOTALL)
_SERVICE = re.compile(r"(\w+_)?(service_host|service_port(_\w+)?|port_[0-9]+_(tcp|udp|sctp)(_\w+)?)")

_REFERENCE_IN_BRACES = re.compile(r"[{\[].*[\s,:\[{]\$\{")  # not in quotes

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class YamlFile:
    """A file's data, its references replaced. `faults` are references without a variable, `repeated` settings that the
    file states twice."""

    data: dict[str, Any] = field(default_factory=dict)
    faults: Sequence[Located] = ()
    repeated: Sequence[Fault] = ()


def read_yaml(path: Path, environ: Mapping[str, str]) -> YamlFile:
    """Read a file. Raises SettingsError if it has no data."""
    _check_file(path)
    path = path.expanduser()
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_bombs(text, str(path))
        tree = yaml.compose(text, _LOADER)
        data = yaml.load(text, _LOADER) if tree is not None else {}  # noqa: S506 (a safe loader, in C)
        repeated = list(_find_repeated(tree, ()))
    except yaml.MarkedYAMLError as error:  # its text quotes the file, and so perhaps a secret
        mark = error.problem_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise _fault(path, f"{error.problem or error.context or 'no YAML'}{where}", _mend(text, mark)) from None
    except (yaml.YAMLError, ValueError):
        problem, remedy = "holds bytes or dates that YAML does not allow", "save it as UTF-8 text, dates in quotes"
        raise _fault(path, problem, remedy) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    if not isinstance(data, dict):
        raise _fault(path, "is not a mapping", "begin with a section, like `server:`")
    data, faults = interpolate(data, environ)
    # A section whose lines are all commented out is null.
    stated = {str(name): section for name, section in data.items() if section is not None}
    return YamlFile(stated, faults, repeated)


def _mend(text: str, mark: Any) -> str:
    """Return the remedy for YAML that cannot be read at `mark`."""
    lines = text.splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    if line[: len(line) - len(line.lstrip())].count("\t"):
        return "indent with spaces; YAML allows no tabs there"
    if _REFERENCE_IN_BRACES.search(line):
        return 'put the reference in quotes, "${NAME}", since YAML takes its braces for a mapping'
    return "correct the YAML there"


def _fault(path: Path | str, problem: str, remedy: str) -> SettingsError:
    return SettingsError([Fault(str(path), problem, remedy)])


def _unreadable(path: Path, error: OSError) -> SettingsError:
    return _fault(path, f"cannot be read: {error.strerror}", "let the gateway's user read it")


@dataclass(slots=True)
class _Branch:
    """A part of a file: its number of values when spelt out, and its levels of nesting."""

    anchor: str | None = None
    values: int = 1
    levels: int = 0

    def hold(self, inner: _Branch) -> None:
        self.values += inner.values
        self.levels = max(self.levels, inner.levels + 1)


def _refuse_bombs(text: str, file: str) -> None:
    """Raise SettingsError for a small file that means a large document: deep nesting, or aliases of aliases. Sizes are
    added up from the loader's events, so nothing is spelt out. Raises yaml.YAMLError."""
    stack, anchored, aliased = [_Branch()], dict[str | None, _Branch](), 0
    event: Any
    for event in yaml.parse(text, _LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            stack.append(_Branch(event.anchor))
            inner = None
        elif isinstance(event, yaml.CollectionEndEvent):
            inner = stack.pop()
        elif isinstance(event, yaml.AliasEvent):
            if any(branch.anchor == event.anchor for branch in stack):
                raise _bomb(file, event, "an anchor contains itself", "write its content out")
            inner = anchored.get(event.anchor, _Branch())
            aliased += inner.values
        elif isinstance(event, yaml.ScalarEvent):
            inner = _Branch(event.anchor, 1 + len(event.value) // _LONG_VALUE)
        else:
            continue
        if inner is not None:
            stack[-1].hold(inner)
            if inner.anchor:
                anchored[inner.anchor] = inner
        if len(stack) + (inner.levels if inner else 0) > _MOST_LEVELS + 1:
            raise _bomb(file, event, f"it nests deeper than {_MOST_LEVELS} levels", "write it flatter")
        if aliased > _MOST_ALIASED:
            problem = f"aliases stand for more than {_MOST_ALIASED} values"
            raise _bomb(file, event, problem, "write out what they stand for, without aliases of aliases")


def _bomb(file: str, event: Any, problem: str, remedy: str) -> SettingsError:
    mark = event.start_mark
    return _fault(file, f"{problem} in line {mark.line + 1}, column {mark.column + 1}", remedy)


def _check_file(path: Path) -> None:
    """Raise SettingsError if the file cannot be read."""
    remedy = "correct --config or IMAGE_GATEWAY_CONFIG"
    try:
        mode = path.expanduser().stat().st_mode
    except (FileNotFoundError, NotADirectoryError, RuntimeError):  # `~nobody` has no home
        raise _fault(path, "there is no such file", remedy) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    if stat.S_ISDIR(mode):
        remedy = "name a file; of a mount whose file is missing on the host, Docker makes a directory"
        raise _fault(path, "is a directory, not a file", remedy)
    if not stat.S_ISREG(mode):
        raise _fault(path, "is no regular file", remedy)


def _find_repeated(node: Any, path: Location) -> Iterator[Fault]:
    """Find equal keys in a mapping: YAML's loaders silently keep the last one."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _find_repeated(item, (*path, index))
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines:
                where = f"twice in line {line}" if line == lines[name] else f"in line {lines[name]} and in line {line}"
                yield Fault(write_path((*path, name)), f"stands {where}", "keep one")
            lines.setdefault(name, line)
            yield from _find_repeated(value, (*path, name))


class Variables:
    """Read the variables `IMAGE_GATEWAY_…`, and remember which variable stated a setting.

    `IMAGE_GATEWAY_PORT` with a plain number counts as `IMAGE_GATEWAY_SERVER__PORT`. Other variables without `__` that
    name no section are not read: `find_ignored` names them.
    """

    def __init__(self, settings: type[BaseSettings], environ: Mapping[str, str]) -> None:
        self.data: dict[str, Any] = {}
        self._settings = settings
        self.faults: list[Fault] = []
        self._origins: dict[Location, tuple[str, int]] = {}  # name, and the depth at which its value begins
        for name, path in sorted(_paths(environ), key=lambda pair: len(pair[0])):
            section, *deeper = path.split("__")
            if section in settings.model_fields:
                self._add(name, path, environ[name])
            elif deeper:
                remedy = did_you_mean(section, settings.model_fields)
                self.faults.append(Fault(name, f"no section is called {section!r}", remedy))
            elif _is_port(path, environ[name]):
                self._add(name, "server__port", environ[name])

    def _add(self, name: str, path: str, value: str) -> None:
        source = EnvSettingsSource(self._settings, env_prefix=PREFIX, env_nested_delimiter="__")
        source.env_vars = {f"{PREFIX.lower()}{path}": value}
        try:
            stated = source()
        except (ValueError, RecursionError):  # its text, and its cause's, hold the value
            self.faults.append(Fault(name, "is no JSON", "write lists and mappings as JSON"))
            return
        self.data = merge(self.data, stated)
        self._origins |= dict.fromkeys(_leaves(stated, ()), (name, path.count("__") + 1))

    def origin(self, path: Location) -> tuple[str | None, Location]:
        """Return the variable that stated the setting at `path`, and the rest of the path within its value."""
        for end in range(len(path), 0, -1):
            if path[:end] in self._origins:
                name, depth = self._origins[path[:end]]
                return name, path[depth:]
        for place, (name, depth) in self._origins.items():  # of a mapping, only the leaves are there
            if depth == len(path) and place[:depth] == path:
                return name, ()
        return None, path


def find_ignored(settings: type[BaseSettings], environ: Mapping[str, str]) -> Iterator[Fault]:
    """Yield the variables `IMAGE_GATEWAY_…` that state no setting, each with the one that may have been meant, and
    without those that Kubernetes sets."""
    known: dict[str, str] = {}
    for section, info in settings.model_fields.items():
        known.setdefault(section, section)
        for setting in getattr(info.annotation, "model_fields", ()):
            known.setdefault(setting, f"{section}__{setting}")
            known.setdefault(f"{section}_{setting}", f"{section}__{setting}")
    for name, path in _paths(environ):
        value = environ[name]
        if "__" in path or path in (*settings.model_fields, "config") or _is_port(path, value):
            continue
        if _SERVICE.fullmatch(path) or _SERVICE_ADDRESS.fullmatch(f"{path}={value}"):
            continue
        if path == "port":
            remedy = "write a plain number"
        elif meant := closest(path, known):
            remedy = f"did you mean {PREFIX}{known[meant].upper()}?"
        else:
            remedy = "name a setting, or unset it"
        yield Fault(name, "is ignored, since it states no setting", remedy)


def _paths(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the variables `IMAGE_GATEWAY_…` that are not empty, each with the rest of its name in lower case."""
    for name, value in environ.items():
        if name.upper().startswith(PREFIX) and value:
            yield name, name.upper().removeprefix(PREFIX).lower()


def _is_port(path: str, value: str) -> bool:
    return path == "port" and _PLAIN_NUMBER.fullmatch(value) is not None


def _leaves(value: Any, path: Location) -> Iterator[Location]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    else:
        yield path


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two mappings, key by key; any other value is replaced by the upper one."""
    result = dict(below)
    for key, value in above.items():
        under = result.get(key)
        result[key] = merge(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return result


def drop_none(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Remove the keys whose value is None."""
    return {
        key: drop_none(value) if isinstance(value, Mapping) else value
        for key, value in overrides.items()
        if value is not None
    }


def preset_data(name: str) -> Any:
    """Return the data of the preset `name`."""
    text = files("app.config.presets").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return yaml.load(text, _LOADER)  # noqa: S506 (a safe loader, in C)
