/** Each drawing with its attempts and its money: a list with a filter, and one in detail. */

import { Button, CopyButton, Dialog, Field, SelectField } from "../base/components.js";
import { money, seconds } from "../base/format.js";
import { html } from "../base/html.js";
import { change, ScreenLink } from "./address.js";
import { api, download, useAnswer, useNames, usePages } from "./data.js";
import { chosen, DayFields, Filters } from "./filters.js";
import { Answer, Badge, Facts, Head, More, Nothing, Screen, Table } from "./parts.js";
import { count, done, STATES, told, when, written } from "./words.js";

const FILTERS = ["project_id", "api_key_id", "model", "provider", "operation", "outcome"];

export function Drawings({ query }) {
  const asked = Object.fromEntries(
    [...FILTERS, "state", "request_id", "since", "until"].filter((name) => query[name]).map((name) => [name, query[name]]),
  );
  const set = (changes, how) => change({ screen: "drawings", ...changes }, how);
  const states = chosen(STATES.map((state) => [state, written(state)]));
  return html`<${Screen} title="Drawings" lead="The newest first. Neither prompts nor pictures are kept."
    actions=${html`<${Button} icon="download" onClick=${() => download("v1/gateway/drawings", asked, "drawings.csv")}>CSV<//>`}>
    <${Filters} query=${query} onChange=${set} names=${FILTERS} class="two-rows">
      <${SelectField} label="State" value=${query.state ?? ""} options=${states} onInput=${(state) => set({ state })} />
      <${DayFields} query=${query} onChange=${set} />
      <${Field} label="Request">
        ${(bound) => html`<input type="search" ...${bound} value=${query.request_id ?? ""} placeholder="req_…" spellcheck="false"
          onChange=${(event) => set({ request_id: event.target.value.trim() })} />`}
      <//>
    <//>
    <${List} key=${JSON.stringify(asked)} asked=${asked} onOpen=${(id) => set({ id })} query=${query} />
    ${query.id && html`<${Detail} key=${query.id} id=${query.id} onClose=${() => set({ id: "" })} />`}
  <//>`;
}

function List({ asked, query }) {
  const names = useNames();
  const { first, rows, hasMore, next } = usePages("v1/gateway/drawings", asked);
  return html`<${Answer} answer=${first}>${() => html`
    ${rows.length === 0
      ? html`<${Nothing} title="No drawing fits">Choose fewer filters.<//>`
      : html`<${Table} label="Drawings">
          <${Head} columns=${["When", "Outcome", "Model", "Provider", "Project · key", ["Images", "number"], ["Took", "number"], ["Cost", "number"]]} />
          <tbody>${rows.map((row) => html`<${Row} key=${row.id} row=${row} names=${names} query=${query} />`)}</tbody>
        <//>`}
    <${More} of=${count(rows.length, "drawing")} hasMore=${hasMore} onNext=${next} />`}<//>`;
}

/** Return what a drawing is, of its state and its outcome. */
export const standing = (row) => told(row.state === "in_doubt" || !row.outcome ? row.state : row.outcome);

const Cost = ({ row }) => html`${row.cost_in_doubt > 0 && html`<span class="warn">${money(row.cost_in_doubt, row.currency)}?</span> `}${
  row.cost > 0 || !row.cost_in_doubt ? (row.cost > 0 ? money(row.cost, row.currency) : html`<span class="soft">–</span>`) : ""}`;

const Row = ({ row, names, query }) => html`<tr>
  <td class="nowrap"><${ScreenLink} to=${{ ...query, screen: "drawings", id: row.id }}>${when(row.created_at)}<//></td>
  <td><${Badge} of=${standing(row)} />${row.error_code && html` <code class="small-text soft">${row.error_code}</code>`}</td>
  <td class="name">${row.model}<span class="under">${written(row.operation)}${row.size && `, ${row.size}`}</span></td>
  <td class="nowrap">${row.provider ?? html`<span class="soft">–</span>`}${row.attempts > 1 && html`<span class="under">${row.attempts} attempts</span>`}</td>
  <td class="name">${row.project_id ? names.projectName(row.project_id) : html`<span class="soft">No project</span>`}
    <span class="under">${names.keyName(row.api_key_id)}</span></td>
  <td class="number">${row.images}${row.images !== row.n && html` <span class="soft">of ${row.n}</span>`}</td>
  <td class="number">${seconds(row.seconds)}</td>
  <td class="number"><${Cost} row=${row} /></td>
</tr>`;

// --- one ---

function Detail({ id, onClose }) {
  const answer = useAnswer((signal) => api.get(`v1/gateway/drawings/${encodeURIComponent(id)}`, {}, { signal }), [id]);
  return html`<${Dialog} title="Drawing" class="wide" onClose=${onClose}>
    <${Answer} answer=${answer}>${(row) => html`<${Told} row=${row} />`}<//>
  <//>`;
}

