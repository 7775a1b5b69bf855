/** What the browser keeps: pictures that were drawn, files to work on with their masks, and drawings under way. All of
 * it lies in IndexedDB. Where there is none, it lies in memory and ends with the tab. */

const NAME = "image-gateway.playground";
const STORES = ["pictures", "files", "runs"];

let opened = null;
const memory = Object.fromEntries(STORES.map((name) => [name, new Map()]));
let lasts = true;
/** False where the browser keeps nothing for this page. */
export const isLasting = () => lasts;

function open() {
  opened ??= new Promise((resolve) => {
    const give = () => {
      lasts = false;
      resolve(null);
    };
    try {
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () => STORES.forEach((name) => request.result.createObjectStore(name, { keyPath: "id" }));
      request.onsuccess = () => {
        request.result.onversionchange = () => request.result.close();
        resolve(request.result);
      };
      request.onerror = give;
      request.onblocked = give;
    } catch {
      give();
    }
  });
  return opened;
}

function settled(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** @param {"pictures" | "files" | "runs"} name */
function store(name) {
  async function use(mode, act, inMemory) {
    const database = await open();
    if (!database) return inMemory(memory[name]);
    return settled(act(database.transaction(name, mode).objectStore(name)));
  }
  return {
    all: () => use("readonly", (rows) => rows.getAll(), (rows) => [...rows.values()]),
    get: (id) => use("readonly", (rows) => rows.get(id), (rows) => rows.get(id)),
    /** Raises the browser's QuotaExceededError where there is no room. */
    put: (row) => use("readwrite", (rows) => rows.put(row), (rows) => void rows.set(row.id, row)),
    delete: (id) => use("readwrite", (rows) => rows.delete(id), (rows) => void rows.delete(id)),
  };
}

export const pictures = store("pictures");
export const files = store("files");
export const runs = store("runs");

/** An id that no other tab makes. `crypto.randomUUID` is missing on plain HTTP. */
export function newId(prefix) {
  const random = crypto.getRandomValues(new Uint8Array(12));
  return `${prefix}-${[...random].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
