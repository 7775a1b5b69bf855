/** The four limits of a key or a project, as fields. */

import { TextField } from "../base/components.js";
import { html } from "../base/html.js";
import { errorAt, fieldError } from "./parts.js";
import { LIMITS, written } from "./words.js";

/** @returns {Record<string, string>} the texts of the fields */
export const readLimits = (limits) =>
  Object.fromEntries(Object.keys(LIMITS).map((name) => [name, limits?.[name] == null ? "" : String(limits[name])]));

/** @returns {Record<string, number | null>} what the gateway is told: null takes a limit away. Throws for what is no number. */
export function writeLimits(texts) {
  return Object.fromEntries(Object.entries(texts).map(([name, text]) => {
    if (!text.trim()) return [name, null];
    const value = Number(text);
    if (!Number.isInteger(value) || value < 1) throw fieldError(name, "A limit is a whole number from 1 on, or empty.");
    return [name, value];
  }));
}

export const LimitFields = ({ limits, onChange, error, hint }) => html`<fieldset class="limits">
  <legend>Limits</legend>
  <p class="hint">${hint}</p>
  <div class="columns">${Object.entries(LIMITS).map(([name, label]) => html`<${TextField} key=${name} label=${written(label)} inputmode="numeric"
    value=${limits[name]} placeholder="none" error=${errorAt(error, name)} onInput=${(value) => onChange({ ...limits, [name]: value })} />`)}</div>
</fieldset>`;
