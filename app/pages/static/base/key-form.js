/** Asks for a key, tries it, and tells beside the field what is wrong with it. */

import { Button, CheckField, TextField } from "./components.js";
import { html, useState } from "./html.js";
import { text } from "./strings.js";

/**
 * @param {{holder: ReturnType<import("./key.js").createKeyHolder>, check: () => Promise<any>, onOpen: (known: any) => void,
 *   title?: string, hint?: string, refusal?: string}} props `check` asks the gateway with the key that the holder now has, and throws an ApiError if it is not good;
 *   `refusal` is why the page asks (again)
 */
export function KeyForm({ holder, check, onOpen, title = text.keyTitle, hint = text.keyHint, refusal = null }) {
  const [key, setKey] = useState("");
  const [remember, setRemember] = useState(holder.isRemembered());
  const [isShown, setShown] = useState(false);
  const [error, setError] = useState(refusal);
  const [isBusy, setBusy] = useState(false);

  async function submit(event) {
    event.preventDefault();
    const wanted = key.trim();
    if (!wanted) {
      setError(text.keyMissing);
      return;
    }
    const before = [holder.get(), holder.isRemembered()];
    holder.set(wanted, { remember });
    setBusy(true);
    try {
      onOpen(await check());
    } catch (refused) {
      if (before[0]) holder.set(before[0], { remember: before[1] });
      else holder.forget();
      setError(refused.message);
    } finally {
      setBusy(false);
    }
  }

  const show = html`<button type="button" class="link" onClick=${() => setShown(!isShown)}>
    ${isShown ? text.keyHide : text.keyShow}
  </button>`;
  return html`<form class="key-form card" onSubmit=${submit} novalidate>
    <h1>${title}</h1>
    <${TextField} label=${text.key} hint=${hint} error=${error} aside=${show} value=${key} onInput=${setKey}
      type=${isShown ? "text" : "password"} autocomplete="off" spellcheck="false" autofocus />
    <${CheckField} label=${text.keyRemember} hint=${text.keyRememberHint} checked=${remember} onInput=${setRemember} />
    <${Button} kind="primary" type="submit" disabled=${isBusy}>${text.keyUse}<//>
  </form>`;
}
