from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel

from app import dialects
from app.catalog.profiles import Profile, SizeRule, Timeouts
from app.config.errors import Fault, SettingsError
from app.config.loading import Settings, load
from app.config.schema import ProfileSettings
from app.config.sources import find_ignored
from app.images import Operation

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config.example.yaml"
EXAMPLE_ENVIRON = {name: "secret-" + name for name in ("NETMIND_API_KEY", "NEBULA_API_KEY", "MY_KEY", "CI_GATEWAY_KEY")}
LONG = "a-key-of-a-caller"
HOST = "providers: {mine: {base_url: 'http://10.0.0.7/v1'}}\n"
MODEL = HOST + "models: {m: {deployments: [{provider: mine}]}}\n"


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def read(text: str, environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return load(path, environ or {}, overrides, dialects.names())

    return read


@pytest.fixture
def faults(read: Any) -> Any:
    def faults(text: str, environ: Mapping[str, str] | None = None) -> list[Fault]:
        with pytest.raises(SettingsError) as caught:
            read(text, environ)
        assert all(fault.path and fault.problem and fault.remedy for fault in caught.value.faults)
        return caught.value.faults

    return faults


# --- what is there without a file ---


def test_nothing_configured_is_the_sandbox() -> None:
    settings = load(None, {})
    assert settings.sandbox
    assert settings.models == {}
    assert settings.server.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("variable", "name", "base_url", "dialect", "model"),
    [
        (
            "NETMIND_API_KEY",
            "netmind",
            "https://api.netmind.ai/inference-api/openai/v1",
            "openai",
            "black-forest-labs/FLUX.1-Redux-dev",
        ),
        (
            "NEBULA_API_KEY",
            "nebula",
            "https://api.nebulablock.com/api/v1",
            "nebula_block",
            "Bytedance/seedream-3-0-t2i-250415",
        ),
        (
            "NEBUL_API_KEY",
            "nebul",
            "https://api.inference.nebul.io/v1",
            "openai",
            "black-forest-labs/FLUX.1-Kontext-dev",
        ),
        ("BFL_API_KEY", "bfl", "https://api.bfl.ai/v1", "bfl", "flux-2-pro"),
    ],
)
def test_a_key_in_the_environment_alone_serves_that_providers_models(
    variable: str, name: str, base_url: str, dialect: str, model: str
) -> None:
    settings = load(None, {variable: "secret"})
    assert not settings.sandbox
    [(found, provider)] = settings.providers.items()
    assert (found, provider.preset, provider.base_url, provider.dialect) == (name, name, base_url, dialect)
    assert provider.api_key and provider.api_key.get_secret_value() == "secret"
    assert settings.models[model].deployments[0].provider == name


def test_an_empty_key_in_the_environment_is_none() -> None:
    assert load(None, {"NETMIND_API_KEY": "", "IMAGE_GATEWAY_SERVER__PORT": "", "IMAGE_GATEWAY_CONFIG": ""}).sandbox


def test_a_model_that_two_providers_offer_is_tried_at_both() -> None:
    settings = load(None, {"NEBULA_API_KEY": "a", "NETMIND_API_KEY": "b"})
    deployments = settings.models["black-forest-labs/FLUX.1-schnell"].deployments
    assert [deployment.provider for deployment in deployments] == ["netmind", "nebula"]


def test_a_file_without_providers_leaves_them_to_the_environment(read: Any) -> None:
    settings = read("server: {port: 1}", {"NEBUL_API_KEY": "a"})
    assert list(settings.providers) == ["nebul"]
    assert settings.server.port == 1


def test_a_file_with_providers_is_not_added_to(read: Any) -> None:
    assert list(read(HOST, {"NEBUL_API_KEY": "a"}).providers) == ["mine"]


def test_a_provider_from_its_key_can_be_changed_by_variables() -> None:
    settings = load(None, {"NEBULA_API_KEY": "a", "IMAGE_GATEWAY_PROVIDERS__NEBULA__TIMEOUT__READ": "9"})
    assert settings.providers["nebula"].timeout.read == 9
    assert settings.providers["nebula"].api_key is not None


# --- layers ---


def test_the_command_line_goes_over_the_environment_and_that_over_the_file(read: Any) -> None:
    environ = {"IMAGE_GATEWAY_SERVER__PORT": "2", "IMAGE_GATEWAY_SERVER__DRAIN_SECONDS": "7"}
    text = "server: {port: 1, drain_seconds: 1, keepalive_seconds: 1}"
    server = read(text, environ, server={"port": 3, "host": None}).server
    assert (server.port, server.drain_seconds, server.keepalive_seconds) == (3, 7, 1)
    assert server.host == "127.0.0.1"


def test_the_environment_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "named.yaml"
    path.write_text("server: {port: 5}")
    assert load(None, {"IMAGE_GATEWAY_CONFIG": str(path)}).server.port == 5


def test_lists_and_mappings_are_json_in_the_environment(read: Any) -> None:
    environ = {
        "IMAGE_GATEWAY_SERVER__CORS_ORIGINS": '["https://a.example"]',
        "IMAGE_GATEWAY_KEYS": '[{"name": "a", "key": "a-key-of-a-caller"}]',
        "IMAGE_GATEWAY_MODELS": '{"other": {"deployments": [{"provider": "mine"}]}}',
        "IMAGE_GATEWAY_PROVIDERS__MINE": '{"retries": 3}',
        "IMAGE_GATEWAY_PROVIDERS__MINE__URLS": "pass",
    }
    settings = read(MODEL, environ)
    assert settings.server.cors_origins == ("https://a.example",)
    assert settings.keys[0].name == "a"
    assert set(settings.models) == {"m", "other"}
    assert (settings.providers["mine"].retries, settings.providers["mine"].urls) == (3, "pass")


def test_a_whole_section_in_json_lies_below_its_single_settings() -> None:
    environ = {"IMAGE_GATEWAY_SERVER__PORT": "2", "IMAGE_GATEWAY_SERVER": '{"port": 1, "host": "::1"}'}
    assert (load(None, environ).server.port, load(None, environ).server.host) == (2, "::1")


