/** From the form to the requests that it stands for: one for each model. */

import { form, takes } from "./session.js";
import { parseSize, SHAPES, snap, writeSize } from "./sizes.js";

const HIGHEST_SEED = 2 ** 31 - 100;
export const randomSeed = () => Math.floor(Math.random() * HIGHEST_SEED);

/** The form's settings, the name that the API has for each, and how it is read. */
const OPTIONS = [
  ["negative", "negative_prompt", String],
  ["quality", "quality", String],
  ["background", "background", String],
  ["steps", "steps", number],
  ["guidance", "guidance", number],
];

/** What is no number stays as it is: the gateway tells what is wrong with it. */
function number(text) {
  return Number.isNaN(Number(text)) ? text : Number(text);
}

/** Return the size that a model will draw for the form, and whether it is not the one that was asked for. */
export function sizeFor(state, model) {
  const rules = model.capabilities.size_rules ?? [];
  if (state.shape === "auto" || !rules.length) return null;
  const wanted = state.shape === "custom" ? { width: Number(state.width), height: Number(state.height) } : shapeSize(state.shape);
  if (!(wanted?.width > 0 && wanted?.height > 0)) return null;
  const size = snap(rules, wanted);
  return { ...size, isOther: size.width !== wanted.width || size.height !== wanted.height };
}

function shapeSize(name) {
  const shape = SHAPES.find((each) => each.name === name);
  if (!shape) return parseSize(name);
  const scale = Math.sqrt((1024 * 1024) / (shape.width * shape.height));
  return { width: Math.round(shape.width * scale), height: Math.round(shape.height * scale) };
}

/**
 * @returns {{operation: string, fields: Record<string, any>, inputs: object[], mask: string | null}} what a model is
 *   asked; settings that it does not take are left out
 */
export function requestFor(model, seed, state = form.get()) {
  const { operation } = state;
  const can = model.capabilities;
  const fields = { model: model.id };
  if (operation !== "variations") fields.prompt = state.prompt;
  if (state.n > 1) fields.n = state.n;
  const size = sizeFor(state, model);
  if (size) fields.size = writeSize(size);
  if (seed != null && takes(model, "seed")) fields.seed = seed;
  for (const [setting, name, read] of OPTIONS) {
    if (state[setting] !== "" && takes(model, name)) fields[name] = read(state[setting]);
  }
  if (state.format) fields.output_format = state.format;
  const inputs = operation === "generations" ? [] : state.inputs.slice(0, operation === "variations" ? 1 : undefined);
  const mask = operation === "edits" && can.mask && inputs[0]?.mask ? inputs[0].id : null;
  return { operation, fields, inputs: inputs.map(({ id, name }) => ({ id, name })), mask };
}

/** Return the seed of the next sheet: the one that stands in the form, or a new one. */
export function nextSeed(state = form.get()) {
  return state.isSeedLocked && state.seed !== "" ? Number(state.seed) : randomSeed();
}
