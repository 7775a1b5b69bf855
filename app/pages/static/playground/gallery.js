/** The gallery: all pictures of this browser, to search, choose, keep and delete. */

import { Button, Empty, Loading } from "../base/components.js";
import { money } from "../base/format.js";
import { html, useState } from "../base/html.js";
import { Icon } from "../base/icons.js";
import { note } from "../base/live.js";
import { ask } from "../base/question.js";
import { useStore } from "../base/store.js";
import { isLasting } from "./database.js";
import { gallery, removePictures, setFavourite } from "./gallery-store.js";
import { fileName, save, urlOf } from "./images.js";
import { words } from "./strings.js";
import { uniqueNames, zip } from "./zip.js";

const PAGE = 48;

/** @param {{onOpen: (id: string, among: string[]) => void}} props */
export function Gallery({ onOpen }) {
  const { all } = useStore(gallery);
  const [query, setQuery] = useState("");
  const [isFavourites, setFavourites] = useState(false);
  const [count, setCount] = useState(PAGE);
  const [chosen, setChosen] = useState(null); // null: nothing is being chosen
  if (!all) return html`<${Loading} />`;

  const terms = query.toLowerCase().split(/\s+/).filter(Boolean);
  const found = all.filter((picture) => {
    const text = `${picture.prompt} ${picture.model} ${picture.gateway?.provider ?? ""} ${picture.seed ?? ""}`.toLowerCase();
    return (!isFavourites || picture.favourite) && terms.every((term) => text.includes(term));
  });
  const names = found.map((picture) => picture.id);
  const marked = chosen ? all.filter((picture) => chosen.has(picture.id)) : [];
  const toggle = (id) => {
    const next = new Set(chosen);
    if (!next.delete(id)) next.add(id);
    setChosen(next);
  };
  async function download() {
    const list = marked.length ? marked : found;
    const names = uniqueNames(list.map((picture) => fileName(picture.prompt, picture.id, picture.type)));
    save(await zip(list.map((picture, index) => ({ name: names[index], blob: picture.blob, date: new Date(picture.createdAt) }))), "pictures.zip");
  }
  async function remove() {
    if (!(await ask({ title: words.removeAsk(marked.length), detail: words.removeDetail, action: words.remove }))) return;
    await removePictures(marked.map((picture) => picture.id));
    note(words.removed(marked.length));
    setChosen(null);
  }

  return html`<section class="gallery" aria-labelledby="gallery-title">
    <header class="gallery-head">
      <div><h2 id="gallery-title" tabindex="-1">${words.gallery} <span class="soft numbers">${all.length || ""}</span></h2>
        <p class="hint">${isLasting() ? words.galleryHint : words.galleryLost}</p></div>
      ${all.length > 0 && html`<div class="row">
        <label class="search"><span class="unseen">${words.search}</span><${Icon} name="search" />
          <input type="search" placeholder=${words.search} value=${query} onInput=${(event) => setQuery(event.target.value)} /></label>
        <${Button} icon="star" label=${words.favouritesOnly} aria-pressed=${String(isFavourites)} onClick=${() => setFavourites(!isFavourites)} />
        <${Button} icon="check" aria-pressed=${String(Boolean(chosen))} onClick=${() => setChosen(chosen ? null : new Set())}>${words.selectMany}<//>
        <${Button} icon="download" label=${words.zip} onClick=${download} />
      </div>`}
    </header>
    ${chosen && html`<div class="row chosen-bar" role="status"><span>${words.selected(marked.length)}</span>
      <${Button} class="small" icon="download" disabled=${!marked.length} onClick=${download}>${words.zip}<//>
      <${Button} class="small" kind="danger" icon="trash" disabled=${!marked.length} onClick=${remove}>${words.remove}<//></div>`}
    ${!all.length && html`<${Empty} title=${words.galleryEmpty}>${words.galleryEmptyText}<//>`}
    ${all.length > 0 && !found.length && html`<${Empty} icon="search" title=${words.galleryNoMatch} />`}
    <ul class="grid">
      ${found.slice(0, count).map((picture) => html`<${Card} key=${picture.id} picture=${picture} isChoosing=${Boolean(chosen)} isChosen=${chosen?.has(picture.id)}
        onChoose=${() => toggle(picture.id)} onOpen=${() => onOpen(picture.id, names)} />`)}
    </ul>
    ${found.length > count && html`<${Button} class="more-button" onClick=${() => setCount(count + PAGE)}>${words.showMore(Math.min(PAGE, found.length - count))}<//>`}
  </section>`;
}

function Card({ picture, isChoosing, isChosen, onChoose, onOpen }) {
  const label = picture.prompt || picture.model;
  const cost = picture.gateway?.cost;
  const star = picture.favourite ? words.unfavourite : words.favourite;
  return html`<li class=${`card-picture ${isChosen ? "chosen" : ""}`}>
    <button type="button" class="card-open" onClick=${isChoosing ? onChoose : onOpen} aria-label=${isChoosing ? words.selectPicture(label) : words.open(label)} aria-pressed=${isChoosing ? String(Boolean(isChosen)) : undefined}>
      <img src=${urlOf(picture.thumb)} alt="" loading="lazy" />
    </button>
    <div class="card-foot"><span class="card-text" title=${label}>${label}</span>
      <span class="hint numbers card-model">${picture.model.split("/").at(-1)}${cost != null && ` · ${money(cost, picture.gateway.currency)}`}</span></div>
    ${isChoosing ? html`<span class="card-mark">${isChosen && html`<${Icon} name="check" />`}</span>` : html`<button type="button" class="card-star" aria-label=${star} title=${star} aria-pressed=${String(picture.favourite)}
      onClick=${() => setFavourite(picture, !picture.favourite)}><${Icon} name="star" filled=${picture.favourite} /></button>`}
  </li>`;
}
