"""`GET /v1/gateway/prices`: the price of each model at each provider, and its beginning; and the models without a
price."""

from __future__ import annotations

import json

from app.api.administration.endpoint import AdminCall, Content
from app.api.administration.lists import page_of
from app.microseconds import SECOND


async def list_all(call: AdminCall) -> Content:
    query = call.query()
    with_past = query.flag("include_past") or False
    provider, model = query.text("provider"), query.text("model")
    query.check()
    data = [
        {
            "id": str(price.id),
            "object": "price",
            "provider": price.provider,
            "upstream_model": price.model,
            "price": json.loads(price.price),
            "currency": call.currency,
            "valid_from": price.valid_from // SECOND,
            "valid_to": None if price.valid_to is None else price.valid_to // SECOND,
            "source": price.source,
        }
        for price in await (await call.reports()).prices(with_past=with_past)
        if provider in (None, price.provider) and model in (None, price.model)
    ]
    unpriced = [
        {"provider": each.provider, "upstream_model": each.model}
        for each in call.administration.deployments()
        if not each.is_priced and provider in (None, each.provider) and model in (None, each.model)
    ]
    return {**page_of(data, has_more=False), "unpriced": unpriced}
