/**
 * Drawings under way. A *sheet* is what one click asks for: a run for each model. A run is known by an id that the page
 * makes, so that it can be fetched again after a reload, a crash or a lost connection: nothing is drawn twice.
 */

import { ApiError } from "../base/api.js";
import { readEvents } from "../base/events.js";
import { announce, note } from "../base/live.js";
import { session } from "../base/storage.js";
import { createStore } from "../base/store.js";
import { files, newId, runs as keptRuns } from "./database.js";
import { addPicture } from "./gallery-store.js";
import { blobOf, thumbnail } from "./images.js";
import { exportMask } from "./mask.js";
import { api, app } from "./session.js";
import { words } from "./strings.js";

const BEAT = 2000; // milliseconds; a run whose tab is silent for three of them is taken up by another
const PARTIAL_IMAGES = 2;

export const easel = createStore({ sheets: [] });

const tab = session.get("tab") ?? newId("tab");
session.set("tab", tab);
const controllers = new Map(); // run's id → what ends its request

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export function findRun(id) {
  return easel.get().sheets.flatMap((sheet) => sheet.runs).find((run) => run.id === id);
}

function update(id, changes) {
  easel.set(({ sheets }) => ({
    sheets: sheets.map((sheet) =>
      sheet.runs.some((run) => run.id === id)
        ? { ...sheet, runs: sheet.runs.map((run) => (run.id === id ? { ...run, ...changes } : run)) }
        : sheet,
    ),
  }));
}

export const hasEnded = (run) => ["done", "failed", "cancelled"].includes(run.state);

function newRun(request, more = {}) {
  return {
    id: newId("play"), request, createdAt: Date.now(), state: "starting", place: null, typical: typicalSeconds(request), partials: {},
    pictures: {}, error: null, paid: null, gateway: null, seconds: null, retried: {}, ...more,
  };
}

function typicalSeconds(request) {
  return app.get().models?.find((model) => model.id === request.fields.model)?.capabilities.typical_seconds ?? null;
}

/** Draw a sheet: all requests at once. @returns {Promise<ApiError | null>} why the gateway refused one */
export async function drawSheet(requests) {
  const sheet = { id: newId("sheet"), runs: requests.map((request) => newRun(request)) };
  easel.set(({ sheets }) => ({ sheets: [sheet, ...sheets.filter((each) => each.runs.some((run) => !hasEnded(run) || run.state === "failed"))] }));
  const ends = await Promise.all(sheet.runs.map((run) => perform(run, () => ask(run))));
  return ends.find(Boolean) ?? null;
}

/** Draw one picture of a run again, alone. */
export function drawAgain(run, index) {
  const { n: _, ...fields } = run.request.fields;
  if (fields.seed != null) fields.seed += index;
  const next = newRun({ ...run.request, fields });
  easel.set(({ sheets }) => ({
    sheets: sheets.map((sheet) => {
      const at = sheet.runs.findIndex((each) => each.id === run.id);
      if (at < 0) return sheet;
      const before = { ...sheet.runs[at], retried: { ...sheet.runs[at].retried, [index]: true } };
      return { ...sheet, runs: [...sheet.runs.slice(0, at), before, next, ...sheet.runs.slice(at + 1)] };
    }),
  }));
  return perform(next, () => ask(next));
}

export function dismiss(sheetId) {
  easel.set(({ sheets }) => ({ sheets: sheets.filter((sheet) => sheet.id !== sheetId) }));
}

/** See a run through to its end, whatever happens to the connection. `begin` gives the answer's events. */
async function perform(run, begin) {
  await remember(run);
  const beat = setInterval(() => remember(run), BEAT);
  const watching = watch(run.id);
  let failure = null;
  try {
    let answer = begin;
    for (let tries = 0; ; tries += 1) {
      try {
        await consume(run, await answer());
        break;
      } catch (error) {
        if (!isBroken(error)) throw error;
        update(run.id, { state: "resuming", partials: {} });
        await sleep(Math.min(1000 * 2 ** tries, 8000));
        answer = () => resume(run);
      }
    }
    update(run.id, { state: "done", seconds: (Date.now() - run.createdAt) / 1000 });
    announce(words.done(Object.keys(findRun(run.id)?.pictures ?? {}).length));
  } catch (error) {
    failure = end(run, error);
  } finally {
    clearInterval(beat);
    controllers.delete(run.id);
    await keptRuns.delete(run.id).catch(() => {});
    await watching;
  }
  return failure;
}

/** @returns {Error | null} what the form is told; null where the person ended it */
function end(run, error) {
  const { isCancelling } = findRun(run.id) ?? {};
  if (isCancelling || error.name === "AbortError" || error.code === "run_cancelled") {
    update(run.id, { state: "cancelled", paid: findRun(run.id)?.paid ?? "no" });
    return null;
  }
  const told = error.code === "run_not_found" ? new ApiError({ ...error, message: words.lost }) : error;
  update(run.id, { state: "failed", error: told });
  announce(told.message);
  return told;
}

// Without a status the connection broke, also in the middle of an answer; 502 to 504 without OpenAI's envelope are a proxy's.
const isBroken = (error) => (error instanceof ApiError ? error.isOffline || (error.status >= 502 && !error.code && !error.type) : error.name === "TypeError");

