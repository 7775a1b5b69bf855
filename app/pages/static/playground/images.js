/** Blobs, canvases and what lies between. */

export const EXTENSIONS = { "image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "image/gif": "gif", "image/svg+xml": "svg", "image/avif": "avif" };

/** Return base64 as a blob, of the kind that its first bytes show. */
export function blobOf(base64) {
  const text = atob(base64);
  const data = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at += 1) data[at] = text.charCodeAt(at);
  return new Blob([data], { type: kindOf(data) });
}

function kindOf(data) {
  const head = String.fromCharCode(...data.subarray(0, 12));
  if (head.startsWith("\x89PNG")) return "image/png";
  if (head.startsWith("\xff\xd8")) return "image/jpeg";
  if (head.startsWith("GIF8")) return "image/gif";
  if (head.startsWith("RIFF") && head.endsWith("WEBP")) return "image/webp";
  return head.includes("ftypavif") ? "image/avif" : head.trimStart().startsWith("<") ? "image/svg+xml" : "";
}

/** @returns {Promise<HTMLImageElement>} raises if the browser cannot read it */
export async function decode(blob) {
  const url = URL.createObjectURL(blob);
  try {
    const image = new Image();
    image.src = url;
    await image.decode();
    return image;
  } finally {
    URL.revokeObjectURL(url);
  }
}

export function canvasOf(width, height) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  return canvas;
}

export const toBlob = (canvas, type = "image/png", quality) =>
  new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("no picture"))), type, quality),
  );

/** A small picture for lists, with the size of the large one. */
export async function thumbnail(blob, edge = 480) {
  const image = await decode(blob);
  const width = image.naturalWidth || edge;
  const height = image.naturalHeight || edge;
  const scale = Math.min(1, edge / Math.max(width, height));
  const canvas = canvasOf(Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale)));
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return { thumb: await toBlob(canvas, "image/webp", 0.85), width, height };
}

/** Save a blob under a name. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** A name for a file, from what it shows. */
export function fileName(prompt, id, type) {
  const stem = prompt.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "").slice(0, 40) || "picture";
  return `${stem}-${id.slice(-8).replace(/\W/g, "")}.${EXTENSIONS[type] ?? "bin"}`;
}

const shown = new WeakMap();
/** The address of a blob, the same each time; it lives as long as the page. */
export function urlOf(blob) {
  if (!blob) return undefined;
  if (!shown.has(blob)) shown.set(blob, URL.createObjectURL(blob));
  return shown.get(blob);
}