def test_a_plain_number_is_the_port_unless_the_setting_itself_says_another() -> None:
    assert load(None, {"IMAGE_GATEWAY_PORT": "9000"}).server.port == 9000
    environ = {"IMAGE_GATEWAY_PORT": "9000", "IMAGE_GATEWAY_SERVER__PORT": "9001"}
    assert load(None, environ).server.port == 9001
    assert load(None, environ, {"server": {"port": 9002}}).server.port == 9002
    assert ignored(environ) == {}


def test_variables_that_kubernetes_sets_for_a_service_of_this_name_are_ignored_without_a_word() -> None:
    environ = {
        "IMAGE_GATEWAY_PORT": "tcp://10.0.0.1:8000",
        "IMAGE_GATEWAY_SERVICE_HOST": "10.0.0.1",
        "IMAGE_GATEWAY_SERVICE_PORT": "8000",
        "IMAGE_GATEWAY_SERVICE_PORT_HTTP": "8000",
        "IMAGE_GATEWAY_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "IMAGE_GATEWAY_PORT_8000_TCP_ADDR": "10.0.0.1",
        "IMAGE_GATEWAY_PORT_8000_TCP_PORT": "8000",
        "IMAGE_GATEWAY_PORT_8000_TCP_PROTO": "tcp",
        "IMAGE_GATEWAY_CACHE_PORT": "udp://10.0.0.2:53",
        "IMAGE_GATEWAY_CACHE_SERVICE_HOST": "10.0.0.2",
    }
    assert load(None, environ).server.port == 8000
    assert ignored(environ) == {}


@pytest.mark.parametrize(
    ("variable", "remedy"),
    [
        ("IMAGE_GATEWAY_HOST", "did you mean IMAGE_GATEWAY_SERVER__HOST?"),
        ("IMAGE_GATEWAY_SERVER_PORT", "did you mean IMAGE_GATEWAY_SERVER__PORT?"),
        ("image_gateway_datadir", "did you mean IMAGE_GATEWAY_DATA_DIR?"),
        ("IMAGE_GATEWAY_KEY", "did you mean IMAGE_GATEWAY_KEYS?"),
        ("IMAGE_GATEWAY_PORT", "write a plain number"),
        ("IMAGE_GATEWAY_WHATEVER", "name a setting, or unset it"),
    ],
)
def test_another_variable_that_states_no_setting_is_named_with_the_setting_that_was_meant(
    variable: str, remedy: str
) -> None:
    environ = {variable: "hidden", "IMAGE_GATEWAY_CONFIG": "a.yaml", "IMAGE_GATEWAY_DATA_DIR": "a", "OTHER": "b"}
    assert ignored(environ) == {variable: remedy}
    assert load(None, {variable: "hidden"}).sandbox


def ignored(environ: dict[str, str]) -> dict[str, str]:
    return {fault.path: fault.remedy for fault in find_ignored(Settings, environ)}


def test_the_process_environment_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGE_GATEWAY_SERVER__PORT", "1234")
    monkeypatch.setenv("NEBULA_API_KEY", "a")
    settings = load(None, {})
    assert settings.sandbox
    assert settings.server.port == 8000


def test_references_in_the_file_take_the_type_of_their_setting(read: Any) -> None:
    text = "server: {port: '${PORT}', remote_images: '${REMOTE:-true}'}"
    server = read(text, {"PORT": "7"}).server
    assert (server.port, server.remote_images) == (7, True)


def test_a_missing_variable_that_the_environment_overrides_is_no_fault(read: Any) -> None:
    text = "providers: {nebula: {api_key: '${GONE}'}}"
    settings = read(text, {"IMAGE_GATEWAY_PROVIDERS__NEBULA__API_KEY": "secret"})
    assert settings.providers["nebula"].api_key.get_secret_value() == "secret"


def test_sections_whose_lines_are_commented_out_have_their_defaults(read: Any) -> None:
    assert read("server:\nproviders:\nkeys:\n").sandbox
    assert read("# nothing\n").sandbox


# --- presets ---


def test_an_entry_takes_the_preset_of_its_name_and_overrides_it(read: Any) -> None:
    providers = read("providers: {nebula: {api_key: a, base_url: 'http://here/v1/'}, netmind: }").providers
    assert (providers["nebula"].dialect, providers["nebula"].base_url) == ("nebula_block", "http://here/v1")
    assert providers["netmind"].api_key is None


def test_an_entry_may_name_another_preset(read: Any) -> None:
    settings = read("providers: {second: {preset: nebula, api_key: a}}")
    assert settings.providers["second"].dialect == "nebula_block"
    assert settings.models["black-forest-labs/FLUX.1-schnell"].deployments[0].provider == "second"


def test_an_entry_may_take_none(read: Any) -> None:
    settings = read("providers: {nebul: {preset: none, base_url: 'http://here'}}")
    assert settings.providers["nebul"].preset == "none"
    assert settings.models == {}


def test_where_models_are_listed_is_known_of_presets_and_of_the_openai_shape(read: Any) -> None:
    text = (
        "providers: {netmind: , nebula: , nebul: , bfl: , mine: {base_url: 'http://a'}, none: {base_url: 'http://a',"
        " models_path: null}, own: {base_url: 'http://a', dialect: nebula_block}, open: {preset: nebula,"
        " models_path: /list}, shut: {preset: nebula, models_path: null}}"
    )
    assert {name: provider.models_path for name, provider in read(text).providers.items()} == {
        "netmind": "/models",
        "nebula": "/serverless/models",
        "nebul": "/model/info",
        "bfl": None,
        "mine": "/models",
        "none": None,
        "own": None,
        "open": "/list",
        "shut": None,
    }


def test_stated_models_replace_the_presets(read: Any) -> None:
    text = "providers: {nebula: {api_key: a}}\nmodels: {fill: {deployments: [{provider: nebula, model: x}]}}"
    assert list(read(text).models) == ["fill"]


# --- values ---


def test_megabytes_are_also_told_in_bytes(read: Any) -> None:
    settings = read("server: {max_upload_mb: 0.5}\nfiles: {max_mb: 2}")
    assert (settings.server.max_upload_bytes, settings.server.max_request_bytes) == (524288, 256 * 1048576)
    assert (settings.runs.memory_bytes, settings.runs.disk_bytes) == (256 * 1048576, 4096 * 1048576)
    assert settings.files.max_bytes == 2 * 1048576


