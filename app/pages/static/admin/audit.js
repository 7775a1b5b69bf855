/** Who changed what, the newest first. */

import { Field } from "../base/components.js";
import { html } from "../base/html.js";
import { change } from "./address.js";
import { useNames, usePages } from "./data.js";
import { DayFields } from "./filters.js";
import { Answer, Head, More, Nothing, Screen, Table } from "./parts.js";
import { count, done, when, written } from "./words.js";

export function Audit({ query }) {
  const asked = { since: query.since, until: query.until, object_id: query.object_id, actor_id: query.actor_id };
  const set = (changes) => change({ screen: "audit", ...changes });
  const field = (name, label, hint) => html`<${Field} label=${label}>
    ${(bound) => html`<input type="search" ...${bound} value=${query[name] ?? ""} placeholder=${hint} spellcheck="false"
      onChange=${(event) => set({ [name]: event.target.value.trim() })} />`}
  <//>`;
  return html`<${Screen} title="Audit" lead="Each change of a project, a key, a budget or a doubt, and its author.">
    <div class="filters card two-rows">
      <${DayFields} query=${query} onChange=${set} />
      ${field("object_id", "What", "an id")}
      ${field("actor_id", "By", "a key's id, a login")}
    </div>
    <${List} key=${JSON.stringify(asked)} asked=${asked} onChoose=${set} />
  <//>`;
}

function List({ asked, onChoose }) {
  const { first, rows, hasMore, next } = usePages("v1/gateway/events", asked);
  return html`<${Answer} answer=${first}>${() => html`
    ${rows.length
      ? html`<${Table} label="Changes">
          <${Head} columns=${["When", "What", "Change", "By"]} />
          <tbody>${rows.map((row) => html`<${Row} key=${row.id} row=${row} onChoose=${onChoose} />`)}</tbody>
        <//>`
      : html`<${Nothing} icon="list" title="Nothing was changed">Choose more days, or no filter.<//>`}
    <${More} of=${count(rows.length, "change")} hasMore=${hasMore} onNext=${next} />`}<//>`;
}

function Row({ row, onChoose }) {
  const names = useNames();
  const known = { api_key: names.keyName, project: names.projectName }[row.object_kind]?.(row.object_id);
  const name = row.after?.name ?? row.before?.name ?? (known !== row.object_id ? known : null);
  const author = row.actor.kind === "key" ? names.keyName(row.actor.id) : row.actor.id;
  return html`<tr>
    <td class="nowrap">${when(row.created_at)}</td>
    <td class="what">${written(row.object_kind.replace("api_", ""))} ${name && html`<b>${name}</b> `}${done(row.action)}
      <span class="under"><button type="button" class="link plain" title="Its changes alone"
        onClick=${() => onChoose({ object_id: row.object_id })}><code>${row.object_id}</code></button></span></td>
    <td class="changes"><${Changes} row=${row} /></td>
    <td class="name">${author}<span class="under">${[row.actor.kind, row.actor.address].filter(Boolean).join(", ")}</span></td>
  </tr>`;
}

const MONEY = /_nano$/;
const TIMES = /_(at|until)$|^since$/;

/** Say a value of a row of the database: money in nano-units, times in microseconds. */
function valueOf(name, value) {
  if (value == null || value === "" || value === "[]") return "none";
  if (MONEY.test(name)) return String(value / 1e9);
  if (TIMES.test(name)) return when(value / 1e6);
  if (name === "hard") return value ? "yes" : "no";
  // Lists stand in the database as JSON.
  const list = typeof value === "string" && value.startsWith("[") ? JSON.parse(value) : value;
  return Array.isArray(list) ? list.join(", ") : String(value);
}

function Changes({ row }) {
  const names = useNames();
  const { before, after } = row;
  const hidden = new Set(["id", "source", "created_at", "created_by"]);
  const fields = Object.keys(after ?? before ?? {}).filter((name) => !hidden.has(name));
  const shown = fields.filter((name) => (before && after) || !["none", "0"].includes(valueOf(name, (after ?? before)[name])));
  const inWords = (name, value) => {
    const text = valueOf(name, value);
    return /^(project|scope)_id$/.test(name) ? names.keyName(names.projectName(text)) : text;
  };
  return html`<ul>${shown.map((name) => html`<li key=${name}>
    <span class="soft">${name.replace(MONEY, "").replaceAll("_", " ")}</span>${" "}
    ${before && after && html`<s>${inWords(name, before[name])}</s> → `}${inWords(name, (after ?? before)[name])}
  </li>`)}</ul>`;
}
