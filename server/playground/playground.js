// The playground: form, the chosen request, and the history, held together by the address (`#/REQUEST_ID`).

import { showCode } from "./code_dialog.js";
import { announce, byId } from "./dom.js";
import { Form } from "./form.js";
import { askForKey, openFrame, showOwner } from "./frame.js";
import { History } from "./history.js";
import { ApiError, call, callJson, calls, ConnectionLost, pause, ROOT, storedKey } from "./http.js";
import { Live } from "./live.js";
import { localise, t } from "./messages.js";
import "./playground_messages.js";
import { problem } from "./problems.js";
import { bodyText, chosen, valuesOf } from "./schema.js";
import { Stage, titleOf } from "./stage.js";
import { QUEUE, send } from "./submit.js";

const NAME = "hunyuan-custom";
const NOT_READY_MS = 5000;

let session;
let owner; // whose page this is
let form;
let stage;
let history;
let live = null;
let submitted = null; // {id, values}: the request that the form's errors are about

async function start() {
  openFrame();
  session = await firstSession();
  if (isKeyMissing(session)) await enterKey(Boolean(storedKey()));
  owner = session.owner;
  form = new Form(session, byId("fields"));
  stage = new Stage(byId("stage"), session, { cancel, reuse, code, remove });
  history = new History({ grid: byId("grid"), more: byId("older"), empty: byId("no-history"), onChange: onHistory });
  listen();
  showSession();
  byId("main").hidden = false;
  keepForm();
  document.body.dataset.ready = "true"; // the page can be used
  await history.refresh();
  if (!followAddress() && history.running.length) choose(history.running.at(-1).request_id, { replace: true });
  keepSession();
}

async function firstSession() {
  for (;;) {
    try {
      return await callJson("playground/session");
    } catch (error) {
      if (error instanceof ApiError && !error.isPassing) throw error;
      await pause(1000);
    }
  }
}

const isKeyMissing = ({ keys_required: needed, owner }) => needed && owner === null;

async function enterKey(wasUsed) {
  await askForKey(
    async () => {
      session = await callJson("playground/session");
      return !isKeyMissing(session);
    },
    { wasUsed },
  );
  calls.dispatchEvent(new Event("signedIn"));
}

function listen() {
  let isAsking = false;
  calls.addEventListener("key", async () => {
    if (isAsking) return;
    isAsking = true;
    await enterKey(Boolean(storedKey()));
    isAsking = false;
    if (session.owner !== owner) {
      location.hash = ""; // nothing of the owner before is left to see
      location.reload();
      return;
    }
    showSession();
    history.refresh();
  });
  calls.addEventListener("back", () => history.refresh());
  addEventListener("hashchange", followAddress);
  document.addEventListener("visibilitychange", () => document.hidden || showTitle());
  document.addEventListener("language", showSession);
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    submit();
  });
  if (/Mac|iPhone|iPad/.test(navigator.platform)) document.querySelector("kbd").textContent = "⌘ ↵";
  byId("grid").addEventListener("click", (event) => event.target.closest("a") && showStage());
  byId("reset").addEventListener("click", () => {
    form.reset();
    showProblem("");
    announce(t("form.wasReset"));
  });
  byId("code").addEventListener("click", codeOfForm);
  byId("new").addEventListener("click", () => {
    location.hash = "#/";
    byId("f-prompt").focus();
  });
}

/** A reload keeps what was entered, in this tab. */
function keepForm() {
  const name = `hunyuan-custom form of ${owner}`;
  const kept = JSON.parse(sessionStorage.getItem(name) ?? "null");
  if (kept) form.restore(kept);
  byId("form").addEventListener("changed", () => sessionStorage.setItem(name, JSON.stringify(form.values())));
}

// the server

function showSession() {
  showOwner(session.owner);
  const { ready, reason, model } = session;
  byId("model-dot").className = `dot ${ready ? "good" : "warn"}`;
  byId("model").textContent = ready ? (model ?? t("session.ready")) : t("session.notReady");
  byId("not-ready").hidden = ready;
  byId("not-ready").textContent = ready ? "" : reason ? t("session.because", { reason }) : t("session.later");
  byId("version").textContent = `hunyuan-custom-server ${session.version}`;
}

/** Ask again while no video can be made, and when the page is looked at again. */
async function keepSession() {
  const again = async () => {
    try {
      session = await callJson("playground/session");
      showSession();
    } catch {
      // The line on top says so.
    }
  };
  document.addEventListener("visibilitychange", () => document.hidden || again());
  calls.addEventListener("back", again);
  for (;;) {
    await pause(NOT_READY_MS);
    if (!session.ready && !document.hidden) await again();
  }
}

// the chosen request

