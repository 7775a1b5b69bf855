/** The parts that both pages are made of. Each takes plain properties; other attributes are handed on. */

import { html, useLayoutEffect, useRef, useState } from "./html.js";
import { Icon } from "./icons.js";
import { note } from "./live.js";
import { text } from "./strings.js";
import { ThemeToggle } from "./theme.js";

let lastId = 0;
/** Return an id that no other element of the page has. */
export const useId = () => useState(() => `id-${(lastId += 1)}`)[0];

/** @param {{icon?: string, kind?: "primary" | "quiet" | "danger" | "", label?: string}} props `label`: of a button that
 *  shows an icon alone */
export function Button({ icon, kind = "", label, children, class: extra = "", ...rest }) {
  const classes = `button ${kind} ${children ? "" : "square"} ${extra}`;
  return html`<button type="button" class=${classes} aria-label=${label} title=${label} ...${rest}>
    ${icon && html`<${Icon} name=${icon} />`}${children}
  </button>`;
}

/**
 * A control with its name, a hint, and the error that is about it.
 * `children` is a function that gets the attributes of the control: `(bound) => html`<input ...${bound} />``.
 */
export function Field({ label, hint, error, aside, children, class: extra = "" }) {
  const id = useId();
  const described = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(" ");
  const bound = { id, "aria-describedby": described || undefined, "aria-invalid": error ? "true" : undefined };
  return html`<div class=${`field ${extra} ${error ? "bad" : ""}`}>
    <div class="field-head"><label for=${id}>${label}</label>${aside}</div>
    ${children(bound)}
    ${hint && html`<p class="hint" id=${`${id}-hint`}>${hint}</p>`}
    ${error && html`<p class="error" id=${`${id}-error`} role="alert">${error}</p>`}
  </div>`;
}

export function TextField({ label, hint, error, aside, value, onInput, class: extra, ...rest }) {
  return html`<${Field} label=${label} hint=${hint} error=${error} aside=${aside} class=${extra}>
    ${(bound) => html`<input type="text" ...${bound} value=${value} onInput=${(event) => onInput(event.target.value)}
      ...${rest} />`}
  <//>`;
}

/** @param {{options: {value: string, label: string, disabled?: boolean}[]}} props */
export function SelectField({ label, hint, error, aside, value, options, onInput, class: extra, ...rest }) {
  return html`<${Field} label=${label} hint=${hint} error=${error} aside=${aside} class=${extra}>
    ${(bound) => html`<select ...${bound} value=${value} onChange=${(event) => onInput(event.target.value)} ...${rest}>
      ${options.map(
        (each) => html`<option value=${each.value} disabled=${each.disabled} selected=${each.value === value}>
          ${each.label}
        </option>`,
      )}
    </select>`}
  <//>`;
}

export function CheckField({ label, hint, checked, onInput, ...rest }) {
  const id = useId();
  return html`<div class="check">
    <input type="checkbox" id=${id} checked=${checked} aria-describedby=${hint ? `${id}-hint` : undefined}
      onChange=${(event) => onInput(event.target.checked)} ...${rest} />
    <div><label for=${id}>${label}</label>${hint && html`<p class="hint" id=${`${id}-hint`}>${hint}</p>`}</div>
  </div>`;
}

/** One of a few, all of them seen: radio buttons that look like one piece. */
export function Segmented({ label, value, options, onInput, isLabelShown = false }) {
  const id = useId();
  return html`<fieldset class="segmented">
    <legend class=${isLabelShown ? "" : "unseen"}>${label}</legend>
    <div class="segments">
      ${options.map(
        (each) => html`<label key=${each.value} class=${each.value === value ? "chosen" : ""} title=${each.title}>
          <input type="radio" name=${id} value=${each.value} checked=${each.value === value} disabled=${each.disabled}
            onChange=${() => onInput(each.value)} />
          <span>${each.icon && html`<${Icon} name=${each.icon} />`}${each.label}</span>
        </label>`,
      )}
    </div>
  </fieldset>`;
}

