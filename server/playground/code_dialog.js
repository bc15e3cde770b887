// A request as code to copy, in three languages.

import { byId, copyFrom, el, icon } from "./dom.js";
import { address } from "./http.js";
import { t } from "./messages.js";
import { LANGUAGES } from "./snippets.js";

const NAMES = { python: "Python", javascript: "JavaScript", curl: "curl" };
const HELPERS = { python: "fal_plain_http.py", javascript: "fal_server_url.mjs" };

/** Show `request` (see snippets.js) as code. */
export function showCode(request) {
  const dialog = byId("code-dialog");
  const shown = localStorage.getItem("hunyuan-custom code") ?? "python";
  const code = el("code");
  const note = el("span");
  const link = el("a", { download: "" });
  const radios = Object.entries(NAMES).flatMap(([name, label]) => {
    const radio = el("input", {
      type: "radio",
      name: "code",
      value: name,
      id: `code-${name}`,
      className: "sr",
      checked: name === shown,
    });
    radio.addEventListener("change", () => show(name));
    return [radio, el("label", { for: radio.id }, label)];
  });
  const copy = el("button", { type: "button", className: "primary" }, icon("copy"), el("span", { t: "copy" }));
  copy.addEventListener("click", () => copyFrom(copy, code.textContent));
  const close = el("button", { type: "button", t: "close" });
  close.addEventListener("click", () => dialog.close());
  const language = el(
    "fieldset",
    {},
    el("legend", { className: "sr", t: "code.language" }),
    el("div", { className: "segments" }, radios),
  );
  dialog.replaceChildren(
    el("div", { className: "row spread" }, el("h2", { id: "code-title", t: "code.title" }), language),
    el("pre", { tabIndex: 0, "aria-labelledby": "code-title" }, code),
    el("p", { className: "hint" }, link, " ", note),
    el("div", { className: "row end" }, close, copy),
  );

  function show(name) {
    localStorage.setItem("hunyuan-custom code", name);
    code.textContent = LANGUAGES[name](request);
    const helper = HELPERS[name];
    const isNeeded = name === "python" ? request.base.startsWith("http://") : Boolean(helper);
    link.hidden = !isNeeded;
    if (isNeeded) {
      link.href = address(`static/${helper}`);
      link.textContent = helper;
    }
    note.textContent = t(isNeeded ? `code.helper.${name}` : `code.note.${name}`);
  }

  show(shown in NAMES ? shown : "python");
  dialog.showModal();
}