def test_origins_are_taken_as_browsers_write_them(read: Any) -> None:
    stated = [
        "https://Studio.Example.com/",
        "http://localhost:5173",
        "https://a:443",
        "http://[::1]:80",
        "app://x",
        "null",
        "*",
    ]
    assert read(f"server: {{cors_origins: {stated}}}").server.cors_origins == (
        "https://studio.example.com",
        "http://localhost:5173",
        "https://a",
        "http://[::1]",
        "app://x",
        "null",
        "*",
    )


def test_host_names_are_taken_as_requests_have_them(read: Any) -> None:
    stated = ["Studio.Example.com", "gateway", "a.example.", "10.0.0.7", "a_b", "*"]
    assert read(f"server: {{allowed_hosts: {stated}}}").server.allowed_hosts == (
        *("studio.example.com", "gateway", "a.example", "10.0.0.7", "a_b", "*"),
    )


def test_a_key_and_its_digest_are_the_same_key(read: Any) -> None:
    digest = sha256(b"a-key-of-a-caller").hexdigest()
    first, second = read(f"keys: [{{name: a, key: 'a-key-of-a-caller '}}, {{name: b, key_sha256: {'a' * 64}}}]").keys
    assert first.sha256.hex() == digest
    assert second.sha256 == b"\xaa" * 32
    assert first.models == ("*",)


def test_profiles_read_sizes_and_parameters_in_every_form(read: Any) -> None:
    text = MODEL.replace(
        "{provider: mine}",
        "{provider: mine, profile: {size: {list: [512x512, '1024X768']}, default_size: 512x512,"
        " parameters: {steps: num_steps, seed: }}}, {provider: mine, profile: {default_size: input,"
        " parameters: [size, seed]}}",
    )
    first, second = (deployment.profile for deployment in read(text).models["m"].deployments)
    assert [str(size) for size in first.size.list] == ["512x512", "1024x768"]
    assert str(first.default_size) == "512x512"
    assert first.parameters == {"steps": "num_steps", "seed": "seed"}
    assert (second.default_size, second.parameters) == ("input", {"size": "size", "seed": "seed"})


# --- names of models ---


def test_each_alias_of_a_circle_is_at_fault(faults: Any) -> None:
    found = faults(MODEL + "aliases: {a: b, b: c, c: d, d: b}")
    assert [fault.path for fault in found] == ["aliases.b", "aliases.c", "aliases.d"]


def test_an_alias_may_be_stated_by_its_model_alone(read: Any) -> None:
    settings = read(MODEL + "aliases: {a: m, b: {model: m, default_response_format: url}}\n")
    assert {name: (entry.model, entry.default_response_format) for name, entry in settings.aliases.items()} == {
        "a": ("m", None),
        "b": ("m", "url"),
    }


def test_aliases_work_over_the_presets_models() -> None:
    environ = {"NEBUL_API_KEY": "k", "IMAGE_GATEWAY_ALIASES": '{"gpt-image-1": "black-forest-labs/FLUX.1-Kontext-dev"}'}
    assert list(load(None, environ).aliases) == ["gpt-image-1"]
    with pytest.raises(SettingsError, match=r"^IMAGE_GATEWAY_ALIASES\.gpt-image-1: no model is called 'x'; known"):
        load(None, environ | {"IMAGE_GATEWAY_ALIASES": '{"gpt-image-1": "x"}'})


@pytest.mark.parametrize("stated", ["m", "a", "d-2"])
def test_one_default_model_counts_for_every_operation(read: Any, stated: str) -> None:
    names = MODEL + "aliases: {a: m, 'd-*': m}\n"
    assert read(f"{names}default_model: {stated}").default_models == dict.fromkeys(Operation, stated)
    assert read(names, {"IMAGE_GATEWAY_DEFAULT_MODEL": stated}).default_models == dict.fromkeys(Operation, stated)


def test_a_default_model_may_be_stated_by_operation(read: Any) -> None:
    assert read(MODEL).default_models == {}
    assert read(MODEL + "default_model: {edits: m}").default_models == {Operation.EDITS: "m"}
    variables = {"IMAGE_GATEWAY_DEFAULT_MODEL__VARIATIONS": "m"}
    assert read(MODEL, variables).default_models == {Operation.VARIATIONS: "m"}


def test_names_in_the_sandbox_are_added_to_its_own(read: Any) -> None:
    settings = read("aliases: {mine: gpt-image-2, dall-e-3: gpt-image-1}\ndefault_model: {edits: mine}\n")
    assert settings.sandbox
    assert {"gpt-image-1", "dall-e-2", "mine"} <= settings.aliases.keys()
    assert (settings.aliases["dall-e-3"].model, settings.default_models[Operation.EDITS]) == ("gpt-image-1", "mine")
    assert settings.default_models.keys() == set(Operation)


def test_a_real_configuration_has_no_names_of_the_sandbox(read: Any) -> None:
    assert (read(MODEL).aliases, read(MODEL).default_model) == ({}, None)


# --- faults ---

