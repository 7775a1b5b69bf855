from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalog.deployments import Alias, Model
from app.catalog.profiles import Profile, SizeRule, Timeouts
from app.config.inventory import aliases, budgets, key_id, keys, models, projects
from app.config.loading import load
from app.config.schema import ProfileSettings
from app.images import Operation, Size
from app.ledger.values.directory import Budget, Project
from app.ledger.values.limits import Limits

OPENAI = Profile(extra="pass", max_n=9)


@pytest.fixture
def serve(tmp_path: Path) -> Any:
    def serve(text: str, environ: Mapping[str, str] | None = None) -> dict[str, Model]:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        profiles = {"openai": OPENAI, "nebula_block": Profile(mask="white", streaming=False)}
        return {model.name: model for model in models(load(path, environ or {}), profiles.__getitem__)}

    return serve


HOSTS = "providers: {a: {base_url: 'http://a'}, b: {base_url: 'http://b'}, c: {base_url: 'http://c'}}\n"


def order(model: Model) -> list[str]:
    return [deployment.provider.name for deployment in model.deployments]


def test_deployments_are_tried_in_the_order_of_the_list(serve: Any) -> None:
    model = serve(HOSTS + "models: {m: {deployments: [{provider: c}, {provider: a}, {provider: b}]}}")["m"]
    assert order(model) == ["c", "a", "b"]
    assert [deployment.priority for deployment in model.deployments] == [1, 2, 3]


def test_priority_goes_before_the_place_in_the_list_and_equals_keep_their_order(serve: Any) -> None:
    text = (
        "models: {m: {deployments: [{provider: a, priority: 5}, {provider: b, priority: 5, weight: 3}, {provider: c}]}}"
    )
    model = serve(HOSTS + text)["m"]
    assert order(model) == ["c", "a", "b"]
    assert [(d.priority, d.weight) for d in model.deployments] == [(3, 1), (5, 1), (5, 3)]


def test_the_upstream_model_is_the_same_unless_stated(serve: Any) -> None:
    text = (
        "models: {m: {aliases: [n, o], deployments: [{provider: a}, {provider: b, model: other, max_concurrency: 2}]}}"
    )
    model = serve(HOSTS + text)["m"]
    assert [deployment.name for deployment in model.deployments] == ["a/m", "b/other"]
    assert model.aliases == ("n", "o")
    assert model.deployments[1].max_concurrency == 2


def test_a_provider_is_what_its_entry_says(serve: Any) -> None:
    text = (
        "providers: {a: {base_url: 'http://a/', api_key: k, headers: {x: y}, max_concurrency: 3, retries: 0,"
        " retry_timeouts: true, urls: pass}}\nmodels: {m: {deployments: [{provider: a}]}}"
    )
    provider = serve(text)["m"].deployments[0].provider
    assert (provider.name, provider.dialect, provider.base_url, provider.api_key) == ("a", "openai", "http://a", "k")
    assert (provider.headers, provider.max_concurrency, provider.retries) == ({"x": "y"}, 3, 0)
    assert (provider.retry_timeouts, provider.urls) == (True, "pass")


def test_profiles_lie_over_each_other_field_by_field(serve: Any) -> None:
    text = (
        HOSTS + "models: {m: {deployments: [{provider: a, profile: {max_images: 2, mask: black}}, {provider: b}],"
        " profile: {max_images: 4, mask_required: true}}}"
    )
    first, second = (deployment.profile for deployment in serve(text)["m"].deployments)
    assert (first.max_n, first.extra, first.mask_required, first.max_images, first.mask) == (
        9,
        "pass",
        True,
        2,
        "black",
    )
    assert (second.max_n, second.max_images, second.mask) == (9, 4, "alpha")