function Told({ row }) {
  const names = useNames();
  const tags = Object.entries(row.tags), asked = Object.entries(row.asked);
  const of = (kind) => [...new Set(row.attempts.flatMap((each) => each[kind]))].join(", ");
  const again = { model: row.asked_model, operation: row.operation, n: row.n, ...((row.asked.size ?? row.size) && { size: row.asked.size ?? row.size }),
    ...(row.asked.seed != null && { seed: row.asked.seed }) };
  return html`
    <div class="row apart">
      <div class="row"><${Badge} of=${standing(row)} />
        ${row.error_code && html`<code>${row.error_code}</code>`}
        <span class="soft">${when(row.created_at)}</span></div>
      <div class="row">
        ${row.state === "in_doubt" && html`<${ScreenLink} class="button" to=${{ screen: "doubts", id: row.id }}>Resolve<//>`}
        <a class="button" href=${`playground?${new URLSearchParams(again)}`}>Open in the playground</a>
      </div>
    </div>
    <${Facts} of=${[
      ["Asked for", `${count(row.n, "image")} of ${row.asked_model}`],
      ["With", asked.length > 0 && asked.map(([name, value]) => `${name}=${value}`).join(", ")],
      ["Drawn", row.images > 0 && `${count(row.images, "image")}${row.size ? `, ${row.size}` : ""}${row.format ? `, ${row.format}` : ""}`],
      ["Mapped", [row.asked_model !== row.model && `${row.asked_model} → ${row.model}`, of("mapped")].filter(Boolean).join(", ")],
      ["Dropped", of("dropped")],
      ["Operation", written(row.operation)],
      ["Quality", row.quality],
      ["Provider", row.provider && `${row.provider}, ${row.upstream_model}`],
      ["Cost", row.cost > 0 && `${money(row.cost, row.currency)}, by ${row.cost_source === "reported" ? "the provider's report" : "the price list"}`],
      ["In doubt", row.cost_in_doubt > 0 && money(row.cost_in_doubt, row.currency)],
      ["Saved", row.saved > 0 && money(row.saved, row.currency)],
      ["Reserved", row.held > 0 && money(row.held, row.currency)],
      ["Project", row.project_id && names.projectName(row.project_id)],
      ["Key", names.keyName(row.api_key_id)],
      ["User", row.user],
      ["Tags", tags.length > 0 && tags.map(([name, value]) => `${name}=${value}`).join(", ")],
      ["Status", row.http_status],
      ["Waited", row.queue_seconds > 0 && seconds(row.queue_seconds)],
      ["First image after", row.first_image_seconds != null && seconds(row.first_image_seconds)],
      ["Took", row.seconds != null && seconds(row.seconds)],
    ]} />
    <${Attempts} row=${row} />
    <${Money} row=${row} />
    <${Facts} of=${[["Request", html`<${Id} value=${row.request_id} />`], ["Run", row.run_id !== row.request_id && html`<${Id} value=${row.run_id} />`],
      ["Drawing", html`<${Id} value=${row.id} />`]]} />`;
}

const Id = ({ value }) => html`<span class="id"><code>${value}</code><${CopyButton} value=${value} class="small" kind="quiet" /></span>`;

/** When each attempt ran, below one another on one scale. */
function Attempts({ row }) {
  const { attempts } = row;
  if (!attempts.length) return html`<section class="stack tight"><h3>Attempts</h3><p class="soft">Nothing was sent to a provider.</p></section>`;
  const start = row.created_at;
  const ends = attempts.map((each) => (each.sent_at ?? start) - start + (each.seconds ?? 0));
  const whole = Math.max(row.seconds ?? 0, ...ends, 0.1);
  return html`<section class="stack tight">
    <h3>Attempts</h3>
    <ol class="attempts">${attempts.map((each, place) => {
      // The ledger keeps full seconds of the beginning; an attempt cannot end after the drawing.
      const took = each.seconds ?? whole - ((each.sent_at ?? start) - start);
      const from = Math.max(0, Math.min((each.sent_at ?? start) - start, whole - took));
      const [label, kind] = told(each.result ?? "under_way");
      return html`<li key=${place}>
        <div class="row apart">
          <span><b>${each.provider}</b> <span class="soft">${each.upstream_model}</span></span>
          <span class="row"><${Badge} of=${[label, kind]} /><span class="numbers">${seconds(each.seconds)}</span></span>
        </div>
        <div class="time" aria-hidden="true"><i class=${kind} style=${{ left: `${(from / whole) * 100}%`, width: `${Math.max(0.8, (took / whole) * 100)}%` }}></i></div>
        <div class="small-text soft">
          ${[
            each.images > 0 && count(each.images, "image"),
            each.http_status && `status ${each.http_status}`,
            each.cost > 0 && money(each.cost, row.currency),
            each.cost_in_doubt > 0 && `${money(each.cost_in_doubt, row.currency)} in doubt`,
            each.provider_request_id && `the provider's id ${each.provider_request_id}`,
          ].filter(Boolean).join(" · ")}
        </div>
      </li>`;
    })}</ol>
  </section>`;
}

const signed = (value, currency) => (value === 0 ? html`<span class="soft">–</span>` : `${value > 0 ? "+" : "−"}${money(Math.abs(value), currency)}`);

const Money = ({ row }) => row.entries.length > 0 && html`<section class="stack tight">
  <h3>Money</h3>
  <${Table} label="Movements of money">
    <${Head} columns=${["When", "What", ["Reserved", "number"], ["Spent", "number"], ["In doubt", "number"], "By"]} />
    <tbody>${row.entries.map((entry, place) => html`<tr key=${place}>
      <td class="nowrap">${when(entry.created_at)}</td>
      <td>${written(done(entry.kind))}${entry.note && html`<span class="under">${entry.note}</span>`}</td>
      <td class="number">${signed(entry.held, row.currency)}</td>
      <td class="number">${signed(entry.spent, row.currency)}</td>
      <td class="number">${signed(entry.in_doubt, row.currency)}</td>
      <td class="soft">${entry.by}</td>
    </tr>`)}</tbody>
  <//>
</section>`;