A64 = "a" * 64
FAULTS = [
    ("server: {prot: 1}", "server.prot", "no setting is called 'prot' here", "did you mean 'port'?"),
    ("sever: {port: 1}", "sever", "no section is called 'sever'", "did you mean 'server'?"),
    ("1: 2", "1", "no section is called '1'", "known: 'aliases', 'budgets', 'data_dir', 'database'"),
    ("server: {port: many}", "server.port", "should be a valid integer", "write a whole number"),
    ("server: {port: 70000}", "server.port", "should be less than or equal to 65535", "choose a smaller number"),
    ("server: {max_upload_mb: 0}", "server.max_upload_mb", "greater than 0", "choose a larger number"),
    ("server: {remote_images: perhaps}", "server.remote_images", "valid boolean", "write true or false"),
    ("server: {cors_origins: a}", "server.cors_origins", "should be a list", "write a list"),
    ("server: {allowed_hosts: a}", "server.allowed_hosts", "should be a list", "write a list"),
    *(
        (f"server: {{allowed_hosts: ['{name}']}}", "server.allowed_hosts[0]", "is no host name", "without scheme")
        for name in (
            "https://a.example",
            "a.example:8000",
            "a.example/v1",
            "*.example",
            "a b",
            "",
            "[::1]",
            "ä.example",
        )
    ),
    *(
        (f"server: {{cors_origins: ['*', '{origin}']}}", "server.cors_origins[1]", "is no origin", "without a path")
        for origin in (
            "app.example.com",
            "https://app.example.com/studio",
            "https://*.example.com",
            "https://user@app.example.com",
            "https://app.example.com:x",
            "https://app.example.com?",
            "https://",
            "",
        )
    ),
    ("server: {host: 1}", "server.host", "should be a valid string", "put it in quotes"),
    ("data_dir: ~nobody-of-this-name/data", "data_dir", "names a user who has no home", "write the path out"),
    ("server: [1]", "server", "should be a mapping", "write a mapping"),
    ("queue: {max_seconds: .inf}", "queue.max_seconds", "finite number", "write a finite number"),
    ("logging: {format: xml}", "logging.format", "'auto', 'text' or 'json'", "choose one of these"),
    ("files: {public_url: example.com}", "files.public_url", "is no http:// or https:// address", "https://api"),
    ("providers: {mine: {api_key: a}}", "providers.mine.base_url", "is missing", "or take a preset"),
    (
        "providers: {nebua: {api_key: a}}",
        "providers.nebua.base_url",
        "is missing",
        "did you mean 'nebula'? If not, state",
    ),
    ("providers: {Netmind: }", "providers.Netmind.base_url", "is missing", "did you mean 'netmind'?"),
    (
        "providers: {nebua: {preset: none}}",
        "providers.nebua.base_url",
        "is missing",
        "state the provider's address, or take a preset",
    ),
    (
        "providers: {x: {base_url: 'http://a', models_path: models}}",
        "providers.x.models_path",
        "should match pattern",
        "other characters",
    ),
    ("providers: {mine: a}", "providers.mine", "should be a mapping", "write a mapping"),
    ("providers: [mine]", "providers", "should be a mapping", "write a mapping"),
    ("providers: {a b: {base_url: 'http://a'}}", 'providers."a b"', "should match pattern", "other characters"),
    (
        "providers: {x: {preset: nebulla}}",
        "providers.x.preset",
        "no preset is called 'nebulla'",
        "did you mean 'nebula'?",
    ),
    ("providers: {x: {preset: [nebula]}}", "providers.x.preset", "no preset is called ['nebula']", "did you mean"),
    (
        "providers: {x: {base_url: 'http://a', dialect: nebula-block}}",
        "providers.x.dialect",
        "no dialect is called 'nebula-block'",
        "did you mean 'nebula_block'?",
    ),
    (
        "providers: {x: {base_url: 'http://a', dialect: json_tap}}",
        "providers.x.dialect",
        "no dialect is called 'json_tap'",
        "known: 'bfl', 'nebula_block', 'openai'",
    ),
    (
        "providers: {x: {base_url: 'http://u:hidden@a'}}",
        "providers.x.base_url",
        "holds a name or a password",
        "api_key",
    ),
    ("providers: {x: {base_url: 'http://a?b=c'}}", "providers.x.base_url", "holds a '?' or a '#'", "up to its path"),
    ("providers: {x: {base_url: 'http://a:x'}}", "providers.x.base_url", "ort could not be cast", "correct it"),
    (
        "providers: {nebula: {api_key: 'hid den'}}",
        "providers.nebula.api_key",
        "no HTTP header can carry",
        "copied whole",
    ),
    ("providers: {nebula: {headers: {'a b': c}}}", "providers.nebula.headers", "'a b' is no name", "use letters"),
    (
        "providers: {nebula: {headers: {a: 'hid\u00e9den'}}}",
        "providers.nebula.headers",
        "the value of 'a'",
        "leave them out",
    ),
    ("providers: {nebula: {timeout: {raed: 1}}}", "providers.nebula.timeout.raed", "called 'raed'", "mean 'read'?"),
    (
        HOST + "models: {fill: {deployments: [{provider: mein}]}}",
        "models.fill.deployments[0].provider",
        "no provider is called 'mein'",
        "did you mean 'mine'?",
    ),
    (
        "models: {fill: {deployments: [{provider: nebula}]}}",
        "models.fill.deployments[0].provider",
        "no provider is called 'nebula'",
        "add it under `providers`",
    ),
    (MODEL + "aliases: {a: M}", "aliases.a", "no model is called 'M'", "did you mean 'm'?"),
    (MODEL + "aliases: {a: {model: other}}", "aliases.a.model", "no model is called 'other'", "known: 'm'"),
    (HOST + "aliases: {a: m}", "aliases.a", "no model is called 'm'", "there is none yet"),
    (MODEL + "aliases: {'d-*': m, a: d-2}", "aliases.a", "no model is called 'd-2'", "known: 'm'"),
    (MODEL + "aliases: {a: a}", "aliases.a", "leads back to itself", "name a model"),
    (MODEL + "aliases: {a: b, b: {model: b}}", "aliases.b.model", "leads back to itself", "name a model"),
    (MODEL + "aliases: {m: m}", "aliases.m", "'m' is taken by models.m", "choose another alias"),
    (MODEL + "aliases: {a: {}}", "aliases.a.model", "is missing", "state it"),
    (MODEL + "aliases: {a: 3}", "aliases.a", "should be a mapping", "write a mapping"),
    (MODEL + "aliases: {a: {model: m, default: url}}", "aliases.a.default", "no setting is called 'default'", "known"),
    (MODEL + "aliases: {a: {model: m, default_response_format: link}}", "aliases.a.default_response_format", "", "one"),
    (MODEL + "aliases: [m]", "aliases", "should be a mapping", "write a mapping"),
    (MODEL + "default_model: n", "default_model", "no model is called 'n'", "known: 'm'"),
    (MODEL + "default_model: {edits: n}", "default_model.edits", "no model is called 'n'", "known: 'm'"),
    (MODEL + "default_model: {edit: m}", "default_model.edit", "no setting is called 'edit'", "mean 'edits'?"),
    (MODEL + "default_model: [m]", "default_model", "should be a mapping", "write a mapping"),
    (HOST + "models: {m: {}}", "models.m.deployments", "is missing", "list at least one"),
    (HOST + "models: {m: {deployments: []}}", "models.m.deployments", "is empty", "list at least one"),
    (
        HOST + "models: {m: {deployments: [{model: x}]}}",
        "models.m.deployments[0].provider",
        "is missing",
        "name an entry",
    ),
    (
        HOST + "models: {m.1: {deployments: [{provider: mine, wieght: 2}]}}",
        'models."m.1".deployments[0].wieght',
        "no setting is called 'wieght' here",
        "did you mean 'weight'?",
    ),
    (
        MODEL.replace("{deployments", "{profile: {mask_requried: true}, deployments"),
        "models.m.profile.mask_requried",
        "no setting is called 'mask_requried' here",
        "did you mean 'mask_required'?",
    ),
    (
        MODEL.replace("{deployments", "{profile: {parameters: {guidence: x}}, deployments"),
        "models.m.profile.parameters",
        "no parameter is called 'guidence'",
        "did you mean 'guidance'?",
    ),
    (
        MODEL.replace("{deployments", "{profile: {default_size: big}, deployments"),
        "models.m.profile.default_size",
        "is no size",
        "like 1024x768",
    ),
    (
        MODEL.replace("{deployments", "{profile: {size: {list: [1024]}}, deployments"),
        "models.m.profile.size.list[0]",
        "is no size",
        "like 1024x768",
    ),
    (
        MODEL.replace("{deployments", "{profile: {size: {list: [8x8], max: 9}}, deployments"),
        "models.m.profile.size",
        "leaves nothing to bounds",
        "either `list` or the bounds",
    ),
    (
        MODEL.replace("{deployments", "{profile: {size: {min: 9, max: 8}}, deployments"),
        "models.m.profile.size",
        "`min` is above `max`",
        "exchange them",
    ),
    (
        MODEL.replace("{deployments", "{profile: {operations: [edit]}, deployments"),
        "models.m.profile.operations[0]",
        "'generations', 'edits' or 'variations'",
        "choose one of these",
    ),
    (
        HOST + "models: {a: {aliases: [b], deployments: [{provider: mine}]}, b: {deployments: [{provider: mine}]}}",
        "models.a.aliases[0]",
        "'b' is taken by models.b",
        "choose another alias",
    ),
    (
        HOST + "models: {a: {aliases: [c, c], deployments: [{provider: mine}]}}",
        "models.a.aliases[1]",
        "'c' is taken by models.a.aliases[0]",
        "choose another alias",
    ),
    (
        HOST + "models:\n  a: {deployments: [{provider: mine}]}\n  a: {deployments: [{provider: mine}]}",
        "models.a",
        "stands in line 3 and in line 4",
        "keep one",
    ),
    (
        "providers:\n  nebula: {api_key: x, api_key: y}",
        "providers.nebula.api_key",
        "stands twice in line 2",
        "keep one",
    ),
    ("keys: [{name: a}]", "keys[0]", "has neither `key` nor `key_sha256`", "state one of them"),
    ("keys: [{name: a, key: ''}]", "keys[0]", "has neither", "state one of them"),
    (f"keys: [{{name: a, key: {LONG}, key_sha256: {A64}}}]", "keys[0]", "has both", "state one of them"),
    ("keys: [{name: a, key_sha256: hidden}]", "keys[0].key_sha256", "is not 64 hexadecimal digits", "sha256sum"),
    (f"keys: [{{key: {LONG}}}]", "keys[0].name", "is missing", "give the key a name"),
    (f"keys: [{{name: a, key: {LONG}, models: []}}]", "keys[0].models", "is empty", "leave the setting out"),
    (
        f"keys: [{{name: a, key: {LONG}, limit: 1}}]",
        "keys[0].limit",
        "no setting is called 'limit' here",
        "known: 'default",
    ),
    ("keys: {a: b}", "keys", "should be a list", "write a list"),
    (
        f"keys: [{{name: a, key: {LONG}}}, {{name: a, key: {LONG}2}}]",
        "keys[1].name",
        "the name of keys[0] too",
        "choose another name",
    ),
    (
        f"keys: [{{name: a, key_sha256: {sha256(LONG.encode()).hexdigest().upper()}}}, {{name: b, key: {LONG}}}]",
        "keys[1]",
        "is the same key as keys[0]",
        "give each its own",
    ),
    (
        f"keys: [{{name: a, key: {LONG}, project: desing}}]",
        "keys[0].project",
        "no project is called 'desing'",
        "add it",
    ),
    (
        f"projects: {{design: {{}}}}\nkeys: [{{name: a, key: {LONG}, project: desing}}]",
        "keys[0].project",
        "no project is called 'desing'",
        "did you mean 'design'?",
    ),
    (
        f"keys: [{{name: a, key: {LONG}, images_per_minute: 0}}]",
        "keys[0].images_per_minute",
        "greater than 0",
        "larger",
    ),
    ("projects: {a: {images: 1}}", "projects.a.images", "no setting is called 'images' here", "images_per_minute"),
    ("budgets: [{window: month}]", "budgets[0].amount", "is missing", "state it"),
    ("budgets: [{amount: 0}]", "budgets[0].amount", "is no amount that a budget can have", "above 0"),
    ("budgets: [{amount: true}]", "budgets[0].amount", "is no amount of money", "write a number"),
    ("budgets: [{amount: .nan}]", "budgets[0].amount", "is no amount", "write a number"),
    ("budgets: [{amount: lots}]", "budgets[0].amount", "is no amount of money", "write a number"),
    ("budgets: [{amount: 1, window: year}]", "budgets[0].window", "'day', 'week', 'month' or 'total'", "choose one"),
    ("budgets: [{amount: 1, timezone: Mars}]", "budgets[0].timezone", "'Mars' is no time zone", "Europe/Prague"),
    ("budgets: [{amount: 1, thresholds: [0]}]", "budgets[0].thresholds", "is no percentage", "from 1 to 1000"),
    ("budgets: [{amount: 1, project: a}]", "budgets[0].project", "no project is called 'a'", "add it under `projects`"),
    ("budgets: [{amount: 1, key: a}]", "budgets[0].key", "no key is called 'a'", "add it under `keys`"),
    (
        f"projects: {{p: {{}}}}\nkeys: [{{name: k, key: {LONG}}}]\nbudgets: [{{amount: 1, project: p, key: k}}]",
        "budgets[0]",
        "names a project and a key",
        "state one of them",
    ),
    ("budgets: [{amount: 1}, {amount: 2}]", "budgets[1]", "counts the same as budgets[0]", "state one of them"),
    (
        "budgets: [{amount: 1, models: [a, b]}, {amount: 2, models: [b, a], window: month, timezone: UTC}]",
        *("budgets[1]", "counts the same as budgets[0]", "state one of them"),
    ),
    ("budgets: [{amount: 1}, {amount: 2, models: ['*', a]}]", "budgets[1]", "counts the same", "state one of them"),
    ("secret: too-short-to-be-one", "secret", "shorter than 32 characters", "openssl rand -hex 32"),
    ("webhook: {url: 'https://hooks.test'}", "webhook", "has a `url` and no `secret`", "24 characters"),
    ("webhook: {secret: short}", "webhook.secret", "shorter than 24 characters", "openssl rand"),
    ("webhook: {secret: 'whsec_!!!!!!!!!!!!!!!!!!!!!!!!'}", "webhook.secret", "is not base64", "write base64"),
    ("webhook: {url: 'ftp://hooks.test'}", "webhook.url", "is no http:// or https:// address", "https://"),
    ("keys: [{name: a, key: a-secret-of-15c}]", "keys[0].key", "shorter than 16 characters", "openssl rand"),
    ("keys: [{name: a, key: '${CI:-short}'}]", "keys[0].key", "shorter than 16 characters", "openssl rand"),
    ("keys: [{name: a, key: '${GONE}'}]", "keys[0].key", "variable 'GONE' is not set", "${GONE:-default}"),
    ("server: {max_uploads_mb: 100}", "server", "`max_uploads_mb` (100) is below `max_request_mb` (256)", "times as"),
    ("server: {port: yes}", "server.port", "is true", "write a number"),
    (
        f"keys: [{{name: a, key: {LONG}, requests_per_minute: true}}]",
        "keys[0].requests_per_minute",
        "is true",
        "write a number",
    ),
    (
        HOST + "models: {m: {deployments: [{provider: mine, weight: no}]}}",
        "models.m.deployments[0].weight",
        "is false",
        "write a number",
    ),
    (
        MODEL.replace("{deployments", "{profile: {price_per_image: on}, deployments"),
        "models.m.profile.price_per_image",
        "is true",
        "write a number",
    ),
    (
        MODEL.replace("{deployments", "{profile: {default_size: 100x100, size: {multiple_of: 64}}, deployments"),
        "models.m.profile",
        "`default_size` 100x100 is none that `size` allows (edges divisible by 64)",
        "write 128x128, say",
    ),
    ("server: {port: '${GONE}'}", "server.port", "variable 'GONE' is not set", "set it"),
    ("server: {host: '${GONE'}", "server.host", "begins no reference", "$${"),
    (HOST + "server: {host: 0.0.0.0}", "server.host", "'0.0.0.0' is not a loopback address", "add `keys`"),
    (HOST + "server: {host: example.com}", "server.host", "is not a loopback address", "allow_anonymous"),
    (
        HOST + "server: {port: 9000}\nmetrics: {port: 9000}",
        "metrics.port",
        "is the gateway's own port",
        "choose another",
    ),
    (HOST + "metrics: {port: 8000}", "metrics.port", "is the gateway's own port", "choose another"),
]


