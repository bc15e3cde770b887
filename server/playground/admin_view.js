// The parts of the operator's page and what they show of an overview.

import { units } from "./admin_state.js";
import { action, badge, put, requestId, short, table, text } from "./admin_table.js";
import { byId, el } from "./dom.js";
import { bytes } from "./format.js";
import { hasMessage, language, t, tn } from "./messages.js";

const number = (value) => value.toLocaleString(language());
const size = (count) => bytes(count, language());
const inUnit = ([value, unit]) => `${number(value)} ${t(`unit.${unit}`)}`;
const span = (seconds) => units(seconds).map(inUnit).join(" ");
const ago = (seconds) => (seconds < 1 ? t("now") : t("ago", { span: inUnit(units(seconds)[0]) }));

const hours = (seconds) =>
  seconds < 3600 ? inUnit(units(seconds)[0]) : `${(seconds / 3600).toLocaleString(language(), { maximumFractionDigits: 1 })} ${t("unit.h")}`;

/** A word of the server in the reader's language; one that is new here as it is. */
const word = (key) => (hasMessage(key) ? t(key) : key.slice(key.indexOf(".") + 1));

export const timeOf = (at) => new Date(at * 1000).toLocaleTimeString(language());

function shownValue(value) {
  if (value === null) return "–";
  if (typeof value === "number") return number(value);
  if (typeof value !== "object") return value;
  if ("s" in value) return span(value.s);
  if ("bytes" in value) return size(value.bytes);
  if ("atLeast" in value) return `${number(value.atLeast)}+`;
  return `${number(value.part)} / ${number(value.of)}`;
}

export function showFigures(figures) {
  const host = byId("figures");
  for (const [name, value, kind] of figures) {
    let found = host.querySelector(`[data-name="${name}"]`);
    if (!found) {
      found = el("div", { data: { name } }, el("dt", { t: `figure.${name}` }), el("dd"));
      host.append(found);
    }
    found.className = kind;
    put(found.lastChild, shownValue(value));
  }
}

/** Banners; those that are there already stay, so that they are read out once. */
export function showProblems(problems) {
  const host = byId("problems");
  const texts = problems.map(({ kind, key, values }) => {
    const shown = Object.fromEntries(Object.entries(values).map(([name, value]) => [name, shownValue(value)]));
    return [kind, t(key, shown)];
  });
  if (host.dataset.shown === JSON.stringify(texts)) return;
  host.dataset.shown = JSON.stringify(texts);
  host.replaceChildren(...texts.map(([kind, words]) => el("p", { className: `banner ${kind}` }, words)));
}

/** All tables; returns what fills them from an overview. */
export function tables(acts) {
  const all = [running(acts), workers(), queue(acts), failures(), webhooks(acts), usage()];
  return (overview) => all.forEach((fill) => fill(overview));
}

function running({ cancel }) {
  const fill = table(byId("running"), {
    labelledBy: "running-title",
    empty: "none.running",
    key: (job) => job.request_id,
    columns: [
      requestId(),
      short("col.owner", (job) => job.owner),
      short("col.worker", (job) => job.worker_id ?? "–"),
      { t: "col.progress", wide: true, make: makeProgress, fill: fillProgress },
      text("col.left", (job) => (job.seconds_left === null ? "–" : span(job.seconds_left)), {
        n: true,
        minor: (job) => job.seconds_left === null,
      }),
      text("col.since", (job) => span(job.running_s), { n: true }),
      badge("col.attempt", (job) => [job.faults ? "warn" : null, attempt(job)], { n: true }),
      action("cancel.do", cancel, { can: (job) => !job.cancelled, className: "danger" }),
    ],
  });
  return ({ running: jobs }) => {
    fill(jobs);
    put(byId("running-count"), jobs.length ? number(jobs.length) : "");
  };
}

const attempt = (job) => number(job.attempt) + (job.faults ? ` · ${tn("faults", job.faults)}` : "");

function makeProgress(cell) {
  cell.append(el("progress", { max: 1 }), el("span", { className: "small" }));
}

