/** Projects, keys and budgets: who may draw, how fast, and for how much. */

import { Button, SelectField, TextField } from "../base/components.js";
import { html, useState } from "../base/html.js";
import { useStore } from "../base/store.js";
import { change, ScreenLink } from "./address.js";
import { BudgetDialog } from "./budget-dialog.js";
import { api, learnNames, session, useAnswer, useNames } from "./data.js";
import { KeyDialog, RotateDialog, ShownOnce } from "./key-dialogs.js";
import { LimitFields, readLimits, writeLimits } from "./limit-fields.js";
import { BudgetLine } from "./overview.js";
import { Answer, Badge, Card, DoDialog, errorAt, fieldError, Head, Screen, Table, useDialog } from "./parts.js";
import { count, done, fromNow, limitsInWords, told, when, written } from "./words.js";

export function Access({ query }) {
  const answer = useAnswer(async (signal) => {
    const [budgets] = await Promise.all([api.get("v1/gateway/budgets", {}, { signal }), learnNames()]);
    return { budgets: budgets.data };
  }, []);
  const [dialog, show] = useDialog();
  const changed = () => answer.reload();
  const issue = (projectId) => show((close) => html`<${KeyDialog} projectId=${projectId} onClose=${close}
    onDone=${(key) => {
      changed();
      show((end) => html`<${ShownOnce} made=${key} onClose=${end} />`);
    }} />`);
  const actions = html`
    <${Button} icon="add" onClick=${() => show((close) => html`<${ProjectDialog} onClose=${close} onDone=${changed} />`)}>New project<//>
    <${Button} icon="key" kind="primary" onClick=${() => issue(query.project_id)}>Issue a key<//>`;
  return html`<${Screen} title="Projects and keys" actions=${actions}
    lead="A key belongs to a project, unless it administrates. Keys of the configuration's file are changed there.">
    <${Answer} answer=${answer}>${({ budgets }) => html`
      <${Projects} show=${show} onChange=${changed} onIssue=${issue} chosen=${query.project_id} />
      <${Keys} show=${show} onChange=${changed} query=${query} />
      <${Budgets} budgets=${budgets} show=${show} onChange=${changed} />`}<//>
    ${dialog}
  <//>`;
}

/** Return what a button does that asks before it does something. */
const confirming = (show, onDone, verb, name, doing, text) => () => show((close) => html`<${DoDialog} title=${`${verb} ${name}?`}
  verb=${verb} isDanger=${verb !== "Enable"} doing=${doing} done=${`${written(name)}: ${done(verb).toLowerCase()}.`} onClose=${close}
  onDone=${onDone}><p>${text}</p><//>`);

// --- projects ---