@pytest.mark.parametrize(("text", "path", "problem", "remedy"), FAULTS)
def test_a_fault_tells_its_place_and_its_remedy(faults: Any, text: str, path: str, problem: str, remedy: str) -> None:
    [fault] = faults(text)
    assert fault.path == path
    assert problem in fault.problem
    assert remedy in fault.remedy
    assert "hid" not in str(fault).replace("hidden'", "")


def test_faults_read_as_sentences(faults: Any) -> None:
    text = "providers: {nebula: {}}\nmodels: {fill: {deployments: [{provider: nebulla}]}}"
    [fault] = faults(text)
    told = "models.fill.deployments[0].provider: no provider is called 'nebulla'; did you mean 'nebula'?"
    assert str(fault) == told


def test_all_faults_are_told_at_once(faults: Any) -> None:
    text = (
        "server: {port: many, host: 0.0.0.0}\nsever: {}\nproviders: {mine: {}}\n"
        "keys: [{name: a}, {name: a, key: a-key-of-a-caller}]\n"
        "models: {m: {deployments: [{provider: mien}, {provider: mine}], aliases: [m]}}\ndata_dir: '${GONE}'"
    )
    assert {fault.path for fault in faults(text)} == {
        "server.port",
        "sever",
        "providers.mine.base_url",
        "keys[0]",
        "keys[1].name",
        "models.m.deployments[0].provider",
        "models.m.aliases[0]",
        "data_dir",
    }


