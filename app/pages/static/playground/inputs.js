/** Pictures to work on: dropped, pasted, chosen or taken from the gallery; in an order that mouse and arrow keys change. */

import { Button } from "../base/components.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "../base/html.js";
import { Icon } from "../base/icons.js";
import { announce, note } from "../base/live.js";
import { files, newId } from "./database.js";
import { thumbnail, urlOf } from "./images.js";
import { Painter } from "./painter.js";
import { change, form } from "./session.js";
import { words } from "./strings.js";

/** Add pictures to the form. @param {{blob: Blob, name: string}[]} given @param {number} most that the model takes */
export async function addInputs(given, most) {
  const added = [];
  for (const { blob, name } of given) {
    try {
      const { thumb, width, height } = await thumbnail(blob, 240);
      const id = newId("file");
      await files.put({ id, name, blob, thumb, createdAt: Date.now() });
      added.push({ id, name, width, height, mask: null });
    } catch {
      note(words.pictureUnreadable(name), { isError: true });
    }
  }
  const before = most === 1 && added.length ? [] : form.get().inputs;
  const all = [...before, ...added];
  if (all.length > most) note(words.pictureTooMany(most), { isError: true });
  change({ inputs: all.slice(0, most) });
}

const picturesOf = (list) => [...(list ?? [])].filter((file) => file.type.startsWith("image/")).map((file) => ({ blob: file, name: file.name || "picture.png" }));

/** Take pictures that are dropped or pasted anywhere on the page. */
export function useDropAndPaste(most, onTaken) {
  const [isOver, setOver] = useState(false);
  useLayoutEffect(() => {
    const take = (event, list) => {
      const found = picturesOf(list);
      if (!found.length || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      onTaken(found);
    };
    const paste = (event) => take(event, event.clipboardData?.files);
    const drop = (event) => {
      setOver(false);
      if (event.dataTransfer?.types.includes("Files")) event.preventDefault();
      take(event, event.dataTransfer?.files);
    };
    const over = (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      setOver(true);
    };
    const leave = (event) => !event.relatedTarget && setOver(false);
    const listeners = { paste, drop, dragover: over, dragleave: leave };
    for (const [name, listener] of Object.entries(listeners)) addEventListener(name, listener);
    return () => {
      for (const [name, listener] of Object.entries(listeners)) removeEventListener(name, listener);
    };
  }, [most, onTaken]);
  return isOver;
}

/** @param {{inputs: object[], most: number, takesMask: boolean, needsMask: boolean, error: string, maskError: string}} props */
export function Inputs({ inputs, most, takesMask, needsMask, error, maskError }) {
  const chooser = useRef(null);
  const list = useRef(null);
  const [painting, setPainting] = useState(false);
  const [dragged, setDragged] = useState(null);

  function move(from, to) {
    if (to < 0 || to >= inputs.length || from === to) return;
    const next = [...inputs];
    next.splice(to, 0, ...next.splice(from, 1));
    change({ inputs: next });
    announce(words.pictureMoved(to + 1, next.length));
    requestAnimationFrame(() => list.current?.children[to]?.focus());
  }
  const remove = (index) => change({ inputs: inputs.filter((_, at) => at !== index) });
  function onKeyDown(event, index) {
    if (event.target !== event.currentTarget) return;
    const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (by) move(index, index + by);
    else if (event.key === "Delete" || event.key === "Backspace") remove(index);
    else return;
    event.preventDefault();
  }
  const setMask = (mask) => change({ inputs: inputs.map((each, index) => (index ? each : { ...each, mask })), mask: null });
  const [first] = inputs;

  return html`<div class=${`field ${error || maskError ? "bad" : ""}`} role="group" aria-label=${words.pictures}>
    <span class="field-label">${words.pictures}</span>
    ${inputs.length > 0 && html`<ol class="inputs" ref=${list}>
      ${inputs.map((input, index) => html`<li key=${input.id} class=${`input ${dragged === index ? "dragged" : ""}`} tabindex="0" draggable="true"
        aria-label=${words.pictureOf(index + 1, inputs.length, input.name)}
        onKeyDown=${(event) => onKeyDown(event, index)} onDragStart=${() => setDragged(index)} onDragEnd=${() => setDragged(null)}
        onDragOver=${(event) => dragged !== null && event.preventDefault()}
        onDrop=${(event) => {
          if (dragged === null) return;
          event.preventDefault();
          event.stopPropagation();
          move(dragged, index);
        }}>
        <${StoredImage} id=${input.id} />
        ${inputs.length > 1 && html`<span class="input-number">${index + 1}</span>`}
        <${Button} class="small" icon="close" label=${words.pictureRemove(input.name)} onClick=${() => remove(index)} />
      </li>`)}
    </ol>`}
    ${inputs.length < most && html`<button type="button" class="drop" onClick=${() => chooser.current.click()}>
      <${Icon} name="upload" /><span>${words.picturesDrop}</span>
    </button>`}
    <input ref=${chooser} type="file" class="unseen" tabindex="-1" aria-label=${words.picturesDrop} accept="image/png,image/jpeg,image/webp,image/*" multiple=${most > 1}
      onChange=${(event) => {
        addInputs(picturesOf(event.target.files), most);
        event.target.value = "";
      }} />
    <p class="hint">${words.picturesHint(most)}</p>
    ${error && html`<p class="error" role="alert">${error}</p>`}
    ${first && takesMask && html`<div class="row">
      <${Button} icon="brush" onClick=${() => setPainting(true)}>${first.mask ? words.maskChange : words.maskPaint}<//>
      ${first.mask ? html`<span class="badge accent">${words.maskOn(first.mask < 1 ? first.mask.toFixed(1) : Math.round(first.mask))}</span>
        <${Button} kind="quiet" class="small" icon="close" label=${words.maskRemove} onClick=${() => setMask(null)} />` : needsMask && html`<span class="hint">${words.maskNeeded}</span>`}
    </div>`}
    ${first && !takesMask && html`<p class="hint">${words.maskNone}</p>`}
    ${maskError && html`<p class="error" role="alert">${maskError}</p>`}
    ${painting && first && html`<${Painter} input=${first} onClose=${() => setPainting(false)} onDone=${(share) => {
      setMask(share);
      setPainting(false);
    }} />`}
  </div>`;
}

function StoredImage({ id }) {
  const [url, setUrl] = useState(undefined);
  useEffect(() => {
    files.get(id).then((file) => setUrl(urlOf(file?.thumb)));
  }, [id]);
  return html`<img src=${url} alt="" draggable=${false} />`;
}
