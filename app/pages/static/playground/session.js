/** What the page knows: who asks, the models, and the form as it stands. */

import { createApi } from "../base/api.js";
import { createKeyHolder } from "../base/key.js";
import { kept } from "../base/storage.js";
import { createStore } from "../base/store.js";
import { parseSize } from "./sizes.js";

export const holder = createKeyHolder("playground");
const plain = createApi(holder.get);

/** @type {{models: object[] | null, needsKey: boolean, refusal: string | null, error: Error | null}} */
export const app = createStore({ models: null, needsKey: false, refusal: null, error: null });

/** A call of the API. A key that is refused leads to the form that asks for one. */
const guarded = (call) => async (...given) => {
  try {
    return await call(...given);
  } catch (error) {
    if (error.status === 401) app.set({ needsKey: true, refusal: holder.get() ? error.message : null });
    throw error;
  }
};
export const api = { get: guarded(plain.get), post: guarded(plain.post), open: guarded(plain.open), request: guarded(plain.request) };

/** @returns {Promise<object[]>} the models that the key may use; aliases of one that is listed are left out */
export async function fetchModels() {
  const { data } = await plain.get("v1/models");
  const names = new Set(data.map((model) => model.id));
  return data.filter((model) => !names.has(model.capabilities.alias_of));
}

export async function loadModels() {
  try {
    opened(await fetchModels());
  } catch (error) {
    if (error.status === 401) app.set({ needsKey: true, refusal: holder.get() ? error.message : null });
    else app.set({ error });
  }
}

/** Go on with the models that a key may use. */
export function opened(models) {
  app.set({ models, needsKey: false, refusal: null, error: null });
  form.set((state) => withModels({ ...state, ...fromAddress() }, models));
}

/** Return the settings that a link states: `playground?model=…&operation=edits&prompt=…&n=2&size=1024x768&seed=7`. They
 * leave the address, so that a reload does not take them again. */
function fromAddress() {
  const given = new URLSearchParams(location.search);
  history.replaceState(null, "", location.pathname);
  const { operation, model, prompt, n, size, seed } = Object.fromEntries(given);
  const parsed = parseSize(size);
  return {
    ...(["generations", "edits", "variations"].includes(operation) && { operation }),
    ...(model && { models: [model] }),
    ...(prompt && { prompt }),
    ...(n >= 1 && n <= 10 && { n: Math.round(Number(n)) }),
    ...(parsed && { shape: "custom", width: String(parsed.width), height: String(parsed.height) }),
    ...(/^\d+$/.test(seed ?? "") && { seed, isSeedLocked: true }),
  };
}

export const canDo = (model, operation) => model.capabilities.operations.includes(operation);
/** Return whether a model takes a parameter; null in its capabilities stands for any. */
export const takes = (model, name) => !model.capabilities.parameters || model.capabilities.parameters.includes(name);

// --- the form ---

const FIRST = {
  operation: "generations", models: [], prompt: "", negative: "", shape: "auto", width: "1024", height: "1024", n: 1, seed: "",
  isSeedLocked: false, quality: "", format: "", background: "", steps: "", guidance: "",
  inputs: [], // {id, name, width, height, mask}: `mask` tells how much is painted, or is null
};

function remembered() {
  try {
    const state = JSON.parse(kept.get("playground.form") ?? "{}");
    return { ...FIRST, ...state };
  } catch {
    return FIRST;
  }
}

export const form = createStore(remembered());
form.subscribe((state) => kept.set("playground.form", JSON.stringify(state)));

/** Errors by the field that they name; `form` is about none of them. */
export const faults = createStore({ byField: {} });

/** Change the form. What was wrong with a field that changes is forgotten. */
export function change(changes) {
  form.set(changes);
  const { byField } = faults.get();
  const left = Object.entries(byField).filter(([name]) => name !== "form" && !(name in changes));
  if (left.length !== Object.keys(byField).length) faults.set({ byField: Object.fromEntries(left) });
  if ("operation" in changes) form.set((state) => withModels(state, app.get().models ?? []));
}

/** Leave out models that cannot do what is to be done; without any, take the first that can. */
function withModels(state, models) {
  const able = models.filter((model) => canDo(model, state.operation)).map((model) => model.id);
  const chosen = state.models.filter((name) => able.includes(name));
  return { ...state, models: chosen.length ? chosen : able.slice(0, 1) };
}

export const chosenModels = (state, models) =>
  state.models.map((name) => models.find((model) => model.id === name)).filter(Boolean);
