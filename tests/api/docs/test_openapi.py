"""The OpenAPI document and its page: they tell of everything that is served, truly, and load nothing from elsewhere."""

import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import jsonschema_rs
import pytest
import yaml
from fastapi import FastAPI
from fastapi.routing import APIRoute
from schemathesis.specs.openapi.definitions import OPENAPI_31
from starlette.routing import BaseRoute, Route

from app.api.docs import openapi
from app.api.docs.openapi import document
from app.api.models import capabilities
from app.api.requests import validation
from app.api.responses.sending import HEADERS_FOR_BROWSERS
from app.catalog.parameters import ALIASES, PARAMETERS, Weight
from app.config.inventory import models
from app.config.loading import Settings, load
from app.config.simulated import with_sandbox
from app.dialects import load as load_dialect
from app.images import Operation
from app.main import create_app
from tests.live.servers import process

KEY = "sk-of-the-tests-0123456789abcdef"
FILE = Path(openapi.__file__).with_suffix(".yaml").read_text(encoding="utf-8")
# The document itself, and pages for people.
ABOUT_THE_DOCUMENT = {"", "/openapi.json", "/docs", "/docs/{name}"}
PAGES = {"/playground", "/admin", "/pages/{version}/{name}"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(None, {}, {"data_dir": str(tmp_path)})


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with app.router.lifespan_context(app):
        yield httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway/prefix/")


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every object of the document."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(inner)


def found(reference: str) -> Any:
    place: Any = document()
    for step in reference.removeprefix("#/").split("/"):
        place = place[step]
    return place


def served(routes: list[BaseRoute]) -> Iterator[tuple[str, str]]:
    for route in routes:
        if isinstance(route, Route | APIRoute):
            path = re.sub(r":path}", "}", route.path).rstrip("/")  # with a slash at the end it is the same
            yield from ((method.lower(), path) for method in (route.methods or set()) - {"HEAD"})
        else:
            inner = getattr(route, "original_router", None) or getattr(route, "app", None)
            assert inner is not None, f"{route!r} is of a kind that this test cannot look into"
            yield from served(inner.routes)


def contents(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = document()["paths"][f"/v1/images/{operation}"]["post"]["requestBody"]["content"]
    return content


def test_every_route_that_is_served_stands_in_the_document_and_the_reverse(app: FastAPI) -> None:
    told = {(method, path) for path, item in document()["paths"].items() for method in item}
    routes = {(method, path) for method, path in served(app.routes) if path not in ABOUT_THE_DOCUMENT | PAGES}
    openai = {(method, path) for method, path in routes if path.startswith("/v1/organization/")}
    assert openai
    routes -= openai  # OpenAI's own document describes them
    assert told == routes


def test_the_document_is_valid_openapi_and_its_references_lead_somewhere() -> None:
    told = json.loads(json.dumps(document()))
    jsonschema_rs.validator_for(OPENAPI_31).validate(told)
    for node in nodes(told):
        if "$ref" in node:
            assert found(node["$ref"]), node["$ref"]


def test_nothing_in_the_components_is_left_without_use() -> None:
    used = {node["$ref"] for node in nodes(document()) if "$ref" in node}
    components = document()["components"]
    kinds = ("schemas", "headers", "responses", "parameters")
    assert {f"#/components/{kind}/{name}" for kind in kinds for name in components[kind]} - used == set()


@pytest.mark.parametrize("operation", Operation)
def test_every_parameter_that_is_understood_is_described_with_its_limits(operation: Operation) -> None:
    for content, body in contents(operation).items():
        told = body["schema"]["properties"]
        for name, rule in validation.RULES.items():
            if name in validation.UNKNOWN[operation]:
                assert name not in told
                continue
            if name in ALIASES:  # generators would make a second parameter of it
                assert name not in told
                assert f"`{name}`" in told[ALIASES[name]]["description"]
                continue
            schema = told[name if name != "svg" or content == "application/json" else "svg[model]"]
            assert schema["description"]
            [schema] = [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]
            for limit, keyword in (("low", "minimum"), ("high", "maximum"), ("longest", "maxLength")):
                assert schema.get(keyword) == getattr(rule, limit, None), (name, keyword)
            assert set(getattr(rule, "values", ())) <= set(schema.get("enum", ())), name


@pytest.mark.parametrize("operation", Operation)
def test_every_default_is_what_comes_of_saying_nothing(operation: Operation) -> None:
    """It stands in words: of a `default` generators make a parameter that is required, or that they always send."""
    least = {"model": "m", "prompt": "p"}
    silent = validation.build(operation, least.items())
    described = yaml.safe_load(FILE)["x-parameters"]
    for body in contents(operation).values():
        for name in described.keys() & body["schema"]["properties"].keys():
            schema = body["schema"]["properties"][name]
            assert "default" not in schema
            if "default" not in described[name]:
                continue
            assert schema["description"].endswith(
                f"Without it: `{described[name]['default']}`.".replace("False", "false")
            )
            if name not in ("quality", "background", "moderation", "output_compression"):
                assert validation.build(operation, (least | {name: described[name]["default"]}).items()) == silent, name


@pytest.mark.parametrize("operation", Operation)
def test_the_examples_are_what_the_schemas_say(operation: Operation) -> None:
    for body in contents(operation).values():
        check = jsonschema_rs.validator_for({**body["schema"], "components": document()["components"]})
        for example in body.get("examples", {}).values():
            check.validate(example["value"])
    answer = found("#/components/responses/Images")["content"]["application/json"]
    schema = {**answer["schema"], "components": document()["components"]}
    jsonschema_rs.validator_for(schema).validate(answer["example"])


def test_the_file_describes_every_parameter_and_no_others() -> None:
    described = yaml.safe_load(FILE)["x-parameters"]
    assert described.keys() == validation.RULES.keys() - ALIASES.keys()
    hints = {name for name, schema in described.items() if " A hint: where it cannot be" in schema["description"]}
    assert hints == {name for name, weight in PARAMETERS.items() if weight is Weight.HINT} - {"background"}


def test_every_name_in_the_file_has_got_its_value() -> None:
    assert set(re.findall("<[a-z_]+>", FILE)) == {"<version>", "<max_edge>", "<max_images>"}
    assert re.findall("<[a-z_]+>", json.dumps(document())) == []
    assert document()["info"]["version"] == version("image-gateway")


def test_every_header_for_browsers_is_described() -> None:
    assert set(HEADERS_FOR_BROWSERS) <= set(document()["components"]["headers"])


def test_every_capability_of_a_model_is_described(settings: Settings) -> None:
    told = set(document()["components"]["schemas"]["Model"]["properties"]["capabilities"]["properties"])
    simulated = models(with_sandbox(settings, "http://127.0.0.1:9"), lambda name: load_dialect(name).profile)
    assert simulated
    for model in simulated:
        assert set(capabilities(model)) == told


@pytest.mark.anyio
async def test_the_page_names_addresses_of_its_own_server_only(client: httpx.AsyncClient) -> None:
    """Relative ones even, so that it works behind a prefix."""
    answer = await client.get("http://gateway/docs")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    named = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert named
    for address in named:
        if address != "data:,":
            assert urljoin("http://gateway/prefix/docs", address).startswith("http://gateway/prefix/")
            assert (await client.get(urljoin("http://gateway/docs", address))).status_code == 200
    assert not re.search(r"<script(?![^>]*\ssrc=)|\son\w+=|\sstyle=", answer.text)  # the policy would block them
    script = (await client.get("http://gateway/docs/page.js")).text
    assert "//" not in script
    assert 'fetch("openapi.json")' in script


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("page.js", "text/javascript; charset=utf-8"),
        ("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
        ("swagger-ui.css", "text/css; charset=utf-8"),
    ],
)
async def test_the_pages_files_are_served_as_what_they_are(client: httpx.AsyncClient, name: str, kind: str) -> None:
    answer = await client.get(f"http://gateway/docs/{name}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    assert answer.headers["x-content-type-options"] == "nosniff"
    if name.endswith(".css"):
        assert not re.search(r"@import|url\((?!\s*[\"']?data:)", answer.text)


@pytest.mark.anyio
async def test_the_page_may_load_and_call_nothing_but_its_own_server(client: httpx.AsyncClient) -> None:
    policy = (await client.get("http://gateway/docs")).headers["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert (rules["script-src"], rules["connect-src"]) == ("'self'", "'self'")
    assert not re.search(r"\*|https?:", policy)


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["nothing.js", "redoc.standalone.js", "..%2Fcore.py", "favicon.png", ""])
async def test_files_that_the_page_does_not_need_are_not_served(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.get(f"http://gateway/docs/{name}")
    assert answer.status_code in (404, 307)
    if answer.status_code == 404:
        assert answer.json()["error"]["code"] == "not_found"


@pytest.mark.anyio
async def test_the_page_and_the_document_need_no_key(tmp_path: Path) -> None:
    app = create_app(load(None, {}, {"data_dir": str(tmp_path), "keys": [{"name": "k", "key": KEY}]}))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client,
    ):
        for path in ("/docs", "/docs/page.js", "/openapi.json"):
            assert (await client.get(path)).status_code == 200


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("public_url", "server"), [(None, "http://gateway"), ("https://art.example/images", "https://art.example/images")]
)
async def test_the_document_names_its_server_as_its_reader_does_or_by_the_setting(
    tmp_path: Path, public_url: str | None, server: str
) -> None:
    app = create_app(load(None, {}, {"data_dir": str(tmp_path), "files": {"public_url": public_url}}))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client,
    ):
        told = (await client.get("/openapi.json")).json()
    assert told == {**document(), "servers": [{"url": server}]}
    jsonschema_rs.validator_for(OPENAPI_31).validate(told)


