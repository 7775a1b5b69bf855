from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.access.keyring import ANONYMOUS, Key
from app.catalog.deployments import Alias, Deployment, Model, Provider
from app.catalog.models import Catalog
from app.catalog.profiles import Profile, SizeRule
from app.errors import InvalidRequest, NotFound
from app.images import ImageRequest, Operation, Size
from tests.dialects.asking import asked

SQUARE = Profile(size=SizeRule(list=(Size(1024, 1024),)))
EDITOR = Profile(operations=frozenset({Operation.EDITS}))


def model(name: str, *profiles: Profile, aliases: tuple[str, ...] = ()) -> Model:
    provider = Provider("host", "openai", "https://host.test")
    each = (Deployment(provider, f"{name}-{number}", profile) for number, profile in enumerate(profiles))
    return Model(name, tuple(each), aliases)


FLUX = model("black-forest-labs/FLUX.1-schnell", Profile(parameters={"size": "size"}), aliases=("flux", "fast"))
FILL = model("fill", EDITOR)
BOTH = model("both", SQUARE, Profile(), SQUARE)
CATALOG = Catalog([FLUX, FILL, BOTH])


def names(catalog: Catalog, by: Key) -> list[str]:
    return [model.name for model in catalog.visible(by)]


def key(*models: str) -> Key:
    return Key("team", "team", models=models)


def ask(name: str, operation: Operation = Operation.GENERATIONS, **more: Any) -> ImageRequest:
    return replace(asked(operation, **more), model=name)


def refused(
    name: str, by: Key = ANONYMOUS, operation: Operation = Operation.GENERATIONS, **more: Any
) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        CATALOG.candidates(ask(name, operation, **more), by)
    assert caught.value.status == 400
    return caught.value


# --- names ---


@pytest.mark.parametrize("name", ["black-forest-labs/FLUX.1-schnell", "flux", "fast"])
def test_a_model_answers_to_its_name_and_its_aliases(name: str) -> None:
    found = CATALOG.get(name, ANONYMOUS)
    assert found == CATALOG.find(name, ANONYMOUS)
    assert (found.name, found.alias_of or found.name, found.deployments) == (name, FLUX.name, FLUX.deployments)
    assert {found.name, *found.aliases} == {FLUX.name, "flux", "fast"}
    assert [each.deployment for each in CATALOG.candidates(ask(name), ANONYMOUS)] == list(FLUX.deployments)


@pytest.mark.parametrize("name", ["Flux", "black-forest-labs/flux.1-schnell", "", "FLUX.1-schnell", "fill "])
def test_other_spellings_are_other_models(name: str) -> None:
    assert CATALOG.find(name, ANONYMOUS) is None
    error = refused(name)
    assert (error.type, error.param, error.code) == ("image_generation_user_error", "model", "invalid_value")
    assert repr(name) in error.message and "/v1/models" in error.message


def test_models_are_listed_in_the_order_of_the_configuration_and_then_their_aliases() -> None:
    assert names(CATALOG, ANONYMOUS) == [FLUX.name, "fill", "both", "flux", "fast"]
    assert names(Catalog([FLUX, FILL], lists_aliases=False), ANONYMOUS) == [FLUX.name, "fill"]


# --- what a key sees ---


@pytest.mark.parametrize(
    ("globs", "seen"),
    [
        (("*",), [FLUX.name, "fill", "both", "flux", "fast"]),
        ((), [FLUX.name, "fill", "both", "flux", "fast"]),
        (("black-forest-labs/*",), [FLUX.name, "flux", "fast"]),
        (("fast",), [FLUX.name, "flux", "fast"]),
        (("f*",), [FLUX.name, "fill", "flux", "fast"]),
        (("fill", "both"), ["fill", "both"]),
        (("nothing",), []),
    ],
)
def test_a_key_sees_the_models_that_its_globs_name(globs: tuple[str, ...], seen: list[str]) -> None:
    assert names(CATALOG, key(*globs)) == seen


def test_a_key_that_may_use_a_model_by_one_name_may_use_it_by_all() -> None:
    for name in ("flux", "fast", FLUX.name):
        assert CATALOG.get(name, key("fast")).deployments == FLUX.deployments


def test_a_model_outside_the_keys_list_does_not_exist_for_it() -> None:
    unknown = refused("no-such-model", key("flux"))
    hidden = refused("fill", key("flux"))
    assert hidden.envelope()["error"] == {
        **unknown.envelope()["error"],
        "message": unknown.message.replace("no-such-model", "fill"),
    }


@pytest.mark.parametrize("name", ["fill", "no-such-model"])
def test_under_the_list_of_models_it_is_not_found(name: str) -> None:
    with pytest.raises(NotFound) as caught:
        CATALOG.get(name, key("flux"))
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", None)
    assert repr(name) in caught.value.message


# --- aliases of the top level ---

