// The requests of this owner, as the server has kept them: the newest first, a page at a time.

import { el, icon } from "./dom.js";
import { ago, clock } from "./format.js";
import { callJson, ownFile } from "./http.js";
import { language, t } from "./messages.js";
import { problem } from "./problems.js";

const PAGE = 24;
const REFRESH_MS = 4000; // while something runs and the page is looked at

/** A grid of links to requests; `onChange` gets the list after it was read. */
export class History {
  constructor({ grid, more, empty, onChange }) {
    Object.assign(this, { grid, more, empty, onChange });
    this.requests = [];
    this.next = null;
    this.reads = 0;
    this.selected = "";
    this.tiles = new Map();
    more.addEventListener("click", () => this.#loadMore());
    document.addEventListener("language", () => this.#draw(true));
    document.addEventListener("visibilitychange", () => document.hidden || this.refresh());
    setInterval(() => this.#tick(), REFRESH_MS);
  }

  get running() {
    return this.requests.filter((request) => request.status !== "COMPLETED");
  }

  /** Read the newest page again; older pages that are shown stay. */
  refresh() {
    this.newest = this.#read(++this.reads);
    return this.newest;
  }

  async #read(number) {
    try {
      const page = await callJson(`playground/requests?limit=${PAGE}`);
      if (number !== this.reads) return await this.newest; // it knows more, and may have been answered before
      const newest = new Set(page.requests.map((request) => request.request_id));
      const last = page.requests.at(-1);
      // Older ones than this page has; what it no longer names was deleted.
      const older =
        last && page.next !== null
          ? this.requests.filter((request) => !newest.has(request.request_id) && request.created_at <= last.created_at)
          : [];
      this.requests = [...page.requests, ...older];
      if (!older.length) this.next = page.next;
      this.#draw();
      this.onChange(this.requests);
    } catch {
      // Without a connection the list stays as it is; the page says so elsewhere.
    }
  }

  async #loadMore() {
    this.more.disabled = true;
    try {
      const page = await callJson(`playground/requests?limit=${PAGE}&before=${this.next}`);
      const known = new Set(this.requests.map((request) => request.request_id));
      const first = page.requests.find((request) => !known.has(request.request_id));
      this.requests = [...this.requests, ...page.requests.filter((request) => !known.has(request.request_id))];
      this.next = page.next;
      this.#draw();
      if (first) this.tiles.get(first.request_id).link.focus();
    } catch {
      // The button stays for another try.
    } finally {
      this.more.disabled = false;
    }
  }

  #tick() {
    if (document.hidden) return;
    if (this.running.length) this.refresh();
    else this.#draw(); // the times
  }

  /** What another part of the page has just read about a request. */
  put(request) {
    const at = this.requests.findIndex((known) => known.request_id === request.request_id);
    if (at < 0 || this.requests[at] === request) return;
    this.requests[at] = request;
    this.#draw();
  }

  drop(id) {
    this.requests = this.requests.filter((request) => request.request_id !== id);
    this.#draw();
    this.refresh(); // a list that is on its way may still have it
  }

  select(id) {
    this.selected = id;
    this.#draw();
  }

  /** Tiles are kept, so that the focus and loaded pictures are. */
  #draw(isAnew = false) {
    const tiles = this.requests.map((request) => {
      const known = this.tiles.get(request.request_id) ?? makeTile(request.request_id);
      this.tiles.set(request.request_id, known);
      fillTile(known, request, request.request_id === this.selected, isAnew);
      return known.item;
    });
    const kept = new Set(tiles);
    for (const item of [...this.grid.children]) if (!kept.has(item)) item.remove();
    for (const [id, tile] of this.tiles) if (!kept.has(tile.item)) this.tiles.delete(id);
    tiles.forEach(
      (item, i) => this.grid.children[i] !== item && this.grid.insertBefore(item, this.grid.children[i] ?? null),
    );
    this.empty.hidden = tiles.length > 0;
    this.more.hidden = this.next === null;
  }
}

function makeTile(id) {
  const picture = el("span", { className: "picture" });
  const text = el("span", { className: "text" });
  const badge = el("span", { className: "badge" });
  const time = el("time", { className: "hint" });
  const link = el("a", { href: `#/${id}` }, picture, text, el("span", { className: "row spread" }, badge, time));
  return { item: el("li", {}, link), link, picture, text, badge, time, shown: "" };
}

function fillTile(tile, request, isSelected, isAnew) {
  const now = Date.now() / 1000;
  tile.time.textContent = ago(request.created_at, now, language());
  if (isSelected) tile.link.setAttribute("aria-current", "true");
  else tile.link.removeAttribute("aria-current");
  const what = JSON.stringify([
    request.status,
    request.thumbnail_url,
    request.expired,
    request.cancelled,
    Boolean(request.error),
  ]);
  if (what === tile.shown && !isAnew) return;
  tile.shown = what;
  tile.time.dateTime = new Date(request.created_at * 1000).toISOString();
  tile.time.title = clock(request.created_at, language());
  tile.text.textContent = request.input?.prompt ?? t("history.noInput");
  const { kind, key, shape } = badgeOf(request);
  tile.badge.className = `badge ${kind}`;
  tile.badge.textContent = t(key);
  tile.picture.replaceChildren(
    request.thumbnail_url
      ? el("img", { src: ownFile(request.thumbnail_url), alt: "", loading: "lazy", decoding: "async" })
      : icon(shape),
  );
}

/** The state of a request: a word, its colour, and a drawing in place of a thumbnail. */
function badgeOf({ status, error, cancelled, expired }) {
  if (status !== "COMPLETED") {
    const isRunning = status === "IN_PROGRESS";
    const key = cancelled ? "status.cancelling" : isRunning ? "status.running" : "status.queued";
    return { kind: isRunning ? "busy" : "", key, shape: "clock" };
  }
  if (error && cancelled) return { kind: "", key: "status.cancelled", shape: "close" };
  if (error) {
    const isFlagged = problem(error).type === "content_policy_violation";
    return { kind: "bad", key: isFlagged ? "status.flagged" : "status.failed", shape: isFlagged ? "flag" : "close" };
  }
  return expired
    ? { kind: "warn", key: "status.expired", shape: "clock" }
    : { kind: "good", key: "status.done", shape: "play" };
}
