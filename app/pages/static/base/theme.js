/** Dark, light, or as the system: `first-paint.js` reads the choice before the page is painted. */

import { html, useState } from "./html.js";
import { Icon } from "./icons.js";
import { kept } from "./storage.js";
import { text } from "./strings.js";

const THEMES = ["auto", "light", "dark"];
const ICONS = { auto: "themeAuto", light: "sun", dark: "moon" };

export function ThemeToggle() {
  const [theme, setTheme] = useState(document.documentElement.dataset.theme);
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  function change() {
    document.documentElement.dataset.theme = next;
    kept.set("theme", next);
    setTheme(next);
  }
  const name = `${text.theme}: ${text.themes[theme]}`;
  return html`<button type="button" class="button quiet square" onClick=${change} aria-label=${name} title=${name}>
    <${Icon} name=${ICONS[theme]} />
  </button>`;
}
