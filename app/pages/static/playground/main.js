/** The playground: the form at one side, what it draws and has drawn at the other. */

import { Button, Dialog, ErrorBox, Loading, TopBar } from "../base/components.js";
import { html, render, useEffect, useLayoutEffect, useState } from "../base/html.js";
import { KeyForm } from "../base/key-form.js";
import { LiveRegions } from "../base/live.js";
import { Questions } from "../base/question.js";
import { useStore } from "../base/store.js";
import { text } from "../base/strings.js";
import { takeUpRuns } from "./drawing.js";
import { Easel } from "./easel.js";
import { Form } from "./form.js";
import { Gallery } from "./gallery.js";
import { cleanFiles, gallery, loadGallery } from "./gallery-store.js";
import { OpenPicture } from "./picture.js";
import { app, fetchModels, holder, loadModels, opened } from "./session.js";
import { words } from "./strings.js";

function Page() {
  const { models, needsKey, refusal, error } = useStore(app);
  const [isHelping, setHelping] = useState(false);
  useLayoutEffect(() => {
    const onKey = (event) => {
      if (event.target.matches("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
      const to = { "/": "prompt", g: "gallery-title" }[event.key];
      if (to) {
        event.preventDefault();
        document.getElementById(to)?.focus();
      } else if (event.key === "?") setHelping(true);
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  return html`<${TopBar} page="playground">
      ${!needsKey && holder.get() && html`<${Button} kind="quiet" icon="key" label=${text.keyChange} onClick=${() => app.set({ needsKey: true, refusal: null })} />`}
      <${Button} kind="quiet" icon="help" label=${words.help} onClick=${() => setHelping(true)} />
    <//>
    <main id="main" tabindex="-1" class=${needsKey ? "gate" : "studio"}>
      ${needsKey ? html`<${KeyForm} holder=${holder} check=${fetchModels} onOpen=${opened} refusal=${refusal} />`
      : models ? models.length ? html`<${Studio} />` : html`<${ErrorBox} error=${{ message: words.noModels }} />`
      : error ? html`<${ErrorBox} error=${error} onRetry=${() => app.set({ error: null }) ?? loadModels()} />` : html`<${Loading} />`}
    </main>
    ${isHelping && html`<${Dialog} title=${words.help} onClose=${() => setHelping(false)}>
      <dl class="keys-list">${words.helpKeys.map(([key, what]) => html`<div key=${key}><dt><kbd>${key}</kbd></dt><dd>${what}</dd></div>`)}</dl>
    <//>`}
    <${Questions} />
    <${LiveRegions} />`;
}

function Studio() {
  const { all } = useStore(gallery);
  const [open, setOpen] = useState(null); // {id, among}
  useEffect(() => {
    loadGallery().then(takeUpRuns).then(cleanFiles);
  }, []);
  const picture = open && all?.find((each) => each.id === open.id);
  const among = open?.among ?? all?.map((each) => each.id) ?? [];
  const step = (by) => {
    const at = among.indexOf(open.id) + by;
    if (at >= 0 && at < among.length) setOpen({ ...open, id: among[at] });
  };
  return html`<h1 class="unseen">${words.title}</h1>
    <${Form} />
    <div class="stage">
      <${Easel} onOpen=${(id) => setOpen({ id })} />
      <${Gallery} onOpen=${(id, names) => setOpen({ id, among: names })} />
    </div>
    ${picture && html`<${OpenPicture} picture=${picture} onClose=${() => setOpen(null)} onStep=${step} />`}`;
}

render(html`<${Page} />`, document.getElementById("page"));
loadModels();
