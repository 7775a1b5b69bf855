/** The screen and its filter stand in the address, so that a reload, a bookmark and a colleague see the same. */

import { html } from "../base/html.js";
import { createStore, useStore } from "../base/store.js";

const read = () => ({ query: Object.fromEntries(new URLSearchParams(location.search)) });

const address = createStore(read());
addEventListener("popstate", () => address.set(read()));

/** Return the names and values of the address: all of them texts. */
export const useQuery = () => useStore(address, (state) => state.query);

/** Return an address of this page. null, undefined and "" are left out. */
export function addressOf(query) {
  const pairs = Object.entries(query).filter(([, value]) => value != null && value !== "" && value !== false);
  return `?${new URLSearchParams(pairs)}`;
}

/** @param {{replace?: boolean}} [how] `replace`: without a new step for the browser's way back */
export function go(query, { replace = false } = {}) {
  const to = addressOf(query);
  if (to === location.search) return;
  history[replace ? "replaceState" : "pushState"](null, "", to);
  address.set(read());
}

/** Lay changes over the filter of this screen. */
export const change = (changes, how) => go({ ...address.get().query, ...changes }, how);

/** A link to a screen, which a browser can also open in another tab. */
export function ScreenLink({ to, children, onGo, ...rest }) {
  function follow(event) {
    if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(to);
    onGo?.();
  }
  return html`<a href=${addressOf(to)} onClick=${follow} ...${rest}>${children}</a>`;
}
