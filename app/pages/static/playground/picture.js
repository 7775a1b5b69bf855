/** An open picture: large, with all that is known of it, and what can be done with it. */

import { Button, copyText, Dialog, Segmented } from "../base/components.js";
import { bytes, dateTime, money, seconds } from "../base/format.js";
import { html, useState } from "../base/html.js";
import { note } from "../base/live.js";
import { ask } from "../base/question.js";
import { text } from "../base/strings.js";
import { files } from "./database.js";
import { drawSheet } from "./drawing.js";
import { addInputs } from "./inputs.js";
import { removePictures, setFavourite } from "./gallery-store.js";
import { canvasOf, decode, fileName, save, toBlob, urlOf } from "./images.js";
import { randomSeed } from "./request.js";
import { app, canDo, change, chosenModels, form } from "./session.js";
import { snippets } from "./snippets.js";
import { words } from "./strings.js";

/** @param {{picture: object, onClose: () => void, onStep: (by: number) => void}} props `onStep`: to the one before or after */
export function OpenPicture({ picture, onClose, onStep }) {
  const [isCodeShown, setCodeShown] = useState(false);
  const name = fileName(picture.prompt, picture.id, picture.type);
  const then = (act) => async () => {
    onClose();
    await act();
  };
  function onKeyDown(event) {
    if (event.target.matches("input, textarea") || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowLeft") onStep(-1);
    else if (event.key === "ArrowRight") onStep(1);
    else if (event.key.toLowerCase() === "f") setFavourite(picture, !picture.favourite);
  }
  async function remove() {
    if (!(await ask({ title: words.removeAsk(1), detail: words.removeDetail, action: words.remove }))) return;
    onClose();
    await removePictures([picture.id]);
    note(words.removed(1));
  }
  const star = picture.favourite ? words.unfavourite : words.favourite;
  return html`<${Dialog} title=${picture.model} onClose=${onClose} class="picture" onKeyDown=${onKeyDown}>
    <div class="picture-body">
      <div class="picture-stage">
        <img src=${urlOf(picture.blob)} alt=${picture.prompt} />
        <${Button} class="before" icon="arrowLeft" label=${words.previous} onClick=${() => onStep(-1)} />
        <${Button} class="after" icon="arrowRight" label=${words.next} onClick=${() => onStep(1)} />
      </div>
      <div class="picture-side stack">
        <p class="picture-prompt">${picture.prompt}</p>
        <div class="row">
          <${Button} kind="primary" icon="refresh" onClick=${then(() => again(picture, picture.request.fields.seed))}>${words.again}<//>
          <${Button} icon="dice" onClick=${then(() => again(picture, randomSeed()))}>${words.vary}<//>
          <${Button} icon="edit" onClick=${then(() => work(picture, "edits", true))}>${words.edit}<//>
          <${Button} icon="image" onClick=${then(() => work(picture, null, false))}>${words.reference}<//>
        </div>
        <div class="row">
          <${Button} icon="star" label=${star} aria-pressed=${String(picture.favourite)} onClick=${() => setFavourite(picture, !picture.favourite)} />
          <${Button} icon="download" label=${words.download} onClick=${() => save(picture.blob, name)} />
          <${Button} icon="copy" label=${words.copyPicture} onClick=${() => copyPicture(picture)} />
          <${Button} icon="code" aria-expanded=${String(isCodeShown)} onClick=${() => setCodeShown(!isCodeShown)}>${words.copyCode}<//>
          <${Button} onClick=${() => copyText(picture.prompt)}>${words.copyPrompt}<//>
          <${Button} kind="quiet danger" icon="trash" label=${words.remove} onClick=${remove} />
        </div>
        ${isCodeShown && html`<${Code} request=${picture.request} />`}
        <${Facts} picture=${picture} />
      </div>
    </div>
  <//>`;
}

function Facts({ picture }) {
  const { facts } = words;
  const gateway = picture.gateway ?? {};
  const rows = [
    [facts.model, picture.model],
    [facts.provider, gateway.provider],
    [facts.upstream, gateway.model !== picture.model ? gateway.model : null],
    [facts.attempts, gateway.attempts > 1 ? gateway.attempts : null],
    [facts.cost, gateway.cost == null ? words.costUnknown : money(gateway.cost, gateway.currency)],
    [facts.seed, picture.seed],
    [facts.size, picture.width && `${picture.width} × ${picture.height}`],
    [facts.file, `${picture.type.replace("image/", "").toUpperCase()}, ${bytes(picture.bytes)}`],
    [facts.time, seconds(picture.seconds)],
    [facts.when, dateTime(new Date(picture.createdAt))],
    [facts.run, html`<code>${picture.run}</code>`],
  ];
  const notes = [
    ...(gateway.dropped ?? []).map((name) => words.dropped(name)),
    ...(gateway.mapped ?? []).map((pair) => words.mapped(...pair.split(/=(.*)/s))),
  ];
  return html`${notes.length > 0 && html`<ul class="alert warn stack tight">${notes.map((each) => html`<li key=${each}>${each}</li>`)}</ul>`}
    <dl class="facts numbers">${rows.filter(([, value]) => value != null && value !== "").map(([label, value]) => html`<div key=${label}><dt>${label}</dt><dd>${value}</dd></div>`)}</dl>`;
}

function Code({ request }) {
  const { operation, fields, inputs, mask } = request;
  const base = new URL("v1", document.baseURI).href;
  const found = snippets({ operation, fields, pictures: inputs.map(({ name }) => name), mask: mask && "mask.png" }, base);
  const [language, setLanguage] = useState("curl");
  return html`<div class="stack tight">
    <div class="row apart"><${Segmented} label=${words.language} value=${language} onInput=${setLanguage} options=${Object.keys(found).map((value) => ({ value, label: value }))} />
      <${Button} class="small" icon="copy" onClick=${() => copyText(found[language])}>${text.copy}<//></div>
    <pre class="code" tabindex="0"><code>${found[language]}</code></pre>
    <p class="hint">${words.keyNote} ${inputs.length > 0 && words.filesNote}</p>
  </div>`;
}

/** Draw a picture's request again, with a seed of its own where the request has one; the form gets its settings. */
async function again(picture, seed) {
  const { fields } = picture.request;
  const request = { ...picture.request, fields: { ...fields } };
  if (fields.seed != null) request.fields.seed = seed;
  await takeSettings(picture, request.fields.seed);
  await drawSheet([request]);
}

async function takeSettings({ request }, seed) {
  const { operation, fields, inputs } = request;
  change({ operation });
  const kept = [];
  for (const each of inputs) {
    const file = await files.get(each.id);
    if (file) kept.push({ id: file.id, name: file.name, width: null, height: null, mask: request.mask === file.id ? 1 : null });
  }
  change({
    models: [fields.model], prompt: fields.prompt ?? "", negative: fields.negative_prompt ?? "", n: fields.n ?? 1, inputs: kept,
    shape: fields.size ? "custom" : "auto", ...(fields.size && { width: fields.size.split("x")[0], height: fields.size.split("x")[1] }),
    seed: seed == null ? "" : String(seed), isSeedLocked: seed != null, quality: fields.quality ?? "", format: fields.output_format ?? "",
    background: fields.background ?? "", steps: String(fields.steps ?? ""), guidance: String(fields.guidance ?? ""),
  });
}

/** Work on a picture: as the one to edit, or beside those that are in the form. */
async function work(picture, operation, isAlone) {
  const wanted = operation ?? (form.get().operation === "generations" ? "edits" : form.get().operation);
  change({ operation: wanted, ...(isAlone && { inputs: [] }) });
  const { models } = app.get();
  const own = models.find((model) => model.id === picture.model);
  if (isAlone && own && canDo(own, wanted)) change({ models: [own.id] });
  const most = chosenModels(form.get(), models)[0]?.capabilities.max_images ?? 1;
  await addInputs([{ blob: picture.blob, name: fileName(picture.prompt, picture.id, picture.type) }], Math.max(1, most));
  note(words.referenceTaken);
  document.getElementById("prompt")?.focus();
}

/** Clipboards take PNG alone. */
async function copyPicture(picture) {
  try {
    const image = await decode(picture.blob);
    const canvas = canvasOf(image.naturalWidth, image.naturalHeight);
    canvas.getContext("2d").drawImage(image, 0, 0);
    await navigator.clipboard.write([new ClipboardItem({ "image/png": await toBlob(canvas) })]);
    note(text.copied);
  } catch {
    note(words.copyPictureFailed, { isError: true });
  }
}
