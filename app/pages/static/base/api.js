/** The gateway's API, as any client uses it. Addresses are relative to the page, so that it works behind a prefix. */

import { text } from "./strings.js";

/** A refusal of the gateway, in its own words; or that it could not be reached (`status` 0). */
export class ApiError extends Error {
  /**
   * @param {{message: string, status?: number, code?: string, type?: string, param?: string | null,
   *   retryAfter?: number | null, requestId?: string | null}} facts `retryAfter` in seconds
   */
  constructor({ message, status = 0, code = null, type = null, param = null, retryAfter = null, requestId = null }) {
    super(message);
    Object.assign(this, { status, code, type, param, retryAfter, requestId });
  }

  get isOffline() {
    return this.code === "offline";
  }
}

/** Return the error that an answer tells. */
export async function errorOf(response) {
  const facts = {
    status: response.status,
    retryAfter: Number(response.headers.get("retry-after")) || null,
    requestId: response.headers.get("x-request-id"),
  };
  const envelope = await response.json().catch(() => null);
  const error = envelope?.error;
  if (typeof error?.message !== "string") return new ApiError({ ...facts, message: text.strangeAnswer(response.status) });
  return new ApiError({ ...facts, message: error.message, code: error.code, type: error.type, param: error.param });
}

/** @param {() => string | null} key is asked at each request */
export function createApi(key) {
  /**
   * @param {string} path relative to the gateway's address, as `v1/models`
   * @param {RequestInit} [init]
   * @returns {Promise<Response>} an answer below 400
   * @throws {ApiError}; AbortError if `init.signal` ends the request
   */
  async function request(path, init = {}) {
    const headers = new Headers(init.headers);
    const known = key();
    try {
      if (known) headers.set("authorization", `Bearer ${known}`);
    } catch {
      throw new ApiError({ message: text.keyUnspeakable, status: 401, code: "invalid_api_key" });
    }
    let response;
    try {
      response = await fetch(new URL(path, document.baseURI), { ...init, headers, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError({ message: text.offline, code: "offline" });
    }
    if (!response.ok) throw await errorOf(response);
    return response;
  }

  function withQuery(path, query) {
    const pairs = Object.entries(query ?? {}).flatMap(([name, value]) =>
      (Array.isArray(value) ? value : [value]).filter((each) => each != null && each !== "").map((each) => [name, each]),
    );
    return pairs.length ? `${path}?${new URLSearchParams(pairs)}` : path;
  }

  function sent(method, body, init) {
    const headers = { ...init?.headers, ...(body instanceof FormData ? {} : { "content-type": "application/json" }) };
    return { ...init, method, headers, body: body instanceof FormData ? body : JSON.stringify(body ?? {}) };
  }

  return {
    request,
    /** @returns {Promise<any>} the JSON of the answer. In `query` an array repeats its name; null and "" are left out. */
    get: async (path, query, init) => (await request(withQuery(path, query), init)).json(),
    /** Send an object as JSON, or a FormData as it is. @returns {Promise<any>} the JSON of the answer */
    post: async (path, body, init) => (await request(path, sent("POST", body, init))).json(),
    delete: async (path, init) => (await request(path, { ...init, method: "DELETE" })).json(),
    /** Like `post`, for an answer that is read as it comes: see `base/events.js`. @returns {Promise<Response>} */
    open: (path, body, init) => request(path, sent("POST", body, init)),
    withQuery,
  };
}
