/** Drawings that were perhaps paid for: a person looks at the provider's bill and says it. */

import { Button, Segmented, TextField } from "../base/components.js";
import { money, seconds } from "../base/format.js";
import { html, useState } from "../base/html.js";
import { change, ScreenLink } from "./address.js";
import { all, api, useAnswer, useNames } from "./data.js";
import { Answer, DoDialog, Facts, Head, Nothing, Screen, Table } from "./parts.js";
import { count, fromNow, when } from "./words.js";

const LONGEST_NOTE = 500;

export function Doubts({ query, onDoubtsChange }) {
  const names = useNames();
  const answer = useAnswer(async (signal) => ({
    rows: await all("v1/gateway/drawings", { state: "in_doubt" }, { signal }),
    days: (await api.get("v1/gateway/configuration", {}, { signal })).settings.ledger?.in_doubt_days,
  }), []);
  const lead = "A connection broke after the request was sent, so the provider may have charged for it. Its bill tells.";
  const chosen = answer.value?.rows.find((row) => row.id === query.id);
  const close = () => change({ screen: "doubts", id: "" });
  function done() {
    answer.reload();
    onDoubtsChange();
  }
  return html`<${Screen} title="In doubt" lead=${lead}>
    <${Answer} answer=${answer}>${({ rows, days }) => (rows.length
      ? html`
        <p>${count(rows.length, "drawing")}, together <b class="numbers">${money(rows.reduce((sum, row) => sum + row.cost_in_doubt, 0), rows[0].currency)}</b>.
          ${days && ` After ${days} days a drawing counts as paid.`}</p>
        <${Table} label="Drawings in doubt">
          <${Head} columns=${["When", "Provider", "Model", "Project · key", ["In doubt", "number"], ["Resolve", "number"]]} />
          <tbody>${rows.map((row) => html`<tr key=${row.id}>
            <td class="nowrap"><${ScreenLink} to=${{ screen: "drawings", id: row.id }}>${when(row.created_at)}<//>
              <span class="under">${fromNow(row.created_at)}</span></td>
            <td class="nowrap">${row.provider ?? "–"}</td>
            <td class="name">${row.model}<span class="under">${row.error_code}</span></td>
            <td class="name">${row.project_id ? names.projectName(row.project_id) : "No project"}
              <span class="under">${names.keyName(row.api_key_id)}</span></td>
            <td class="number">${money(row.cost_in_doubt, row.currency)}</td>
            <td class="number"><${Button} class="small" aria-label=${`Resolve the drawing of ${when(row.created_at)}`}
              onClick=${() => change({ screen: "doubts", id: row.id })}>Resolve…<//></td>
          </tr>`)}</tbody>
        <//>`
      : html`<${Nothing} icon="check" title="Nothing is in doubt">What is drawn is either paid for or free.<//>`)}<//>
    ${chosen && html`<${Resolve} row=${chosen} onClose=${close} onDone=${done} />`}
  <//>`;
}

function Resolve({ row, onClose, onDone }) {
  const [paid, setPaid] = useState("");
  const [words, setWords] = useState("");
  const detail = useAnswer((signal) => api.get(`v1/gateway/drawings/${row.id}`, {}, { signal }), [row.id]);
  const amount = money(row.cost_in_doubt, row.currency);
  async function resolve() {
    if (!paid) throw new Error("Say whether the provider charged for it.");
    return api.post(`v1/gateway/drawings/${row.id}/resolve`, { paid: paid === "yes", note: words.trim() || null });
  }
  return html`<${DoDialog} title=${`${amount} in doubt`} verb="Resolve" doing=${resolve} onClose=${onClose} onDone=${onDone}
    done=${paid === "yes" ? `${amount} count as spent.` : `${amount} are free again.`}>
    <p>Look for this drawing in the bill of ${row.provider ?? "the provider"}. What you say cannot be undone.</p>
    <${Answer} answer=${detail}>${({ attempts }) => html`<${Facts} of=${[
      ["Sent", when(row.created_at)],
      ["Model there", row.upstream_model],
      ["Images", row.n],
      ["Took", row.seconds != null && seconds(row.seconds)],
      ...attempts.filter((each) => each.provider_request_id).map((each) => [`Id at ${each.provider}`, html`<code>${each.provider_request_id}</code>`]),
      ["Error", row.error_code],
    ]} />`}<//>
    <${Segmented} label="Did the provider charge for it?" isLabelShown value=${paid} onInput=${setPaid} options=${[
      { value: "yes", label: "Paid" },
      { value: "no", label: "Not paid" },
    ]} />
    <${TextField} label="Note" hint="Such as the number of the bill." value=${words}
      onInput=${setWords} maxlength=${LONGEST_NOTE} />
  <//>`;
}