function fillProgress(cell, job) {
  const [bar, words] = cell.children;
  const stage = job.rendered ? "publish" : (job.stage ?? "none");
  const name = word(`doing.${job.lost ? "lost" : job.cancelled ? "cancelled" : stage}`);
  const share = job.total && !job.rendered ? Math.min(1, job.done / job.total) : null;
  if (share === null) bar.removeAttribute("value");
  else bar.value = share;
  const percent = share === null ? "" : ` ${share.toLocaleString(language(), { style: "percent" })}`;
  put(words, name + percent);
  bar.setAttribute("aria-label", `${name}: ${job.request_id}`);
}

function workers() {
  const fill = table(byId("workers"), {
    labelledBy: "workers-title",
    empty: "none.workers",
    key: (worker) => worker.id,
    columns: [
      text("col.worker", (worker) => worker.id),
      badge("col.state", workerState),
      text("col.detail", (worker) => worker.detail || "–", { wide: true, minor: (worker) => !worker.detail }),
      { t: "col.memory", wide: true, fill: fillMemory, minor: (worker) => worker.gpus.length === 0 },
      text("col.heartbeat", (worker) => ago(worker.heartbeat_age_s), { n: true }),
      text("col.process", process, { n: true }),
    ],
  });
  return ({ workers: all }) => {
    fill(all);
    put(byId("workers-count"), all.length ? number(all.length) : "");
  };
}

const process = (worker) =>
  worker.generator_pid ? `${worker.pid} · ${t("pid.generator", { pid: worker.generator_pid })}` : String(worker.pid);

const STATES = { ready: "good", loading: "busy", idle: "", failed: "bad" };

function workerState(worker) {
  if (worker.stale) return ["bad", t("state.stale")];
  if (worker.draining) return ["warn", `${t("state.draining")} · ${word(`state.${worker.state}`)}`];
  return [STATES[worker.state] ?? "", word(`state.${worker.state}`)];
}

/** A line for each rank; which one is said where there are several. */
function fillMemory(cell, worker) {
  while (cell.children.length > worker.gpus.length) cell.lastChild.remove();
  if (worker.gpus.length === 0) return put(cell, t("memory.unknown"));
  if (cell.children.length === 0) cell.textContent = "";
  worker.gpus.forEach((gpu, index) => {
    if (!cell.children[index])
      cell.append(el("div", { className: "memory" }, el("progress", { "aria-hidden": "true" }), el("span", { className: "small" })));
    const [bar, words] = cell.children[index].children;
    const [used, peak, total] = [gpu.used_bytes, gpu.peak_bytes, gpu.total_bytes].map(size);
    bar.max = gpu.total_bytes;
    bar.value = gpu.used_bytes;
    cell.children[index].title = t("memory.title", { used, peak, total });
    const rank = worker.gpus.length > 1 ? `${t("memory.rank", { n: gpu.gpu })}: ` : "";
    put(words, rank + t("memory.of", { used, peak, total }));
  });
}

function queue({ cancel }) {
  const fill = table(byId("queue"), {
    labelledBy: "queue-title",
    empty: "none.queue",
    key: (job) => job.request_id,
    columns: [
      text("col.place", (_, index) => number(index + 1), { n: true }),
      requestId(),
      short("col.owner", (job) => job.owner),
      badge("col.priority", (job) => [job.priority === "low" ? "" : null, t(`priority.${job.priority}`)], {
        minor: (job) => job.priority === "normal",
      }),
      text("col.waited", (job) => span(job.waited_s), { n: true }),
      text("col.attempts", (job) => number(job.attempts), { n: true, minor: (job) => job.attempts === 0 }),
      action("cancel.do", cancel, { className: "danger" }),
    ],
  });
  return ({ queue: { next, waiting } }) => {
    const all = waiting.normal + waiting.low;
    fill(next);
    const first = all > next.length ? t("admin.of", { n: number(next.length), all: number(all) }) : number(all);
    put(byId("queue-count"), all ? first : "");
  };
}

function failures() {
  const fill = table(byId("failures"), {
    labelledBy: "failures-title",
    empty: "none.failures",
    key: (job) => job.request_id,
    columns: [
      text("col.when", (job) => ago(job.ended_s), { n: true }),
      requestId(),
      short("col.owner", (job) => job.owner),
      badge("col.state", (job) => [job.status >= 500 ? "bad" : "", String(job.status)]),
      { t: "col.reason", wide: true, make: makeReason, fill: fillReason },
      text("col.attempts", (job) => number(job.attempts), { n: true, minor: (job) => job.attempts < 2 }),
    ],
  });
  return (overview) => fill(overview.failures);
}

