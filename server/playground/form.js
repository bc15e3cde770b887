// The form of the endpoint's input, built from its schema.

import { announce, el } from "./dom.js";
import { duration } from "./format.js";
import { ImageField } from "./image_field.js";
import { hasMessage, language, t } from "./messages.js";
import { chosen, fieldsOf, frameSize, valuesOf } from "./schema.js";

// Those that most requests set stand in the open; the rest is one click away.
const BASIC = ["image_url", "prompt", "aspect_ratio", "resolution", "num_frames"];
const MORE = ["num_inference_steps", "cfg_scale", "fps", "seed", "negative_prompt", "enable_prompt_expansion", "enable_safety_checker"];
const SLIDER_STEP = { num_frames: 4, cfg_scale: 0.5 }; // the slider's; the number beside it takes any value

/** Reads and writes the values of all fields, and shows what the API says about each. */
export class Form {
  constructor(session, root) {
    this.fields = fieldsOf(session.input_schema);
    this.byName = Object.fromEntries(this.fields.map((field) => [field.name, field]));
    this.example = session.example?.prompt ?? this.byName.prompt.example ?? "";
    this.sizes = session.crop.sizes;
    this.root = root;
    this.controls = {};
    this.image = new ImageField({
      limits: session.limits,
      cutsOut: session.crop.background === "white",
      frame: () => frameSize(this.values(), this.sizes),
      onChange: () => this.#changed("image_url"),
    });
    this.#build(this.example);
    this.reset();
  }

  #build(example) {
    const known = new Set([...BASIC, ...MORE]);
    const unknown = this.fields.map((field) => field.name).filter((name) => !known.has(name)); // of a newer server
    const basic = BASIC.filter((name) => name in this.byName).map((name) => this.#field(name, example));
    const more = [...MORE, ...unknown].filter((name) => name in this.byName).map((name) => this.#field(name, example));
    this.count = el("span", { className: "muted" });
    const summary = el("summary", {}, el("span", { t: "form.more" }), " ", this.count);
    this.more = el("details", { className: "more" }, summary, el("div", { className: "fields" }, more));
    this.root.replaceChildren(el("div", { className: "fields" }, basic), this.more);
    this.root.addEventListener("input", (event) => {
      const name = event.target.closest("[data-field]")?.dataset.field;
      if (name && name !== "image_url") this.#changed(name);
    });
    document.addEventListener("language", () => this.#describe());
  }

  #field(name, example) {
    if (name === "image_url") return this.image.root;
    const field = this.byName[name];
    const make = { text: textControl, choice: choiceControl, number: numberControl, switch: switchControl, seed: seedControl };
    const made = make[field.kind](field, example);
    this.controls[name] = made;
    made.error = el("p", { className: "error", id: `e-${name}` });
    made.hint = el("p", { className: "hint", id: `h-${name}` });
    for (const input of made.inputs) input.setAttribute("aria-describedby", `h-${name} e-${name}`);
    const group = ["choice", "seed"].includes(field.kind);
    return el(
      group ? "fieldset" : "div",
      { className: `field ${field.kind} ${name}`, data: { field: name } },
      made.parts,
      made.hint,
      made.error,
    );
  }

  /** The value of every field; null where the server should choose. */
  values() {
    const values = Object.fromEntries(Object.entries(this.controls).map(([name, control]) => [name, control.read()]));
    return { ...values, image_url: this.image.url };
  }

  /** The values that a request names. */
  named() {
    return chosen(this.fields, this.values());
  }

  reset() {
    this.#write(valuesOf(this.fields, {}, null));
    this.image.clear(); // is a change
  }

  /** Take over values that `values` gave. */
  restore(values) {
    this.#write(valuesOf(this.fields, values, values.seed));
    if (values.image_url) this.image.takeUrl(values.image_url);
  }

  /** Take over the settings, the seed and the picture of an earlier request. */
  async fill(request) {
    this.#write(valuesOf(this.fields, request.input, request.seed));
    await this.image.takeFrom(request);
    this.#changed("image_url", false);
  }

  #write(values) {
    for (const [name, control] of Object.entries(this.controls)) control.write(values[name]);
    this.clearErrors();
    this.#describe();
  }

