/** What has happened, what it cost, and what wants attention: one screen. */

import { Button, Segmented } from "../base/components.js";
import { dateTime, money, number, seconds } from "../base/format.js";
import { html, useEffect, useMemo } from "../base/html.js";
import { change, ScreenLink } from "./address.js";
import { Chart } from "./chart.js";
import { api, useAnswer, useNames } from "./data.js";
import { Answer, Bar, Card, Screen } from "./parts.js";
import { chartOf, DAY, daysAgo, grouped, MEASURES, SPANS } from "./sums.js";
import { count, fromNow, PAUSES, percent, WINDOWS } from "./words.js";

const REFRESH = 60_000;

async function ask(days, signal) {
  const since = daysAgo(days - 1);
  const init = { signal };
  const [overview, models, projects, budgets, providers] = await Promise.all([
    api.get("v1/gateway/overview", { since }, init),
    api.get("v1/gateway/usage", { since, group_by: "model", bucket_width: days === 1 ? "1h" : "1d" }, init),
    api.get("v1/gateway/usage", { since, group_by: "project_id" }, init),
    api.get("v1/gateway/budgets", {}, init),
    api.get("v1/gateway/providers", {}, init),
  ]);
  return { overview, models: models.data, projects: projects.data, budgets: budgets.data, providers: providers.data, days,
    since, at: new Date() };
}

export function Overview({ query }) {
  const days = Number(SPANS.find(([value]) => value === query.days)?.[0] ?? 30);
  const answer = useAnswer((signal) => ask(days, signal), [days]);
  useEffect(() => {
    const timer = setInterval(() => document.visibilityState === "visible" && answer.reload(), REFRESH);
    return () => clearInterval(timer);
  }, []);
  const actions = html`
    <${Segmented} label="Span" value=${String(days)} options=${SPANS.map(([value, label]) => ({ value, label }))}
      onInput=${(value) => change({ screen: "overview", days: value })} />
    <${Button} icon="refresh" label="Ask again" onClick=${answer.reload} />`;
  const lead = answer.value && `As of ${dateTime(answer.value.at)}. Days are those of UTC.`;
  return html`<${Screen} title="Overview" lead=${lead} actions=${actions}>
    <${Answer} answer=${answer}>${(value) => html`<${Content} value=${value} />`}<//>
  <//>`;
}

function Content({ value }) {
  const { overview, budgets, providers } = value;
  return html`
    <${Tiles} overview=${overview} />
    <${Spending} value=${value} />
    <div class="halves">
      <${Card} title="Budgets" aside=${html`<${ScreenLink} to=${{ screen: "access" }}>Change<//>`}>
        ${budgets.length
          ? html`<ul class="budgets">${budgets.map((each) => html`<${BudgetLine} key=${each.id} budget=${each} />`)}</ul>`
          : html`<p class="soft">No budget is set, so nothing stops the spending.</p>`}
      <//>
      <${Card} title="Providers" aside=${html`<${ScreenLink} to=${{ screen: "providers" }}>Details<//>`}>
        <${Lamps} deployments=${providers} />
      <//>
    </div>
    <div class="halves">
      <${Shares} title="Models" lines=${value.models} dimension="model" overview=${overview} since=${value.since} />
      <${Shares} title="Projects" lines=${value.projects} dimension="project_id" overview=${overview} since=${value.since} />
    </div>`;
}

function Tile({ label, value, children, kind = "", to }) {
  const content = html`<span class="tile-label">${label}</span><span class="tile-value">${value}</span>
    <span class="tile-more">${children}</span>`;
  return to
    ? html`<li><${ScreenLink} class=${`tile ${kind}`} to=${to}>${content}<//></li>`
    : html`<li><div class=${`tile ${kind}`}>${content}</div></li>`;
}

function Tiles({ overview }) {
  const { currency, in_doubt: doubt } = overview;
  const failed = ["failed", "perhaps_paid", "interrupted", "undelivered"].reduce(
    (sum, name) => sum + (overview.outcomes[name] ?? 0), 0);
  const perImage = overview.images ? `${money(overview.cost / overview.images, currency)} an image` : "nothing was drawn";
  return html`<ul class="tiles">
    <${Tile} label="Spent" value=${money(overview.cost, currency)}>${perImage}<//>
    <${Tile} label="Images" value=${number(overview.images)}>${count(overview.requests, "request")}<//>
    <${Tile} label="Success" value=${percent(overview.success)} kind=${overview.success < 0.95 && overview.success != null ? "warn" : ""}>
      ${failed ? `${count(failed, "failure")}` : "no failure"}<//>
    <${Tile} label="Median time" value=${seconds(overview.median_seconds)}>95 % within ${seconds(overview.p95_seconds)}<//>
    <${Tile} label="In doubt now" value=${money(doubt.cost, currency)} kind=${doubt.drawings ? "warn" : ""}
      to=${{ screen: "doubts" }}>
      ${doubt.drawings ? `${count(doubt.drawings, "drawing")}, the oldest ${fromNow(doubt.oldest)}` : "nothing to resolve"}<//>
    <${Tile} label="Saved" value=${money(overview.saved, currency)}>${count(overview.joined, "joined request")}<//>
  </ul>`;
}