ALIASES = [
    Alias("gpt-image-1", FLUX.name),
    Alias("dall-e-*", "both", "url"),
    Alias("dall-e-3*", "flux"),
    Alias("[sx]dxl", "fill"),
]
RENAMED = Catalog([FLUX, FILL, BOTH], ALIASES)


def test_an_alias_has_a_name_of_its_own_and_its_models_deployments() -> None:
    found = RENAMED.get("gpt-image-1", ANONYMOUS)
    assert (found.name, found.alias_of, found.deployments) == ("gpt-image-1", FLUX.name, FLUX.deployments)
    assert RENAMED.get(FLUX.name, ANONYMOUS) == FLUX


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("dall-e-2", "both"),
        ("dall-e-", "both"),
        ("dall-e-3", FLUX.name),
        ("dall-e-3-hd", FLUX.name),
        ("xdxl", "fill"),
        ("dall-e-*", "both"),
    ],
)
def test_of_several_globs_that_fit_the_longest_counts(name: str, model: str) -> None:
    found = RENAMED.get(name, ANONYMOUS)
    assert (found.name, found.alias_of) == (name, model)


@pytest.mark.parametrize("name", ["dall-e", "Dall-e-2", "sdxl ", "ssdxl"])
def test_a_name_that_no_glob_fits_is_unknown(name: str) -> None:
    assert RENAMED.find(name, ANONYMOUS) is None


@given(
    name=st.sampled_from([FLUX.name, "fill", "both", "flux", "fast", "gpt-image-1"]),
    glob=st.text("*?abflu-[]", min_size=1),
)
def test_an_exact_name_goes_before_any_glob(name: str, glob: str) -> None:
    catalog = Catalog([FLUX, FILL, BOTH], [ALIASES[0], Alias(f"{glob}*", "both"), Alias("*", "both")])
    assert catalog.get(name, ANONYMOUS) == Catalog([FLUX, FILL, BOTH], ALIASES[:1]).get(name, ANONYMOUS)
    assert catalog.get("anything", ANONYMOUS).deployments == BOTH.deployments


def test_globs_are_not_listed() -> None:
    assert names(RENAMED, ANONYMOUS) == [FLUX.name, "fill", "both", "flux", "fast", "gpt-image-1"]


def test_the_default_of_an_alias_goes_over_the_models() -> None:
    defaults = {each.profile.default_response_format for each in RENAMED.get("dall-e-2", ANONYMOUS).deployments}
    assert defaults == {"url"}
    assert [each.deployment.name for each in RENAMED.candidates(ask("dall-e-2"), ANONYMOUS)] == [
        each.name for each in BOTH.deployments
    ]
    own = model("linked", Profile(default_response_format="url"))
    catalog = Catalog([own], [Alias("same", "linked"), Alias("other", "linked", "b64_json")])
    for name, default in (("same", "url"), ("other", "b64_json")):
        [deployment] = catalog.get(name, ANONYMOUS).deployments
        assert deployment.profile.default_response_format == default


@pytest.mark.parametrize(
    ("globs", "may", "may_not"),
    [
        (("gpt-image-1",), ["gpt-image-1"], [FLUX.name, "flux", "dall-e-3"]),
        (("black-forest-labs/*",), ["gpt-image-1", "dall-e-3", FLUX.name], ["dall-e-2", "both"]),
        (("fast",), ["gpt-image-1", "flux"], ["both"]),
        (("dall-e-2",), ["dall-e-2"], ["dall-e-1", "dall-e-3", "both"]),
        (("dall-*",), ["dall-e-2", "dall-e-3"], ["both", FLUX.name]),
        (("both",), ["dall-e-2", "both"], ["dall-e-3"]),
    ],
)
def test_a_key_may_use_an_alias_by_its_name_or_by_its_models(
    globs: tuple[str, ...], may: list[str], may_not: list[str]
) -> None:
    assert all(RENAMED.find(name, key(*globs)) for name in may)
    assert not any(RENAMED.find(name, key(*globs)) for name in may_not)


def test_a_model_under_several_names_is_proposed_once() -> None:
    with pytest.raises(InvalidRequest, match=r"Models that can: both\.$"):
        RENAMED.candidates(ask("gpt-image-1", parameters={"seed": 1}), ANONYMOUS)


# --- requests without a model ---


def test_the_default_is_that_of_the_operation() -> None:
    catalog = Catalog([FLUX, FILL], ALIASES[:1], {Operation.GENERATIONS: "gpt-image-1", Operation.EDITS: "fill"})
    assert catalog.default_model(Operation.GENERATIONS, ANONYMOUS) == "gpt-image-1"
    assert catalog.default_model(Operation.EDITS, ANONYMOUS) == "fill"
    assert catalog.default_model(Operation.VARIATIONS, ANONYMOUS) is None


