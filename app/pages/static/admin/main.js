/** The page: its door, its screens, and the way between them. */

import { Button, ErrorBox, Loading, TopBar } from "../base/components.js";
import { html, render, useEffect, useRef } from "../base/html.js";
import { Icon } from "../base/icons.js";
import { KeyForm } from "../base/key-form.js";
import { LiveRegions } from "../base/live.js";
import { useStore } from "../base/store.js";
import { Access } from "./access.js";
import { ScreenLink, useQuery } from "./address.js";
import { Audit } from "./audit.js";
import { Configuration } from "./configuration.js";
import { api, askWhoIAm, holder, learnNames, open, session, useAnswer } from "./data.js";
import { Doubts } from "./doubts.js";
import { Drawings } from "./drawings.js";
import { Overview } from "./overview.js";
import { Prices } from "./prices.js";
import { Providers } from "./providers.js";
import { Usage } from "./usage.js";

const SCREENS = [
  ["overview", "Overview", "grid", Overview],
  ["usage", "Usage", "chart", Usage],
  ["drawings", "Drawings", "image", Drawings],
  ["doubts", "In doubt", "help", Doubts],
  ["access", "Projects and keys", "key", Access],
  ["prices", "Prices", "tag", Prices],
  ["providers", "Providers", "layers", Providers],
  ["audit", "Audit", "list", Audit],
  ["configuration", "Configuration", "code", Configuration],
];

function Page() {
  const { caller, refusal, failure, isAsking } = useStore(session);
  useEffect(() => {
    open();
  }, []);
  return html`
    <${TopBar} page="admin">${caller && html`<${Caller} caller=${caller} />`}<//>
    ${caller
      ? html`<${Inside} key=${caller.id} />`
      : html`<main id="main" class="door">
          ${isAsking && html`<${Loading} />`}
          ${!isAsking && failure && html`<${ErrorBox} error=${failure} onRetry=${open} />`}
          ${!isAsking && !failure && html`<${KeyForm} holder=${holder} check=${askWhoIAm} refusal=${refusal}
            onOpen=${(known) => session.set({ caller: known, refusal: null })}
            title="An admin key, please" hint="image-gateway keys create --admin --name NAME makes one." />`}
        </main>`}
    <${LiveRegions} />
  `;
}

function Caller({ caller }) {
  if (!holder.get()) return html`<span class="badge warn">Sandbox</span>`;
  function leave() {
    holder.forget();
    session.set({ caller: null, refusal: null });
    open();
  }
  return html`<span class="caller"><${Icon} name="key" /><span>${caller.name}</span></span>
    <${Button} kind="quiet" class="small" onClick=${leave}>Leave<//>`;
}

function Inside() {
  const query = useQuery();
  const screen = SCREENS.find(([name]) => name === query.screen) ?? SCREENS[0];
  const doubts = useAnswer((signal) => api.get("v1/gateway/overview", {}, { signal }), [query.screen]);
  const side = useRef(null);
  useEffect(() => {
    // In a row that scrolls, the chosen one is in sight. `scrollIntoView` would move where Tab goes on.
    const { x, width } = side.current.querySelector("[aria-current]").getBoundingClientRect();
    side.current.scrollLeft += x + (width - innerWidth) / 2;
  }, [screen]);
  useEffect(() => {
    learnNames().catch(() => {}); // ids are shown instead
  }, []);
  const waiting = doubts.value?.in_doubt.drawings;
  const Content = screen[3];
  return html`<div class="inside">
    <nav class="side" ref=${side} aria-label="Administration">
      <ul>
        ${SCREENS.map(([name, label, icon]) => html`<li key=${name}>
          <${ScreenLink} to=${{ screen: name }} aria-current=${name === screen[0] ? "page" : undefined}>
            <${Icon} name=${icon} /><span>${label}</span>
            ${name === "doubts" && waiting > 0 && html`<span class="badge warn">${waiting}</span>`}
          <//>
        </li>`)}
      </ul>
    </nav>
    <main id="main" tabindex="-1"><${Content} key=${screen[0]} query=${query} onDoubtsChange=${doubts.reload} /></main>
  </div>`;
}

render(html`<${Page} />`, document.getElementById("page"));
