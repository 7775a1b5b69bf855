/** Sums over time as stacked bars. The table beside a chart has the same numbers for those who do not see it. */

import { html, useEffect, useRef, useState } from "../base/html.js";

export const MOST_SERIES = 8;
const [HEIGHT, TOP, BOTTOM, RIGHT] = [260, 10, 26, 4];
const LINES = 4; // of the scale, about

/**
 * @param {{label: string, times: number[], series: {name: string, values: number[]}[], format: (value: number) => string,
 *   width: number}} props `times` are the buckets' beginnings in Unix seconds, `width` their length in seconds
 */
export function Chart({ label, times, series, format, width }) {
  const box = useRef(null);
  const [wide, setWide] = useState(0);
  const [at, setAt] = useState(null);
  useEffect(() => {
    const sizes = new ResizeObserver(([{ contentRect }]) => setWide(Math.floor(contentRect.width)));
    sizes.observe(box.current);
    return () => sizes.disconnect();
  }, []);
  const shown = at != null && at < times.length ? at : null;
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const total = (place) => sum(series.map((each) => each.values[place]));
  return html`<figure class="chart" role="img" aria-label=${label}>
    <div class="plot" ref=${box} onPointerLeave=${() => setAt(null)}>
      ${wide > 0 && html`<${Bars} ...${{ times, series, format, width, wide, shown }} onPoint=${setAt} most=${Math.max(0, ...times.map((_, place) => total(place)))} />`}
    </div>
    <figcaption class="legend" aria-hidden="true">
      <span class="legend-time">${shown == null ? "All of it" : bucket(times[shown], width)}</span>
      ${series.map((each, place) => html`<span key=${each.name}>
        <i class=${`swatch series-${place + 1}`}></i><span class="legend-name">${each.name}</span>
        <b>${format(shown == null ? sum(each.values) : each.values[shown])}</b>
      </span>`)}
      ${series.length > 1 && shown != null && html`<span>together <b>${format(total(shown))}</b></span>`}
    </figcaption>
  </figure>`;
}

function Bars({ times, series, format, width, wide, shown, most, onPoint }) {
  const step = niceStep(most / LINES);
  const top = Math.max(step, Math.ceil(most / step - 1e-9) * step);
  const lines = Array.from({ length: Math.round(top / step) + 1 }, (_, place) => place * step);
  const left = Math.max(...lines.map((value) => format(value).length)) * 7 + 12;
  const [each, high] = [(wide - left - RIGHT) / times.length, HEIGHT - TOP - BOTTOM];
  const thick = Math.max(1, Math.min(each * 0.74, 44));
  const y = (value) => TOP + high * (1 - value / top);
  const every = Math.ceil(64 / each);
  function pointed(event) {
    const place = Math.floor((event.clientX - event.currentTarget.getBoundingClientRect().left - left) / each);
    onPoint(place >= 0 && place < times.length ? place : null);
  }
  return html`<svg width=${wide} height=${HEIGHT} onPointerMove=${pointed} onPointerDown=${pointed} aria-hidden="true">
    ${lines.map((value) => html`<g key=${value}>
      <line class="scale" x1=${left} x2=${wide - RIGHT} y1=${y(value)} y2=${y(value)} />
      <text x=${left - 8} y=${y(value) + 4} text-anchor="end">${format(value)}</text>
    </g>`)}
    ${shown != null && html`<rect class="pointed" x=${left + shown * each} y=${TOP} width=${each} height=${high} />`}
    ${times.map((time, place) => {
      let below = 0;
      const x = left + (place + 0.5) * each;
      return html`<g key=${time}>
        ${series.map(({ values }, number) => {
          const [from, to] = [y(below), y((below += values[place]))];
          return from - to > 0.05 && html`<rect class=${`series-${number + 1}`} x=${x - thick / 2} width=${thick} y=${to}
            height=${from - to} />`;
        })}
        ${(times.length - 1 - place) % every === 0 && x > left + 18 && html`<text x=${Math.min(x, wide - 24)} y=${HEIGHT - 8} text-anchor="middle">
          ${tick(time, width)}</text>`}
      </g>`;
    })}
  </svg>`;
}

/** Return 1, 2, 2.5 or 5 times a power of ten, not below a value. */
function niceStep(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 2.5, 5, 10].find((each) => each * power >= value * (1 - 1e-9));
}

const said = (time, style) => new Intl.DateTimeFormat("en", { ...style, timeZone: "UTC" }).format(time * 1000);

const tick = (time, width) =>
  width < 86_400 && time % 86_400 ? said(time, { hour: "2-digit", minute: "2-digit", hour12: false }) : said(time, { day: "numeric", month: "short" });

/** Say a bucket of time, in UTC. */
export const bucket = (time, width) => said(time, { dateStyle: "medium", ...(width < 86_400 && { timeStyle: "short" }) });