@pytest.mark.parametrize(
    ("variable", "value", "path", "problem", "remedy"),
    [
        ("IMAGE_GATEWAY_SERVER__PORT", "x", "IMAGE_GATEWAY_SERVER__PORT", "valid integer", "whole number"),
        ("IMAGE_GATEWAY_PORT", "99999", "IMAGE_GATEWAY_PORT", "65535", "smaller number"),
        ("IMAGE_GATEWAY_SERVER__PROT", "1", "IMAGE_GATEWAY_SERVER__PROT", "called 'prot'", "did you mean 'port'?"),
        ("IMAGE_GATEWAY_SERVR__PORT", "1", "IMAGE_GATEWAY_SERVR__PORT", "section is called 'servr'", "mean 'server'?"),
        ("IMAGE_GATEWAY_KEYS", "hidden", "IMAGE_GATEWAY_KEYS", "is no JSON", "as JSON"),
        (
            "IMAGE_GATEWAY_KEYS",
            '[{"key": "hidden-hidden-hidden"}]',
            "IMAGE_GATEWAY_KEYS[0].name",
            "is missing",
            "a name",
        ),
        (
            "IMAGE_GATEWAY_KEYS",
            '[{"name": "a", "key": "hidden"}]',
            "IMAGE_GATEWAY_KEYS[0].key",
            "shorter than",
            "openssl",
        ),
        ("IMAGE_GATEWAY_KEYS", '{"name": "a"}', "IMAGE_GATEWAY_KEYS", "should be a list", "write a list"),
        ("IMAGE_GATEWAY_PROVIDERS__NEBULA", "hidden", "IMAGE_GATEWAY_PROVIDERS__NEBULA", "a mapping", "api_key: KEY"),
        ("IMAGE_GATEWAY_SERVER", '{"port": "x"}', "IMAGE_GATEWAY_SERVER.port", "valid integer", "whole number"),
    ],
)
def test_a_fault_in_the_environment_names_the_variable(
    variable: str, value: str, path: str, problem: str, remedy: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(None, {variable: value})
    [fault] = caught.value.faults
    assert fault.path == path
    assert problem in fault.problem
    assert remedy in fault.remedy
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "path", "remedy"),
    [
        ("providers: {nebula: hidden}", "providers.nebula", "write a mapping, like `{api_key: KEY}`"),
        ("models: {flux: nebula}", "models.flux", "write a mapping, like `{deployments: [{provider: NAME}]}`"),
        (
            "models: {flux: {deployments: [nebula]}}",
            "models.flux.deployments[0]",
            "write a mapping, like `{provider: NAME}`",
        ),
        ("keys: [hidden]", "keys[0]", "write a mapping, like `{name: NAME, key: SECRET}`"),
    ],
)
def test_an_entry_that_is_no_mapping_comes_with_the_shape_that_it_should_have(
    read: Any, content: str, path: str, remedy: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read(content)
    [fault] = caught.value.faults
    assert (fault.path, fault.problem) == (path, "should be a mapping")
    assert fault.remedy.startswith(remedy)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        ("server:\n\tport: 1", "indent with spaces"),
        ("providers:\n  nebula: {api_key: ${NAME}}", 'put the reference in quotes, "${NAME}"'),
        ("keys: [{name: a, key: ${NAME}}]", "put the reference in quotes"),
        ("server: {port: 1, host: '${NAME}'\nmodels: }", "correct the YAML there"),
    ],
)
def test_yaml_that_cannot_be_read_comes_with_a_remedy(read: Any, content: str, remedy: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(content, {"NAME": "hidden"})
    assert remedy in caught.value.faults[0].remedy
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"server: {port: hidden", "did not find expected"),
        (b"server:\n\tport: 1", "in line 2, column 1"),
        (b"a: *nothing", "undefined alias"),
        (b"a: &a [*a]", "itself"),
        (b"a: !python/object hidden", "could not determine a constructor"),
        (b"- a", "is not a mapping"),
        (b"just text", "is not a mapping"),
        (b"a: \xff", "does not allow"),
        (b"a: 2020-13-45", "does not allow"),
        (b"a: 1\n---\nb: 1", "in line"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_without_quoting_it(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load(path, {})
    [fault] = caught.value.faults
    assert fault.path == str(path)
    assert problem in fault.problem
    assert "hidden" not in str(caught.value)


LAUGHS = "a0: &a0 [hidden, x]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1},' * 9}]\n" for i in range(1, 30))
MERGED = "a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 40))
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 500))


