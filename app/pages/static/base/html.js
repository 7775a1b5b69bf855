/** What a component needs: `html` for markup, and preact's hooks. Other modules import from here, not from vendor/. */

import htm from "../vendor/htm.js";
import { createElement, Fragment, render } from "../vendor/preact.js";

export { useCallback, useEffect, useLayoutEffect, useMemo, useReducer, useRef, useState } from "../vendor/hooks.js";
export { Fragment, render };

/** A tagged template: `html`<p class="note">${text}</p>``. What is put in is text, never markup. */
export const html = htm.bind(createElement);