def test_the_presets_profile_stays_known_under_another_name(serve: Any) -> None:
    text = (
        "providers: {nebula: {api_key: a}}\nmodels: {fill: {deployments: [{provider: nebula,"
        " model: black-forest-labs/FLUX.1-Fill-dev}], profile: {max_images: 3}}}"
    )
    can = serve(text)["fill"].deployments[0].profile
    assert (can.operations, can.mask_required, can.default_size, can.max_images) == (
        {Operation.EDITS},
        True,
        "input",
        3,
    )


def test_a_model_that_the_preset_does_not_know_has_the_dialects_default(serve: Any) -> None:
    text = "providers: {nebula: {api_key: a}}\nmodels: {new: {deployments: [{provider: nebula}]}}"
    assert serve(text)["new"].deployments[0].profile == Profile(mask="white", streaming=False)


def test_timeouts_lie_over_each_other_each_by_itself(serve: Any) -> None:
    text = (
        "providers: {nebula: {api_key: a, timeout: {connect: 2, total: 100}}}\nmodels: {fill: {deployments: [{provider:"
        " nebula, model: black-forest-labs/FLUX.1-Fill-dev, profile: {timeout: {first_byte: 7}}}],"
        " profile: {timeout: {total: 90, first_byte: 8}}}}"
    )
    timeouts = serve(text)["fill"].deployments[0].profile.timeout
    assert timeouts == Timeouts(connect=2, read=300, total=90, first_byte=7)


def test_a_providers_timeout_goes_over_its_presets(serve: Any) -> None:
    served = serve("providers: {nebula: {api_key: a, timeout: {read: 33}}}")
    assert {d.profile.timeout.read for model in served.values() for d in model.deployments} == {33}


def test_an_optional_setting_can_be_set_back_to_null() -> None:
    base = Profile(parameters={"size": "size"}, streaming=False, default_size="input", output_formats=("png",))
    layer = {"parameters": None, "streaming": None, "default_size": None, "output_formats": None, "max_n": None}
    profile = ProfileSettings.model_validate(layer).over(base)
    assert profile == Profile()


def test_sizes_become_a_rule() -> None:
    layer = ProfileSettings.model_validate({"size": {"list": ["512x512", "1024x768"]}, "default_size": "512x512"})
    profile = layer.over(Profile(size=SizeRule(multiple_of=16)))
    assert profile.size == SizeRule(list=(Size(512, 512), Size(1024, 768)))
    assert profile.default_size == Size(512, 512)


@pytest.mark.parametrize(
    ("below", "stated", "together"),
    [
        (SizeRule(multiple_of=16), {"max": 1024}, SizeRule(max=1024, multiple_of=16)),
        (SizeRule(min=512, max=2048), {"min": None, "multiple_of": 8}, SizeRule(max=2048, multiple_of=8)),
        (SizeRule(list=(Size(512, 512),)), {"max": 1024}, SizeRule(max=1024)),
        (SizeRule(min=512), {"list": ["512x512"]}, SizeRule(list=(Size(512, 512),))),
        (SizeRule(min=512), {}, SizeRule()),
        (SizeRule(multiple_of=16), {"max": 1024, "multiple_of": None}, SizeRule(max=1024, multiple_of=16)),
    ],
)
def test_the_bounds_of_sizes_lie_over_each_other_each_by_itself(
    below: SizeRule, stated: dict[str, Any], together: SizeRule
) -> None:
    layer = ProfileSettings.model_validate({"size": stated})
    assert layer.over(Profile(size=below)).size == together


LAYERS: dict[str, st.SearchStrategy[Any]] = {
    "max_n": st.integers(1, 9),
    "max_images": st.integers(1, 9),
    "mask": st.sampled_from(["alpha", "white", "black", "none"]),
    "mask_required": st.booleans(),
    "streaming": st.none() | st.booleans(),
    "image_field": st.none() | st.sampled_from(["image", "image[]"]),
    "price_per_image": st.none() | st.floats(0, 1),
}
layers = st.fixed_dictionaries({}, optional=LAYERS)


