/** Numbers, money and times in words. */

/** @param {number | string | null} amount in the currency's unit */
export function money(amount, currency = "USD") {
  if (amount == null || amount === "") return "–";
  const value = Number(amount);
  const digits = value !== 0 && Math.abs(value) < 0.1 ? 4 : 2;
  try {
    const options = { style: "currency", currency, minimumFractionDigits: 2, maximumFractionDigits: digits };
    return new Intl.NumberFormat("en", options).format(value);
  } catch {
    return `${value.toFixed(digits)} ${currency}`;
  }
}

/** 0.4 s, 12 s, 3 min 5 s */
export function seconds(value) {
  if (value == null) return "–";
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 60) return `${Math.round(value)} s`;
  return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
}

export const number = (value) => (value == null ? "–" : new Intl.NumberFormat("en").format(value));

/** 1.2 MB */
export function bytes(value) {
  if (value == null) return "–";
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  for (; value >= 1000 && unit < units.length - 1; unit += 1) value /= 1000;
  return `${unit && value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** @param {number | Date} when in seconds since 1970, or a Date */
export function dateTime(when) {
  if (when == null) return "–";
  const date = when instanceof Date ? when : new Date(when * 1000);
  return new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" }).format(date);
}