/** A dialog of the browser: it keeps the focus, and Escape closes it. It is there while it is drawn. */
export function Dialog({ title, onClose, children, actions, class: extra = "", ...rest }) {
  const ref = useRef(null);
  const id = useId();
  useLayoutEffect(() => { // at once: a key that is pressed before it is open would go to what lies beneath
    const dialog = ref.current;
    const before = document.activeElement;
    dialog.showModal();
    return () => {
      if (dialog.open) dialog.close();
      before?.focus?.();
    };
  }, []);
  const onCancel = (event) => {
    event.preventDefault();
    onClose();
  };
  const onClick = (event) => event.target === ref.current && onClose();
  return html`<dialog ref=${ref} class=${`dialog ${extra}`} aria-labelledby=${id} onCancel=${onCancel}
    onMouseDown=${onClick} ...${rest}>
    <header class="dialog-head">
      <h2 id=${id}>${title}</h2>
      <${Button} kind="quiet" icon="close" label=${text.close} onClick=${onClose} />
    </header>
    <div class="dialog-body" tabindex="-1">${children}</div>
    ${actions && html`<footer class="dialog-foot">${actions}</footer>`}
  </dialog>`;
}

/** What a place says while it holds nothing. */
export const Empty = ({ icon = "image", title, children }) => html`<div class="empty">
  <${Icon} name=${icon} />
  <p class="empty-title">${title}</p>
  ${children && html`<div class="empty-text">${children}</div>`}
</div>`;

export const Loading = ({ children = text.loading }) =>
  html`<div class="loading"><span class="spinner" aria-hidden="true"></span>${children}</div>`;

/** An error that is about no field, with what can be done. */
export const ErrorBox = ({ error, onRetry, children }) => html`<div class="alert bad" role="alert">
  <${Icon} name="warning" />
  <div class="alert-text">
    <p>${error.message}</p>
    ${error.requestId && html`<p class="hint">Request <code>${error.requestId}</code></p>`}
    ${children}
  </div>
  ${onRetry && html`<${Button} onClick=${onRetry} class="small">${text.retry}<//>`}
</div>`;

/** Copy a text; on plain HTTP the clipboard's API is missing, and the old way is taken. */
export async function copyText(value) {
  try {
    if (navigator.clipboard) await navigator.clipboard.writeText(value);
    else if (!copyBySelection(value)) throw new Error("refused");
    note(text.copied);
    return true;
  } catch {
    note(text.copyFailed, { isError: true });
    return false;
  }
}

function copyBySelection(value) {
  const area = document.createElement("textarea");
  area.value = value;
  area.className = "unseen";
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  const before = document.activeElement;
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  before?.focus?.();
  return done;
}

export const CopyButton = ({ value, label = text.copy, children, ...rest }) => html`
  <${Button} icon="copy" label=${children ? undefined : label} onClick=${() => copyText(value)} ...${rest}>
    ${children}
  <//>
`;

/** The bar at the top of a page. `children` stand at its right. */
export function TopBar({ page, children }) {
  const pages = [
    ["playground", text.playground],
    ["admin", text.administration],
  ];
  return html`<header class="top">
    <a class="skip" href="#main">Skip to the content</a>
    <span class="brand"><img src=${document.querySelector("link[rel=icon]").href} alt="" width="24" height="24" />
      <span class="brand-name">${text.product}</span></span>
    <nav class="top-nav" aria-label="Pages">
      ${pages.map(
        ([name, label]) => html`<a key=${name} href=${name} aria-current=${name === page ? "page" : undefined}>${label}</a>`,
      )}
      <a href="docs">${text.apiDocumentation}</a>
    </nav>
    <div class="top-end">${children}<${ThemeToggle} /></div>
  </header>`;
}
