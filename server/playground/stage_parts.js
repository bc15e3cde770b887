// Pieces that every view of a request has.

import { copyFrom, el, icon } from "./dom.js";
import { language, t } from "./messages.js";
import { frameSize, valuesOf } from "./schema.js";

export function button(shape, key, action, className = "") {
  const made = el("button", { type: "button", className }, icon(shape), el("span", { t: key }));
  made.addEventListener("click", action);
  return made;
}

/** A text with a button that copies it. */
export function copyable(text) {
  const made = el(
    "button",
    { type: "button", className: "quiet copy", title: t("copy"), "aria-label": `${t("copy")} ${text}` },
    icon("copy"),
    el("span", { className: "sr", t: "copy" }),
  );
  made.addEventListener("click", () => copyFrom(made, text));
  return el("span", { className: "copyable" }, el("span", { className: "mono" }, text), made);
}

export function message(kind, text) {
  return el("div", { className: "failure plain" }, el("p", { className: `banner ${kind}` }, text));
}

/** Around the picture of a request: higher than wide for an upright one, where the page is narrow. */
export function frame(request, { fields, sizes }, ...children) {
  const { width, height } = frameSize(valuesOf(fields, request.input, request.seed), sizes);
  return el("div", { className: height > width ? "frame tall" : "frame" }, ...children);
}

export function codeButton(request, actions) {
  return request.input ? button("code", "code.button", () => actions.code(request)) : null;
}

export function prompt(request) {
  return request.input ? el("p", { className: "prompt" }, request.input.prompt) : null;
}

/** The log of a request, closed at first; its last line is always to be seen. */
export class LogBox {
  constructor({ isOpen = false } = {}) {
    this.lines = el("pre", { tabIndex: 0, "aria-label": t("log.title") });
    this.last = el("span", { className: "muted last" });
    const summary = el("summary", {}, el("span", { t: "log.title" }), " ", this.last);
    this.element = el("details", { className: "log", hidden: true, open: isOpen }, summary, this.lines);
    this.written = 0;
  }

  get isOpen() {
    return this.element.open;
  }

  /** Append the lines that are new. */
  fill(lines) {
    if (lines.length <= this.written) return;
    const isAtEnd = this.lines.scrollTop + this.lines.clientHeight >= this.lines.scrollHeight - 8;
    for (const line of lines.slice(this.written)) {
      const time = new Date(line.timestamp).toLocaleTimeString(language());
      this.lines.append(el("span", { className: "muted" }, time), ` ${line.message}\n`);
    }
    this.written = lines.length;
    this.element.hidden = false;
    this.last.textContent = lines.at(-1).message;
    if (isAtEnd) this.lines.scrollTop = this.lines.scrollHeight;
  }
}
