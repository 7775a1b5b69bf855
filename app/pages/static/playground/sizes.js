/** Sizes that a model draws: the same rules as the gateway's, so that the form offers none that is refused. */

export const SHAPES = [
  { name: "1:1", width: 1, height: 1 },
  { name: "4:3", width: 4, height: 3 },
  { name: "16:9", width: 16, height: 9 },
  { name: "3:4", width: 3, height: 4 },
  { name: "9:16", width: 9, height: 16 },
];
const USUAL_PIXELS = 1024 * 1024;

/** @returns {{width: number, height: number} | null} */
export function parseSize(value) {
  const match = /^(\d+)x(\d+)$/.exec(value ?? "");
  return match && { width: Number(match[1]), height: Number(match[2]) };
}

export const writeSize = ({ width, height }) => `${width}x${height}`;

function allows(rule, { width, height }) {
  if (rule.sizes) return rule.sizes.includes(writeSize({ width, height }));
  return (
    [width, height].every(
      (edge) => edge > 0 && edge % rule.multiple_of === 0 && edge >= (rule.min ?? 1) && edge <= (rule.max ?? Infinity),
    ) && width * height <= (rule.max_pixels ?? Infinity)
  );
}

/** Return the size nearest to `wanted`, by shape first and then by area, that one of the rules allows; null without rules. */
export function snap(rules, wanted) {
  if (!rules.length) return null;
  if (rules.some((rule) => allows(rule, wanted))) return wanted;
  const distance = (size) =>
    4 * Math.abs(Math.log((size.width / size.height) * (wanted.height / wanted.width))) +
    Math.abs(Math.log((size.width * size.height) / (wanted.width * wanted.height)));
  const found = rules.flatMap((rule) => (rule.sizes ? rule.sizes.map(parseSize) : within(rule, wanted)));
  return found.reduce((best, size) => (distance(size) < distance(best) ? size : best));
}

function within(rule, { width, height }) {
  const step = rule.multiple_of;
  const least = Math.ceil((rule.min ?? step) / step) * step;
  const most = Math.floor((rule.max ?? 100_000) / step) * step;
  let scale = Math.min(1, (rule.max ?? Infinity) / Math.max(width, height), Math.sqrt((rule.max_pixels ?? Infinity) / (width * height)));
  if (Math.min(width, height) * scale < least) scale = least / Math.min(width, height);
  const edge = (value) => Math.min(most, Math.max(least, Math.round((value * scale) / step) * step));
  const size = { width: edge(width), height: edge(height) };
  while (size.width * size.height > (rule.max_pixels ?? Infinity)) {
    const longer = size.width >= size.height ? "width" : "height";
    if (size[longer] - step < least) break;
    size[longer] -= step;
  }
  return [size];
}

/** Return the presets that a model with these rules has: one for each shape, no size twice. */
export function presets(rules) {
  const found = new Map();
  for (const shape of SHAPES) {
    const scale = Math.sqrt(USUAL_PIXELS / (shape.width * shape.height));
    const size = snap(rules, { width: Math.round(shape.width * scale), height: Math.round(shape.height * scale) });
    if (size && !found.has(writeSize(size))) found.set(writeSize(size), { shape: shape.name, ...size });
  }
  return [...found.values()];
}
