/** The dialog that sets or changes a budget. */

import { CheckField, SelectField, TextField } from "../base/components.js";
import { html, useState } from "../base/html.js";
import { useStore } from "../base/store.js";
import { api, session, useNames } from "./data.js";
import { DoDialog, errorAt, fieldError, wordsOf } from "./parts.js";
import { WINDOWS } from "./words.js";

export function BudgetDialog({ budget, onClose, onDone }) {
  const { projects, keys } = useNames();
  const currency = useStore(session, (state) => state.caller.currency);
  const [owner, setOwner] = useState("all");
  const [amount, setAmount] = useState(budget ? String(budget.amount) : "");
  const [window, setWindow] = useState("month");
  const [timezone, setTimezone] = useState("UTC");
  const [models, setModels] = useState("");
  const [isHard, setHard] = useState(budget?.hard ?? true);
  const [thresholds, setThresholds] = useState((budget?.thresholds ?? [50, 80, 100]).join(", "));
  const owners = [
    { value: "all", label: "Everything" },
    ...projects.filter((each) => each.status === "active").map(({ id, name }) => ({ value: `project ${id}`, label: `Project ${name}` })),
    ...keys.filter((each) => !each.scopes.includes("admin")).map(({ id, name }) => ({ value: `key ${id}`, label: `Key ${name}` })),
  ];

  async function save() {
    if (!/^\d+([.]\d+)?$/.test(amount.trim())) throw fieldError("amount", "Write an amount such as 50 or 12.50.");
    const parts = wordsOf(thresholds).map((each) => Number(each.replace("%", "")));
    if (!parts.every(Number.isInteger)) throw fieldError("thresholds", "Write whole numbers, such as 50, 80, 100.");
    const body = { amount: amount.trim(), hard: isHard, thresholds: parts };
    if (budget) return api.post(`v1/gateway/budgets/${budget.id}`, body);
    const [scope, id] = owner.split(" ");
    const of = { project: { project_id: id }, key: { api_key_id: id } }[scope];
    return api.post("v1/gateway/budgets", { ...body, ...of, window, timezone: timezone.trim() || "UTC", models: wordsOf(models) });
  }

  return html`<${DoDialog} title=${budget ? "Change the budget" : "Set a budget"} verb=${budget ? "Save" : "Set"} doing=${save}
    done=${budget ? "The budget is changed." : "The budget is set."} onClose=${onClose} onDone=${onDone}>
    ${(error) => html`
      ${!budget && html`<${SelectField} label="Of" value=${owner} onInput=${setOwner} options=${owners}
        error=${errorAt(error, "project_id", "api_key_id")} />`}
      <div class="columns">
        <${TextField} label=${`Amount (${currency})`} value=${amount} onInput=${setAmount} inputmode="decimal" error=${errorAt(error, "amount")} autofocus />
        ${!budget && html`<${SelectField} label="For" value=${window} onInput=${setWindow}
          options=${Object.entries(WINDOWS).map(([value, label]) => ({ value, label }))} />`}
      </div>
      ${!budget && html`<div class="columns">
        <${TextField} label="Time zone" value=${timezone} onInput=${setTimezone} error=${errorAt(error, "timezone")}
          hint="Where its days begin, such as Europe/Prague." />
        <${TextField} label="Models" value=${models} onInput=${setModels} placeholder="every model" error=${errorAt(error, "models")}
          hint="Names or patterns, with commas between." />
      </div>`}
      <${TextField} label="Tell at (per cent)" value=${thresholds} onInput=${setThresholds} error=${errorAt(error, "thresholds")}
        hint="In the log, and at the webhook." />
      <${CheckField} label="Hard" hint="What would go beyond is refused before it is drawn. Soft: it is only told." checked=${isHard} onInput=${setHard} />`}
  <//>`;
}
