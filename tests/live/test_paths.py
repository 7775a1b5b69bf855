"""Paths and methods, ids and headers: whatever is asked, the answer is one that the official SDKs can read."""

import json
import re

import pytest

from app.sandbox.server import Sandbox
from tests.live.conftest import Start
from tests.live.servers import Config, Gateway, provider, served_by
from tests.live.wire import Reply, ask, generate, line, post, request

pytestmark = pytest.mark.anyio

NETMIND = {"provider": "netmind", "model": "black-forest-labs/FLUX.1-schnell"}


def config(sandbox: Sandbox | None = None, **sections: object) -> Config:
    base_url = f"{sandbox.base_url}/netmind/v1" if sandbox else "http://127.0.0.1:9/v1"
    models = {
        "flux": {"deployments": [NETMIND], "aliases": ["art/flux:fast"]},
        "black-forest-labs/FLUX.1-schnell": {"deployments": [NETMIND]},
        "odd a:b@c": {"deployments": [NETMIND]},
    }
    return {"providers": {"netmind": {"base_url": base_url, "api_key": "k"}}, "models": models, **sections}


async def get(gateway: Gateway, path: str, method: str = "GET", **headers: str) -> Reply:
    return await ask(gateway.port, request(method, path, None, **headers))


# --- paths ---


@pytest.mark.parametrize(
    "path",
    [
        "/v1",
        "/v1/",
        "/v1/nope",
        "/v1/images",
        "/v1/images/nope",
        "/v1/images/generations/more",
        "/v1/v1/images/generations",
        "/v2/images/generations",
        "/v1/openai/images/generations",
        "/openai/deployments/images/generations?api-version=1",
        "/openai/deployments/x/images/generations/more",
        "/openai/deployments/x/models",
        "/v1/images/../images/generations",
        "/v1/images/%2e%2e/models",
        "/files/../v1/models",
        "//files/x.png",
        "/files//x.png",
        "//healthz",
        "//docs",
        "/favicon.ico",
        "/v1/images%2Fgenerations%00",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_path_that_is_not_there_is_a_404_in_the_envelope(shared: Start, path: str, method: str) -> None:
    reply = await get(await shared(config()), path, method)
    assert reply.status == 404
    error = reply.error()
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/models/", 404),
        ("GET", "/v1/images/runs/", 404),
        ("PUT", "/v1/models/", 405),
        ("GET", "/files/", 403),
    ],
)
async def test_a_long_path_is_shortened_in_the_answer_and_in_the_log(
    start: Start, method: str, path: str, status: int
) -> None:
    gateway = await start(config())
    reply = await get(gateway, path + "%C3%BC" * 9_000, method)
    assert reply.status == status
    assert len(reply.body) < 1000
    [logged] = await gateway.request_lines()
    assert len(str(logged["path"])) <= 257
    assert str(logged["path"]).startswith(f"{path}ü")


@pytest.mark.parametrize("host", ["[", "a" * 9_000, "h/?", "h:x"])
async def test_an_odd_host_is_refused_without_keys(shared: Start, host: str) -> None:
    gateway = await shared(config())
    raw = f"GET /nope HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    reply = await ask(gateway.port, raw)
    assert (reply.status, reply.error()["code"]) == (403, "host_not_allowed")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/images/generations", "POST"),
        ("GET", "/v1/images/edits", "POST"),
        ("PUT", "/v1/images/variations", "POST"),
        ("DELETE", "/v1/images/generations", "POST"),
        ("OPTIONS", "/v1/images/generations", "POST"),
        ("PATCH", "/v1/models", "GET, HEAD"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("POST", "/v1/models/flux", "GET, HEAD"),
        ("DELETE", "/v1/models/black-forest-labs%2FFLUX.1-schnell", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
        ("POST", "/v1/images/runs/a", "GET"),
        ("PROPFIND", "/v1/models", "GET, HEAD"),
    ],
)
async def test_a_method_that_is_not_allowed_is_a_405_in_the_envelope(
    shared: Start, method: str, path: str, allowed: str
) -> None:
    reply = await get(await shared(config()), path, method)
    assert reply.status == 405
    assert reply.error()["code"] == "method_not_allowed"
    told = (reply.header("allow") or "").split(", ")
    assert set(allowed.split(", ")) <= set(told)
    assert f"Use {', '.join(told)}." in reply.error()["message"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/models", 200),
        ("/v1/models/flux", 200),
        ("/v1/models/gone", 404),
        ("/v1/images/generations", 405),
        ("/nope", 404),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/v1/images/runs/a", 405),
    ],
)
async def test_an_answer_to_head_has_no_body_and_a_request_id(shared: Start, path: str, status: int) -> None:
    gateway = await shared(config())
    async with line(gateway.port) as opened:
        await opened.send(request("HEAD", path), request("GET", "/healthz"))
        reply = await opened.reply()
        assert reply.body == b""
        assert reply.header("x-request-id")
        assert reply.status == status


