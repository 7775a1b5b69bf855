from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.catalog.prices import Price, Tier
from app.catalog.profiles import Profile
from app.config.errors import SettingsError
from app.config.loading import load
from app.config.schema import ProfileSettings
from app.images import Operation, Size


def priced(**stated: Any) -> Price | None:
    profile: Profile = ProfileSettings.model_validate(stated).over(Profile())
    return profile.stated_price


def test_a_number_is_the_price_of_an_image_and_so_is_the_short_form() -> None:
    assert priced(price=0.04) == priced(price_per_image=0.04) == Price((Tier(per_image=40_000_000),))
    assert priced(price=0.04, price_per_image=9) == priced(price=0.04)
    assert priced() is None


def test_tiers_have_conditions_and_a_price_each() -> None:
    tiers = [
        {"quality": "high", "size": "1024x1024", "operation": "edits", "per_image": 0.167},
        {"per_megapixel": 0.025},
        {"per_million_tokens": {"output": 40, "input": 5}, "at_most": 0.2},
    ]
    assert priced(price=tiers) == Price(
        (
            Tier("high", Size(1024, 1024), Operation.EDITS, per_image=167_000_000),
            Tier(per_megapixel=25_000_000),
            Tier(per_million_tokens=(("input", 5_000_000_000), ("output", 40_000_000_000)), at_most=200_000_000),
        )
    )


def test_a_price_may_be_reported() -> None:
    assert priced(price={"reported": "usage.cost", "at_most": 0.1}) == Price((), "usage.cost", 100_000_000)


@pytest.mark.parametrize(
    "stated", ["free", True, [{}], [{"per_image": 1, "per_megapixel": 1}], [{"per_image": -1}], {}, [{"size": "big"}],
               [{"per_million_tokens": {"outputs": 1}}]]
)  # fmt: skip
def test_what_is_no_price_is_refused(stated: Any) -> None:
    with pytest.raises(ValueError, match="price"):
        priced(price=stated)


def test_a_price_in_another_currency_than_the_ledgers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "providers: {a: {base_url: 'http://a'}}\n"
        "models: {m: {deployments: [{provider: a, profile: {price: 1, currency: EUR}}]}}\n"
    )
    with pytest.raises(SettingsError, match="'EUR' is not the currency of the ledger"):
        load(path, {})
    path.write_text(path.read_text() + "ledger: {currency: EUR}\n")
    assert load(path, {}).ledger.currency == "EUR"