function Spending({ value }) {
  const names = useNames();
  const { models, since, days, overview } = value;
  const width = days === 1 ? 3600 : DAY;
  const chart = useMemo(() => {
    const span = { since, until: since + days * DAY, width };
    return chartOf(grouped(models, "model", MEASURES.cost, names), MEASURES.cost, span);
  }, [models]);
  const title = days === 1 ? "Spending by hour" : "Spending by day";
  const more = html`<${ScreenLink} to=${{ screen: "usage", days, group: "model" }}>Look closer<//>`;
  return html`<${Card} title=${title} aside=${more}>
    ${chart.series.length
      ? html`<${Chart} label=${`${title}, stacked by model. Together ${money(overview.cost, overview.currency)}.`} ...${chart}
          width=${width} format=${(amount) => money(amount, overview.currency)} />`
      : html`<p class="soft">Nothing was spent in this time.</p>`}
  <//>`;
}

/** @param {{budget: object}} props a budget as the gateway tells it */
export function BudgetLine({ budget, children }) {
  const { period, amount, currency } = budget;
  const used = period.spent + period.in_doubt;
  const share = (part) => (amount ? part / amount : part ? 1 : 0);
  const isOver = used >= amount;
  const leads = period.projected;
  const willBeOver = !isOver && leads != null && leads > amount;
  const kind = isOver ? "bad" : willBeOver || share(used) >= 0.9 ? "warn" : "";
  const owner = budget.owner ?? budget.project_id ?? budget.api_key_id;
  const scope = { all: "Everything", project: `Project ${owner}`, key: `Key ${owner}` }[budget.scope];
  return html`<li class="budget">
    <div class="row apart">
      <span class="budget-name">${scope}${budget.models.length > 0 && html` · <span class="soft">${budget.models.join(", ")}</span>`}</span>
      <span class="numbers"><b>${money(used, currency)}</b> of ${money(amount, currency)} ${WINDOWS[budget.window]}</span>
    </div>
    <${Bar} mark=${willBeOver || !(leads > used) ? null : share(leads)}
      parts=${[[share(period.spent), `spent ${kind}`], [share(period.in_doubt), "doubt"], [share(period.held), "held"]]} />
    <div class="row apart small-text soft">
      <span>
        ${period.in_doubt > 0 && `${money(period.in_doubt, currency)} in doubt · `}${period.held > 0 && `${money(period.held, currency)} reserved · `}${budget.hard ? "hard" : "soft"}${period.end_time && `, anew ${fromNow(period.end_time)}`}
      </span>
      <span class=${kind}>
        ${isOver ? "used up" : leads != null && `heads for ${money(leads, currency)}`}
      </span>
    </div>
    ${children}
  </li>`;
}

/** Return the deployments of each provider, and the worst that can be said of it. */
export function byProvider(deployments) {
  const found = new Map();
  for (const each of deployments) {
    if (!found.has(each.provider)) found.set(each.provider, []);
    found.get(each.provider).push(each);
  }
  return [...found].map(([name, own]) => {
    const paused = own.filter((each) => each.state === "paused");
    const lamp = paused.length === own.length ? "bad" : paused.length || own.some((each) => each.failures) ? "warn" : "good";
    const sum = (field) => own.reduce((total, each) => total + each[field], 0);
    return { name, own, paused, lamp, running: sum("running"), waiting: sum("waiting") };
  });
}

export function lampInWords({ own, paused }) {
  const reasons = [...new Set(paused.flatMap((each) => each.pauses.map(({ reason }) => PAUSES[reason] ?? reason)))];
  if (!paused.length) return own.some((each) => each.failures) ? "failed last time" : "well";
  const which = paused.length === own.length ? "paused" : `${paused.length} of ${own.length} paused`;
  return `${which}: ${reasons.join(", ")}`;
}

const Lamps = ({ deployments }) =>
  deployments.length === 0
    ? html`<p class="soft">No provider serves a model.</p>`
    : html`<ul class="lamps">${byProvider(deployments).map((each) => html`<li key=${each.name}>
        <i class=${`lamp ${each.lamp}`} aria-hidden="true"></i>
        <span class="lamp-name">${each.name}</span>
        <span class="soft lamp-state">${lampInWords(each)}</span>
        <span class="soft numbers">${each.running} running${each.waiting > 0 && `, ${each.waiting} waiting`}</span>
      </li>`)}</ul>`;

function Shares({ title, lines, dimension, overview, since }) {
  const names = useNames();
  const { groups, total } = grouped(lines, dimension, MEASURES.cost, names);
  const shown = groups.filter((group) => group.total > 0 || group.lines.some((line) => line.images)).slice(0, 6);
  const images = (group) => group.lines.reduce((sum, line) => sum + line.images, 0);
  return html`<${Card} title=${title}>
    ${shown.length === 0 && html`<p class="soft">Nothing was drawn in this time.</p>`}
    <ul class="shares">${shown.map((group) => html`<li key=${group.value}>
      <div class="row apart tight">
        <${ScreenLink} class="plain cut" to=${{ screen: "drawings", [dimension]: group.value, since }}>${group.name}<//>
        <span class="numbers"><span class="soft">${count(images(group), "image")}</span> <b>${money(group.total, overview.currency)}</b></span>
      </div>
      <${Bar} parts=${[[total ? group.total / total : 0, "spent"]]} />
    </li>`)}</ul>
  <//>`;
}
