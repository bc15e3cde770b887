// A request that is over: its video, or why there is none, and what it was made with.

import { el, icon } from "./dom.js";
import { filmstrip } from "./filmstrip.js";
import { ago, bytes, clock, duration } from "./format.js";
import { ownFile } from "./http.js";
import { language, t } from "./messages.js";
import { problem } from "./problems.js";
import { frameSize, valuesOf } from "./schema.js";
import { button, codeButton, copyable, frame, message, prompt } from "./stage_parts.js";
import { isVideoKept } from "./upload.js";

const STILL = matchMedia("(prefers-reduced-motion: reduce)");

/** The elements for a request; `stage` has {actions, fields, sizes}, `log` is the box of its log. */
export function resultView(request, { stage, log, signal }) {
  const { actions } = stage;
  const row = [
    request.video ? download(request.video) : null,
    request.input ? button("reuse", "result.reuse", () => actions.reuse(request)) : null,
    codeButton(request, actions),
    button("trash", "result.delete", () => actions.remove(request), "danger"),
  ];
  const body = [el("div", { className: "row" }, row), prompt(request), facts(request, stage), log.element];
  return [...outcome(request, stage, signal), el("div", { className: "body" }, body)];
}

function outcome(request, stage, signal) {
  if (request.error) return [failure(request)];
  return request.expired ? [message("warn", t("result.expired"))] : player(request, stage, signal);
}

function player(request, stage, signal) {
  const source = ownFile(request.video.url);
  const video = el("video", {
    controls: true,
    loop: true,
    muted: true,
    playsInline: true,
    autoplay: !STILL.matches,
    src: source,
    "aria-label": t("result.video"),
  });
  if (request.thumbnail_url) video.poster = ownFile(request.thumbnail_url);
  const shown = frame(request, stage, video);
  video.addEventListener("error", async () => {
    const key = (await isVideoKept(request.video.url)) ? "result.broken" : "result.expired";
    shown.replaceWith(message("warn", t(key)));
    strip.remove();
  });
  const strip = filmstrip(source, video, signal);
  return [shown, strip];
}

function failure(request) {
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

function download(video) {
  return el(
    "a",
    { className: "button", href: ownFile(video.url), download: video.file_name ?? "video.mp4" },
    icon("download"),
    el("span", { t: "result.download" }),
    video.file_size ? el("span", { className: "muted" }, bytes(video.file_size, language())) : null,
  );
}

function facts(request, { fields, sizes }) {
  const values = valuesOf(fields, request.input, request.seed);
  const { width, height } = frameSize(values, sizes);
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
    const standard = fields.find((field) => field.name === "negative_prompt")?.default;
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
  rows.push([t("fact.id"), copyable(request.request_id), "id"]);
  return el(
    "dl",
    { className: "facts" },
    rows.map(([name, value, className = ""]) => el("div", { className }, el("dt", {}, name), el("dd", {}, value))),
  );
}