/** Show the request that the address names; false if it names none. */
function followAddress() {
  const id = location.hash.replace(/^#\/?/, "");
  if (!id || id === "main") {
    if (id !== "main") leave();
    return false;
  }
  choose(id);
  return true;
}

function choose(id, { replace = false } = {}) {
  if (replace) window.history.replaceState(null, "", `#/${id}`);
  else if (location.hash !== `#/${id}`) {
    location.hash = `#/${id}`; // comes back here
    return;
  }
  if (live?.id === id) return;
  live?.close();
  history.select(id);
  let isOver = false;
  live = new Live(id, (state) => {
    stage.show(state);
    showTitle();
    if (!state.request) return;
    history.put(state.request);
    if (state.request.status === "COMPLETED" && !isOver) {
      isOver = true;
      onEnd(state.request);
    }
  });
  stage.show(live.state);
}

/** On a phone it is below the form. */
function showStage() {
  if (byId("stage").getBoundingClientRect().top > innerHeight / 2 || byId("stage").getBoundingClientRect().bottom < 120)
    byId("stage").scrollIntoView({ block: "start" });
}

function leave() {
  live?.close();
  live = null;
  stage.clear();
  localise(byId("stage"));
  history.select("");
  showTitle();
}

function onEnd(request) {
  if (request.error && submitted?.id === request.request_id && request.error.status === 422) {
    const { sentence, fields } = problem(request.error);
    const others = form.showErrors(fields);
    if (others.length === fields.length) showProblem(sentence);
  }
  if (submitted?.id === request.request_id) {
    submitted = null;
    if (document.hidden) news = request.error ? "title.failed" : "title.done";
  }
  showTitle();
  history.refresh();
}

function onHistory() {
  const known = live && history.requests.find((request) => request.request_id === live.id);
  // Deleted, expired or cancelled in another tab.
  if (
    known &&
    live.state.request &&
    (known.expired !== live.state.request.expired || known.cancelled !== live.state.request.cancelled)
  ) {
    live.load().catch(() => {});
  }
}

let news = ""; // a message key that stays in the title until the page is looked at

function showTitle() {
  if (!document.hidden) news = "";
  const state = news ? t(news) : live ? titleOf(live.state) : "";
  document.title = state ? `${state} · ${NAME}` : NAME;
}

// what the buttons do

async function submit() {
  const button = byId("submit");
  if (button.ariaDisabled === "true") return;
  showProblem("");
  form.clearErrors();
  const missing = [];
  if (form.image.isEmpty) missing.push({ field: "image_url", message: t("form.imageMissing") });
  if (!form.values().prompt.trim()) missing.push({ field: "prompt", message: t("form.promptMissing") });
  if (missing.length) {
    form.showErrors(missing);
    return;
  }
  button.ariaDisabled = "true"; // not disabled, which would take the focus away
  const label = byId("submit-label");
  try {
    if (form.image.sending) label.textContent = t("form.sendingImage");
    if (!(await form.image.ready())) {
      form.image.focus();
      return;
    }
    label.textContent = t("form.submitting");
    const id = await send(bodyText(form.named()));
    submitted = { id };
    announce(t("form.submitted"));
    choose(id);
    showStage();
    history.refresh();
  } catch (error) {
    showError(error);
  } finally {
    button.ariaDisabled = "false";
    label.textContent = t("form.submit");
  }
}

async function cancel(request) {
  try {
    await call(`${QUEUE}/requests/${request.request_id}/cancel`, { method: "PUT" });
    announce(t("stage.cancelling"));
    await live.load();
  } catch (error) {
    if (error instanceof ApiError && error.status === 400)
      await live.load(); // it is over
    else showError(error);
  }
}

async function reuse(request) {
  showProblem("");
  byId("f-prompt").focus();
  await form.fill(request);
  announce(t("form.filled"));
}

function remove(request) {
  const dialog = byId("delete-dialog");
  byId("delete-no").onclick = () => dialog.close();
  byId("delete-yes").onclick = async () => {
    dialog.close();
    try {
      await call(`playground/requests/${request.request_id}`, { method: "DELETE" });
    } catch (error) {
      if (!(error instanceof ApiError && error.status === 404)) {
        showError(error);
        return;
      }
    }
    history.drop(request.request_id);
    announce(t("result.deleted"));
    location.hash = "#/";
    byId("history-title").focus();
  };
  dialog.showModal();
}

const SAMPLE_FILE = { name: "woman.jpg", type: "image/jpeg" };
const base = () => (session.base_url || ROOT.href).replace(/\/$/, "");

function codeOfForm() {
  const input = form.named();
  const { file } = form.image;
  showInput(
    { ...input, prompt: input.prompt || form.example },
    file ? { name: file.name, type: file.type } : SAMPLE_FILE,
  );
}

function code(request) {
  showInput(chosen(form.fields, valuesOf(form.fields, request.input, request.seed)), SAMPLE_FILE);
}

/** A picture that has no URL, because it came inside of a request or is not sent yet, is a file beside the code. */
function showInput(input, file) {
  showCode({ base: base(), needsKey: session.keys_required, input, file: input.image_url ? null : file });
}

// errors

function showError(error) {
  if (error instanceof ConnectionLost) showProblem(t("error.notSent"));
  else if (error instanceof ApiError) {
    const others = form.showErrors(error.fields);
    if (!error.fields.length || others.length) {
      const wait = error.retryAfterS ? ` ${t("error.retry", { seconds: error.retryAfterS })}` : "";
      showProblem(`${error.message}${wait}`, error.requestId);
    }
  } else throw error;
}

function showProblem(text, requestId = "") {
  const banner = byId("problem");
  banner.hidden = !text;
  byId("problem-text").textContent = text;
  byId("problem-id").textContent = requestId ? t("error.requestId", { id: requestId }) : "";
}

start().catch((error) => {
  byId("connection").textContent = error.message;
  byId("connection").hidden = false;
  throw error;
});
