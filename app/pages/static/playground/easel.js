/** What is being drawn: a sheet for each click, its runs side by side, a tile for each picture. */

import { Button } from "../base/components.js";
import { money, seconds } from "../base/format.js";
import { html, useEffect, useRef, useState } from "../base/html.js";
import { Icon } from "../base/icons.js";
import { useOnline } from "../base/live.js";
import { useStore } from "../base/store.js";
import { Compare } from "./compare.js";
import { cancel, dismiss, drawAgain, easel, hasEnded } from "./drawing.js";
import { urlOf } from "./images.js";
import { words } from "./strings.js";

/** @param {{onOpen: (id: string) => void}} props */
export function Easel({ onOpen }) {
  const { sheets } = useStore(easel);
  return sheets.map((sheet) => html`<${Sheet} key=${sheet.id} sheet=${sheet} onOpen=${onOpen} />`);
}

function Sheet({ sheet, onOpen }) {
  const [isComparing, setComparing] = useState(false);
  const self = useRef(null);
  useEffect(() => {
    if (matchMedia("(max-width: 900px)").matches) self.current.scrollIntoView(); // there it lies below the form
  }, []);
  const drawn = sheet.runs.flatMap((run) => Object.values(run.pictures));
  const isOver = sheet.runs.every(hasEnded);
  const prompt = sheet.runs[0].request.fields.prompt;
  return html`<section class="sheet" ref=${self} aria-label=${words.now}>
    <header class="row apart">
      <p class="sheet-prompt" title=${prompt}>${prompt}</p>
      <div class="row tight">
        ${drawn.length > 1 && html`<${Button} class="small" icon="layers" onClick=${() => setComparing(true)}>${words.compare}<//>`}
        ${isOver && html`<${Button} class="small" kind="quiet" icon="close" label=${words.dismiss} onClick=${() => dismiss(sheet.id)} />`}
      </div>
    </header>
    <div class=${`runs count-${Math.min(4, sheet.runs.length)}`}>
      ${sheet.runs.map((run) => html`<${Run} key=${run.id} run=${run} onOpen=${onOpen} />`)}
    </div>
    ${isComparing && html`<${Compare} pictures=${drawn} onClose=${() => setComparing(false)} />`}
  </section>`;
}

function Run({ run, onOpen }) {
  const count = run.request.fields.n ?? 1;
  const indexes = Array.from({ length: count }, (_, index) => index).filter((index) => !run.retried[index] || run.pictures[index]);
  if (!indexes.length) return null;
  return html`<article class="run">
    <div class=${`tiles ${indexes.length > 1 ? "many" : ""}`}>
      ${indexes.map((index) => html`<${Tile} key=${index} run=${run} index=${index} onOpen=${onOpen} />`)}
    </div>
    <${Status} run=${run} />
  </article>`;
}

function Tile({ run, index, onOpen }) {
  const [width, height] = (run.request.fields.size ?? "1x1").split("x").map(Number);
  const shape = { aspectRatio: `${width} / ${height}` };
  const picture = run.pictures[index];
  if (picture) {
    return html`<button type="button" class="tile done" onClick=${() => onOpen(picture.id)} aria-label=${words.open(picture.prompt || picture.model)}>
      <img src=${urlOf(picture.blob)} alt="" width=${picture.width} height=${picture.height} />
    </button>`;
  }
  if (run.state === "failed" || run.state === "cancelled") {
    return html`<div class="tile failed" style=${shape}>
      <${Icon} name=${run.state === "failed" ? "warning" : "close"} />
      <${Button} class="small" icon="refresh" onClick=${() => drawAgain(run, index)}>${words.tryPicture}<//>
    </div>`;
  }
  const partial = run.partials[index];
  return html`<div class=${`tile pending ${partial ? "partial" : ""}`} style=${shape}>${partial && html`<img src=${urlOf(partial)} alt="" />`}</div>`;
}

function Status({ run }) {
  const isOnline = useOnline();
  if (run.state === "failed") {
    return html`<div class="run-foot"><${Name} run=${run} /><p class="error" role="alert">${run.error.message}</p><p class="hint">Run <code>${run.id}</code></p></div>`;
  }
  if (run.state === "cancelled") return html`<div class="run-foot"><${Name} run=${run} /><p class="hint">${words.cancelled[run.paid]}</p></div>`;
  if (run.state === "done") {
    const cost = costOf(run);
    const told = [run.gateway?.provider, seconds(run.seconds), cost != null && money(cost, run.gateway?.currency)].filter(Boolean);
    return html`<div class="run-foot"><${Name} run=${run} /><p class="hint numbers">${told.join(" · ")}</p></div>`;
  }
  const hint = { waiting: words.cancelFreeHint, drawing: words.cancelPaidHint }[run.state];
  return html`<div class="run-foot row apart">
    <div class="grow"><${Name} run=${run} />
      <p class="hint numbers">${isOnline && run.state !== "resuming" ? html`${stateOf(run)} · <${Elapsed} run=${run} />` : run.state === "resuming" && isOnline ? words.resumed : words.offline}</p>
    </div>
    <${Button} class="small" disabled=${run.isCancelling} title=${hint} onClick=${() => cancel(run)}>${words.cancel}<//>
    ${hint && html`<p class="hint full">${hint}</p>`}
  </div>`;
}

const Name = ({ run }) => html`<p class="run-name" title=${run.request.fields.model}>${run.request.fields.model}</p>`;

/** @returns {number | null} what the pictures of a run cost, if each one's price is known */
export function costOf(run) {
  const costs = Object.values(run.pictures).map((picture) => picture.gateway?.cost);
  return costs.length && costs.every((cost) => cost != null) ? costs.reduce((sum, cost) => sum + Number(cost), 0) : null;
}

function stateOf(run) {
  if (run.state === "waiting") return run.place ? words.waitingAt(run.place) : words.waiting;
  return run.state === "drawing" ? words.drawing : words.starting;
}

/** The seconds that are gone, of those that it takes as a rule. */
function Elapsed({ run }) {
  const [gone, setGone] = useState(0);
  useEffect(() => {
    const tell = () => setGone((Date.now() - run.createdAt) / 1000);
    tell();
    const timer = setInterval(tell, 500);
    return () => clearInterval(timer);
  }, [run.id]);
  return html`<span>${words.elapsed(seconds(Math.max(0, gone)), run.typical && seconds(run.typical))}</span>
    <progress class="gone" max=${run.typical ?? 1} value=${run.typical ? Math.min(gone, run.typical) : undefined} aria-hidden="true"></progress>`;
}
