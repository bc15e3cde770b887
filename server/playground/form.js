// The form of the endpoint's input, built from its schema.

import { control, titleOf } from "./controls.js";
import { announce, el } from "./dom.js";
import { duration } from "./format.js";
import { ImageField } from "./image_field.js";
import { hasMessage, language, t } from "./messages.js";
import { chosen, fieldsOf, frameSize, valuesOf } from "./schema.js";

// Those that most requests set stand in the open; the rest is one click away.
const BASIC = ["image_url", "prompt", "aspect_ratio", "resolution", "num_frames"];
const MORE = [
  "num_inference_steps",
  "cfg_scale",
  "fps",
  "seed",
  "negative_prompt",
  "enable_prompt_expansion",
  "enable_safety_checker",
];

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
    this.root.addEventListener("example", () => this.image.isEmpty && this.image.takeExample());
    document.addEventListener("language", () => this.#describe());
  }

  #field(name, example) {
    if (name === "image_url") return this.image.root;
    const field = this.byName[name];
    const made = control(field, example);
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
    const values = Object.fromEntries(Object.entries(this.controls).map(([name, { read }]) => [name, read()]));
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
    for (const [name, { write }] of Object.entries(this.controls)) write(values[name]);
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
      const shown = this.controls[field.name];
      if (!shown) continue;
      shown.describe?.();
      shown.hint.textContent = this.#hint(field, values);
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
    const { error, inputs } = this.controls[name];
    error.textContent = text;
    for (const input of inputs) input.setAttribute("aria-invalid", text ? "true" : "false");
  }
}
