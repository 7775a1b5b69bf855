/** State that outlives a component: one object, replaced as a whole, and those who want to hear of it. */

import { useEffect, useState } from "./html.js";

/**
 * @template T
 * @param {T} initial
 */
export function createStore(initial) {
  let state = initial;
  const listeners = new Set();
  return {
    get: () => state,
    /** @param {Partial<T> | ((state: T) => Partial<T>)} change what is laid over the state */
    set(change) {
      const changed = typeof change === "function" ? change(state) : change;
      state = { ...state, ...changed };
      for (const listener of [...listeners]) listener(state);
    },
    /** @returns {() => void} ends the subscription */
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/** Return the part of a store's state that `select` picks, and draw the component anew when it changes. */
export function useStore(store, select = (state) => state) {
  const [, redraw] = useState(0);
  const selected = select(store.get());
  useEffect(() => {
    let last = select(store.get());
    if (last !== selected) redraw((count) => count + 1);
    return store.subscribe((state) => {
      const next = select(state);
      if (next === last) return;
      last = next;
      redraw((count) => count + 1);
    });
  }, [store]);
  return selected;
}