@pytest.mark.parametrize(
    "prefix", ["", "/v1", "//v1/", "/v1//", "/openai", "/openai/v1", "/openai//v1/", "/openai/deployments/any%2Fmodel"]
)
@pytest.mark.parametrize("slashes", ["", "/", "//"])
async def test_every_spelling_of_a_path_leads_to_its_endpoint_without_a_redirect(
    shared: Start, prefix: str, slashes: str
) -> None:
    gateway = await shared(config())
    for operation in ("generations", "edits", "variations"):
        path = f"{prefix}/images/{operation}{slashes}?api-version=2025-04-01-preview"
        reply = await post(gateway.port, path, {})
        assert (reply.status, reply.error()["param"]) == (400, "prompt" if "any" in prefix else "model") or (
            operation == "variations" and reply.error()["code"] == "unsupported_content_type"
        )
        refused = await get(gateway, path)
        assert (refused.status, refused.header("allow")) == (405, "POST")
    if "deployments" not in prefix:
        listed = await get(gateway, f"{prefix}/models{slashes}?api-version=1")
        assert config()["models"].keys() <= {model["id"] for model in listed.json()["data"]}
        found = await get(gateway, f"{prefix}/models/black-forest-labs%2FFLUX.1-schnell{slashes}")
        assert found.json()["id"] == "black-forest-labs/FLUX.1-schnell"
        run = await get(gateway, f"{prefix}/images/runs/a")
        assert (run.status, run.error()["code"]) == (404, "run_not_found")


@pytest.mark.parametrize("model", ["flux", "art/flux:fast", "black-forest-labs%2FFLUX.1-schnell"])
@pytest.mark.parametrize("said", [{}, {"model": "gone"}, {"model": 1}])
async def test_the_model_of_an_azure_path_goes_over_the_one_in_the_body(
    start: Start, sandbox: Sandbox, model: str, said: Config
) -> None:
    gateway = await start(config(sandbox))
    path = f"/openai/deployments/{model}/images/generations?api-version=1"
    reply = await post(gateway.port, path, {"prompt": "a fox", "size": "64x64", **said})
    assert reply.status == 200
    [logged] = await gateway.request_lines()
    assert logged["path"] == path.partition("?")[0].replace("%2F", "/")  # as the caller spells it
    assert logged["model"] == model.replace("%2F", "/")


async def test_an_azure_path_with_an_unknown_model_is_refused_as_such(shared: Start) -> None:
    reply = await post((await shared(config())).port, "/openai/deployments/../images/generations", {"prompt": "a fox"})
    assert (reply.status, reply.error()["param"]) == (400, "model")


@pytest.mark.parametrize("path", ["/chat/completions", "/responses", "/embeddings", "/completions", "/audio/speech"])
@pytest.mark.parametrize("prefix", ["", "/v1", "/openai/deployments/flux", "/openai/v1"])
async def test_a_client_of_another_api_reads_what_this_server_is_for(shared: Start, prefix: str, path: str) -> None:
    reply = await post((await shared(config())).port, prefix + path, {"model": "flux"})
    assert (reply.status, reply.error()["code"]) == (404, "not_found")
    message = reply.error()["message"]
    assert f"There is nothing at POST {prefix}{path}." in message
    for endpoint in ("/v1/images/generations", "/v1/images/edits", "/v1/images/variations", "/v1/models", "/docs"):
        assert endpoint in message


async def test_a_page_of_another_site_reaches_no_endpoint_by_another_spelling(shared: Start) -> None:
    gateway = await shared(config())
    for path in ("/images/generations", "//v1//images/generations", "/openai/deployments/flux/images/generations"):
        reply = await post(gateway.port, path, {}, origin="https://evil.example")
        assert (reply.status, reply.error()["code"]) == (403, "origin_not_allowed"), path