function Projects({ show, onChange, onIssue, chosen }) {
  const { projects, keys } = useNames();
  const open = projects.filter((each) => each.status === "active");
  const archived = projects.length - open.length;
  return html`<${Card} title="Projects" aside=${archived > 0 && html`<span class="soft">${archived} archived</span>`}>
    ${open.length === 0
      ? html`<p class="soft">There is no project yet. A project holds keys.</p>`
      : html`<${Table} label="Projects">
          <${Head} columns=${["Name", ["Keys", "number"], "Limits of all its keys together", ["", "actions"]]} />
          <tbody>${open.map((project) => html`<tr key=${project.id} class=${project.id === chosen ? "chosen" : ""}>
            <th scope="row" class="name">${project.name}<span class="under"><code>${project.id}</code>${project.source === "file" && " · of the configuration"}</span></th>
            <td class="number"><${ScreenLink} to=${{ screen: "access", project_id: project.id }}>
              ${keys.filter((key) => key.project_id === project.id).length}<//></td>
            <td>${limitsInWords(project.limits)}</td>
            <td class="actions">
              <${Button} class="small" aria-label=${`Issue a key for ${project.name}`} onClick=${() => onIssue(project.id)}>Issue a key<//>
              ${project.source !== "file" && html`
                <${Button} class="small" aria-label=${`Change project ${project.name}`}
                  onClick=${() => show((close) => html`<${ProjectDialog} project=${project} onClose=${close} onDone=${onChange} />`)}>Change<//>
                <${Button} class="small" kind="danger" aria-label=${`Archive project ${project.name}`}
                  onClick=${confirming(show, onChange, "Archive", project.name, () => api.post(`v1/organization/projects/${project.id}/archive`),
                    "Its keys draw no more, and there is no way back. What it has drawn stays in the ledger.")}>Archive<//>`}
            </td>
          </tr>`)}</tbody>
        <//>`}
  <//>`;
}

function ProjectDialog({ project, onClose, onDone }) {
  const [name, setName] = useState(project?.name ?? "");
  const [limits, setLimits] = useState(readLimits(project?.limits));
  async function save() {
    if (!name.trim()) throw fieldError("name", "Give the project a name.");
    const changes = writeLimits(limits);
    const made = project ?? (await api.post("v1/organization/projects", { name: name.trim() }));
    return api.post(`v1/gateway/projects/${made.id}`, { ...changes, ...(project && { name: name.trim() }) });
  }
  return html`<${DoDialog} title=${project ? `Project ${project.name}` : "New project"} verb=${project ? "Save" : "Make"} doing=${save}
    done=${`Project ${name.trim()} is ${project ? "changed" : "made"}.`} onClose=${onClose} onDone=${onDone}>
    ${(error) => html`
      <${TextField} label="Name" value=${name} onInput=${setName} error=${errorAt(error, "name")} autofocus maxlength="200" />
      <${LimitFields} limits=${limits} onChange=${setLimits} error=${error} hint="For all keys of the project together. Empty: no limit." />`}
  <//>`;
}

// --- keys ---

function Keys({ show, onChange, query }) {
  const names = useNames();
  const own = useStore(session, (state) => state.caller.id);
  const shown = names.keys
    .filter((key) => !query.project_id || key.project_id === query.project_id)
    .filter((key) => !query.find || `${key.name} ${key.id}`.toLowerCase().includes(query.find.toLowerCase()))
    .toReversed();
  const set = (changes) => change({ screen: "access", ...changes }, { replace: true });
  const projects = [{ value: "", label: "Every project" }, ...names.projects.map(({ id, name }) => ({ value: id, label: name }))];
  return html`<${Card} title="Keys" aside=${html`<span class="soft">${count(shown.length, "key")}</span>`}>
    ${names.keys.length > 0 && html`<div class="filters flat">
      <${TextField} label="Find" type="search" value=${query.find ?? ""} onInput=${(find) => set({ find })} placeholder="a name or an id" />
      <${SelectField} label="Project" value=${query.project_id ?? ""} options=${projects} onInput=${(value) => set({ project_id: value })} />
    </div>`}
    ${shown.length === 0
      ? html`<p class="soft">${names.keys.length ? "No key fits." : "No key has been issued yet."}</p>`
      : html`<${Table} label="Keys">
          <${Head} columns=${["Name", "Project", "May", "Limits", "Last used", "State", ["", "actions"]]} />
          <tbody>${shown.map((key) => html`<${KeyRow} key=${key.id} each=${key} names=${names} show=${show} onChange=${onChange}
            isOwn=${key.id === own} />`)}</tbody>
        <//>`}
  <//>`;
}

function KeyRow({ each, names, show, onChange, isOwn }) {
  const isAdmin = each.scopes.includes("admin");
  const isStated = each.source === "file";
  const may = isAdmin ? "administrate" : [...each.scopes, ...each.operations].join(", ");
  const open = (Dialog, more = {}) => () => show((close) => html`<${Dialog} each=${each} known=${each} onClose=${close} onDone=${onChange} ...${more} />`);
  const rotated = (key) => {
    onChange();
    show((end) => html`<${ShownOnce} made=${key} onClose=${end} />`);
  };
  return html`<tr class=${each.state === "active" ? "" : "off"}>
    <th scope="row" class="name">${each.name}${isOwn && html` <span class="badge accent">yours</span>`}
      <span class="under"><code>${each.redacted_value ?? each.id}</code>${isStated && " · of the configuration"}</span></th>
    <td class="name">${each.project_id ? names.projectName(each.project_id) : html`<span class="soft">–</span>`}</td>
    <td class="name">${may}${each.models.length > 0 && html`<span class="under">${each.models.join(", ")}</span>`}</td>
    <td class="limits-cell">${isAdmin ? html`<span class="soft">–</span>` : limitsInWords(each.limits)}</td>
    <td class="nowrap">${each.last_used_at ? fromNow(each.last_used_at) : html`<span class="soft">${isStated ? "–" : "never"}</span>`}</td>
    <td><${Badge} of=${told(each.state)} />
      ${each.expires_at && html`<span class="under">until ${when(each.expires_at)}</span>`}
      ${each.disabled_reason && html`<span class="under">${each.disabled_reason}</span>`}</td>
    <td class="actions">
      ${!isStated && html`
        <${Button} class="small" aria-label=${`Change key ${each.name}`} onClick=${open(KeyDialog)}>Change<//>
        <${Button} class="small" aria-label=${`Rotate key ${each.name}`} onClick=${open(RotateDialog, { onDone: rotated })}>Rotate<//>
        ${!isOwn && html`
          ${each.state === "disabled"
            ? html`<${Button} class="small" aria-label=${`Enable key ${each.name}`} onClick=${confirming(show, onChange, "Enable", each.name, () => api.post(`v1/gateway/keys/${each.id}/enable`), "It is good again at once.")}>Enable<//>`
            : html`<${Button} class="small" aria-label=${`Disable key ${each.name}`} onClick=${open(DisableDialog)}>Disable<//>`}
          <${Button} class="small" kind="danger" aria-label=${`Delete key ${each.name}`} onClick=${confirming(show, onChange, "Delete", each.name, () => api.delete(`v1/gateway/keys/${each.id}`),
              "It is refused from now on, and there is no way back. What it has drawn stays in the ledger.")}>Delete<//>`}`}
    </td>
  </tr>`;
}

function DisableDialog({ each, onClose, onDone }) {
  const [reason, setReason] = useState("");
  return html`<${DoDialog} title=${`Disable ${each.name}?`} verb="Disable" isDanger onClose=${onClose} onDone=${onDone}
    doing=${() => api.post(`v1/gateway/keys/${each.id}/disable`, { reason: reason.trim() || null })} done=${`${each.name} is disabled.`}>
    <p>Its requests are refused from now on. Those under way run to their end.</p>
    <${TextField} label="Reason" hint="For your colleagues." value=${reason} onInput=${setReason} maxlength="200" />
  <//>`;
}

// --- budgets ---

function Budgets({ budgets, show, onChange }) {
  const add = html`<${Button} icon="add" class="small" onClick=${() => show((close) => html`<${BudgetDialog} onClose=${close} onDone=${onChange} />`)}>Set a budget<//>`;
  return html`<${Card} title="Budgets" aside=${add}>
    ${budgets.length === 0 && html`<p class="soft">No budget is set, so nothing stops the spending.</p>`}
    <ul class="budgets">${budgets.map((budget) => html`<${BudgetLine} key=${budget.id} budget=${budget}>
      <div class="row">
        ${budget.source === "file"
          ? html`<span class="small-text soft">It stands in the configuration.</span>`
          : html`
            <${Button} class="small" aria-label=${`Change the budget ${budget.id}`}
              onClick=${() => show((close) => html`<${BudgetDialog} budget=${budget} onClose=${close} onDone=${onChange} />`)}>Change<//>
            <${Button} class="small" kind="danger" aria-label=${`Remove the budget ${budget.id}`}
              onClick=${confirming(show, onChange, "Remove", "the budget", () => api.delete(`v1/gateway/budgets/${budget.id}`),
                "It holds no more from now on.")}>Remove<//>`}
      </div>
    <//>`)}</ul>
  <//>`;
}
