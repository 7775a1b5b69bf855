/** What each model costs at each provider, and which of them nobody knows the price of. */

import { html } from "../base/html.js";
import { Icon } from "../base/icons.js";
import { api, useAnswer } from "./data.js";
import { byProvider } from "./overview.js";
import { Answer, Head, Nothing, Screen, Table } from "./parts.js";
import { count, when } from "./words.js";

const NANO = 1e9;

export function Prices() {
  const answer = useAnswer(async (signal) => {
    const [prices, providers] = await Promise.all([
      api.get("v1/gateway/prices", {}, { signal }),
      api.get("v1/gateway/providers", {}, { signal }),
    ]);
    const has = new Set(prices.data.map((each) => `${each.provider}/${each.upstream_model}`));
    return { prices: prices.data, unpriced: providers.data.filter((each) => !has.has(each.id)) };
  }, []);
  return html`<${Screen} title="Prices" lead="They stand in the configuration, or come with a preset.">
    <${Answer} answer=${answer}>${({ prices, unpriced }) => html`
      ${unpriced.length > 0 && html`<div class="alert warn">
        <${Icon} name="warning" />
        <div class="alert-text">
          <p><b>${count(unpriced.length, "deployment has no price", "deployments have no price")}.</b>${" "}What they draw is counted and costs nothing here; where a hard budget holds, they are refused.</p>
          <dl class="unpriced">${byProvider(unpriced).map(({ name, own }) => html`<dt key=${name}>${name}</dt>
            <dd>${own.map((each) => each.upstream_model).join(", ")}</dd>`)}</dl>
          <p class="small-text">A profile's <code>price</code> in the configuration states one.</p>
        </div>
      </div>`}
      ${prices.length
        ? html`<${Table} label="Prices">
            <${Head} columns=${["Provider", "Model", "Price", "Since", "Source"]} />
            <tbody>${prices.map((each) => html`<tr key=${each.id}>
              <td class="nowrap">${each.provider}</td>
              <td class="name">${each.upstream_model}</td>
              <td><${Price} price=${each.price} currency=${each.currency} /></td>
              <td class="nowrap">${when(each.valid_from)}</td>
              <td class="soft">${each.source}</td>
            </tr>`)}</tbody>
          <//>`
        : html`<${Nothing} icon="tag" title="No price is recorded">State prices in the configuration.<//>`}`}<//>
  <//>`;
}

/** A price has digits that a sum does not need. */
const exactMoney = (value, currency) =>
  new Intl.NumberFormat("en", { style: "currency", currency, maximumFractionDigits: 6 }).format(value);

/** Prices are in nano-units: exact, and for programs. */
function Price({ price, currency }) {
  const amount = (nano) => exactMoney(nano / NANO, currency);
  const lines = (price.tiers ?? []).map((tier) => {
    const when = [tier.operation, tier.quality && `quality ${tier.quality}`, tier.size].filter(Boolean).join(", ");
    const tokens = (tier.per_million_tokens ?? []).map(([kind, nano]) => `${amount(nano)} ${kind.replace("_", " ")}`);
    const what = tier.per_image != null ? `${amount(tier.per_image)} an image`
      : tier.per_megapixel != null ? `${amount(tier.per_megapixel)} a megapixel`
      : `${tokens.join(", ")} for a million tokens`;
    const most = tier.at_most != null ? `, at most ${amount(tier.at_most)}` : "";
    return [when, what + most];
  });
  if (price.reported) lines.push(["as reported", `${price.reported}${price.at_most != null ? `, at most ${amount(price.at_most)}` : ""}`]);
  return html`<ul class="tiers">${lines.map(([when, what], place) => html`<li key=${place}>
    ${what}${when && html` <span class="soft">${when}</span>`}</li>`)}</ul>`;
}