async function remember(run) {
  const { id, request, createdAt } = run;
  await keptRuns.put({ id, request, createdAt, tab, beatAt: Date.now() }).catch(() => {});
}

/** Ask for a drawing. @returns {Promise<Response>} */
async function ask(run) {
  const { operation, fields } = run.request;
  const model = app.get().models?.find((each) => each.id === fields.model);
  const partial = operation !== "variations" && model?.capabilities.partial_images ? { partial_images: PARTIAL_IMAGES } : {};
  const body = await bodyOf(run.request, { ...fields, stream: true, ...partial });
  const controller = new AbortController();
  controllers.set(run.id, controller);
  return api.open(`v1/images/${operation}`, body, { headers: { "x-request-id": run.id }, signal: controller.signal });
}

/** Return a request's body: an object, or a form with its files. Raises ApiError if a picture is no longer there. */
export async function bodyOf({ operation, inputs, mask }, fields) {
  if (operation === "generations") return fields;
  const body = new FormData();
  for (const [name, value] of Object.entries(fields)) body.append(name, String(value));
  for (const { id, name } of inputs) {
    const file = await files.get(id);
    if (!file) throw new ApiError({ message: words.pictureMissing, param: "image", code: "missing_picture" });
    body.append(operation === "edits" ? "image[]" : "image", file.blob, name);
  }
  const painted = mask && (await exportMask(mask));
  if (painted) body.append("mask", painted, "mask.png");
  return body;
}

/** Fetch a run again: the gateway waits for its end, and answers as it would have answered first. */
const resume = (run) => api.request(`v1/images/runs/${run.id}`);

async function consume(run, response) {
  if (!response.headers.get("content-type")?.startsWith("text/event-stream")) {
    const told = await response.json();
    await Promise.all(told.data.map((image, index) => finished(run, { index, ...told, ...image })));
    return;
  }
  const wanted = run.request.fields.n ?? 1;
  let count = 0;
  for await (const { data } of readEvents(response.body)) {
    const event = JSON.parse(data);
    if (event.error) throw new ApiError({ status: 500, ...event.error, requestId: run.id });
    const index = event.index ?? 0;
    if (event.type?.endsWith("partial_image")) {
      update(run.id, { state: "drawing", partials: { ...findRun(run.id)?.partials, [index]: blobOf(event.b64_json) } });
    } else if (event.type?.endsWith("completed")) {
      await finished(run, event);
      count += 1;
    }
  }
  if (count < wanted) throw new ApiError({ message: words.offline, code: "offline" });
}

async function finished(run, event) {
  const { operation, fields } = run.request;
  const index = event.index ?? 0;
  const blob = blobOf(event.b64_json);
  const small = await thumbnail(blob).catch(() => ({ thumb: blob, width: null, height: null }));
  const picture = {
    id: `${run.id}:${index}`, run: run.id, index, createdAt: Date.now(), operation, model: fields.model, prompt: fields.prompt ?? "",
    request: run.request, seed: event.seed ?? (fields.seed == null ? null : fields.seed + index), type: blob.type, bytes: blob.size, blob,
    favourite: false, gateway: event.gateway ?? null, seconds: (Date.now() - run.createdAt) / 1000, ...small,
  };
  await addPicture(picture);
  const known = findRun(run.id);
  update(run.id, { gateway: event.gateway ?? known?.gateway, pictures: { ...known?.pictures, [index]: picture } });
}

/** Ask once a second how far a run is, until it has ended. */
async function watch(id) {
  for (let pause = 250; ; pause = Math.min(1000, pause * 2)) {
    await sleep(pause);
    const run = findRun(id);
    if (!run || hasEnded(run)) return;
    if (run.state === "resuming") continue;
    try {
      const status = await api.get(`v1/images/runs/${id}/status`);
      const now = findRun(id);
      if (!now || hasEnded(now)) return;
      const state = { waiting: "waiting", drawing: "drawing" }[status.state] ?? now.state;
      update(id, { state, place: status.place ?? null, typical: status.typical_seconds ?? now.typical });
    } catch {
      // it is not known yet, or the gateway is away: the answer itself tells what matters
    }
  }
}

/** End a run, and tell whether it is paid. */
export async function cancel(run) {
  update(run.id, { isCancelling: true });
  try {
    const { paid, cancelled } = await api.post(`v1/images/runs/${run.id}/cancel`);
    if (!cancelled) update(run.id, { isCancelling: false });
    update(run.id, { paid });
    note(words.cancelled[cancelled ? paid : "yes"]);
  } catch (error) {
    if (error.status === 404) controllers.get(run.id)?.abort();
    else {
      update(run.id, { isCancelling: false });
      note(error.message, { isError: true });
    }
  }
}

/** Take up the runs that this tab had before it was loaded anew, and those of tabs that are gone. */
export async function takeUpRuns() {
  const now = Date.now();
  const found = (await keptRuns.all()).filter((run) => !findRun(run.id) && (run.tab === tab || now - run.beatAt > 3 * BEAT));
  if (!found.length) return;
  const taken = found.map(({ id, request, createdAt }) => newRun(request, { id, createdAt, state: "resuming" }));
  easel.set(({ sheets }) => ({ sheets: [{ id: newId("sheet"), runs: taken }, ...sheets] }));
  for (const run of taken) perform(run, () => resume(run));
}