async def test_a_browser_at_the_root_is_led_to_the_page_and_a_program_is_told_what_there_is(shared: Start) -> None:
    gateway = await shared(config())
    browser = await get(gateway, "/", accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert (browser.status, browser.header("location")) == (307, "playground")
    program = await get(gateway, "/", accept="*/*")
    assert (program.status, program.error()["code"]) == (404, "not_found")
    assert "POST /v1/images/generations" in program.error()["message"]


async def test_only_the_endpoints_have_other_spellings(shared: Start) -> None:
    gateway = await shared(config())
    for path in ("/healthz/", "/docs/", "/v1/images/runs"):
        reply = await get(gateway, path)
        assert (reply.status, reply.error()["code"]) == (404, "not_found"), path
        assert reply.header("x-request-id")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_is_told(shared: Start, path: str) -> None:
    reply = await get(await shared(config()), path)
    assert (reply.status, reply.header("content-type")) == (200, "application/json")


# --- models ---


async def test_models_are_listed_with_what_they_can_do(shared: Start) -> None:
    reply = await get(await shared(config()), "/v1/models")
    document = reply.json()
    assert document["object"] == "list"
    assert [model["id"] for model in document["data"]] == [
        "flux",
        "black-forest-labs/FLUX.1-schnell",
        "odd a:b@c",
        "art/flux:fast",
    ]
    for model in document["data"]:
        assert model["object"] == "model"
        assert isinstance(model["created"], int)
        assert model["owned_by"] == "netmind"
        assert {"operations", "sizes", "max_n", "mask", "streaming", "output_formats"} <= set(model["capabilities"])


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("flux", "flux"),
        ("black-forest-labs/FLUX.1-schnell", "black-forest-labs/FLUX.1-schnell"),
        ("black-forest-labs%2FFLUX.1-schnell", "black-forest-labs/FLUX.1-schnell"),
        ("black-forest-labs%2fFLUX%2E1-schnell", "black-forest-labs/FLUX.1-schnell"),
        ("art%2Fflux:fast", "art/flux:fast"),
        ("art/flux%3Afast", "art/flux:fast"),
        ("odd%20a:b@c", "odd a:b@c"),
        ("black-forest-labs%252FFLUX.1-schnell", None),  # escaped twice: another id
        ("black-forest-labs/FLUX.1-schnell/", "black-forest-labs/FLUX.1-schnell"),
        ("/flux", "flux"),
        ("black-forest-labs//FLUX.1-schnell", None),
        ("FLUX", None),
        ("nope/nope", None),
        ("%C3%A9%3Fx%23y", None),
    ],
)
async def test_a_model_is_found_by_its_id_with_slashes_raw_or_encoded(
    shared: Start, path: str, found: str | None
) -> None:
    reply = await get(await shared(config()), f"/v1/models/{path}")
    if found:
        assert (reply.status, reply.json()["id"]) == (200, found)
    else:
        assert (reply.status, reply.error()["code"]) == (404, "model_not_found")


# --- who asks ---

KEYS: list[Config] = [
    {"name": "team", "key": "secret-key-123456"},
    {"name": "art", "key": "art-key-of-a-caller", "models": ["art/*"]},
]


