/** What the screens ask the gateway, and what they know together: the names behind ids. */

import { createApi } from "../base/api.js";
import { useEffect, useRef, useState } from "../base/html.js";
import { createKeyHolder } from "../base/key.js";
import { note } from "../base/live.js";
import { createStore, useStore } from "../base/store.js";

export const holder = createKeyHolder("admin");
export const api = createApi(holder.get);

/** `caller` is what `whoami` tells; `refusal` is why the page asks for a key. */
export const session = createStore({ caller: null, refusal: null, isAsking: true });

export async function askWhoIAm() {
  const caller = await api.get("v1/gateway/whoami");
  if (!caller.is_admin) throw Object.assign(new Error(refusalOf(caller)), { isOrdinary: true });
  return caller;
}

function refusalOf(caller) {
  if (!holder.get()) return "This page administrates the gateway, and wants an admin key.";
  return `The key “${caller.name}” draws; it does not administrate. This page wants an admin key.`;
}

export async function open() {
  session.set({ isAsking: true });
  try {
    session.set({ caller: await askWhoIAm(), refusal: null, failure: null, isAsking: false });
  } catch (error) {
    const isDoor = error.isOrdinary || error.status === 401 || error.status === 403;
    // Nobody has given a key yet: the form says what it wants, and no error.
    const refusal = isDoor && (holder.get() || error.isOrdinary) ? error.message : null;
    session.set({ caller: null, refusal, failure: isDoor ? null : error, isAsking: false });
  }
}

/** Forget who the caller is when the gateway does not know the key any more. */
function watch(error) {
  if (error.status === 401) session.set({ caller: null, refusal: error.message });
}

/**
 * Ask for something, again when `inputs` change, and keep the last answer on the screen meanwhile.
 * @param {(signal: AbortSignal) => Promise<any>} ask
 * @returns {{value: any, error: Error | null, isLoading: boolean, reload: () => void}}
 */
export function useAnswer(ask, inputs) {
  const [state, setState] = useState({ value: undefined, error: null, isLoading: true });
  const [round, setRound] = useState(0);
  const last = useRef(null);
  useEffect(() => {
    const control = new AbortController();
    last.current = control;
    setState((before) => ({ ...before, isLoading: true }));
    ask(control.signal).then(
      (value) => last.current === control && setState({ value, error: null, isLoading: false }),
      (error) => {
        if (last.current !== control || error.name === "AbortError") return;
        watch(error);
        setState((before) => ({ ...before, error, isLoading: false }));
      },
    );
    return () => control.abort();
  }, [...inputs, round]);
  return { ...state, reload: () => setRound((count) => count + 1) };
}

/** Return all objects of a list, page after page. */
export async function all(path, query, init) {
  const found = [];
  let after = null;
  for (;;) {
    const page = await api.get(path, { limit: 100, ...query, after }, init);
    found.push(...page.data);
    if (!page.has_more) return found;
    after = page.last_id;
  }
}

/**
 * A list whose pages are laid one below the other.
 * @returns {{first: ReturnType<typeof useAnswer>, rows: object[], hasMore: boolean, next: () => Promise<void>}}
 */
export function usePages(path, query) {
  const ask = (after, signal) => api.get(path, { ...query, limit: 50, after }, { signal });
  const first = useAnswer((signal) => ask(null, signal), []);
  const [more, setMore] = useState([]);
  const pages = first.value ? [first.value, ...more] : [];
  const last = pages.at(-1);
  async function next() {
    try {
      const page = await act(() => ask(last.last_id));
      setMore((known) => [...known, page]);
    } catch (error) {
      note(error.message, { isError: true });
    }
  }
  return { first, rows: pages.flatMap((page) => page.data), hasMore: Boolean(last?.has_more), next };
}

/** Do something that changes the gateway. Returns the answer; throws what the gateway says. */
export async function act(doing) {
  try {
    return await doing();
  } catch (error) {
    watch(error);
    throw error;
  }
}

// --- names ---

const directory = createStore({ projects: [], keys: [], isKnown: false });

export async function learnNames() {
  const [projects, keys] = await Promise.all([
    all("v1/gateway/projects", { include_archived: true }),
    all("v1/gateway/keys"),
  ]);
  directory.set({ projects, keys, isKnown: true });
}

/** Return the projects and keys, and functions that tell an id's name. */
export function useNames() {
  const { projects, keys, isKnown } = useStore(directory);
  const nameIn = (list, id) => list.find((each) => each.id === id)?.name ?? id;
  return {
    projects,
    keys,
    isKnown,
    projectName: (id) => nameIn(projects, id),
    keyName: (id) => (id === "anonymous" ? "without a key" : nameIn(keys, id)),
  };
}

/** Give the browser a file of what the gateway exports, or say why not. */
export async function download(path, query, name) {
  let answer;
  try {
    answer = await act(() => api.request(api.withQuery(path, query), { headers: { accept: "text/csv" } }));
  } catch (error) {
    note(error.message, { isError: true });
    return;
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
