/** The settings in effect, as the file would write them. */

import { CopyButton } from "../base/components.js";
import { html } from "../base/html.js";
import { api, useAnswer } from "./data.js";
import { Answer, Screen } from "./parts.js";

export function Configuration() {
  const answer = useAnswer((signal) => api.get("v1/gateway/configuration", {}, { signal }), []);
  const text = answer.value && JSON.stringify(answer.value.settings, null, 2);
  return html`<${Screen} title="Configuration" lead="What holds now, with the defaults. Of a secret it is said that it is set."
    actions=${text && html`<${CopyButton} value=${text}>Copy<//>`}>
    <${Answer} answer=${answer}>${({ settings, is_sandbox: isSandbox }) => {
      const isSection = ([, value]) => value && typeof value === "object";
      const all = Object.entries(settings);
      const sections = [...all.filter(isSection), ["further", Object.fromEntries(all.filter((each) => !isSection(each)))]]
        .filter(([, value]) => isBlock(value));
      return html`
        ${isSandbox && html`<div class="alert warn"><p class="alert-text">This is the sandbox: no provider
          is configured, and simulated ones draw.</p></div>`}
        <div class="settings">${sections.map(([name, value]) => html`<section key=${name} class="card part">
          <h2>${name}</h2><pre tabindex="0" aria-label=${`Section ${name}`}>${lines(value)}</pre></section>`)}</div>`;
    }}<//>
  <//>`;
}

const isBlock = (value) => value && typeof value === "object" && Object.keys(value).length > 0;

/** Write a value as YAML does, for reading. */
function lines(value, indent = "") {
  if (!isBlock(value)) return JSON.stringify(value).replace(/^"([\w./ -]+)"$/, "$1");
  return Object.entries(value)
    .map(([name, each]) => {
      const inner = lines(each, `${indent}  `);
      return indent + (Array.isArray(value) ? `- ${inner.trimStart()}` : `${name}:${isBlock(each) ? "\n" : " "}${inner}`);
    })
    .join("\n");
}
