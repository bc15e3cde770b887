// The chosen request: on its way with what is known of it, or its video, or why there is none.

import { announce, copyFrom, el, icon } from "./dom.js";
import { filmstrip } from "./filmstrip.js";
import { ago, bytes, clock, duration, percent, roughly, stepNow } from "./format.js";
import { callBlob, ownFile } from "./http.js";
import { language, t, tn } from "./messages.js";
import { problem } from "./problems.js";
import { fieldsOf, frameSize, valuesOf } from "./schema.js";
import { isVideoKept } from "./upload.js";

const STAGES = ["prepare", "expand", "encode", "denoise", "decode", "publish"];
const STILL = matchMedia("(prefers-reduced-motion: reduce)");

/**
 * Draws the state of a `Live` into `root`. `actions` has what its buttons do: cancel, reuse, code, remove; each gets the
 * request.
 */
export class Stage {
  constructor(root, session, actions) {
    this.root = root;
    this.fields = fieldsOf(session.input_schema);
    this.sizes = session.crop.sizes;
    this.actions = actions;
    this.empty = [...root.children];
    this.shown = "";
    this.state = null;
    document.addEventListener("language", () => this.#again());
  }

  clear() {
    this.#drop();
    this.root.replaceChildren(...this.empty);
    this.state = null;
    this.shown = "";
  }

  #again() {
    if (!this.state) return;
    this.shown = "";
    this.show(this.state);
  }