def test_a_default_that_the_key_may_not_use_is_none() -> None:
    catalog = Catalog([FLUX, FILL], default_models={Operation.EDITS: "fill"})
    assert catalog.default_model(Operation.EDITS, key("flux")) is None
    assert catalog.default_model(Operation.EDITS, key("f*")) == "fill"


# --- the name that was meant ---


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("black-forest-labs/flux.1-SCHNELL", FLUX.name),
        ("FLUX.1-schnell", FLUX.name),
        ("someone/flux_1 schnell", FLUX.name),
        ("flux1-schnel", FLUX.name),
        ("Flux", "flux"),
        ("filll", "fill"),
        ("gpt-image-2", "gpt-image-1"),
    ],
)
def test_an_unknown_model_is_answered_with_the_nearest(name: str, meant: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(f"Did you mean {meant!r}? GET /v1/models")):
        RENAMED.candidates(ask(name), ANONYMOUS)
    with pytest.raises(NotFound, match=re.escape(f"Did you mean {meant!r}? GET /v1/models")):
        RENAMED.get(name, ANONYMOUS)


@pytest.mark.parametrize("name", ["sora", "", "/", "midjourney-6", "x" * 10_000])
def test_nothing_is_proposed_where_no_name_is_near(name: str) -> None:
    with pytest.raises(NotFound) as caught:
        RENAMED.get(name, ANONYMOUS)
    assert "Did you mean" not in caught.value.message


def test_no_name_is_proposed_that_the_key_may_not_use() -> None:
    with pytest.raises(NotFound) as caught:
        RENAMED.get("FLUX.1-schnell", key("fill"))
    assert "Did you mean" not in caught.value.message


# --- who can ---


def test_only_those_that_can_are_asked_in_their_order() -> None:
    everywhere = CATALOG.candidates(ask("both", size=Size(1024, 1024)), ANONYMOUS)
    assert [each.deployment.model for each in everywhere] == ["both-0", "both-1", "both-2"]
    [only] = CATALOG.candidates(ask("both", size=Size(512, 512)), ANONYMOUS)
    assert only.deployment.model == "both-1"


def test_a_refusal_names_the_field_and_a_remedy() -> None:
    error = refused("flux", parameters={"seed": 1})
    assert (error.type, error.param, error.code) == ("invalid_request_error", "seed", "unsupported_parameter")
    assert error.message == (
        "The model 'flux' cannot do this: it does not know 'seed'; leave it out. Models that can: both."
    )


def test_a_refusal_speaks_of_the_deployment_that_comes_nearest() -> None:
    knows_seeds = Profile(parameters={"seed": "seed"})
    catalog = Catalog([model("flux", Profile(parameters={}), knows_seeds), model("fill", EDITOR, knows_seeds)])
    asked_for = {"seed": 1, "negative_prompt": "x"}
    for name in ("flux", "fill"):
        with pytest.raises(InvalidRequest, match="does not know 'negative_prompt'; leave it out") as caught:
            catalog.candidates(ask(name, parameters=asked_for), ANONYMOUS)
        assert caught.value.param == "negative_prompt"


def test_a_refusal_speaks_of_the_first_of_equally_near_deployments() -> None:
    catalog = Catalog(
        [model("flux", Profile(parameters={"seed": "seed"}), Profile(parameters={"negative_prompt": ""}))]
    )
    with pytest.raises(InvalidRequest) as caught:
        catalog.candidates(ask("flux", parameters={"seed": 1, "negative_prompt": "x"}), ANONYMOUS)
    assert caught.value.param == "negative_prompt"


def test_a_size_that_does_not_fit_is_refused_with_the_nearest_that_would() -> None:
    catalog = Catalog([model("square", SQUARE)])
    with pytest.raises(InvalidRequest) as caught:
        catalog.candidates(ask("square", size=Size(512, 512)), ANONYMOUS)
    error = caught.value
    assert (error.type, error.param, error.code) == ("image_generation_user_error", "size", "invalid_value")
    assert "512x512" in error.message and "1024x1024 is the nearest" in error.message
    assert "Models that can" not in error.message


def test_an_operation_that_the_model_lacks_is_refused_with_those_that_it_has() -> None:
    error = refused("fill")
    assert (error.param, error.code) == ("model", "unsupported_operation")
    assert "it does edits" in error.message
    assert error.message.endswith(f"Models that can: {FLUX.name}, both.")


def test_no_model_is_proposed_that_the_key_may_not_use() -> None:
    assert "both" not in refused("flux", key("flux"), parameters={"seed": 1}).message
    assert "both" in refused("flux", key("flux", "b*"), parameters={"seed": 1}).message


def test_only_a_few_of_many_able_models_are_proposed() -> None:
    catalog = Catalog([FLUX, *(model(f"m{number}", Profile()) for number in range(20))])
    with pytest.raises(InvalidRequest, match=r"m0, m1, m2, m3, m4\.$"):
        catalog.candidates(ask("flux", parameters={"seed": 1}), ANONYMOUS)