@pytest.mark.parametrize(
    ("content", "problem", "remedy"),
    [
        (LAUGHS, "aliases stand for more than 100000 values", "without aliases of aliases"),
        ("a: &a [" + "x," * 2000 + "]\nb: [" + "*a," * 2000 + "]", "more than 100000 values in line 2", "write out"),
        (MERGED, "aliases stand for more than 100000 values", "write out"),
        ("a: &a " + "x" * 1_000_000 + "\nb: [" + "*a," * 1000 + "]", "more than 100000 values", "write out"),
        ("a: " + "[" * 200_000, "nests deeper than 64 levels in line 1, column 67", "flatter"),
        ("- " * 200_000 + "x", "nests deeper than 64 levels", "flatter"),
        ("\n".join(" " * level + "a:" for level in range(500)), "nests deeper than 64 levels in line 65", "flatter"),
        (CHAIN, "nests deeper than 64 levels", "flatter"),
        ("a: &a {b: {c: *a}}", "an anchor contains itself in line 1, column 15", "content"),
    ],
    ids=["laughs", "square", "merged", "text", "lists", "dashes", "indents", "chain", "itself"],
)
def test_a_file_that_is_small_and_means_something_large_is_refused(
    tmp_path: Path, content: str, problem: str, remedy: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(SettingsError) as caught:
        load(path, {})
    [fault] = caught.value.faults
    assert fault.path == str(path)
    assert problem in fault.problem
    assert remedy in fault.remedy
    assert "hidden" not in str(caught.value)


def test_aliases_of_an_ordinary_size_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "providers:\n  mine: &host {base_url: https://a.test/v1}\n  yours: {<<: *host, base_url: https://b.test/v1}\n"
        "models:\n" + "".join(f"  m{i}: {{deployments: [{{provider: mine}}]}}\n" for i in range(500))
        + "keys:\n- {name: k, key: " + "k" * 32 + ", models: &models [" + ",".join(f"m{i}" for i in range(500)) + "]}\n"
        + "".join(f"- {{name: k{i}, key: {i:032x}x, models: *models}}\n" for i in range(1, 50))
    )  # fmt: skip
    settings = load(path, {})
    assert len(settings.models) == 500
    assert str(settings.providers["yours"].base_url) == "https://b.test/v1"


def test_a_variable_that_nests_without_end_is_no_json() -> None:
    with pytest.raises(SettingsError, match="is no JSON"):
        load(None, {"IMAGE_GATEWAY_SERVER": "[" * 200_000})


def test_a_missing_file_is_told_by_its_path(tmp_path: Path) -> None:
    for gone in (tmp_path / "gone.yaml", tmp_path / "gone" / "config.yaml"):
        with pytest.raises(SettingsError, match=r"\.yaml: there is no such file; correct --config"):
            load(gone, {})
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="there is no such file"):
        load(tmp_path / "file" / "config.yaml", {})


def test_a_directory_in_the_place_of_the_file_is_told_as_one(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match="is a directory, not a file; name a file; of a mount whose file is missing"
    ):
        load(tmp_path, {})


