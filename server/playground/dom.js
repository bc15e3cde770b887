// Building elements without HTML text: what users and servers wrote is never parsed.

import { t } from "./messages.js";

/**
 * An element: `properties` are set on it, those of `data` as data attributes, and names with a dash or `role` as
 * attributes; `t` is a message key that stays with the element, so that it follows the language.
 */
export function el(tag, { data = {}, t: key, ...properties } = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, value);
    else element[name] = value;
  }
  Object.assign(element.dataset, data);
  if (key) {
    element.dataset.t = key;
    element.textContent = t(key);
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

export const byId = (id) => document.getElementById(id);

const SHAPES = {
  upload: "M8 10.5V2.5M4.5 6 8 2.5 11.5 6M2.5 11v2.5h11V11",
  camera: "M2 5h2.5L6 3h4l1.5 2H14v8H2zM8 11a2.2 2.2 0 1 0 0-4.4A2.2 2.2 0 0 0 8 11z",
  close: "M4 4l8 8M12 4l-8 8",
  download: "M8 2.5v8M4.5 7 8 10.5 11.5 7M2.5 13.5h11",
  reuse: "M13 8a5 5 0 1 1-1.6-3.7M13 2v3h-3",
  trash: "M3 4.5h10M6.5 4.5v-2h3v2M4.5 4.5l.6 9h5.8l.6-9",
  code: "M5.5 4.5 2 8l3.5 3.5M10.5 4.5 14 8l-3.5 3.5",
  copy: "M5.5 5.5v-3h8v8h-3M2.5 5.5h8v8h-8z",
  stop: "M4 4h8v8H4z",
  play: "M5 3l8 5-8 5z",
  clock: "M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12zM8 4.5V8l2.5 1.5",
  flag: "M4 14V2.5h8l-2 3 2 3H4",
};

/** A small line drawing, hidden from screen readers. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "i");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(svg.namespaceURI, "path");
  path.setAttribute("d", SHAPES[name]);
  svg.append(path);
  return svg;
}

/** Copy a text and say so on the button for a moment. */
export async function copyFrom(button, text) {
  const label = button.querySelector("[data-t]");
  const before = label.dataset.t;
  let done = "copied";
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    done = oldCopy(text) ? "copied" : "copyFailed";
  }
  label.textContent = t(done);
  announce(t(done));
  setTimeout(() => (label.textContent = t(before)), 1600);
}

/** The clipboard of pages over plain http from another machine, where `navigator.clipboard` is missing. */
function oldCopy(text) {
  const area = el("textarea", { value: text, className: "sr", "aria-hidden": "true" });
  const shown = document.querySelector("dialog[open]") ?? document.body;
  shown.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

/** Let screen readers say a text. */
export function announce(text) {
  byId("announce").textContent = text;
}
