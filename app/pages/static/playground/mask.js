/**
 * A mask as the list of what was done to it, in the picture's own pixels. Undo takes the last step away and does the
 * others again, so it has no limit; and the list lies in the browser's database, so it survives a reload.
 *
 * A step: {kind: "stroke", erase, size, points: [x, y][]} · {kind: "rectangle", erase, x, y, width, height} ·
 * {kind: "invert"} · {kind: "clear"} · {kind: "feather", radius} · {kind: "import", blob}
 */

import { files } from "./database.js";
import { canvasOf, decode, toBlob } from "./images.js";

const COLOUR = [255, 46, 110];
const PAINT = `rgb(${COLOUR})`;

export class Mask {
  constructor(pictureId, width, height) {
    Object.assign(this, { id: `mask:${pictureId}`, width, height, steps: [], undone: [], imported: new Map() });
    this.canvas = canvasOf(width, height);
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
  }

  /** @returns {Promise<Mask>} the mask that a picture has, or an empty one */
  static async load(pictureId, width, height) {
    const mask = new Mask(pictureId, width, height);
    const kept = await files.get(mask.id);
    if (kept && kept.width === width && kept.height === height) {
      Object.assign(mask, { steps: kept.steps, undone: kept.undone });
      for (const step of [...mask.steps, ...mask.undone]) if (step.kind === "import") await mask.decodeImport(step);
      mask.redraw();
    }
    return mask;
  }

  async keep() {
    const { id, width, height, steps, undone } = this;
    await files.put({ id, width, height, steps, undone, createdAt: Date.now() }).catch(() => {});
  }

  add(step) {
    this.steps.push(step);
    this.undone = [];
    if (step.kind === "stroke") this.redraw(); // while it was painted, its edges were laid over each other
    else this.apply(step);
    return this.keep();
  }

  undo() {
    if (!this.steps.length) return;
    this.undone.push(this.steps.pop());
    this.redraw();
    this.keep();
  }

  redo() {
    if (!this.undone.length) return;
    const step = this.undone.pop();
    this.steps.push(step);
    this.apply(step);
    this.keep();
  }

  redraw() {
    this.context.clearRect(0, 0, this.width, this.height);
    for (const step of this.steps) this.apply(step);
  }

  apply(step) {
    const { context, width, height } = this;
    context.globalCompositeOperation = step.erase ? "destination-out" : "source-over";
    context.fillStyle = context.strokeStyle = PAINT;
    if (step.kind === "stroke") this.stroke(step.points, step.size);
    else if (step.kind === "rectangle") context.fillRect(step.x, step.y, step.width, step.height);
    else if (step.kind === "clear") context.clearRect(0, 0, width, height);
    else if (step.kind === "invert") this.eachAlpha((alphas) => alphas.map((alpha) => 255 - alpha));
    else if (step.kind === "feather") this.eachAlpha((alphas) => blurred(alphas, width, height, step.radius));
    else if (step.kind === "import") this.eachAlpha(() => this.imported.get(step));
    context.globalCompositeOperation = "source-over";
  }

  /** Draw a line through the points, or a dot. */
  stroke(points, size) {
    const { context } = this;
    Object.assign(context, { lineWidth: size, lineCap: "round", lineJoin: "round" });
    context.beginPath();
    const [[x, y], ...rest] = points;
    context.moveTo(x, y);
    if (!rest.length) context.lineTo(x + 0.01, y);
    for (const point of rest) context.lineTo(...point);
    context.stroke();
  }

  /** @param {(alphas: Uint8ClampedArray) => Uint8ClampedArray} change gives the alpha of each pixel anew */
  eachAlpha(change) {
    const image = this.context.getImageData(0, 0, this.width, this.height);
    const alphas = change(this.alphas(image));
    for (let at = 0; at < alphas.length; at += 1) image.data.set([...COLOUR, alphas[at]], at * 4);
    this.context.putImageData(image, 0, 0);
  }

  /** How much of each pixel is painted, 0 to 255. */
  alphas(image = this.context.getImageData(0, 0, this.width, this.height)) {
    const found = new Uint8ClampedArray(this.width * this.height);
    for (let at = 0; at < found.length; at += 1) found[at] = image.data[at * 4 + 3];
    return found;
  }

  /** Take a picture as the mask: its transparent pixels are painted, or its white ones where none is transparent. */
  async importFile(blob) {
    const step = { kind: "import", blob };
    if (!(await this.decodeImport(step))) return false;
    await this.add(step);
    return true;
  }

  async decodeImport(step) {
    const image = await decode(step.blob).catch(() => null);
    if (image?.naturalWidth !== this.width || image?.naturalHeight !== this.height) return false;
    const context = canvasOf(this.width, this.height).getContext("2d");
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, this.width, this.height);
    const alphas = new Uint8ClampedArray(this.width * this.height);
    let hasTransparency = false;
    for (let at = 3; at < data.length && !hasTransparency; at += 4) hasTransparency = data[at] < 255;
    for (let at = 0; at < alphas.length; at += 1) alphas[at] = hasTransparency ? 255 - data[at * 4 + 3] : data[at * 4];
    this.imported.set(step, alphas);
    return true;
  }

  /** True if its edges are meant to be soft. */
  get isSoft() {
    const last = this.steps.findLastIndex((step) => step.kind === "clear");
    return this.steps.slice(last + 1).some((step) => step.kind === "feather" || step.kind === "import");
  }

  /** @returns {number} how many of a hundred pixels are painted */
  share() {
    const alphas = this.alphas();
    return (100 * alphas.reduce((count, alpha) => count + (alpha >= 128 ? 1 : 0), 0)) / alphas.length;
  }

  /** @returns {Promise<Blob>} OpenAI's mask: a PNG of the picture's size, transparent where it is to be repainted. Only
   *  a mask that was feathered has pixels that are neither. */
  toFile() {
    const isSoft = this.isSoft;
    const alphas = this.alphas();
    const canvas = canvasOf(this.width, this.height);
    const context = canvas.getContext("2d");
    const image = context.createImageData(this.width, this.height);
    for (let at = 0; at < alphas.length; at += 1) {
      image.data[at * 4 + 3] = isSoft ? 255 - alphas[at] : alphas[at] >= 128 ? 0 : 255;
    }
    context.putImageData(image, 0, 0);
    return toBlob(canvas);
  }
}

/** Three running means, one after the other, are nearly a bell curve. */
function blurred(alphas, width, height, radius) {
  let from = Float32Array.from(alphas);
  for (let pass = 0; pass < 3; pass += 1) {
    from = means(from, width, height, 1, width, radius);
    from = means(from, height, width, width, 1, radius);
  }
  return Uint8ClampedArray.from(from);
}

function means(from, length, lines, step, lineStep, radius) {
  const to = new Float32Array(from.length);
  for (let line = 0; line < lines; line += 1) {
    const start = line * lineStep;
    const value = (at) => from[start + Math.min(length - 1, Math.max(0, at)) * step];
    let sum = 0;
    for (let at = -radius; at <= radius; at += 1) sum += value(at);
    for (let at = 0; at < length; at += 1) {
      to[start + at * step] = sum / (2 * radius + 1);
      sum += value(at + radius + 1) - value(at - radius);
    }
  }
  return to;
}

/** @returns {Promise<Blob | null>} the file of the mask that a picture has; null: nothing is painted */
export async function exportMask(pictureId) {
  const kept = await files.get(`mask:${pictureId}`);
  if (!kept) return null;
  const mask = await Mask.load(pictureId, kept.width, kept.height);
  return mask.share() > 0 ? mask.toFile() : null;
}
