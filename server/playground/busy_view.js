// A request on its way: where it is, how long it still takes, and a preview.

import { announce, el } from "./dom.js";
import { percent, roughly, stepNow } from "./format.js";
import { callBlob } from "./http.js";
import { t, tn } from "./messages.js";
import { button, codeButton, frame, prompt } from "./stage_parts.js";

const STAGES = ["prepare", "expand", "encode", "denoise", "decode", "publish"];

/** `elements` are made once; `fill` writes a state into them. `signal` ends it, `log` is the box of the log. */
export class BusyView {
  constructor(request, { actions, stage, log, signal }) {
    this.signal = signal;
    this.picture = el("img", { alt: "", hidden: true });
    this.tag = el("span", { className: "badge tag", t: "stage.preview", hidden: true });
    this.headline = el("p", { className: "headline" });
    this.left = el("p", { className: "muted figures" });
    this.bar = el("progress", { max: 100, "aria-label": t("stage.progress") });
    this.stages = STAGES.map((name) => el("li", { t: `stage.short.${name}` }));
    this.cancel = button("stop", "stage.cancel", () => {
      if (this.cancel.ariaDisabled === "true") return;
      this.cancel.ariaDisabled = "true"; // not disabled, which would take the focus away
      actions.cancel(request).finally(() => (this.cancel.ariaDisabled = "false"));
    });
    const body = [
      el("div", { className: "row spread" }, this.headline, this.left),
      this.bar,
      el("ol", { className: "stages", "aria-hidden": "true" }, this.stages),
      el("div", { className: "row" }, this.cancel, codeButton(request, actions)),
      prompt(request),
      log.element,
    ];
    this.elements = [frame(request, stage, this.picture, this.tag), el("div", { className: "body" }, body)];
    this.hasSubject = false;
    this.said = null;
    signal.addEventListener("abort", () => this.subject && URL.revokeObjectURL(this.subject));
  }

  fill(state) {
    const { request, preview } = state;
    const progress = state.progress ?? {};
    const isQueued = state.status === "IN_QUEUE";
    const isChecked = state.status === "IN_PROGRESS" || (progress.status === "IN_QUEUE" && progress.stage === null);
    if (isChecked && !this.hasSubject) this.#showSubject(request);
    if (preview && this.picture.getAttribute("src") !== preview) this.#show(preview, "preview");
    set(this.headline, headline(state));
    set(this.left, leftText(state));
    if (isQueued) this.bar.removeAttribute("value");
    else this.bar.value = percent(progress);
    this.bar.hidden = isQueued;
    const at = STAGES.indexOf(progress.stage);
    this.stages.forEach((item, i) => (item.className = i < at ? "past" : i === at ? "now" : ""));
    set(this.cancel.querySelector("[data-t]"), t(request.cancelled ? "status.cancelling" : "stage.cancel"));
    if (request.cancelled) this.cancel.ariaDisabled = "true";
    this.#say(state);
  }

  /** Screen readers hear of stages and of places in the queue, not of every step. */
  #say(state) {
    const what = state.status === "IN_QUEUE" ? `queue ${state.position}` : state.progress?.stage;
    if (!what || what === this.said) return;
    if (this.said !== null) announce(headline(state));
    this.said = what;
  }

  /** Until there is a preview: the picture of the subject, as the server has it. */
  async #showSubject(request) {
    this.hasSubject = true;
    try {
      const blob = await callBlob(`playground/requests/${request.request_id}/image`, { signal: this.signal });
      if (this.signal.aborted || !this.tag.hidden) return;
      this.subject = URL.createObjectURL(blob);
      this.#show(this.subject, "subject");
    } catch {
      // The frame stays empty.
    }
  }

  #show(url, kind) {
    this.picture.src = url;
    this.picture.className = kind;
    this.picture.hidden = false;
    this.tag.hidden = kind !== "preview";
  }
}

function headline(state) {
  const { request } = state;
  if (request.cancelled) return t("stage.cancelling");
  if (state.status === "IN_QUEUE") return state.position > 0 ? tn("stage.queue", state.position) : t("stage.next");
  const { stage, done, total } = state.progress ?? {};
  if (stage === "denoise") {
    const steps = request.input?.num_inference_steps ?? 30;
    return t("stage.denoise", { step: stepNow(done, total, steps), steps });
  }
  return t(`stage.${stage ?? "begins"}`);
}

function leftText({ status, progress }) {
  const left = progress?.seconds_left;
  return status === "IN_PROGRESS" && left ? t("stage.left", { time: roughly(left) }) : "";
}

/** Only when it changed: screen readers and selections stay undisturbed. */
function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