@pytest.mark.parametrize(
    "said",
    ["Bearer secret-key-123456", "bearer secret-key-123456", "BEARER  secret-key-123456", "Bearer secret-key-123456 "],
)
async def test_a_key_is_taken_however_the_scheme_is_written(shared: Start, said: str) -> None:
    assert (await get(await shared(config(keys=KEYS)), "/v1/models", authorization=said)).status == 200


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (None, None),
        ("", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("Basic c2VjcmV0LWtleS0xMjM0NTY=", None),
        ("secret-key-123456", None),
        ("Bearer wrong", "invalid_api_key"),
        ("Bearer secret-key-123456x", "invalid_api_key"),
        ("Bearer sécret", "invalid_api_key"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/flux", "/v1/images/generations", "/v1/images/edits"])
async def test_without_a_key_that_is_known_nothing_is_told(
    start: Start, said: str | None, code: str | None, path: str
) -> None:
    gateway = await start(config(keys=KEYS))
    method, headers = "POST" if "images" in path else "GET", {} if said is None else {"authorization": said}
    reply = await get(gateway, path, method, **headers)
    assert (reply.status, reply.error()["code"]) == (401, code)
    assert reply.error()["type"] == "invalid_request_error"
    assert (reply.header("www-authenticate") or "").startswith("Bearer")
    assert "secret-key-123456" not in reply.body.decode()
    assert "secret-key-123456" not in gateway.log.getvalue()


async def test_health_needs_no_key(shared: Start) -> None:
    assert (await get(await shared(config(keys=KEYS)), "/healthz")).status == 200


async def test_a_model_outside_of_a_keys_list_does_not_exist_for_it(start: Start, sandbox: Sandbox) -> None:
    gateway, key = await start(config(sandbox, keys=KEYS)), "Bearer art-key-of-a-caller"
    listed = await get(gateway, "/v1/models", authorization=key)
    assert [model["id"] for model in listed.json()["data"]] == ["flux", "art/flux:fast"]  # by its alias
    assert (await get(gateway, "/v1/models/odd%20a:b@c", authorization=key)).error()["code"] == "model_not_found"
    body = {"model": "odd a:b@c", "prompt": "a fox"}
    hidden = await post(gateway.port, "/v1/images/generations", body, authorization=key)
    body["model"] = "not there at all"
    unknown = await post(gateway.port, "/v1/images/generations", body, authorization=key)
    assert hidden.status == unknown.status == 400
    names = ("odd a:b@c", "not there at all")
    told = [r.error()["message"].replace(n, "X") for r, n in zip((hidden, unknown), names, strict=True)]
    assert told[0] == told[1]


async def test_a_keys_rate_is_a_429_with_the_time_to_wait(start: Start, sandbox: Sandbox) -> None:
    keys = [{"name": "slow", "key": "a-key-of-a-caller", "requests_per_minute": 2}]
    gateway = await start(config(sandbox, keys=keys))
    body = {"model": "flux", "prompt": "a fox", "size": "64x64"}
    replies = [
        await post(gateway.port, "/v1/images/generations", body, authorization="Bearer a-key-of-a-caller")
        for _ in range(3)
    ]
    assert [reply.status for reply in replies] == [200, 200, 429]
    assert replies[2].error()["code"] == "rate_limit_exceeded"
    assert 25 <= int(replies[2].header("retry-after") or 0) <= 30
    assert sandbox.world.journal.drawings["netmind"] == 2


async def test_headers_that_only_openai_understands_are_taken_without_a_word(shared: Start) -> None:
    reply = await get(
        await shared(config()), "/v1/models", openai_organization="org-x", openai_project="p", x_stainless_lang="python"
    )
    assert reply.status == 200


# --- request ids and other headers ---


@pytest.mark.parametrize("said", ["req_1", "a" * 128, "2f9c-4:7/x+y=z@h.example"])
async def test_a_callers_request_id_is_taken_over(start: Start, said: str) -> None:
    gateway = await start(config())
    for path in ("/v1/models", "/nope"):
        assert (await get(gateway, path, x_request_id=said)).header("x-request-id") == said
    assert {line["request_id"] for line in await gateway.request_lines(2)} == {said}


@pytest.mark.parametrize("said", ["", "a b", "a" * 129, 'x"y', "é", "a,b", "<script>"])
async def test_a_request_id_that_is_not_safe_to_repeat_is_replaced(shared: Start, said: str) -> None:
    reply = await get(await shared(config()), "/v1/models", x_request_id=said)
    assert re.fullmatch(r"req_[0-9a-f]{32}", reply.header("x-request-id") or "")


async def test_every_answer_tells_how_long_it_took(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    for reply in (await get(gateway, "/nope"), await generate(gateway.port, size="64x64")):
        assert (reply.header("openai-processing-ms") or "").isdigit()


async def test_every_request_has_an_id_of_its_own(shared: Start) -> None:
    gateway = await shared(config())
    ids = {(await get(gateway, "/healthz")).header("x-request-id") for _ in range(5)}
    assert len(ids) == 5


# --- browsers ---

ORIGIN = "https://app.example"
PREFLIGHT = {
    "origin": ORIGIN,
    "access_control_request_method": "POST",
    "access_control_request_headers": "authorization,content-type,x-stainless-lang,x-stainless-retry-count",
}


async def test_a_preflight_of_an_allowed_origin_lets_the_sdks_headers_through(shared: Start) -> None:
    gateway = await shared(config(server={"cors_origins": [ORIGIN]}))
    reply = await get(gateway, "/v1/images/generations", "OPTIONS", **PREFLIGHT)
    assert reply.status == 200
    assert reply.header("access-control-allow-origin") == ORIGIN
    assert "POST" in (reply.header("access-control-allow-methods") or "")
    allowed = (reply.header("access-control-allow-headers") or "").lower()
    assert all(name in allowed for name in ("authorization", "x-stainless-lang", "x-stainless-retry-count"))


async def test_an_allowed_origin_may_read_answers_errors_and_the_gateways_headers(
    start: Start, sandbox: Sandbox
) -> None:
    gateway = await start(config(sandbox, server={"cors_origins": [ORIGIN]}))
    for reply in (
        await post(gateway.port, "/v1/images/generations", {}, origin=ORIGIN),
        await get(gateway, "/nope", origin=ORIGIN),
    ):
        assert reply.error()
        assert reply.header("access-control-allow-origin") == ORIGIN
        exposed = reply.header("access-control-expose-headers") or ""
        assert "x-request-id" in exposed
        assert "x-gateway-provider" in exposed


async def test_a_foreign_origin_is_let_through_nowhere(shared: Start) -> None:
    gateway = await shared(config(server={"cors_origins": [ORIGIN]}))
    preflight = await get(gateway, "/v1/models", "OPTIONS", **{**PREFLIGHT, "origin": "https://evil.example"})
    assert preflight.status >= 400
    assert preflight.header("access-control-allow-origin") is None
    assert (await get(gateway, "/v1/models", origin="https://evil.example")).header(
        "access-control-allow-origin"
    ) is None


async def test_without_a_setting_no_origin_is_let_through(shared: Start) -> None:
    gateway = await shared(config())
    reply = await get(gateway, "/v1/models", origin=ORIGIN)
    assert reply.header("access-control-allow-origin") is None
    assert (await get(gateway, "/v1/models", "OPTIONS", **PREFLIGHT)).status == 403


# --- pages of other sites, at a gateway without keys ---

EVIL = "https://evil.example"
GENERATIONS = "/v1/images/generations"


async def test_a_form_that_a_foreign_page_posts_draws_nothing(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox))
    drawing = {"model": "flux", "prompt": "a red fox", "size": "64x64"}
    for headers, named in (
        ({"origin": EVIL, "content_type": "text/plain"}, EVIL),
        ({"origin": "null", "content_type": "text/plain"}, "null"),
        ({"origin": "http://gateway.localhost:9"}, "http://gateway.localhost:9"),
        ({"sec_fetch_site": "cross-site"}, "another site"),
    ):
        reply = await post(gateway.port, GENERATIONS, drawing, **headers)
        error = reply.error()
        assert (reply.status, error["type"], error["code"]) == (403, "invalid_request_error", "origin_not_allowed")
        assert named in error["message"]
        assert "server.cors_origins" in error["message"]
    assert sandbox.world.journal.drawings["netmind"] == 0
    assert [line["error"] for line in await gateway.request_lines(4)] == ["origin_not_allowed"] * 4


async def test_a_name_that_was_made_to_lead_here_is_not_served(start: Start, sandbox: Sandbox) -> None:
    """Its page calls from its own origin, so that the browser asks nothing and lets the page read the answer."""
    gateway = await start(config(sandbox))
    drawing = {"model": "flux", "prompt": "a red fox", "size": "64x64"}
    whole = request("POST", GENERATIONS, json.dumps(drawing).encode(), origin="http://evil.example")
    reply = await ask(gateway.port, whole.replace(b"host: gateway.localhost", b"host: evil.example"))
    error = reply.error()
    assert (reply.status, error["code"]) == (403, "host_not_allowed")
    assert "evil.example" in error["message"]
    assert "server.allowed_hosts" in error["message"]
    assert sandbox.world.journal.drawings["netmind"] == 0


async def test_the_gateways_own_pages_and_listed_ones_may_draw(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox, server={"cors_origins": [ORIGIN], "allowed_hosts": ["studio"]}))
    for host, origin, site in (
        ("gateway.localhost:8000", "http://gateway.localhost:8000", "same-origin"),
        ("gateway.localhost", ORIGIN, "cross-site"),
        ("studio", "http://studio", "same-origin"),
        ("10.0.0.7:8000", "http://10.0.0.7:8000", "same-origin"),
    ):
        body = json.dumps({"model": "flux", "prompt": "a red fox", "size": "64x64"}).encode()
        whole = request("POST", GENERATIONS, body, content_type="application/json", origin=origin, sec_fetch_site=site)
        reply = await ask(gateway.port, whole.replace(b"host: gateway.localhost", f"host: {host}".encode()))
        assert reply.status == 200, reply.body[:500]


async def test_probes_links_and_the_documentation_are_open_to_any_name(shared: Start) -> None:
    gateway = await shared(config())
    for path, status in (
        ("/healthz", 200),
        ("/readyz", 200),
        ("/docs", 200),
        ("/openapi.json", 200),
        ("/files/a", 403),
    ):
        whole = request("GET", path, origin=EVIL).replace(b"host: gateway.localhost", b"host: image-gateway.svc")
        reply = await ask(gateway.port, whole)
        assert reply.status == status, path
        assert b"_not_allowed" not in reply.body  # a link without its signature is refused as such


async def test_with_keys_any_page_and_any_name_may_try(shared: Start) -> None:
    gateway = await shared(config(keys=KEYS))
    whole = request(
        "GET", "/v1/models", origin=EVIL, sec_fetch_site="cross-site", authorization=f"Bearer {KEYS[0]['key']}"
    )
    assert (await ask(gateway.port, whole.replace(b"host: gateway.localhost", b"host: any.example"))).status == 200
    assert (await get(gateway, "/v1/models", "OPTIONS", **PREFLIGHT)).status == 405


# --- what a request leaves behind in the log ---


async def test_a_request_is_one_line_without_prompt_picture_or_credential(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox, keys=KEYS))
    body = {"model": "flux", "prompt": "an unmistakable prompt", "size": "64x64"}
    key = "Bearer secret-key-123456"
    reply = await post(gateway.port, "/v1/images/generations", body, authorization=key)
    [told] = await gateway.request_lines()
    assert told["request_id"] == reply.header("x-request-id")
    assert (told["method"], told["path"], told["status"]) == ("POST", "/v1/images/generations", 200)
    assert (told["key"], told["model"], told["provider"]) == ("team", "flux", "netmind")
    assert (told["attempts"], told["images"], told["bytes"]) == (1, 1, len(reply.body))
    assert 0 < told["first_byte_ms"] <= told["ms"]
    text = gateway.log.getvalue()
    for secret in ("unmistakable", "secret-key", "iVBOR", "upstream-secret"):
        assert secret not in text


