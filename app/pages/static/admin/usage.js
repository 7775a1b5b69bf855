/** Requests, images, seconds and money by day or hour: a chart, a table, a file. */

import { Button, Segmented, SelectField } from "../base/components.js";
import { money, number } from "../base/format.js";
import { html, useMemo } from "../base/html.js";
import { change } from "./address.js";
import { bucket, Chart } from "./chart.js";
import { api, download, useAnswer, useNames } from "./data.js";
import { DayFields, Filters } from "./filters.js";
import { Answer, Bar, Head, Nothing, Screen, Table } from "./parts.js";
import { chartOf, DAY, daysAgo, grouped, MEASURES, SPANS } from "./sums.js";
import { DIMENSIONS, percent, written } from "./words.js";

const FILTERS = ["project_id", "api_key_id", "model", "provider", "operation", "outcome"];
const MOST_HOURS = 31; // days, of which the gateway tells the hours

/** Return what the address asks for. */
function wanted(query) {
  const days = Number(SPANS.find(([value]) => value === query.days)?.[0] ?? 30);
  const isOwn = Boolean(query.since);
  const since = isOwn ? Number(query.since) || daysAgo(29) : daysAgo(days - 1);
  const until = Number(query.until) || daysAgo(-1);
  const fits = until - since <= MOST_HOURS * DAY;
  const width = fits && (query.width === "1h" || (query.width !== "1d" && until - since <= DAY)) ? "1h" : "1d";
  const group = query.group in DIMENSIONS ? query.group : "";
  const measure = query.measure in MEASURES ? query.measure : "cost";
  const only = Object.fromEntries(FILTERS.filter((name) => query[name]).map((name) => [name, query[name]]));
  return { days: isOwn ? "" : String(days), since, until, width, group, measure, only, fits, isByTime: query.by === "time" };
}

export function Usage({ query }) {
  const names = useNames();
  const want = wanted(query);
  const { since, until, width, group, only } = want;
  const asked = { since, until, bucket_width: width, group_by: group, ...only };
  const answer = useAnswer((signal) => api.get("v1/gateway/usage", asked, { signal }), [JSON.stringify(asked)]);
  const set = (changes) => change({ screen: "usage", ...changes });
  const file = `usage-${new Date(since * 1000).toISOString().slice(0, 10)}.csv`;
  const options = (pairs) => pairs.map(([value, label]) => ({ value, label }));
  const actions = html`<${Button} icon="download" onClick=${() => download("v1/gateway/usage", asked, file)}>CSV<//>`;
  return html`<${Screen} title="Usage" lead="Each request counts on the day (UTC) on which it began." actions=${actions}>
    <${Filters} query=${query} onChange=${set} names=${FILTERS}>
      <${DayFields} query=${{ since, until }} onChange=${(days) => set({ days: "", since, until, ...days })} />
    <//>
    <div class="row apart">
      <div class="row">
        <${SelectField} class="inline" label="Measure" value=${want.measure}
          options=${options(Object.entries(MEASURES).map(([name, { label }]) => [name, label]))}
          onInput=${(measure) => set({ measure })} />
        <${SelectField} class="inline" label="By" value=${group} options=${options([["", "Nothing"], ...Object.entries(DIMENSIONS)])}
          onInput=${(value) => set({ group: value })} />
      </div>
      <div class="row">
      <${Segmented} label="Span" value=${want.days} options=${options(SPANS)} onInput=${(days) => set({ days, since: "", until: "" })} />
      <${Segmented} label="Width of a bar" value=${width} onInput=${(value) => set({ width: value })}
        options=${[{ value: "1h", label: "Hours", disabled: !want.fits }, { value: "1d", label: "Days" }]} />
      </div>
    </div>
    <${Answer} answer=${answer}>
      ${({ data }) => (data.length
        ? html`<${Sums} lines=${data} want=${want} names=${names} onView=${(by) => set({ by })} />`
        : html`<${Nothing} title="Nothing was drawn in this time" icon="chart">Choose more days, or fewer filters.<//>`)}
    <//>
  <//>`;
}

function Sums({ lines, want, names, onView }) {
  const measure = MEASURES[want.measure];
  const { currency } = lines[0];
  const format = (value) => (measure.isMoney ? money(value, currency) : number(Math.round(value * 10) / 10));
  const seconds = want.width === "1h" ? 3600 : DAY;
  const found = useMemo(() => grouped(lines, want.group, measure, names), [lines, want.group, measure, names.isKnown]);
  const chart = useMemo(() => chartOf(found, measure, { ...want, width: seconds }), [found]);
  const rows = want.isByTime
    ? grouped(lines, "start_time", measure, names).groups.toSorted((one, other) => other.value - one.value)
    : found.groups;
  const label = `${measure.label} by ${want.width === "1h" ? "hour" : "day"}, together ${format(found.total)}`;
  return html`
    <div class="card part"><${Chart} label=${label} ...${chart} width=${seconds} format=${format} /></div>
    <div class="row apart">
      <h2>${measure.label}: <span class="numbers">${format(found.total)}</span></h2>
      <${Segmented} label="Rows" value=${want.isByTime ? "time" : "group"} onInput=${onView} options=${[
        { value: "group", label: want.group ? `By ${DIMENSIONS[want.group].toLowerCase()}` : "Sum" },
        { value: "time", label: want.width === "1h" ? "By hour" : "By day" },
      ]} />
    </div>
    <${Table} label=${want.isByTime ? "Sums by time" : "Sums"}>
      <${Head} columns=${[want.isByTime ? "Begins (UTC)" : (DIMENSIONS[want.group] ?? "Sum"), ["Share", "wide"],
        ...COLUMNS.map(([name]) => [written(name.replace("cost_", "")), "number"])]} />
      <tbody>${rows.map((group) => html`<tr key=${group.value}>
        <th scope="row" class="name">${want.isByTime ? bucket(group.value, seconds) : group.name}</th>
        <td><div class="share"><${Bar} parts=${[[found.total ? group.total / found.total : 0, "spent"]]} />
          <span class="soft">${percent(found.total ? group.total / found.total : 0)}</span></div></td>
        ${COLUMNS.map(([name, say]) => html`<td key=${name} class="number">
          ${say(group.lines.reduce((sum, line) => sum + line[name], 0), currency)}</td>`)}
      </tr>`)}</tbody>
    <//>`;
}

const whole = (value) => number(Math.round(value));

const COLUMNS = [["requests", whole], ["images", whole], ["megapixels", whole], ["seconds", whole], ["cost_in_doubt", money],
  ["joined", whole], ["saved", money], ["cost", money]];
