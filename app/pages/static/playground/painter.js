/** The mask painter: a picture, what is painted over it, and tools for the pointer, for fingers and for keys. */

import { Button, Dialog, Field, Loading, Segmented, TextField } from "../base/components.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "../base/html.js";
import { announce, note } from "../base/live.js";
import { files } from "./database.js";
import { decode, save } from "./images.js";
import { Mask } from "./mask.js";
import { words } from "./strings.js";

const TOOLS = { b: "brush", e: "eraser", r: "rectangle", h: "hand" };
const SMALLEST = 1;
const LARGEST = 400;

/** @param {{input: {id: string, name: string}, onDone: (share: number | null) => void, onClose: () => void}} props */
export function Painter({ input, onDone, onClose }) {
  const [loaded, setLoaded] = useState(null);
  useEffect(() => {
    (async () => {
      const file = await files.get(input.id);
      const image = await decode(file.blob);
      setLoaded({ image, mask: await Mask.load(input.id, image.naturalWidth, image.naturalHeight) });
    })();
  }, [input.id]);
  return loaded ? html`<${Board} ...${loaded} onDone=${onDone} onClose=${onClose} />` : html`<${Loading} />`;
}

function Board({ image, mask, onDone, onClose }) {
  const [tool, setTool] = useState("brush");
  const [size, setSize] = useState(Math.max(8, Math.round(Math.min(mask.width, mask.height) / 12)));
  const [opacity, setOpacity] = useState(60);
  const [feather, setFeather] = useState(8);
  const [, redraw] = useState(0);
  const canvas = useRef(null);
  const view = useRef({ scale: 1, x: 0, y: 0 });
  const now = useRef({});
  now.current = { tool, size, opacity };

  const done = () => redraw((count) => count + 1);
  const step = (what) => {
    mask.add(what);
    done();
  };
  const undo = () => {
    mask.undo();
    done();
  };
  const redo = () => {
    mask.redo();
    done();
  };
  const resize = (factor) =>
    setSize((before) => {
      const after = Math.round(before * factor);
      return Math.min(LARGEST, Math.max(SMALLEST, after === before ? before + Math.sign(factor - 1) : after));
    });

  function fit() {
    if (!canvas.current) return;
    const box = canvas.current.getBoundingClientRect();
    const scale = Math.min(box.width / mask.width, box.height / mask.height) * 0.94;
    view.current = { scale, x: (box.width - mask.width * scale) / 2, y: (box.height - mask.height * scale) / 2 };
    paint(canvas.current, image, mask, view.current, now.current);
  }
  function zoom(factor, at) {
    const box = canvas.current.getBoundingClientRect();
    const point = at ?? { x: box.width / 2, y: box.height / 2 };
    const { scale, x, y } = view.current;
    const next = Math.min(32, Math.max(0.02, scale * factor));
    view.current = { scale: next, x: point.x - ((point.x - x) * next) / scale, y: point.y - ((point.y - y) * next) / scale };
    paint(canvas.current, image, mask, view.current, now.current);
  }

  useLayoutEffect(() => {
    const observer = new ResizeObserver(fit); // the picture stays where it belongs when the window changes
    observer.observe(canvas.current);
    const stop = listen({ canvas: canvas.current, mask, view, now, zoom, step, draw: (preview) => paint(canvas.current, image, mask, view.current, now.current, preview) });
    return () => {
      observer.disconnect();
      stop();
    };
  }, []);
  useEffect(() => paint(canvas.current, image, mask, view.current, now.current));

  function onKeyDown(event) {
    event.stopPropagation(); // the form around it must not draw
    if (event.key === "Enter" && event.target.matches("input")) event.preventDefault();
    if (event.target.matches("input:not([type=range], [type=radio]), textarea")) return;
    const key = event.key.toLowerCase();
    if ((event.ctrlKey || event.metaKey) && (key === "z" || key === "y")) {
      event.preventDefault();
      (key === "y" || event.shiftKey ? redo : undo)();
    } else if (event.ctrlKey || event.metaKey || event.altKey) return;
    else if (key === "[" || key === "]") resize(key === "[" ? 0.85 : 1.18);
    else if (key === "+" || key === "=") zoom(1.25);
    else if (key === "-") zoom(0.8);
    else if (key === "0") fit();
    else if (key === "i") step({ kind: "invert" });
    else if (TOOLS[key]) setTool(TOOLS[key]);
  }

  async function importFile(event) {
    const [file] = event.target.files;
    event.target.value = "";
    if (file && !(await mask.importFile(file))) note(words.maskImportBad(mask.width, mask.height), { isError: true });
    done();
  }
  async function finish() {
    await mask.keep();
    const share = mask.share();
    onDone(share > 0 ? share : null);
  }

  const range = (label, value, set, least, most, hint) => html`<${Field} label=${label} aside=${html`<span class="hint numbers">${value}</span>`} hint=${hint}>
    ${(bound) => html`<input type="range" ...${bound} min=${least} max=${most} value=${value} onInput=${(event) => set(Number(event.target.value))} />`}
  <//>`;
  const actions = html`
    <label class="button quiet"><input type="file" class="unseen" accept="image/*" onChange=${importFile} />${words.maskImport}</label>
    <${Button} kind="quiet" onClick=${async () => save(await mask.toFile(), "mask.png")}>${words.maskExport}<//>
    <${Button} kind="primary" onClick=${finish}>${words.maskDone}<//>`;
  return html`<${Dialog} title=${words.maskTitle} onClose=${finish} actions=${actions} class="painter" onKeyDown=${onKeyDown}>
    <div class="painter-body">
      <div class="painter-stage">
        <canvas ref=${canvas} class=${`tool-${tool}`} role="img" aria-label=${words.maskCanvas}></canvas>
        <div class="painter-zoom">
          <${Button} icon="zoomOut" label=${words.zoomOut} onClick=${() => zoom(0.8)} />
          <${Button} onClick=${fit}>${words.zoomFit}<//>
          <${Button} icon="zoomIn" label=${words.zoomIn} onClick=${() => zoom(1.25)} />
        </div>
      </div>
      <div class="painter-tools stack">
        <p class="soft small-text">${words.maskHelp} <span class="numbers">${mask.width} × ${mask.height}</span></p>
        <${Segmented} label=${words.tool} value=${tool} onInput=${setTool}
          options=${Object.entries(words.tools).map(([value, label]) => ({ value, label: html`<span class="unseen">${label}</span>`, title: label, icon: value }))} />
        <div class="row">
          <${Button} icon="undo" label=${words.undo} disabled=${!mask.steps.length} onClick=${undo} />
          <${Button} icon="redo" label=${words.redo} disabled=${!mask.undone.length} onClick=${redo} />
          <${Button} icon="invert" onClick=${() => step({ kind: "invert" })}>${words.invert}<//>
          <${Button} icon="trash" label=${words.clear} onClick=${() => step({ kind: "clear" })} />
        </div>
        ${range(words.brushSize, size, setSize, SMALLEST, LARGEST, words.brushKeys)}
        ${range(words.opacity, opacity, setOpacity, 10, 100)}
        <div class="row tight end">
          <div class="grow">${range(words.feather, feather, setFeather, 1, 64)}</div>
          <${Button} class="small" onClick=${() => step({ kind: "feather", radius: feather })}>${words.featherApply}<//>
        </div>
        <${Numbers} mask=${mask} onStep=${step} />
      </div>
    </div>
  <//>`;
}

