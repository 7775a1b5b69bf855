/** Dialogs that issue, change and rotate a key, and show its text once. */

import { Button, CheckField, CopyButton, Dialog, Field, SelectField, TextField } from "../base/components.js";
import { html, useState } from "../base/html.js";
import { Icon } from "../base/icons.js";
import { api, useNames } from "./data.js";
import { LimitFields, readLimits, writeLimits } from "./limit-fields.js";
import { DoDialog, errorAt, fieldError, wordsOf } from "./parts.js";
import { OPERATIONS, written } from "./words.js";

const SCOPES = { draw: "Draw", usage: "Read its project's usage", metrics: "Read /metrics" };
const GRACES = [["0", "At once"], ["3600", "After an hour"], ["86400", "After a day"], ["604800", "After a week"]];

const day = (time) => (time ? new Date(time * 1000).toISOString().slice(0, 10) : "");

/** Issue a key, or change the one that is `known`. `onDone` gets it; a new one with its `value`. */
export function KeyDialog({ known, projectId, onClose, onDone }) {
  const { projects } = useNames();
  const open = projects.filter((each) => each.status === "active");
  const wasAdmin = known?.scopes.includes("admin") ?? false;
  const [kind, setKind] = useState(wasAdmin ? "admin" : "project");
  const [name, setName] = useState(known?.name ?? "");
  const [project, setProject] = useState(known?.project_id ?? projectId ?? open[0]?.id ?? "");
  const [scopes, setScopes] = useState(known?.scopes ?? ["draw"]);
  const [models, setModels] = useState(known?.models.join(", ") ?? "");
  const [operations, setOperations] = useState(known?.operations.length ? known.operations : OPERATIONS);
  const [expires, setExpires] = useState(day(known?.expires_at));
  const [limits, setLimits] = useState(readLimits(known?.limits));
  const isAdmin = kind === "admin";

  async function save() {
    if (!name.trim()) throw fieldError("name", "Give the key a name.");
    const end = expires ? Date.parse(`${expires}T00:00:00Z`) / 1000 : null;
    const body = { name: name.trim(), expires_at: expires === day(known?.expires_at) ? (known?.expires_at ?? null) : end };
    if (!isAdmin) {
      if (!scopes.length || !operations.length) throw new Error("A key may do at least one thing.");
      const all = operations.length === OPERATIONS.length;
      Object.assign(body, { scopes, models: wordsOf(models), operations: all ? [] : operations, ...writeLimits(limits) });
    }
    if (known) return api.post(`v1/gateway/keys/${known.id}`, body);
    if (!isAdmin && !project) throw fieldError("project_id", "Make a project first.");
    return api.post("v1/gateway/keys", { ...body, ...(isAdmin ? { admin: true } : { project_id: project }) });
  }

  return html`<${DoDialog} title=${known ? `Key ${known.name}` : "Issue a key"} verb=${known ? "Save" : "Issue"} doing=${save}
    done=${known && `${name.trim()} is changed.`} onClose=${onClose} onDone=${onDone}>
    ${(error) => html`
      <${TextField} label="Name" value=${name} onInput=${setName} error=${errorAt(error, "name")} autofocus maxlength="200" />
      ${!known && html`<div class="columns">
        <${SelectField} label="Kind" value=${kind} onInput=${setKind} options=${[
          { value: "project", label: "Of a project" },
          { value: "admin", label: "Admin: administrates, and does not draw" },
        ]} />
        ${!isAdmin && html`<${SelectField} label="Project" value=${project} onInput=${setProject} error=${errorAt(error, "project_id")}
          options=${open.length ? open.map((each) => ({ value: each.id, label: each.name })) : [{ value: "", label: "There is none yet" }]} />`}
      </div>`}
      ${!isAdmin && html`
        <div class="columns">
          <${Checks} legend="May" of=${Object.entries(SCOPES)} chosen=${scopes} onChoose=${setScopes} />
          <${Checks} legend="Operations" of=${OPERATIONS.map((each) => [each, written(each)])} chosen=${operations} onChoose=${setOperations} />
        </div>
        <${TextField} label="Models" value=${models} onInput=${setModels} placeholder="every model" error=${errorAt(error, "models")}
          hint="Names or patterns such as black-forest-labs/*, with commas between." />
        <${LimitFields} limits=${limits} onChange=${setLimits} error=${error} hint="Empty: no limit of its own." />`}
      <${Field} label="Expires" hint="At the beginning of that day (UTC). Empty: never." error=${errorAt(error, "expires_at")}>
        ${(bound) => html`<input type="date" ...${bound} value=${expires} onInput=${(event) => setExpires(event.target.value)} />`}
      <//>`}
  <//>`;
}

const Checks = ({ legend, of, chosen, onChoose }) => html`<fieldset><legend>${legend}</legend>
  ${of.map(([value, label]) => html`<${CheckField} key=${value} label=${label} checked=${chosen.includes(value)}
    onInput=${(isIn) => onChoose(isIn ? [...chosen, value] : chosen.filter((each) => each !== value))} />`)}
</fieldset>`;

/** Give a key another text. `onDone` gets it, with its `value`. */
export function RotateDialog({ each, onClose, onDone }) {
  const [grace, setGrace] = useState("86400");
  return html`<${DoDialog} title=${`Rotate ${each.name}?`} verb="Rotate" onClose=${onClose} onDone=${onDone}
    doing=${() => api.post(`v1/gateway/keys/${each.id}/rotate`, { grace_seconds: Number(grace) })}>
    <p>The key gets another text. All else stays.</p>
    <${SelectField} label="The old text ends" value=${grace} onInput=${setGrace}
      options=${GRACES.map(([value, label]) => ({ value, label }))} />
  <//>`;
}

/** The text of a new key. It is nowhere once the dialog is closed. */
export function ShownOnce({ made, onClose }) {
  return html`<${Dialog} title=${`Key ${made.name}`} class="once" onClose=${() => {}} actions=${html`<${Button} kind="primary" onClick=${onClose}>I have stored it<//>`}>
    <div class="stack">
      <div class="alert warn"><${Icon} name="warning" /><p class="alert-text">The key is shown this once. Store it now, where secrets belong.</p></div>
      <div class="secret"><code id="new-key">${made.value}</code><${CopyButton} value=${made.value}>Copy<//></div>
    </div>
  <//>`;
}