def test_a_file_without_an_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.yaml")
    with pytest.raises(SettingsError, match="is no regular file"):
        load(tmp_path / "config.yaml", {})


@pytest.mark.parametrize("method", ["stat", "read_text"])
def test_a_file_that_may_not_be_read_is_told_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def refuse(path: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    (tmp_path / "config.yaml").write_text("server: {}")
    monkeypatch.setattr(Path, method, refuse)  # root may read and enter everything
    with pytest.raises(SettingsError) as caught:
        load(tmp_path / "config.yaml", {})
    assert str(caught.value).endswith("config.yaml: cannot be read: Permission denied; let the gateway's user read it")


# --- callers that may enter ---


def test_an_open_address_needs_no_stated_keys_if_some_were_issued(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(HOST + "server: {host: 0.0.0.0}", encoding="utf-8")
    asked: list[Settings] = []

    def yes(settings: Settings) -> bool:
        asked.append(settings)
        return True

    assert load(path, {}, has_issued_keys=yes).server.host == "0.0.0.0"
    assert len(asked) == 1
    load(path, {}, {"server": {"host": "127.0.0.1"}}, has_issued_keys=yes)
    assert len(asked) == 1  # where nothing depends on it, the database is not asked


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "::1"])
def test_a_loopback_address_needs_no_keys(read: Any, host: str) -> None:
    assert read(HOST, server={"host": host}).server.host == host


def test_any_address_may_be_listened_on_with_keys_or_on_demand(read: Any) -> None:
    keys = f"keys: [{{name: a, key: {LONG}}}]"
    assert read(HOST + keys, server={"host": "0.0.0.0"}).keys
    assert read(HOST, server={"host": "0.0.0.0", "allow_anonymous": True}).server.allow_anonymous
    assert read(HOST, {"IMAGE_GATEWAY_SERVER__ALLOW_ANONYMOUS": "true"}, server={"host": "::"}).server.allow_anonymous


def test_the_sandbox_may_listen_anywhere() -> None:
    assert load(None, {}, {"server": {"host": "0.0.0.0"}}).sandbox


# --- secrets ---


def test_no_secret_is_shown(read: Any) -> None:
    text = (
        "providers: {nebula: {api_key: '${A}', headers: {x-token: hidden}}}\n"
        f"keys: [{{name: a, key: hidden-hidden-hidden}}, {{name: b, key_sha256: {A64}}}]"
    )
    settings = read(text, {"A": "hidden"})
    shown = repr(settings) + str(settings) + repr(settings.keys) + repr(settings.providers)
    assert "hidden" not in shown
    assert A64 not in shown


def test_no_secret_is_in_the_traceback_of_a_fault(read: Any) -> None:
    text = "providers: {nebula: {api_key: hidden, retries: hidden}}\nkeys: [{key: hidden}]"
    with pytest.raises(SettingsError) as caught:
        read(text)
    assert "hidden" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


def test_settings_are_frozen(read: Any) -> None:
    with pytest.raises(ValueError, match="frozen"):
        read("").server.port = 1


# --- the example and the documentation ---


def settings_of(annotation: Any) -> set[tuple[str, str]]:
    """Every setting at or below an annotation, with the model that it is of."""
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return {setting for argument in get_args(annotation) for setting in settings_of(argument)}
    below = {setting for field in annotation.model_fields.values() for setting in settings_of(field.annotation)}
    return below | {(annotation.__name__, name) for name in annotation.model_fields}


def stated_in(value: Any, annotation: Any) -> set[tuple[str, str]]:
    """Those of them that a file's data states."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = {name: field.annotation for name, field in annotation.model_fields.items() if name in (value or {})}
        below = {setting for name, inner in fields.items() for setting in stated_in(value[name], inner)}
        return below | {(annotation.__name__, name) for name in fields}
    held = value.values() if isinstance(value, dict) and get_origin(annotation) is dict else [value]
    held = value if isinstance(value, list) else held
    return {setting for argument in get_args(annotation) for item in held for setting in stated_in(item, argument)}


def test_the_example_loads_and_holds_every_setting() -> None:
    settings = load(EXAMPLE, EXAMPLE_ENVIRON)
    assert set(settings.providers) == {"netmind", "nebula", "mine"}
    data = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    assert list(data) == list(Settings.model_fields)
    assert {("ServerSettings", "port"), ("SizeSettings", "max_pixels")} <= settings_of(Settings)
    assert settings_of(Settings) - stated_in(data, Settings) == set()


def test_the_example_states_the_defaults() -> None:
    settings, plain = load(EXAMPLE, EXAMPLE_ENVIRON), Settings()
    for section in ("server", "queue", "runs", "files", "logging", "database", "ledger", "webhook", "data_dir"):
        assert getattr(settings, section) == getattr(plain, section), section
    mine = settings.providers["mine"]
    for name in ("preset", "dialect", "models_path", "headers", "max_concurrency", "retries", "retry_timeouts", "urls"):
        assert getattr(mine, name) == type(mine).model_fields[name].get_default(call_default_factory=True), name
    assert mine.timeout.model_dump() == {name: getattr(Timeouts(), name) for name in type(mine.timeout).model_fields}
    deployment = settings.models["black-forest-labs/FLUX.1-schnell"].deployments[1]
    assert (deployment.weight, deployment.max_concurrency, deployment.profile) == (1, None, ProfileSettings())


def test_the_example_states_the_assumptions_for_an_openai_shaped_host() -> None:
    stated = load(EXAMPLE, EXAMPLE_ENVIRON).models["house-style"].profile
    assumed = Profile(extra="pass")
    for name in ProfileSettings.model_fields.keys() - {"size", "timeout"}:
        assert getattr(stated, name) == getattr(assumed, name), name
    assert stated.size is not None
    assert SizeRule(**stated.size.model_dump()) == SizeRule()


@pytest.mark.parametrize("password", ["s3cr#et", "s3cr/et", "s3cr?et", "s3c[ret"])
def test_the_url_of_a_database_that_cannot_be_read_is_not_quoted(faults: Any, password: str) -> None:
    [fault] = faults(f"database: {{url: 'postgresql://gateway:{password}@db.example.com/gateway'}}")
    assert (fault.path, fault.problem) == ("database.url", "cannot be read")
    assert "s3c" not in str(fault)
