/** What a screen reader is told besides, and the small notes at the edge of the window. */

import { html, useEffect, useState } from "./html.js";
import { Icon } from "./icons.js";
import { createStore, useStore } from "./store.js";
import { text } from "./strings.js";

const told = createStore({ polite: "", notes: [] });
let lastNote = 0;

/** Tell a screen reader, without showing anything. */
export function announce(message) {
  told.set({ polite: message });
}

/** Show a note for a few seconds; an error stays until it is dismissed. */
export function note(message, { isError = false } = {}) {
  const id = (lastNote += 1);
  told.set((state) => ({ notes: [...state.notes.slice(-3), { id, message, isError }] }));
  if (!isError) setTimeout(() => dismiss(id), 4000);
}

function dismiss(id) {
  told.set((state) => ({ notes: state.notes.filter((each) => each.id !== id) }));
}

/** Once in each page. */
export function LiveRegions() {
  const { polite, notes } = useStore(told);
  return html`
    <div class="unseen" role="status" aria-live="polite">${polite}</div>
    <div class="notes" role="region" aria-live="polite" aria-label="Notes">
      ${notes.map(
        (each) => html`<div key=${each.id} class=${`note ${each.isError ? "bad" : ""}`}>
          <span>${each.message}</span>
          <button type="button" class="button quiet square small" aria-label=${text.dismiss}
            onClick=${() => dismiss(each.id)}><${Icon} name="close" /></button>
        </div>`,
      )}
    </div>
  `;
}

/** Return whether the browser believes to have a network. */
export function useOnline() {
  const [online, setOnline] = useState(navigator.onLine);
  useEffect(() => {
    const change = () => setOnline(navigator.onLine);
    addEventListener("online", change);
    addEventListener("offline", change);
    return () => {
      removeEventListener("online", change);
      removeEventListener("offline", change);
    };
  }, []);
  return online;
}
