// The controls of single fields. Each is {parts, inputs, read, write, describe}: its elements, those that take the focus,
// its value (null where the server should choose), and what it says about that value.

import { el } from "./dom.js";
import { hasMessage, t } from "./messages.js";

const SLIDER_STEP = { num_frames: 4, cfg_scale: 0.5 }; // the slider's; the number beside it takes any value

/** A control for a field of the schema; `example` is a prompt. */
export function control(field, example) {
  return MAKE[field.kind](field, example);
}

const MAKE = {
  text: textControl,
  choice: choiceControl,
  number: numberControl,
  switch: switchControl,
  seed: seedControl,
};

/** The name of a field in the language of the page, the schema's where the page knows none. */
export const titleOf = (field) => (hasMessage(`field.${field.name}`) ? t(`field.${field.name}`) : field.title);

/** A label, or a legend, in the language of the page where the field is known. */
function title(tag, field, properties = {}) {
  const key = `field.${field.name}`;
  return hasMessage(key) ? el(tag, { t: key, ...properties }) : el(tag, properties, field.title);
}

function textControl(field, example) {
  const id = `f-${field.name}`;
  const isPrompt = field.name === "prompt";
  const area = el("textarea", { id, name: field.name, rows: isPrompt ? 4 : 3, autocomplete: "off" });
  if (isPrompt) area.placeholder = example;
  const counter = el("span", { className: "hint figures counter" });
  const head = el("div", { className: "head" }, title("label", field, { for: id }), counter);
  const parts = [head, area];
  if (isPrompt && example) {
    const fill = el("button", { type: "button", className: "quiet example", t: "form.example" });
    fill.addEventListener("click", () => {
      area.value = example;
      area.dispatchEvent(new Event("input", { bubbles: true }));
      area.dispatchEvent(new Event("example", { bubbles: true }));
      area.focus();
    });
    head.insertBefore(fill, counter);
  }
  return {
    parts,
    inputs: [area],
    read: () => area.value,
    write: (value) => (area.value = value ?? ""),
    describe: () => {
      const length = [...area.value].length; // characters as the API counts them
      const isNear = isPrompt || length > field.maxLength * 0.9;
      counter.textContent = field.maxLength && isNear ? `${length} / ${field.maxLength}` : "";
      counter.classList.toggle("over", length > field.maxLength);
    },
  };
}

function choiceControl(field) {
  const radios = field.options.map((option) =>
    el("input", { type: "radio", name: field.name, value: option, id: `f-${field.name}-${option}`, className: "sr" }),
  );
  const labels = radios.map((radio) => el("label", { for: radio.id }, radio.value));
  return {
    parts: [
      title("legend", field),
      el(
        "div",
        { className: "segments" },
        radios.map((radio, i) => [radio, labels[i]]),
      ),
    ],
    inputs: radios,
    read: () => radios.find((radio) => radio.checked)?.value ?? field.default,
    write: (value) => radios.forEach((radio) => (radio.checked = radio.value === String(value))),
  };
}

function numberControl(field) {
  const id = `f-${field.name}`;
  const step = SLIDER_STEP[field.name] ?? (field.isWhole ? 1 : 0.1);
  const number = el("input", {
    type: "number",
    id,
    name: field.name,
    min: field.min,
    max: field.max,
    step: field.isWhole ? 1 : "any",
    inputMode: field.isWhole ? "numeric" : "decimal",
    className: "figures",
  });
  const range = el("input", {
    type: "range",
    min: field.min,
    max: field.max,
    step,
    tabIndex: -1,
    "aria-hidden": "true",
  });
  range.addEventListener("input", () => (number.value = range.value));
  number.addEventListener("input", () => (range.value = number.value === "" ? field.default : number.value));
  const head = el("div", { className: "head" }, title("label", field, { for: id }), number);
  return {
    parts: [
      head,
      el(
        "div",
        { className: "slider" },
        el("span", { className: "hint" }, String(field.min)),
        range,
        el("span", { className: "hint" }, String(field.max)),
      ),
    ],
    inputs: [number],
    read: () => (number.value === "" || Number.isNaN(number.valueAsNumber) ? null : number.valueAsNumber),
    write: (value) => (number.value = range.value = value ?? field.default),
  };
}

function switchControl(field) {
  const box = el("input", { type: "checkbox", id: `f-${field.name}`, name: field.name });
  return {
    parts: [el("div", { className: "check" }, box, title("label", field, { for: box.id }))],
    inputs: [box],
    read: () => box.checked,
    write: (value) => (box.checked = value ?? field.default),
  };
}

function seedControl(field) {
  const random = el("input", {
    type: "radio",
    name: "seed-kind",
    value: "random",
    id: "f-seed-random",
    className: "sr",
  });
  const fixed = el("input", { type: "radio", name: "seed-kind", value: "fixed", id: "f-seed-fixed", className: "sr" });
  const text = el("input", {
    type: "text",
    id: "f-seed",
    inputMode: "numeric",
    autocomplete: "off",
    className: "figures mono",
    "aria-label": t("field.seed"),
  });
  text.dataset.tLabel = "field.seed";
  const follow = () => (text.disabled = random.checked);
  for (const radio of [random, fixed]) {
    radio.addEventListener("change", () => {
      if (fixed.checked && !text.value) text.value = String(crypto.getRandomValues(new Uint32Array(1))[0]);
      follow();
    });
  }
  return {
    parts: [
      title("legend", field),
      el(
        "div",
        { className: "row" },
        el(
          "div",
          { className: "segments" },
          random,
          el("label", { for: random.id, t: "form.random" }),
          fixed,
          el("label", { for: fixed.id, t: "form.fixed" }),
        ),
        text,
      ),
    ],
    inputs: [text],
    read: () => (fixed.checked ? text.value.trim() : null),
    write: (value) => {
      random.checked = value === null || value === undefined || value === "";
      fixed.checked = !random.checked;
      text.value = random.checked ? "" : String(value);
      follow();
    },
  };
}
