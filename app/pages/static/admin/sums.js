/** Sums of usage as a chart and a table need them. */

import { MOST_SERIES } from "./chart.js";
import { DIMENSIONS, written } from "./words.js";

export const DAY = 86_400;
/** Spans that end today, in days. */
export const SPANS = [["1", "Today"], ["7", "7 days"], ["30", "30 days"], ["90", "90 days"]];

/** What can be looked at, as a sum of a line of usage. */
export const MEASURES = {
  cost: { label: "Cost", isMoney: true, of: (line) => line.cost },
  images: { label: "Images", of: (line) => line.images },
  requests: { label: "Requests", of: (line) => line.requests },
  megapixels: { label: "Megapixels", of: (line) => line.megapixels },
  seconds: { label: "Seconds", of: (line) => line.seconds },
  in_doubt: { label: "In doubt", isMoney: true, of: (line) => line.cost_in_doubt },
  saved: { label: "Saved", isMoney: true, of: (line) => line.saved },
};

/** Return the beginning of the day (UTC) so many days before today. */
export function daysAgo(days, now = Date.now() / 1000) {
  return Math.floor(now / DAY) * DAY - days * DAY;
}

/** Return the value of a dimension in words. */
export function nameOf(dimension, value, names) {
  if (value == null) return dimension === "outcome" ? "Running" : `No ${DIMENSIONS[dimension].toLowerCase()}`;
  if (dimension === "project_id") return names.projectName(value);
  if (dimension === "api_key_id") return names.keyName(value);
  return dimension === "operation" || dimension === "outcome" ? written(value) : String(value);
}

/**
 * Sum lines up by a dimension, the largest first. Those beyond the most that a chart can tell apart become one.
 * @returns {{groups: {value: string | null, name: string, lines: object[], total: number}[], total: number}}
 */
export function grouped(lines, dimension, measure, names) {
  const byValue = new Map();
  for (const line of lines) {
    const value = dimension ? line[dimension] : null;
    if (!byValue.has(value)) byValue.set(value, []);
    byValue.get(value).push(line);
  }
  const total = (some) => some.reduce((sum, line) => sum + measure.of(line), 0);
  const groups = [...byValue].map(([value, some]) => ({
    value,
    name: dimension ? nameOf(dimension, value, names) : "Everything",
    lines: some,
    total: total(some),
  }));
  groups.sort((one, other) => other.total - one.total || one.name.localeCompare(other.name));
  return { groups, total: total(lines) };
}

/** Return the times of all buckets of a span, and the values of each group in them. */
export function chartOf({ groups }, measure, { since, until, width }) {
  const times = [];
  for (let time = since - (since % width); time < until; time += width) times.push(time);
  const places = new Map(times.map((time, place) => [time, place]));
  const valuesOf = (lines) => {
    const values = times.map(() => 0);
    for (const line of lines) if (places.has(line.start_time)) values[places.get(line.start_time)] += measure.of(line);
    return values;
  };
  const drawn = groups.filter((group) => group.total > 0);
  const isMore = drawn.length > MOST_SERIES;
  const own = isMore ? drawn.slice(0, MOST_SERIES - 1) : drawn;
  const series = own.map((group) => ({ name: group.name, values: valuesOf(group.lines) }));
  if (isMore) {
    const others = drawn.slice(MOST_SERIES - 1);
    series.push({ name: `${others.length} others`, values: valuesOf(others.flatMap((group) => group.lines)) });
  }
  return { times, series };
}