  #drop() {
    this.ended?.abort();
    this.ended = new AbortController();
    if (this.source) URL.revokeObjectURL(this.source);
    this.source = this.logBox = null;
  }

  /** Show a state; what is there already is kept, so that a video plays on and the focus stays. */
  show(state) {
    this.state = state;
    const { request } = state;
    const what = state.isGone ? "gone" : request ? `${request.request_id} ${viewOf(state)}` : `${state.id} loading`;
    if (what !== this.shown) {
      this.#drop();
      const before = this.shown;
      this.shown = what;
      if (state.isGone) this.root.replaceChildren(message("warn", t("stage.gone")));
      else if (!request) this.root.replaceChildren(el("div", { className: "frame waiting", "aria-busy": "true" }));
      else if (viewOf(state) === "busy") this.#buildBusy(request);
      else this.#buildOver(request);
      this.#announce(state, before.startsWith(state.id));
    }
    if (request && viewOf(state) === "busy") this.#fillBusy(state);
    this.#fillLog(state);
  }

  #announce(state, wasShown) {
    if (!wasShown || !state.request || viewOf(state) === "busy") return;
    const { error, expired } = state.request;
    announce(error ? problem(error).sentence : t(expired ? "result.expired" : "result.ready"));
  }

  // on its way

  #buildBusy(request) {
    this.picture = el("img", { alt: "", hidden: true });
    this.tag = el("span", { className: "badge tag", t: "stage.preview", hidden: true });
    this.frame = el("div", { className: "frame" }, this.picture, this.tag);
    this.#shape(request);
    this.headline = el("p", { className: "headline" });
    this.left = el("p", { className: "muted figures" });
    this.bar = el("progress", { max: 100, "aria-label": t("stage.progress") });
    this.stages = STAGES.map((name) => el("li", { t: `stage.short.${name}` }));
    this.cancel = button("stop", "stage.cancel", () => {
      this.cancel.disabled = true;
      this.actions.cancel(request).finally(() => (this.cancel.disabled = false));
    });
    this.root.replaceChildren(
      this.frame,
      el(
        "div",
        { className: "body" },
        el("div", { className: "row spread" }, this.headline, this.left),
        this.bar,
        el("ol", { className: "stages", "aria-hidden": "true" }, this.stages),
        el("div", { className: "row" }, this.cancel, this.#codeButton(request)),
        this.#prompt(request),
        this.#log(),
      ),
    );
    this.hasSubject = false;
  }

  /** Until there is a preview: the picture of the subject, as the server has it. */
  async #showSubject(request) {
    this.hasSubject = true;
    const ended = this.ended.signal;
    try {
      const blob = await callBlob(`playground/requests/${request.request_id}/image`, { signal: ended });
      if (ended.aborted || this.state?.preview) return;
      this.source = URL.createObjectURL(blob);
      this.picture.src = this.source;
      this.picture.className = "subject";
      this.picture.hidden = false;
    } catch {
      // The frame stays empty.
    }
  }

  #fillBusy(state) {
    const { request, preview } = state;
    const progress = state.progress ?? {};
    const isQueued = state.status === "IN_QUEUE";
    const stage = isQueued ? (progress.stage === "prepare" ? "prepare" : null) : progress.stage;
    const share = isQueued ? 0 : percent(progress);
    const isChecked = state.status === "IN_PROGRESS" || state.progress?.stage === null;
    if (isChecked && !this.hasSubject) this.#showSubject(request);
    if (preview && this.picture.getAttribute("src") !== preview) {
      this.picture.src = preview;
      this.picture.className = "preview";
      this.picture.hidden = false;
      this.tag.hidden = false;
    }
    set(this.headline, headline(state, request));
    set(this.left, leftText(state));
    if (isQueued) this.bar.removeAttribute("value");
    else this.bar.value = share;
    this.bar.hidden = isQueued;
    const at = STAGES.indexOf(stage);
    this.stages.forEach((item, i) => (item.className = i < at ? "past" : i === at ? "now" : ""));
    this.cancel.querySelector("[data-t]").textContent = t(request.cancelled ? "status.cancelling" : "stage.cancel");
    if (request.cancelled) this.cancel.disabled = true;
  }

  // over

  #buildOver(request) {
    const parts = request.error
      ? [this.#failure(request)]
      : request.expired
        ? [message("warn", t("result.expired"))]
        : this.#video(request);
    const actions = [
      request.video ? this.#download(request.video) : null,
      request.input ? button("reuse", "result.reuse", () => this.actions.reuse(request)) : null,
      this.#codeButton(request),
      button("trash", "result.delete", () => this.actions.remove(request), "danger"),
    ];
    this.root.replaceChildren(
      ...parts,
      el(
        "div",
        { className: "body" },
        el("div", { className: "row" }, actions),
        this.#prompt(request),
        this.#facts(request),
        this.#log(),
      ),
    );
  }

  #video(request) {
    const source = ownFile(request.video.url);
    const isMoving = !STILL.matches;
    const video = el("video", {
      controls: true,
      loop: true,
      muted: true,
      playsInline: true,
      autoplay: isMoving,
      src: source,
      "aria-label": t("result.video"),
    });
    if (request.thumbnail_url) video.poster = ownFile(request.thumbnail_url);
    this.frame = el("div", { className: "frame" }, video);
    this.#shape(request);
    video.addEventListener("error", async () => {
      const key = (await isVideoKept(request.video.url)) ? "result.broken" : "result.expired";
      this.frame.replaceWith(message("warn", t(key)));
      strip.remove();
    });
    const strip = filmstrip(source, video, this.ended.signal);
    return [this.frame, strip];
  }

  #failure(request) {
    const { sentence, detail } = problem(request.error);
    const said = detail ? el("p", { className: "small mono" }, detail) : null;
    const where = el("p", { className: "small muted" }, t("result.answer", { status: request.error.status }));
    return el(
      "div",
      { className: `failure ${request.cancelled ? "" : "bad"}` },
      el("p", { className: "headline" }, sentence),
      said,
      where,
    );
  }

  #download(video) {
    return el(
      "a",
      { className: "button", href: ownFile(video.url), download: video.file_name ?? "video.mp4" },
      icon("download"),
      el("span", { t: "result.download" }),
      video.file_size ? el("span", { className: "muted" }, bytes(video.file_size, language())) : null,
    );
  }

  #codeButton(request) {
    return request.input ? button("code", "code.button", () => this.actions.code(request)) : null;
  }

  #prompt(request) {
    return request.input ? el("p", { className: "prompt" }, request.input.prompt) : null;
  }

  #facts(request) {
    const values = valuesOf(this.fields, request.input, request.seed);
    const { width, height } = frameSize(values, this.sizes);
    const yes = (value) => t(value ? "yes" : "no");
    const rows = [[t("field.seed"), copyable(request.seed)]];
    if (request.input) {
      const seconds = duration(values.num_frames / values.fps, language());
      rows.push(
        [t("fact.size"), `${width} × ${height}`],
        [t("fact.length"), t("fact.frames", { seconds, frames: values.num_frames, fps: values.fps })],
        [t("field.num_inference_steps"), String(values.num_inference_steps)],
        [t("field.cfg_scale"), values.cfg_scale.toLocaleString(language())],
        [t("field.enable_prompt_expansion"), yes(values.enable_prompt_expansion)],
        [t("field.enable_safety_checker"), yes(values.enable_safety_checker)],
      );
      const standard = this.fields.find((field) => field.name === "negative_prompt")?.default;
      if (values.negative_prompt && values.negative_prompt !== standard)
        rows.push([t("field.negative_prompt"), values.negative_prompt]);
    }
    if (request.inference_time !== null) rows.push([t("fact.time"), duration(request.inference_time, language())]);
    if (request.started_at)
      rows.push([t("fact.waited"), duration(Math.max(0, request.started_at - request.created_at), language())]);
    rows.push([
      t("fact.sent"),
      el(
        "time",
        {
          dateTime: new Date(request.created_at * 1000).toISOString(),
          title: ago(request.created_at, Date.now() / 1000, language()),
        },
        clock(request.created_at, language()),
      ),
    ]);
    rows.push([t("fact.id"), copyable(request.request_id)]);
    return el(
      "dl",
      { className: "facts" },
      rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
    );
  }

  // both

  /** The box has the shape of the video, so that nothing moves when the picture comes. */
  #shape(request) {
    this.frame.classList.toggle("tall", request.input?.aspect_ratio === "9:16");
  }

  #log() {
    this.lines = el("pre", { tabIndex: 0, "aria-label": t("log.title") });
    this.lastLine = el("span", { className: "muted last" });
    this.logBox = el(
      "details",
      { className: "log", hidden: true },
      el("summary", {}, el("span", { t: "log.title" }), " ", this.lastLine),
      this.lines,
    );
    this.written = 0;
    this.logBox.open = this.isLogOpen ?? false;
    this.logBox.addEventListener("toggle", () => (this.isLogOpen = this.logBox.open));
    return this.logBox;
  }

  #fillLog({ lines }) {
    if (!this.logBox || lines.length <= this.written) return;
    const isAtEnd = this.lines.scrollTop + this.lines.clientHeight >= this.lines.scrollHeight - 8;
    for (const line of lines.slice(this.written)) {
      const time = new Date(line.timestamp).toLocaleTimeString(language());
      this.lines.append(el("span", { className: "muted" }, time), ` ${line.message}\n`);
    }
    this.written = lines.length;
    this.logBox.hidden = false;
    this.lastLine.textContent = lines.at(-1).message;
    if (isAtEnd) this.lines.scrollTop = this.lines.scrollHeight;
  }
}

function viewOf({ request }) {
  if (request.status !== "COMPLETED") return "busy";
  return request.error ? "failed" : request.expired ? "expired" : "video";
}

function headline(state, request) {
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

/** The title of the tab while a request is on its way, "" otherwise. */
export function titleOf(state) {
  if (!state.request || state.request.status === "COMPLETED") return "";
  if (state.status === "IN_QUEUE") return t("title.queued");
  return `${Math.floor(percent(state.progress ?? {}))} %`;
}

/** Only when it changed: screen readers and selections stay undisturbed. */
function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function button(shape, key, action, className = "") {
  const made = el("button", { type: "button", className }, icon(shape), el("span", { t: key }));
  made.addEventListener("click", action);
  return made;
}

function copyable(text) {
  const made = el(
    "button",
    { type: "button", className: "quiet copy", title: t("copy"), "aria-label": `${t("copy")} ${text}` },
    icon("copy"),
    el("span", { className: "sr", t: "copy" }),
  );
  made.addEventListener("click", () => copyFrom(made, text));
  return el("span", { className: "copyable" }, el("span", { className: "mono" }, text), made);
}

function message(kind, text) {
  return el("div", { className: "failure plain" }, el("p", { className: `banner ${kind}` }, text));
}