async def test_prompts_are_logged_where_the_configuration_says_so(start: Start, sandbox: Sandbox) -> None:
    gateway = await start(config(sandbox, logging={"prompts": True}))
    await generate(gateway.port, prompt="an unmistakable prompt", size="64x64")
    assert (await gateway.request_lines())[0]["prompt"] == "an unmistakable prompt"


async def test_the_line_has_the_clients_address(start: Start) -> None:
    gateway = await start(config())
    for forwarded in (None, "203.0.113.7", "203.0.113.8, 127.0.0.1", "made up, 127.0.0.1"):
        await get(gateway, "/v1/models", **({"x_forwarded_for": forwarded} if forwarded else {}))
    told = [line.get("client") for line in await gateway.request_lines(4)]
    assert told == ["127.0.0.1", "203.0.113.7", "203.0.113.8", None]


async def test_only_a_trusted_proxy_says_who_the_client_is(start: Start) -> None:
    gateway = await start(config(server={"forwarded_allow_ips": "10.0.0.1"}))
    await get(gateway, "/v1/models", x_forwarded_for="203.0.113.7")
    assert [line["client"] for line in await gateway.request_lines()] == ["127.0.0.1"]


async def test_the_clients_address_is_left_out_where_the_configuration_says_so(start: Start) -> None:
    gateway = await start(config(logging={"client": False}))
    await get(gateway, "/v1/models", x_forwarded_for="203.0.113.7")
    assert "client" not in (await gateway.request_lines())[0]
    assert "203.0.113.7" not in gateway.log.getvalue()


async def test_a_failure_is_one_line_with_its_code(start: Start) -> None:
    gateway = await start({"providers": {"a": provider("http://127.0.0.1:9/v1")}, "models": {"flux": served_by("a")}})
    await generate(gateway.port, n=11)
    [told] = await gateway.request_lines()
    assert (told["status"], told["error"]) == (400, "integer_above_max_value")
