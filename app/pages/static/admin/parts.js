/** What several screens are made of. */

import { Button, Dialog, Empty, ErrorBox, Loading } from "../base/components.js";
import { html, useEffect, useState } from "../base/html.js";
import { note } from "../base/live.js";
import { act } from "./data.js";

/** A screen: its heading, what stands beside it, and its content. */
export function Screen({ title, lead, children, actions }) {
  useEffect(() => {
    document.title = `${title} · Administration · Image Gateway`;
  }, [title]);
  return html`<div class="screen">
    <header class="screen-head">
      <div>
        <h1>${title}</h1>
        ${lead && html`<p class="soft">${lead}</p>`}
      </div>
      ${actions && html`<div class="row">${actions}</div>`}
    </header>
    ${children}
  </div>`;
}

/**
 * What an answer says once it is there; before it a wait, and instead of it an error.
 * @param {{answer: ReturnType<typeof useAnswer>, children: (value: any) => any}} props
 */
export function Answer({ answer, children }) {
  if (answer.error) return html`<${ErrorBox} error=${answer.error} onRetry=${answer.reload} />`;
  if (answer.value === undefined) return html`<${Loading} />`;
  return html`<div class=${answer.isLoading ? "stale stack" : "stack"} aria-busy=${answer.isLoading}>
    ${children(answer.value)}
  </div>`;
}

export function Card({ title, aside, children, class: extra = "" }) {
  return html`<section class=${`card part ${extra}`}>
    <div class="row apart part-head"><h2>${title}</h2>${aside}</div>
    ${children}
  </section>`;
}

export const Badge = ({ of: [label, kind], ...rest }) => html`<span class=${`badge ${kind}`} ...${rest}>${label}</span>`;

/** A table that scrolls by itself where it is too wide, and so can be reached by the keyboard. */
export const Table = ({ label, children, class: extra = "" }) =>
  html`<div class="table-box" tabindex="0" role="region" aria-label=${label}>
    <table class=${extra}>${children}</table>
  </div>`;

/** The head of a table. A column is a text, or [text, class]. */
export const Head = ({ columns }) => html`<thead><tr>${columns.map((column) => {
  const [label, kind] = Array.isArray(column) ? column : [column, ""];
  return label
    ? html`<th key=${label} scope="col" class=${kind}>${label}</th>`
    : html`<td class=${kind}></td>`;
})}</tr></thead>`;

/** The end of a list that may go on. */
export const More = ({ of, hasMore, onNext }) => html`<div class="row apart">
  <span class="soft">${of}${hasMore && ", and more"}</span>
  ${hasMore && html`<${Button} onClick=${onNext}>Older ones<//>`}
</div>`;

export const Nothing = ({ title, children, icon = "search" }) =>
  html`<div class="card"><${Empty} icon=${icon} title=${title}>${children}<//></div>`;

/** Facts, as names with values; those without a value are left out. */
export const Facts = ({ of }) => html`<dl class="facts">${of
  .filter(([, value]) => value != null && value !== "" && value !== false)
  .map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;

/**
 * A dialog that does something: it stays open, and says why, until it is done.
 * @param {{doing: () => Promise<any>, done?: string, verb: string, isDanger?: boolean, onClose: () => void}} props
 */
export function DoDialog({ title, verb, doing, done, isDanger = false, onClose, onDone, children, ...rest }) {
  const [error, setError] = useState(null);
  const [isBusy, setBusy] = useState(false);
  async function submit(event) {
    event.preventDefault();
    if (isBusy) return;
    setBusy(true);
    setError(null);
    try {
      const answer = await act(doing);
      if (done) note(done);
      onClose();
      onDone?.(answer);
    } catch (refused) {
      setError(refused);
      setBusy(false);
    }
  }
  const body = typeof children === "function" ? children(error?.param ? error : null) : children;
  const isBeside = error?.param && typeof children === "function";
  return html`<${Dialog} title=${title} onClose=${onClose} ...${rest}>
    <form class="stack" onSubmit=${submit} novalidate>
      ${body}
      ${error && !isBeside && html`<${ErrorBox} error=${error} />`}
      <div class="form-foot">
        <${Button} onClick=${onClose}>Cancel<//>
        <${Button} type="submit" kind=${isDanger ? "danger solid" : "primary"} disabled=${isBusy}>${verb}<//>
      </div>
    </form>
  <//>`;
}

/** Return the error of a dialog that is about the field of one of these names, for beside it. */
export const errorAt = (error, ...names) => (error && names.includes(error.param) ? error.message : null);

/** Return the words of a field, between which stand commas or spaces. */
export const wordsOf = (text) => text.split(/[\s,]+/).filter(Boolean);

/** Return an error that is about a field, as the gateway tells one. */
export const fieldError = (param, message) => Object.assign(new Error(message), { param });

/** One dialog at a time: `[dialog, open]`, where `open` takes a function that gets `close` and draws it. */
export function useDialog() {
  const [draw, setDraw] = useState(null);
  const close = () => setDraw(null);
  return [draw?.(close) ?? null, (drawing) => setDraw(() => drawing)];
}

/** A part of a whole, as a bar. `parts` are [share of the whole, class]. It says nothing: the number stands beside it. */
export const Bar = ({ parts, mark }) => html`<div class="bar" aria-hidden="true">
  ${parts.map(([share, kind]) => html`<i class=${kind} style=${{ width: `${Math.min(share, 1) * 100}%` }}></i>`)}
  ${mark != null && html`<b style=${{ left: `${Math.min(mark, 1) * 100}%` }}></b>`}
</div>`;