  #changed(name, isFixed = true) {
    if (isFixed) this.#showError(name, "");
    this.#describe();
    if (name === "aspect_ratio" || name === "resolution") this.image.draw();
    this.root.dispatchEvent(new Event("changed", { bubbles: true }));
  }

  /** The lines under the fields that depend on values. */
  #describe() {
    const values = this.values();
    for (const field of this.fields) {
      const control = this.controls[field.name];
      if (!control) continue;
      control.describe?.();
      control.hint.textContent = this.#hint(field, values);
    }
    const named = this.named();
    const changes = MORE.filter((name) => name in named).length;
    this.count.textContent = changes ? t("form.changed", { n: changes }) : "";
  }

  #hint(field, values) {
    if (field.name === "num_frames") {
      const fps = values.fps ?? this.byName.fps.default;
      const seconds = duration((values.num_frames ?? field.default) / fps, language());
      return t("form.length", { seconds, fps });
    }
    if (field.name === "resolution") return t("form.pixels", frameSize(values, this.sizes));
    if (hasMessage(`hint.${field.name}`)) return t(`hint.${field.name}`);
    return hasMessage(`field.${field.name}`) ? "" : field.description;
  }

  clearErrors() {
    for (const name of Object.keys(this.controls)) this.#showError(name, "");
    this.image.showError("");
  }

  /** Show [{field, message}] of the API beside the fields; returns those that are about none of them. */
  showErrors(errors) {
    const shown = errors.filter(({ field }) => field in this.byName);
    for (const { field, message } of shown) this.#showError(field, message);
    if (shown.length) {
      announce(shown.map(({ field, message }) => `${titleOf(this.byName[field])}: ${message}`).join(". "));
      const first = this.root.querySelector("[aria-invalid=true]");
      if (first?.closest("details.more")) this.more.open = true;
      if (shown[0].field === "image_url") this.image.focus();
      else this.controls[shown[0].field].inputs[0].focus();
    }
    return errors.filter((error) => !shown.includes(error));
  }

  #showError(name, text) {
    if (name === "image_url") {
      this.image.showError(text);
      return;
    }
    const control = this.controls[name];
    control.error.textContent = text;
    for (const input of control.inputs) input.setAttribute("aria-invalid", text ? "true" : "false");
  }
}

const titleOf = (field) => (hasMessage(`field.${field.name}`) ? t(`field.${field.name}`) : field.title);

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
    parts: [title("legend", field), el("div", { className: "segments" }, radios.map((radio, i) => [radio, labels[i]]))],
    inputs: radios,
    read: () => radios.find((radio) => radio.checked)?.value ?? field.default,
    write: (value) => radios.forEach((radio) => (radio.checked = radio.value === String(value))),
  };
}

function numberControl(field) {
  const id = `f-${field.name}`;
  const step = SLIDER_STEP[field.name] ?? (field.isWhole ? 1 : 0.1);
  const number = el("input", { type: "number", id, name: field.name, min: field.min, max: field.max, step: field.isWhole ? 1 : "any", inputMode: field.isWhole ? "numeric" : "decimal", className: "figures" });
  const range = el("input", { type: "range", min: field.min, max: field.max, step, tabIndex: -1, "aria-hidden": "true" });
  range.addEventListener("input", () => (number.value = range.value));
  number.addEventListener("input", () => (range.value = number.value === "" ? field.default : number.value));
  const head = el("div", { className: "head" }, title("label", field, { for: id }), number);
  return {
    parts: [head, el("div", { className: "slider" }, el("span", { className: "hint" }, String(field.min)), range, el("span", { className: "hint" }, String(field.max)))],
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
  const random = el("input", { type: "radio", name: "seed-kind", value: "random", id: "f-seed-random", className: "sr" });
  const fixed = el("input", { type: "radio", name: "seed-kind", value: "fixed", id: "f-seed-fixed", className: "sr" });
  const text = el("input", { type: "text", id: "f-seed", inputMode: "numeric", autocomplete: "off", className: "figures mono", "aria-label": t("field.seed") });
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
        el("div", { className: "segments" }, random, el("label", { for: random.id, t: "form.random" }), fixed, el("label", { for: fixed.id, t: "form.fixed" })),
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