const makeReason = (cell) => cell.append(el("span"), el("code", { className: "muted" }));

function fillReason(cell, job) {
  put(cell.firstChild, job.message);
  put(cell.lastChild, job.error_type);
}

const HOOKS = { pending: "busy", delivered: "good", failed: "bad" };
const HOOKS_SHOWN = 20;

function webhooks({ redeliver }) {
  const fill = table(byId("webhooks"), {
    labelledBy: "webhooks-title",
    empty: "none.webhooks",
    key: (hook) => hook.request_id,
    columns: [
      badge("col.state", (hook) => [HOOKS[hook.state], t(`hook.${hook.state}`)]),
      requestId(),
      short("col.owner", (hook) => hook.owner ?? t("host.deleted")),
      short("col.host", (hook) => hook.host),
      { t: "col.outcome", wide: true, make: makeOutcome, fill: fillOutcome },
      action("redeliver.do", redeliver, {
        can: (hook) => hook.state !== "pending" && hook.owner !== null,
        quiet: (hook) => hook.state === "delivered",
      }),
    ],
  });
  return ({ webhooks: { latest, pending, failed } }) => {
    fill(latest.slice(0, HOOKS_SHOWN));
    const counts = [["pending", pending], ["failed", failed]].filter(([, count]) => count);
    put(byId("webhooks-count"), counts.map(([state, count]) => `${number(count)} ${t(`hook.${state}`)}`).join(" · "));
  };
}

const makeOutcome = (cell) => cell.append(el("span"), el("span", { className: "muted" }));

function fillOutcome(cell, hook) {
  const tries = hook.attempts > 1 || hook.state !== "delivered" ? [tn("tries", hook.attempts)] : [];
  if (hook.due_s !== null) tries.push(hook.due_s < 1 ? t("try.now") : t("try.in", { span: span(hook.due_s) }));
  put(cell.firstChild, hook.outcome);
  put(cell.lastChild, (hook.outcome && tries.length ? " · " : "") + tries.join(" · "));
}

function usage() {
  const amount = (name) => ({
    t: `col.${name}`,
    n: true,
    make: (cell) => cell.append(el("span"), el("span", { className: "muted small" })),
    fill: (cell, { [name]: used }) => {
      put(cell.firstChild, number(used.jobs));
      const frames = t("frames", { n: used.frames.toLocaleString(language(), { notation: "compact" }) });
      put(cell.lastChild, used.jobs ? `${t("gpu", { span: hours(used.gpu_seconds) })} · ${frames}` : "");
    },
  });
  const fill = table(byId("usage"), {
    labelledBy: "usage-title",
    empty: "none.usage",
    key: (one) => one.owner,
    columns: [short("col.owner", (one) => one.owner), amount("today"), amount("week"), amount("all")],
  });
  return ({ usage: some, owners }) => {
    fill(some);
    put(byId("usage-count"), owners > some.length ? t("admin.of", { n: number(some.length), all: number(owners) }) : "");
  };
}

let fillAttempts;

export function showAttempts(attempts) {
  fillAttempts ??= table(byId("attempts"), {
    labelledBy: "attempts-title",
    empty: "none.attempts",
    key: ([reason]) => reason,
    columns: [
      text("col.count", ([, count]) => number(count), { n: true }),
      text("col.reason", ([reason]) => word(`reason.${reason}`), { wide: true }),
    ],
  });
  fillAttempts(Object.entries(attempts).sort(([, one], [, other]) => other - one));
}

export function showServer({ server, keys, database, database_bytes: databaseBytes }) {
  const disk = { free: size(server.disk_free_bytes), total: size(server.disk_total_bytes) };
  const facts = [
    ["version", server.version],
    ["uptime", span(server.uptime_s)],
    ["keys", keys ? number(keys) : t("fact.noKeys")],
    ["database", `${database} · ${size(databaseBytes)}`],
    ["data", server.data_dir],
    ...(server.storage_url ? [["storage", server.storage_url]] : []),
    ["disk", t("fact.diskValue", disk)],
  ];
  const host = byId("server");
  for (const [name, value] of facts) {
    let found = host.querySelector(`[data-name="${name}"]`);
    if (!found) {
      found = el("div", { data: { name } }, el("dt", { t: `fact.${name}` }), el("dd"));
      host.append(found);
    }
    put(found.lastChild, value);
  }
}
