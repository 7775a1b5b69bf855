/** The key of whoever sits before the page: for this tab alone, or remembered, as they choose. */

import { kept, session } from "./storage.js";

/** @param {string} page each page has a key of its own: a key that draws does not administrate */
export function createKeyHolder(page) {
  const name = `key.${page}`;
  let inMemory = null; // where the browser stores nothing
  return {
    /** @returns {string | null} */
    get: () => session.get(name) ?? kept.get(name) ?? inMemory,
    isRemembered: () => kept.get(name) !== null,
    set(key, { remember }) {
      inMemory = key;
      kept.set(name, remember ? key : null);
      session.set(name, remember ? null : key);
    },
    forget() {
      inMemory = null;
      kept.set(name, null);
      session.set(name, null);
    },
  };
}
