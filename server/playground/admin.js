// The operator's page: an overview of the deployment every two seconds while it is visible, and what can be done about it.

import "./admin_messages.js";
import { DrainWatch, figures, isAlive, problems } from "./admin_state.js";
import { showAttempts, showFigures, showProblems, showServer, tables, timeOf } from "./admin_view.js";
import { announce, byId } from "./dom.js";
import { askForKey, openFrame, showOwner } from "./frame.js";
import { ApiError, callJson, ConnectionLost, storedKey } from "./http.js";
import { t } from "./messages.js";

const EVERY_MS = 2000;
const PATIENCE_MS = 10000;
const COMPLAINT_MS = 15000;

const drain = new DrainWatch();
const fill = tables({ cancel, redeliver });
let shown = null; // the last overview
let refusal = ""; // what the server answered instead of one
let complaint = ""; // what it answered to something that was to be done; shown for a while
let forgotten;
let isPaused = false;
let wake = () => {};

openFrame();
document.addEventListener("language", show);
document.addEventListener("visibilitychange", () => wake());
byId("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  byId("pause").setAttribute("aria-pressed", String(isPaused));
  show();
  wake();
});
byId("drain").addEventListener("click", switchDrain);
follow();

async function follow() {
  for (;;) {
    if (!isPaused && document.visibilityState === "visible") await refresh();
    await new Promise((resolve) => {
      wake = resolve;
      setTimeout(resolve, EVERY_MS);
    });
  }
}

async function refresh() {
  try {
    shown = await read();
    refusal = "";
  } catch (error) {
    if (error instanceof ConnectionLost) return; // the line on top says so
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 401 || (error.status === 403 && storedKey())) {
      await askForKey(isOperators, { news: error.status === 403 ? "admin.key.other" : storedKey() ? "key.ended" : "" });
      return refresh();
    }
    refusal = error.message;
  }
  byId("main").classList.remove("empty");
  showOwner("local");
  show();
}

function read() {
  return callJson("admin/overview", { signal: AbortSignal.timeout(PATIENCE_MS) });
}

/** For the panel that asks for a key: whether the one in place opens this page. */
async function isOperators() {
  try {
    await read();
    return true;
  } catch (error) {
    if (error instanceof ApiError && error.status === 403) error.messageKey = "admin.key.other";
    throw error;
  }
}

function show() {
  byId("pause").firstElementChild.dataset.t = isPaused ? "admin.resume" : "admin.pause";
  byId("pause").firstElementChild.textContent = t(isPaused ? "admin.resume" : "admin.pause");
  const answers = [complaint, refusal].filter(Boolean);
  const refused = answers.map((message) => ({ kind: "bad", key: "problem.server", values: { message } }));
  if (!shown) return showProblems(refused);
  const state = drain.see(shown);
  showFigures(figures(shown));
  showProblems([...refused, ...problems(shown, state)]);
  fill(shown);
  showAttempts(shown.attempts);
  showServer(shown);
  const time = timeOf(shown.at);
  byId("as-of").textContent = isPaused ? t("admin.paused", { time }) : time;
  const button = byId("drain");
  button.disabled = !shown.workers.some(isAlive);
  button.dataset.state = state;
  button.className = state === "off" ? "" : "primary";
  button.textContent = t(state === "off" ? "drain.do" : "undrain.do");
  document.title = `${shown.queue.running} ▸ ${shown.queue.waiting.normal + shown.queue.waiting.low} · ${t("page.admin")}`;
}

async function switchDrain() {
  const draining = byId("drain").dataset.state === "off";
  if (draining && !(await confirmed(["drain.title", "drain.text", "drain.yes"]))) return;
  await act("admin/drain", { json: { draining } }, draining ? "drain.done" : "undrain.done");
}

async function cancel(job) {
  if (!(await confirmed(["cancel.title", "cancel.text", "cancel.yes"], { id: job.request_id, owner: job.owner }))) return;
  await act(`admin/requests/${job.request_id}/cancel`, {}, "cancel.done");
}

async function redeliver(hook) {
  await act(`admin/webhooks/${hook.request_id}/redeliver`, {}, "redeliver.done");
}

/** Ask the server for something, say how that went, and look at what came of it. */
async function act(path, options, done) {
  complain("");
  try {
    await callJson(path, { method: "POST", ...options });
    announce(t(done));
  } catch (error) {
    if (error instanceof ConnectionLost) return;
    complain(error.message);
  }
  await refresh();
}

function complain(message) {
  complaint = message;
  clearTimeout(forgotten);
  if (message) forgotten = setTimeout(() => complain(""), COMPLAINT_MS);
  show();
}

/** Whether the reader means it; the keys are of a title, a text, and the word of the button that says yes. */
function confirmed([title, text, yes], values = {}) {
  const dialog = byId("confirm");
  byId("confirm-title").textContent = t(title);
  byId("confirm-text").textContent = t(text, values);
  byId("confirm-yes").textContent = t(yes);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}