@given(layers, layers)
def test_the_upper_layer_wins_where_it_speaks_and_only_there(lower: dict[str, Any], upper: dict[str, Any]) -> None:
    below = ProfileSettings.model_validate(lower).over(Profile())
    profile = ProfileSettings.model_validate(upper).over(below)
    for name in LAYERS:
        stated = [layer[name] for layer in (lower, upper) if name in layer]
        assert getattr(profile, name) == (stated or [getattr(Profile(), name)])[-1]


def test_an_alias_of_an_alias_leads_to_the_model_and_takes_the_nearest_default(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "providers: {a: {base_url: 'http://a'}}\nmodels: {m: {aliases: [own], deployments: [{provider: a}]}}\n"
        "aliases: {x: y, y: {model: z, default_response_format: url}, z: own, w: {model: y, default_response_format: "
        "b64_json}}\n"
    )
    assert list(aliases(load(path, {}))) == [
        Alias("x", "own", "url"),
        Alias("y", "own", "url"),
        Alias("z", "own"),
        Alias("w", "own", "b64_json"),
    ]


# --- keys, projects, budgets ---

BOOK = """
projects: {design: {images_per_minute: 9}}
keys:
  - {name: ci, key: a-key-of-a-caller, project: design, models: [a], operations: [edits], max_concurrency: 2}
  - {name: other, key: another-key-of-a-caller, requests_per_minute: 3, default_response_format: url}
budgets:
  - {project: design, amount: 50.5, timezone: Europe/Prague, models: ["a*"], thresholds: [100, 50]}
  - {key: ci, amount: 1, window: day, hard: false}
  - {amount: 500, window: total}
"""


def test_a_stated_key_has_an_id_of_its_name_and_its_project(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(BOOK)
    ci, other = (stated.key for stated in keys(load(tmp_path / "config.yaml", {})))
    assert (ci.id, ci.name, ci.models, ci.operations) == (key_id("ci"), "ci", ("a",), ("edits",))
    assert ci.limits == Limits(max_concurrency=2)
    assert ci.project is not None
    assert (ci.project.name, ci.project.limits) == ("design", Limits(images_per_minute=9))
    assert (other.project, other.limits, other.default_response_format) == (None, Limits(3), "url")
    assert ci.scopes == other.scopes == ("draw",)


def test_a_stated_project_keeps_the_id_that_the_database_knows_it_by(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(BOOK)
    settings = load(tmp_path / "config.yaml", {})
    assert projects(settings, {"design": "proj_known"}, 7) == (
        Project("proj_known", "design", 7, limits=Limits(images_per_minute=9), source="file"),
    )
    [first], [again] = projects(settings, {}, 7), projects(settings, {}, 8)
    assert first.id == again.id
    assert len(first.id) == len("proj_") + 16


def test_stated_budgets_name_their_owners_by_id(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(BOOK)
    settings = load(tmp_path / "config.yaml", {})
    found = budgets(settings, {"design": "proj_known"}, 7)
    ids = {budget.id for budget in found}
    assert len(ids) == 3 and {len(id) for id in ids} == {len("bud_") + 16}
    assert ids == {budget.id for budget in budgets(settings, {}, 8)}  # another process finds the same
    named = tuple(replace(budget, id=f"bud_{number}") for number, budget in enumerate(found, 1))
    assert named == (
        Budget(
            "bud_1",
            "project",
            "proj_known",
            50_500_000_000,
            "month",
            "Europe/Prague",
            ("a*",),
            7,
            thresholds=(50, 100),
            owner="design",
            source="file",
        ),
        Budget(
            "bud_2",
            "key",
            key_id("ci"),
            1_000_000_000,
            "day",
            since=7,
            hard=False,
            thresholds=(50, 80, 100),
            owner="ci",
            source="file",
        ),
        Budget("bud_3", "all", None, 500_000_000_000, "total", since=7, thresholds=(50, 80, 100), source="file"),
    )
