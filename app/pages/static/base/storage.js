/** The browser's small storages. Where they are switched off or full, the page works and forgets. */

const PREFIX = "image-gateway.";

/** @param {"localStorage" | "sessionStorage"} where */
function storage(where) {
  return {
    get(name) {
      try {
        return window[where].getItem(PREFIX + name);
      } catch {
        return null;
      }
    },
    /** @returns {boolean} whether it is stored */
    set(name, value) {
      try {
        if (value === null) window[where].removeItem(PREFIX + name);
        else window[where].setItem(PREFIX + name, value);
        return true;
      } catch {
        return false;
      }
    },
  };
}

/** Outlives the browser. */
export const kept = storage("localStorage");
/** Ends with the tab. */
export const session = storage("sessionStorage");
