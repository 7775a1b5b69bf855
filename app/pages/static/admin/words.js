/** The gateway's own words, as a person writes them, and the colour of those that are good or bad. */

export const STATES = ["held", "sent", "settled", "released", "in_doubt"];
export const OPERATIONS = ["generations", "edits", "variations"];
export const OUTCOMES = [
  "delivered", "undelivered", "refused", "failed", "perhaps_paid", "cancelled", "interrupted", "joined",
];
const COLOURS = {
  good: ["delivered", "active", "holds", "well"],
  warn: ["in_doubt", "undelivered", "perhaps_paid", "uncertain", "expired"],
  bad: ["failed", "interrupted", "crashed"],
  accent: ["sent", "under_way", "joined"],
};

/** "perhaps_paid" → "Perhaps paid" */
export const written = (word) => (word ?? "–").replaceAll("_", " ").replace(/^./, (first) => first.toUpperCase());

/** Return a state, an outcome or a result with its colour, for a badge. */
export const told = (word) => [written(word), Object.keys(COLOURS).find((name) => COLOURS[name].includes(word)) ?? ""];

/** "resolve" → "resolved" */
export const done = (action) => (action.endsWith("e") ? `${action}d` : written(action).toLowerCase());

export const DIMENSIONS = {
  project_id: "Project",
  api_key_id: "Key",
  model: "Model",
  provider: "Provider",
  operation: "Operation",
  outcome: "Outcome",
};

export const WINDOWS = { day: "a day", week: "a week", month: "a month", total: "in total" };

export const LIMITS = {
  requests_per_minute: "requests a minute",
  images_per_minute: "images a minute",
  megapixels_per_minute: "megapixels a minute",
  max_concurrency: "requests at once",
};

/** Say limits in one line. */
export function limitsInWords(limits) {
  const parts = Object.entries(LIMITS).filter(([name]) => limits[name]).map(([name, word]) => `${limits[name]} ${word}`);
  return parts.join(", ") || "no limits";
}

export const PAUSES = { limited: "rate limited", account: "account refused", failing: "failing" };

/** A moment of this year without the year. */
export function when(at) {
  if (at == null) return "–";
  const date = new Date(at * 1000);
  const isOld = date.getFullYear() !== new Date().getFullYear();
  const style = { month: "short", day: "numeric", hour: "numeric", minute: "2-digit", ...(isOld && { year: "numeric" }) };
  return new Intl.DateTimeFormat("en", style).format(date);
}

/** "3 minutes ago", "in 2 days" */
export function fromNow(at, now = Date.now() / 1000) {
  const left = at - now;
  const units = [["day", 86_400], ["hour", 3600], ["minute", 60]];
  const [unit, size] = units.find(([, size]) => Math.abs(left) >= size) ?? ["second", 1];
  if (unit === "second") return left > 0 ? "in less than a minute" : "just now";
  return new Intl.RelativeTimeFormat("en", { numeric: "always" }).format(Math.trunc(left / size), unit);
}

/** 1 image, 2 images */
export const count = (number, one, many = `${one}s`) =>
  `${new Intl.NumberFormat("en").format(number)} ${number === 1 ? one : many}`;

export const percent = (share) => (share == null ? "–" : `${(share * 100).toFixed(share < 0.9995 && share > 0 ? 1 : 0)} %`);
