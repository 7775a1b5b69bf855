"""`docs/deployment.md`: its commands state good settings, its limits are the container's, its log lines are real."""

import json
import re
import shlex
from pathlib import Path

import httpx
import pytest
import yaml

from app.config.loading import load
from tests.documentation.pages import ROOT, blocks, page, prose, quoted, section
from tests.live.servers import process

PAGE = page("docs/deployment.md")


def test_the_command_for_a_container_states_good_settings() -> None:
    [command] = re.findall(r"^    (NEBULA_API_KEY=.*) docker compose up$", PAGE, re.MULTILINE)
    environment = dict(word.split("=", 1) for word in shlex.split(command))
    settings = load(None, environment, {"server": {"host": "0.0.0.0"}})
    assert [key.name for key in settings.keys] == ["team"]


def test_the_command_for_a_container_that_is_called_by_name_states_good_settings() -> None:
    [command] = re.findall(r"^    (IMAGE_GATEWAY_SERVER__ALLOWED_HOSTS=.*) docker compose up$", PAGE, re.MULTILINE)
    settings = load(None, dict([shlex.split(command)[0].split("=", 1)]))
    assert settings.server.allowed_hosts == ("gateway", "sandbox.example.com")


def test_the_limits_of_the_container_are_stated_as_they_are() -> None:
    gateway = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]["gateway"]
    stated = re.search(
        r"container (\d+) GB of memory, (\d+) processes and threads, and ([\d,]+) open files", PAGE.replace("\n", " ")
    )
    assert stated
    assert (f"{stated[1]}g", int(stated[2])) == (gateway["mem_limit"], gateway["pids_limit"])
    assert int(stated[3].replace(",", "")) == gateway["ulimits"]["nofile"]


def test_the_examples_of_log_lines_have_the_fields_of_real_ones(tmp_path: Path) -> None:
    served, refused = (json.loads(example) for example in blocks(PAGE, "json"))
    body = {"model": "black-forest-labs/FLUX.1-schnell", "prompt": "a red fox", "size": "64x64"}
    with process(None, tmp_path) as gateway:
        address, headers = f"{gateway.url}/v1/images/generations", {"x-request-id": "a-line"}
        assert httpx.post(address, json=body, headers=headers, trust_env=False).status_code == 200
        assert list(served) == list(gateway.lines("a-line", count=1)[0])
        headers = {"x-request-id": "another"}
        assert httpx.post(address, json={**body, "n": 11}, headers=headers, trust_env=False).status_code == 400
        [line] = gateway.lines("another", count=1)
    assert list(refused) == list(line)
    assert refused["message"] == line["message"]


@pytest.mark.parametrize("event", [name for name in quoted(prose(section(PAGE, "## Logs"))) if " " in name])
def test_each_log_line_that_is_named_is_written_somewhere(event: str) -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "app").rglob("*.py"))
    assert f'"{event}"' in source
