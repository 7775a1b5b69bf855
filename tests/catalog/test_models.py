from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.access.keyring import ANONYMOUS, Key
from app.catalog.deployments import Deployment, Model, Provider
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


def key(*models: str) -> Key:
    return Key("team", b"", models)


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
    assert CATALOG.find(name, ANONYMOUS) is FLUX
    assert CATALOG.get(name, ANONYMOUS) is FLUX
    assert [each.deployment for each in CATALOG.candidates(ask(name), ANONYMOUS)] == list(FLUX.deployments)


@pytest.mark.parametrize("name", ["Flux", "black-forest-labs/flux.1-schnell", "", "FLUX.1-schnell", "fill "])
def test_other_spellings_are_other_models(name: str) -> None:
    assert CATALOG.find(name, ANONYMOUS) is None
    error = refused(name)
    assert (error.type, error.param, error.code) == ("image_generation_user_error", "model", "invalid_value")
    assert repr(name) in error.message and "/v1/models" in error.message


def test_models_are_listed_in_the_order_of_the_configuration() -> None:
    assert CATALOG.visible(ANONYMOUS) == [FLUX, FILL, BOTH]


# --- what a key sees ---


@pytest.mark.parametrize(
    ("globs", "seen"),
    [
        (("*",), [FLUX, FILL, BOTH]),
        ((), [FLUX, FILL, BOTH]),
        (("black-forest-labs/*",), [FLUX]),
        (("fast",), [FLUX]),
        (("f*",), [FLUX, FILL]),
        (("fill", "both"), [FILL, BOTH]),
        (("nothing",), []),
    ],
)
def test_a_key_sees_the_models_that_its_globs_name(globs: tuple[str, ...], seen: list[Model]) -> None:
    assert CATALOG.visible(key(*globs)) == seen


def test_a_key_that_may_use_a_model_by_one_name_may_use_it_by_all() -> None:
    for name in ("flux", "fast", FLUX.name):
        assert CATALOG.find(name, key("fast")) is FLUX


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
        f"The model '{FLUX.name}' cannot do this: it does not know 'seed'; leave it out. Models that can: both."
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
