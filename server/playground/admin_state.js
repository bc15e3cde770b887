// What follows from an overview: what an operator should know first, and how far a drain is. No document is needed.

const HOUR_S = 3600;
const AT_MOST = 20; // failures that the server lists

/** Whether a worker is heard of and has not been stopped in order. */
export const isAlive = (worker) => !worker.stale && worker.state !== "stopped";

/** Figures on top: [name, value, kind]; a value is a number or {s} for seconds, {bytes}, {part, of}. */
export function figures(o) {
  const alive = o.workers.filter(isAlive);
  const ready = alive.filter((worker) => !worker.draining && ["ready", "idle"].includes(worker.state));
  const failed = o.failures.filter((one) => one.ended_s < HOUR_S).length;
  const waiting = o.queue.waiting.normal + o.queue.waiting.low;
  return [
    ["running", o.queue.running, ""],
    ["waiting", waiting, ""],
    ["oldest", waiting ? { s: o.queue.oldest_wait_s } : null, ""],
    ["workers", { part: ready.length, of: alive.length }, readiness(o.workers.filter((worker) => worker.state !== "stopped"), ready.length)],
    ["failed", failed === AT_MOST ? { atLeast: failed } : failed, failed ? "warn" : ""],
    ["webhooks", o.webhooks.pending, ""],
    ["disk", { bytes: o.server.disk_free_bytes }, o.server.disk_free_bytes < o.server.min_free_bytes ? "bad" : ""],
  ];
}

function readiness(workers, ready) {
  if (ready === workers.length && ready) return "good";
  return ready || workers.some((worker) => worker.draining) ? "warn" : "bad";
}

/** What needs attention: {kind, key, values} with the key of a message. */
export function problems(o, drain) {
  const found = [];
  const add = (kind, key, values = {}) => found.push({ kind, key: `problem.${key}`, values });
  const alive = o.workers.filter(isAlive);
  const stale = o.workers.filter((worker) => worker.stale);
  const draining = alive.filter((worker) => worker.draining);
  if (alive.length === 0) add("bad", "noWorker");
  if (drain === "draining") add("warn", "draining", { n: atWork(o) });
  if (drain === "drained") add("warn", "drained");
  if (draining.length && draining.length < alive.length) add("warn", "someDrain", { names: names(draining) });
  for (const worker of alive) {
    if (worker.state === "failed") add("bad", "workerFailed", { name: worker.id, detail: worker.detail });
  }
  if (stale.length) add("bad", "stale", { names: names(stale) });
  const { disk_free_bytes: free, min_free_bytes: limit } = o.server;
  if (free < limit) add("bad", "disk", { free: { bytes: free }, limit: { bytes: limit } });
  return found;
}

/** How many requests workers have that are alive: the others wait for another worker. */
const atWork = (o) => o.running.filter((job) => !job.lost).length;

const names = (workers) => workers.map((worker) => worker.id).join(", ");

/**
 * How far a drain is: "off", "draining", "drained". A worker reads the flag with one heartbeat and has stopped taking
 * requests before the next one: until then "nothing runs" says nothing.
 */
export class DrainWatch {
  #beats = new Map();

  see(o) {
    const alive = o.workers.filter(isAlive);
    if (alive.length === 0 || !alive.every((worker) => worker.draining)) {
      this.#beats.clear();
      return "off";
    }
    for (const worker of alive) this.#count(worker.id, o.at - worker.heartbeat_age_s);
    const heard = alive.every((worker) => this.#beats.get(worker.id).count >= 2);
    return heard && atWork(o) === 0 ? "drained" : "draining";
  }

  #count(id, at) {
    const known = this.#beats.get(id);
    if (!known) this.#beats.set(id, { at, count: 0 });
    else if (at - known.at > 0.001) this.#beats.set(id, { at, count: known.count + 1 });
  }
}

/** The two largest units of a time: [[2, "h"], [5, "min"]]. */
export function units(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const sizes = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = sizes.findIndex(([size]) => whole >= size);
  if (first < 0) return [[0, "s"]];
  const [size, unit] = sizes[first];
  const parts = [[Math.floor(whole / size), unit]];
  const next = sizes[first + 1];
  const rest = next ? Math.floor((whole % size) / next[0]) : 0;
  if (rest && (size >= 3600 || whole < 600)) parts.push([rest, next[1]]);
  return parts;
}
