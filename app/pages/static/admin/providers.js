/** The health of each provider and its models, and the question whether it can be reached. */

import { Button, ErrorBox } from "../base/components.js";
import { number, seconds } from "../base/format.js";
import { html, useEffect, useState } from "../base/html.js";
import { announce } from "../base/live.js";
import { act, api, useAnswer } from "./data.js";
import { byProvider, lampInWords } from "./overview.js";
import { Answer, Badge, Bar, Head, Nothing, Screen, Table } from "./parts.js";
import { count, PAUSES, told } from "./words.js";

const REFRESH = 10_000;

export function Providers() {
  const answer = useAnswer((signal) => api.get("v1/gateway/providers", {}, { signal }), []);
  useEffect(() => {
    const timer = setInterval(() => document.visibilityState === "visible" && answer.reload(), REFRESH);
    return () => clearInterval(timer);
  }, []);
  return html`<${Screen} title="Providers" lead="As this process sees them. A check asks for the list of models: it costs nothing."
    actions=${html`<${Button} icon="refresh" label="Ask again" onClick=${answer.reload} />`}>
    <${Answer} answer=${answer}>${({ data }) => (data.length
      ? byProvider(data).map((each) => html`<${Provider} key=${each.name} provider=${each} />`)
      : html`<${Nothing} icon="layers" title="No provider serves a model">Name some in the configuration.<//>`)}<//>
  <//>`;
}

function Provider({ provider }) {
  const [found, setFound] = useState(null);
  const [isBusy, setBusy] = useState(false);
  async function check() {
    setBusy(true);
    try {
      const answer = await act(() => api.post(`v1/gateway/providers/${encodeURIComponent(provider.name)}/check`));
      setFound({ answer });
      announce(`${provider.name}: ${foundInWords(answer)}`);
    } catch (error) {
      setFound({ error });
    } finally {
      setBusy(false);
    }
  }
  return html`<section class="card part">
    <div class="row apart part-head">
      <div class="row"><i class=${`lamp ${provider.lamp}`} aria-hidden="true"></i><h2>${provider.name}</h2>
        <span class="soft">${lampInWords(provider)}</span></div>
      <${Button} class="small" onClick=${check} disabled=${isBusy} aria-label=${`Check online: ${provider.name}`}>
        ${isBusy && html`<span class="spinner" aria-hidden="true"></span>`}Check online<//>
    </div>
    ${found?.error && html`<${ErrorBox} error=${found.error} />`}
    ${found?.answer && html`<div class=${`alert ${found.answer.is_usable ? "good" : "bad"}`}>
      <div class="alert-text"><p><b>${foundInWords(found.answer)}</b></p>
        ${found.answer.message && html`<p>${found.answer.message}</p>`}
        ${found.answer.not_listed.length > 0 && html`<p>It does not list ${found.answer.not_listed.map((model, place) => html`${place > 0 && ", "}<code>${model}</code>`)}.</p>`}
      </div></div>`}
    <${Table} label=${`Models of ${provider.name}`} class="even">
      <${Head} columns=${["Model", "State", ["Places", "wide"], ["Waiting", "number"], ["Failures", "number"], ["Typical", "number"]]} />
      <tbody>${provider.own.map((each) => html`<tr key=${each.id}>
        <td class="name">${each.upstream_model}</td>
        <td>${each.pauses.length
          ? each.pauses.map(({ reason, seconds: left }) => html`<${Badge} of=${[`${PAUSES[reason] ?? reason}, ${seconds(left)} left`, reason === "limited" ? "warn" : "bad"]} /> `)
          : html`<${Badge} of=${told("well")} />`}</td>
        <td><div class="share">${each.max_concurrency != null && html`<${Bar} parts=${[[each.running / each.max_concurrency, "spent"]]} />`}
          <span class="numbers">${each.running}${each.max_concurrency == null ? html` <span class="soft">running</span>` : ` of ${each.max_concurrency}`}</span></div></td>
        <td class="number">${number(each.waiting)}</td>
        <td class="number">${each.failures || html`<span class="soft">–</span>`}</td>
        <td class="number">${seconds(each.typical_seconds)}</td>
      </tr>`)}</tbody>
    <//>
  </section>`;
}

function foundInWords({ outcome, has_credential: hasCredential, models }) {
  const credential = hasCredential ? "The credential is not refused" : "No credential was sent";
  return {
    listed: `Reachable. ${credential}, and ${count(models, "model is", "models are")} listed.`,
    unlisted: "Reachable, but its models are not known.",
    connected: "Reachable. It has no list of models to ask for.",
    refused: hasCredential ? "It refuses the credential." : "It wants a credential.",
    unreachable: "It cannot be reached.",
  }[outcome];
}
