// Calls of this server's API: with the key of this tab, and with one kind of error for what it refuses.

/** The address of the server, with the path prefix of a proxy if there is one; ends with a slash. */
export const ROOT = new URL("..", import.meta.url);

/** News about calls: "lost" and "back" (the connection), "key" (a call was refused for want of one). */
export const calls = new EventTarget();

const KEY = "hunyuan-custom key"; // in the tab only: it is gone when the tab is closed
const RETRY_STATUS = new Set([502, 503, 504]);
let isLost = false;

export const storedKey = () => sessionStorage.getItem(KEY) ?? "";

export function keepKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/** A path of this server as a full URL. */
export const address = (path) => new URL(path.replace(/^\//, ""), ROOT).href;

/**
 * A file of this server under the address by which this page was reached: the API names files by the address by which
 * their request came (127.0.0.1 and localhost are two), and the page may load none but its own.
 */
export function ownFile(url) {
  const path = URL.canParse(url, ROOT) ? new URL(url, ROOT).pathname : "";
  const found = /\/((?:files|cdn\/files)\/[^/]+\/[^/]+\/[^/?#]+)$/.exec(path);
  return found ? address(found[1]) : url;
}

/** What the API answered instead of a success; `body` is its JSON, `message` one sentence. */
export class ApiError extends Error {
  constructor(status, body, requestId, retryAfterS) {
    super(sentence(body) || `HTTP ${status}`);
    Object.assign(this, { name: "ApiError", status, body, requestId, retryAfterS });
  }

  /** [{field, message, type}] of fal's `detail` list; `field` is "" where the error is about no field. */
  get fields() {
    return fieldErrors(this.body);
  }

  /** Whether the same call may succeed soon. */
  get isPassing() {
    return RETRY_STATUS.has(this.status);
  }
}

/** The server did not answer. */
export class ConnectionLost extends Error {
  constructor(cause) {
    super("no connection", { cause });
    this.name = "ConnectionLost";
  }
}

export function fieldErrors(body) {
  if (!Array.isArray(body?.detail)) return [];
  return body.detail.map((item) => {
    const [, field] = item.loc ?? [];
    return {
      field: typeof field === "string" ? field : "",
      message: String(item.msg ?? ""),
      type: String(item.type ?? ""),
    };
  });
}

function sentence(body) {
  const { detail, status } = body ?? {};
  if (typeof detail === "string") return detail;
  const messages = fieldErrors(body).map(({ field, message }) => (field ? `${field}: ${message}` : message));
  return messages.join("; ") || (typeof status === "string" ? status : "");
}

/**
 * Call the API; `path` is relative to the server. `json` is sent as the body.
 *
 * Throws ApiError (the server refused), ConnectionLost (it did not answer), AbortError (by `signal`).
 */
export async function call(path, { method = "GET", json, body, headers = {}, signal } = {}) {
  const sent = { ...headers };
  if (storedKey()) sent.Authorization ??= `Key ${storedKey()}`;
  if (json !== undefined) {
    sent["Content-Type"] = "application/json";
    body = JSON.stringify(json);
  }
  let answer;
  try {
    answer = await fetch(address(path), { method, headers: sent, body, signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    tellConnection(false);
    throw new ConnectionLost(error);
  }
  tellConnection(true);
  if (answer.ok) return answer;
  const shown = await answer.json().catch(() => null);
  const wait = Number(answer.headers.get("retry-after")) || 0;
  const error = new ApiError(answer.status, shown, answer.headers.get("x-fal-request-id") ?? "", wait);
  if (error.status === 401) calls.dispatchEvent(new CustomEvent("key", { detail: error }));
  throw error;
}

/** The JSON of an answer; null for one without a body. */
export async function callJson(path, options) {
  const answer = await call(path, options);
  return answer.status === 204 ? null : readBody(answer, (body) => body.json());
}

/** A file behind the key, as a Blob. */
export async function callBlob(path, options) {
  return readBody(await call(path, options), (body) => body.blob());
}

async function readBody(answer, read) {
  try {
    return await read(answer);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    tellConnection(false); // it broke off in the middle
    throw new ConnectionLost(error);
  }
}

/** Also called for streams, which break without a call. */
export function tellConnection(works) {
  if (works !== isLost) return;
  isLost = !works;
  calls.dispatchEvent(new Event(works ? "back" : "lost"));
}

/** A pause that ends early with `signal`. */
export function pause(ms, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal?.addEventListener("abort", end);
  });
}
