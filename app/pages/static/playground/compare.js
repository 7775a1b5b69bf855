/** Two pictures, one over the other behind a slider, side by side, or by what differs; and what each took and cost. */

import { Dialog, Field, Segmented, SelectField } from "../base/components.js";
import { money, seconds } from "../base/format.js";
import { html, useEffect, useRef, useState } from "../base/html.js";
import { canvasOf, decode, urlOf } from "./images.js";
import { words } from "./strings.js";

const NOTICED = 8; // of 255: what a pixel's channel must differ by, to count

/** @param {{pictures: object[], onClose: () => void}} props two pictures or more */
export function Compare({ pictures, onClose }) {
  const [ids, setIds] = useState([pictures[0].id, pictures[1].id]);
  const [way, setWay] = useState("slider");
  const [split, setSplit] = useState(50);
  const [left, right] = ids.map((id) => pictures.find((picture) => picture.id === id) ?? pictures[0]);
  const options = pictures.map((picture, index) => ({ value: picture.id, label: `${index + 1} · ${picture.model}` }));
  const choose = (at, label) => html`<${SelectField} label=${label} value=${ids[at]} options=${options} onInput=${(id) => setIds(at ? [ids[0], id] : [id, ids[1]])} />`;
  const ways = Object.entries(words.compareWays).map(([value, label]) => ({ value, label }));
  const ratio = (left.width ?? 1) / (left.height ?? 1);
  const shape = { aspectRatio: String(ratio), maxWidth: `calc(56vh * ${ratio})` };
  return html`<${Dialog} title=${words.compareTitle} onClose=${onClose} class="wide">
    <div class="stack">
      <${Segmented} label=${words.compareHow} value=${way} options=${ways} onInput=${setWay} />
      ${way === "slider" && html`<div class="slider" style=${shape}>
          <img src=${urlOf(left.blob)} alt=${left.model} /><img src=${urlOf(right.blob)} alt=${right.model} style=${{ clipPath: `inset(0 0 0 ${split}%)` }} />
          <span class="slider-line" style=${{ left: `${split}%` }}></span>
          <input type="range" min="0" max="100" value=${split} aria-label=${words.compareSplit} onInput=${(event) => setSplit(Number(event.target.value))} />
        </div>`}
      ${way === "side" && html`<div class="sides"><img src=${urlOf(left.blob)} alt=${left.model} /><img src=${urlOf(right.blob)} alt=${right.model} /></div>`}
      ${way === "difference" && html`<${Difference} key=${ids.join()} left=${left} right=${right} />`}
      <div class="pair">${choose(0, words.compareLeft)}${choose(1, words.compareRight)}</div>
      <div class="table-box"><table><thead><tr><th>${words.facts.model}</th><th>${words.facts.provider}</th><th class="number">${words.facts.time}</th><th class="number">${words.facts.cost}</th><th class="number">${words.facts.seed}</th></tr></thead>
        <tbody>${pictures.map((picture) => html`<tr key=${picture.id}><td>${picture.model}</td><td>${picture.gateway?.provider ?? "–"}</td><td class="number">${seconds(picture.seconds)}</td>
          <td class="number">${picture.gateway?.cost == null ? words.costUnknown : money(picture.gateway.cost, picture.gateway.currency)}</td><td class="number">${picture.seed ?? "–"}</td></tr>`)}</tbody></table></div>
    </div>
  <//>`;
}

/** The pixels that differ, the brighter the more. */
function Difference({ left, right }) {
  const canvas = useRef(null);
  const [share, setShare] = useState(null);
  useEffect(() => {
    let isCurrent = true;
    (async () => {
      const images = await Promise.all([decode(left.blob), decode(right.blob)]);
      const { width, height } = left;
      const [one, other] = images.map((image) => {
        const context = canvasOf(width, height).getContext("2d");
        context.drawImage(image, 0, 0, width, height);
        return context.getImageData(0, 0, width, height);
      });
      let count = 0;
      for (let at = 0; at < one.data.length; at += 4) {
        let most = 0;
        for (let channel = at; channel < at + 3; channel += 1) {
          one.data[channel] = Math.abs(one.data[channel] - other.data[channel]);
          most = Math.max(most, one.data[channel]);
        }
        one.data[at + 3] = 255;
        if (most >= NOTICED) count += 1;
      }
      if (!isCurrent || !canvas.current) return;
      Object.assign(canvas.current, { width, height });
      canvas.current.getContext("2d").putImageData(one, 0, 0);
      setShare((400 * count) / one.data.length);
    })();
    return () => {
      isCurrent = false;
    };
  }, []);
  const isStretched = left.width !== right.width || left.height !== right.height;
  return html`<div class="difference"><canvas ref=${canvas}></canvas></div>
    ${share !== null && html`<p class="soft" role="status">${words.differenceShare(share.toFixed(1))} ${isStretched && words.differenceSizes}</p>`}`;
}