/** A rectangle without a pointer. */
function Numbers({ mask, onStep }) {
  const [box, setBox] = useState({ x: "0", y: "0", width: String(mask.width >> 1), height: String(mask.height >> 1) });
  const field = (name, label) => html`<${TextField} label=${label} inputmode="numeric" value=${box[name]} onInput=${(value) => setBox({ ...box, [name]: value })} />`;
  function add(erase) {
    const [x, y, width, height] = ["x", "y", "width", "height"].map((name) => Math.round(Number(box[name]) || 0));
    onStep({ kind: "rectangle", erase, x, y, width, height });
    announce(words.maskOn(mask.share().toFixed(1)));
  }
  return html`<fieldset class="stack tight">
    <legend class="field-label">${words.byNumbers}</legend>
    <div class="numbers-grid">${field("x", words.left)}${field("y", words.top)}${field("width", words.width)}${field("height", words.height)}</div>
    <div class="row"><${Button} class="small" icon="add" onClick=${() => add(false)}>${words.rectAdd}<//><${Button} class="small" icon="minus" onClick=${() => add(true)}>${words.rectErase}<//></div>
  </fieldset>`;
}

/** Draw the picture, the mask over it, and what is under way. */
function paint(canvas, image, mask, { scale, x, y }, { opacity }, preview = null) {
  if (!canvas) return;
  const box = canvas.getBoundingClientRect();
  const ratio = devicePixelRatio || 1;
  const [width, height] = [Math.round(box.width * ratio), Math.round(box.height * ratio)];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, width, height);
  context.setTransform(scale * ratio, 0, 0, scale * ratio, x * ratio, y * ratio);
  context.imageSmoothingEnabled = scale < 3;
  context.drawImage(image, 0, 0, mask.width, mask.height);
  context.globalAlpha = opacity / 100;
  context.drawImage(mask.canvas, 0, 0);
  context.globalAlpha = 1;
  if (preview) {
    context.lineWidth = 1.5 / scale;
    context.strokeStyle = "#fff";
    context.strokeRect(preview.x, preview.y, preview.width, preview.height);
  }
}