def test_an_answer_has_one_type_for_generators() -> None:
    for path, item in document()["paths"].items():
        for operation in item.values():
            for reference in operation["responses"].values():
                response = found(reference["$ref"]) if "$ref" in reference else reference
                if path not in ("/files/{name}", "/metrics"):  # which are all bytes
                    assert list(response["content"]) == ["application/json"]


def test_a_gateway_that_starts_reads_nothing_of_the_document() -> None:
    """The time to start is spent on nothing that only readers of the page need."""
    code = """import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from app.config.loading import load
from app.main import create_app
create_app(load(None, {"NEBULA_API_KEY": "x"}))
print(*sys.modules, *opened)"""
    used = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert any(name.endswith("nebula.yaml") for name in used)
    assert [name for name in used if name == "fastapi_offline" or name.endswith("openapi.yaml")] == []


@pytest.mark.slow
def test_the_gateway_keeps_to_its_document_for_any_request(tmp_path: Path) -> None:
    """Schemathesis: boundaries, nonsense and plain requests at every endpoint, with a key, a wrong one and none. No
    5xx, and every answer, errors too, has a status, type, headers and body that the document names. That whatever fits
    the document is drawn is not asked: models differ in what they can draw."""
    keys = json.dumps([{"name": "tests", "key": KEY}])
    told = json.loads(json.dumps(document()))
    images = told["components"]["responses"]["Images"]
    images["content"] |= images.pop("x-content")
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(told))
    with process(None, tmp_path, IMAGE_GATEWAY_KEYS=keys) as gateway:
        command = [sys.executable, "-m", "schemathesis.cli", "run", str(file), "--url", gateway.url, "--no-color"]
        command += ["-H", f"Authorization: Bearer {KEY}", "--checks=all", "--exclude-checks=positive_data_acceptance"]
        command += ["--phases=examples,coverage,fuzzing", "--max-examples=20", "--continue-on-failure"]
        command += ["--exclude-path-regex", "^/v1/gateway/"]  # tests/api/management asks for the same of these
        command += ["--generation-deterministic", "--request-timeout=20"]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2_000:]
        assert "Tested: 15" in run.stdout
        lines = [json.loads(line) for line in gateway.printed().splitlines() if line.startswith('{"request_id"')]
        statuses = {line["status"] for line in lines if line["event"] == "request"}
        assert {200, 400, 401, 404} <= statuses
