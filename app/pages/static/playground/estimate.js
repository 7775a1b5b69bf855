/** The price before the picture: what the gateway says of the form as it stands. */

import { useEffect, useState } from "../base/html.js";
import { bodyOf } from "./drawing.js";
import { requestFor } from "./request.js";
import { api, chosenModels } from "./session.js";

const PAUSE = 450; // milliseconds without a change
let isKnown = true; // false: this gateway tells no prices beforehand

/** @returns {{estimates: object[] | null, error: Error | null}} an estimate for each chosen model; null while there is none */
export function useEstimate(state, models) {
  const [told, tell] = useState({ estimates: null, error: null });
  const chosen = chosenModels(state, models);
  const isWhole =
    (state.operation === "variations" || state.prompt.trim() !== "") && (state.operation === "generations" || state.inputs.length > 0);
  // With pictures, a changed prompt is no reason to send them again: no price depends on its words.
  const { prompt, ...rest } = state;
  const asked = JSON.stringify([state.operation === "generations" ? state : rest, isWhole]);
  useEffect(() => {
    if (!isKnown || !isWhole || !chosen.length) {
      tell({ estimates: null, error: null });
      return undefined;
    }
    const controller = new AbortController();
    const timer = setTimeout(async () => {
      try {
        const seed = state.isSeedLocked && state.seed !== "" ? Number(state.seed) : 1;
        const estimates = await Promise.all(
          chosen.map(async (model) => {
            const request = requestFor(model, seed, state);
            const body = await bodyOf(request, request.fields);
            return api.post(`v1/images/${state.operation}/estimate`, body, { signal: controller.signal });
          }),
        );
        tell({ estimates, error: null });
      } catch (error) {
        if (error.name === "AbortError") return;
        if (error.status === 404 && error.code === "not_found") isKnown = false;
        tell({ estimates: null, error: isKnown && error.status ? error : null });
      }
    }, PAUSE);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [asked]);
  return told;
}

/** Return what the sheet may cost, from the estimates or from what the models' capabilities say; null: unknown. */
export function costOf(estimates, chosen, count) {
  if (estimates) {
    if (estimates.some(({ cost }) => cost.most == null)) return null;
    const sum = (name) => estimates.reduce((total, { cost }) => total + Number(cost[name]), 0);
    return { least: sum("least"), most: sum("most"), currency: estimates[0].cost.currency };
  }
  const prices = chosen.map((model) => model.capabilities.price_per_image);
  if (!prices.length || prices.some((price) => price == null)) return null;
  return { least: prices.reduce((total, price) => total + price * count, 0), most: null, currency: "USD" };
}