/** Listen to pointers and the wheel: one pointer paints, two pinch. @returns {() => void} ends it */
function listen({ canvas, mask, view, now, zoom, step, draw }) {
  const pointers = new Map();
  let stroke = null;
  let start = null;
  let box = null;

  const at = (event) => ({ x: event.offsetX, y: event.offsetY });
  const inside = ({ x, y }) => [(x - view.current.x) / view.current.scale, (y - view.current.y) / view.current.scale];
  const isPanning = (event) => now.current.tool === "hand" || event.button === 1;

  function down(event) {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, at(event));
    if (pointers.size > 1) {
      if (stroke) mask.redraw(); // a second finger makes a pinch of it
      stroke = box = start = null;
      draw();
      return;
    }
    if (isPanning(event)) return;
    const [x, y] = inside(at(event));
    if (now.current.tool === "rectangle") start = [x, y];
    else {
      stroke = { kind: "stroke", erase: now.current.tool === "eraser", size: now.current.size, points: [[x, y]] };
      mask.apply(stroke);
      draw();
    }
  }
  function move(event) {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const point = at(event);
    if (pointers.size === 2) {
      const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, each]) => each);
      const distance = (one) => Math.hypot(one.x - other.x, one.y - other.y) || 1;
      view.current = { ...view.current, x: view.current.x + (point.x - before.x) / 2, y: view.current.y + (point.y - before.y) / 2 };
      zoom(distance(point) / distance(before), { x: (point.x + other.x) / 2, y: (point.y + other.y) / 2 });
    } else if (stroke) {
      for (const each of event.getCoalescedEvents?.() ?? [event]) stroke.points.push(inside(at(each)));
      mask.apply({ ...stroke, points: stroke.points.slice(-12) });
      draw();
    } else if (start) {
      box = rectangle(start, inside(point), mask);
      draw(box);
    } else {
      view.current = { ...view.current, x: view.current.x + point.x - before.x, y: view.current.y + point.y - before.y };
      draw();
    }
    pointers.set(event.pointerId, point);
  }
  function up(event) {
    pointers.delete(event.pointerId);
    if (stroke) step(stroke);
    else if (box?.width && box.height) step({ kind: "rectangle", erase: false, ...box });
    stroke = start = box = null;
    draw();
  }
  function wheel(event) {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * 0.0015), at(event));
  }
  const listeners = { pointerdown: down, pointermove: move, pointerup: up, pointercancel: up };
  for (const [name, listener] of Object.entries(listeners)) canvas.addEventListener(name, listener);
  canvas.addEventListener("wheel", wheel, { passive: false });
  return () => {
    for (const [name, listener] of Object.entries(listeners)) canvas.removeEventListener(name, listener);
    canvas.removeEventListener("wheel", wheel);
  };
}

/** The whole pixels between two corners, within the picture. */
function rectangle([x0, y0], [x1, y1], { width, height }) {
  const bound = (value, most) => Math.min(most, Math.max(0, Math.round(value)));
  const [left, right] = [bound(Math.min(x0, x1), width), bound(Math.max(x0, x1), width)];
  const [top, bottom] = [bound(Math.min(y0, y1), height), bound(Math.max(y0, y1), height)];
  return { x: left, y: top, width: right - left, height: bottom - top };
}
