/** The choices by which usage and drawings are narrowed. */

import { Field, SelectField } from "../base/components.js";
import { html } from "../base/html.js";
import { api, useAnswer, useNames } from "./data.js";
import { DAY } from "./sums.js";
import { OPERATIONS, OUTCOMES, written } from "./words.js";

export const chosen = (pairs) => [{ value: "", label: "All" }, ...pairs.map(([value, name]) => ({ value, label: name }))];

const named = (words) => words.map((word) => [word, written(word)]);

/** Return a list with the value that the address has, even where the gateway does not know it any more. */
const including = (pairs, value) => (value && !pairs.some(([known]) => known === value) ? [...pairs, [value, value]] : pairs);

/** @param {{query: object, onChange: (changes: object) => void}} props `names`: which of the filters are shown */
export function Filters({ query, onChange, names: shown, children, class: extra = "" }) {
  const names = useNames();
  const known = useAnswer(
    async (signal) => {
      const [models, providers] = await Promise.all([
        api.get("v1/models", {}, { signal }).catch(() => ({ data: [] })), // an admin key may not draw
        api.get("v1/gateway/providers", {}, { signal }),
      ]);
      return {
        models: models.data.filter((each) => !each.capabilities?.alias_of).map(({ id }) => [id, id]),
        providers: [...new Set(providers.data.map((each) => each.provider))].map((name) => [name, name]),
      };
    },
    [],
  ).value ?? { models: [], providers: [] };
  const lists = {
    project_id: ["Project", names.projects.map(({ id, name }) => [id, name])],
    api_key_id: ["Key", names.keys.filter((key) => !key.scopes.includes("admin")).map(({ id, name }) => [id, name])],
    model: ["Model", known.models],
    provider: ["Provider", known.providers],
    operation: ["Operation", named(OPERATIONS)],
    outcome: ["Outcome", named(OUTCOMES)],
  };
  return html`<div class=${`filters card ${extra}`}>
    ${children}
    ${shown.map((name) => {
      const [label, pairs] = lists[name];
      return html`<${SelectField} key=${name} label=${label} value=${query[name] ?? ""}
        options=${chosen(including(pairs, query[name]))} onInput=${(value) => onChange({ [name]: value })} />`;
    })}
  </div>`;
}

const day = (time) => (time ? new Date(Number(time) * 1000).toISOString().slice(0, 10) : "");
const timeOf = (text) => (text ? Date.parse(`${text}T00:00:00Z`) / 1000 : "");

/** The first and the last day of a span, in UTC. `until` in the address is the end of the last day. */
export const DayFields = ({ query, onChange }) => html`
  <${Field} label="From">
    ${(bound) => html`<input type="date" ...${bound} value=${day(query.since)}
      onChange=${(event) => onChange({ since: timeOf(event.target.value) })} />`}
  <//>
  <${Field} label="To">
    ${(bound) => html`<input type="date" ...${bound} value=${query.until ? day(Number(query.until) - DAY) : ""}
      onChange=${(event) => onChange({ until: event.target.value ? timeOf(event.target.value) + DAY : "" })} />`}
  <//>`;
