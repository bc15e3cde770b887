// The picture of the subject: dropped, pasted, chosen, photographed or named by a URL; and what the model sees of it.

import { drawFrame, coverage } from "./crop.js";
import { announce, el, icon } from "./dom.js";
import { bytes } from "./format.js";
import { ApiError, callBlob, ConnectionLost, ownFile } from "./http.js";
import { language, t } from "./messages.js";
import { isKept, isOwnUpload, upload } from "./upload.js";

const ACCEPTED = "image/jpeg,image/png,image/webp,image/avif,image/gif,image/bmp,image/tiff";

/**
 * The field's state is one of: nothing; a file of this machine that is on its way or uploaded; a URL of elsewhere.
 * `onChange` is called when another picture is there, `frame` says the size of the video in pixels, `cutsOut` whether
 * the server puts the subject on white.
 */
export class ImageField {
  constructor({ limits, cutsOut, frame, onChange }) {
    this.limits = limits;
    this.cutsOut = cutsOut;
    this.frame = frame;
    this.onChange = onChange;
    this.file = null; // a Blob with a name
    this.picture = null; // an ImageBitmap of it, if this browser can show it
    this.url = ""; // what a request will name
    this.sending = null; // the promise of an upload under way
    this.root = this.#build();
    this.#listen();
  }

  #build() {
    this.input = el("input", {
      type: "file",
      accept: ACCEPTED,
      id: "f-image_url",
      className: "sr",
      "aria-describedby": "e-image_url image-hint",
    });
    this.camera = el("input", { type: "file", accept: "image/*", id: "f-camera", className: "sr" });
    this.camera.setAttribute("capture", "environment");
    this.address = el("input", {
      type: "url",
      id: "f-url",
      inputMode: "url",
      autocomplete: "off",
      spellcheck: false,
      maxLength: 2048,
      "data-t-placeholder": "image.orUrl",
      placeholder: t("image.orUrl"),
      "aria-describedby": "e-image_url",
    });
    this.canvas = el("canvas", { role: "img", "aria-label": "" });
    this.caption = el("p", { className: "hint" });
    this.bar = el("progress", {
      max: 1,
      value: 0,
      hidden: true,
      "data-t-label": "form.sendingImage",
      "aria-label": t("form.sendingImage"),
    });
    this.remove = el("button", { type: "button", className: "quiet icon remove" }, icon("close"));
    this.remove.dataset.tLabel = "image.remove";
    this.remove.setAttribute("aria-label", t("image.remove"));
    this.view = el("div", { className: "view", hidden: true }, this.canvas, this.bar, this.remove);
    this.buttons = el(
      "div",
      { className: "row" },
      this.input,
      el("label", { for: "f-image_url", className: "button" }, icon("upload"), el("span", { t: "image.choose" })),
      el(
        "span",
        { className: "camera" },
        this.camera,
        el("label", { for: "f-camera", className: "button" }, icon("camera"), el("span", { t: "image.camera" })),
      ),
    );
    this.empty = el("div", { className: "empty" }, el("p", { className: "hint", id: "image-hint", t: "image.drop" }));
    this.named = el(
      "div",
      { className: "url" },
      el("label", { for: "f-url", className: "sr", t: "image.url" }),
      this.address,
    );
    this.zone = el("div", { className: "drop" }, this.empty, this.view, this.buttons, this.named);
    this.error = el("p", { className: "error", id: "e-image_url" });
    return el(
      "div",
      { className: "field image", data: { field: "image_url" } },
      el("label", { for: "f-image_url", t: "field.image_url" }),
      this.zone,
      this.caption,
      this.error,
    );
  }

  #listen() {
    for (const input of [this.input, this.camera]) {
      input.addEventListener("change", () => {
        if (input.files[0]) this.take(input.files[0]);
        input.value = "";
      });
    }
    this.address.addEventListener("change", () => this.takeUrl(this.address.value));
    this.remove.addEventListener("click", () => {
      this.clear();
      this.input.focus();
    });
    let depth = 0;
    const hover = (isOver) => this.zone.classList.toggle("over", isOver);
    const hasFile = (event) => event.dataTransfer.types.includes("Files");
    // A link or picture of another page counts in the field alone: the tiles of the history are links too.
    const takes = (event) =>
      hasFile(event) || (event.dataTransfer.types.includes("text/uri-list") && this.zone.contains(event.target));
    document.addEventListener("dragenter", (event) => hasFile(event) && (depth++, hover(true)));
    document.addEventListener("dragleave", (event) => hasFile(event) && --depth <= 0 && hover(false));
    document.addEventListener("dragover", (event) => takes(event) && event.preventDefault());
    document.addEventListener("drop", (event) => {
      depth = 0;
      hover(false);
      if (!takes(event)) return;
      event.preventDefault(); // also beside the field: the browser would leave the page and show the file
      const [file] = event.dataTransfer.files;
      const url = event.dataTransfer.getData("text/uri-list").split("\n")[0];
      if (file) this.take(file);
      else if (/^https?:/.test(url)) this.takeUrl(url);
    });
    document.addEventListener("paste", (event) => {
      const file = [...event.clipboardData.files].find((item) => item.type.startsWith("image/"));
      if (!file) return;
      event.preventDefault();
      this.take(file);
    });
    document.addEventListener("language", () => this.draw());
  }

  /** A file of this machine: shown at once, and sent. */
  async take(file) {
    this.#reset();
    if (file.type && !file.type.startsWith("image/")) return this.showError(t("image.notImage"));
    if (file.size > this.limits.max_image_bytes) {
      return this.showError(t("image.tooLarge", { max: bytes(this.limits.max_image_bytes, language()) }));
    }
    this.file = file;
    const shown = decoded(file);
    this.sending = this.#send(file);
    const picture = await shown;
    if (this.file !== file) return undefined;
    this.picture = picture;
    this.draw();
    return this.sending;
  }

  /** The photograph that comes with the server. */
  async takeExample() {
    const photo = await callBlob("static/example.jpg").catch(() => null);
    if (photo && this.isEmpty) this.take(new File([photo], "eileen_collins.jpg", { type: photo.type }));
  }

  async #send(file) {
    this.stop = new AbortController();
    this.bar.hidden = false;
    this.bar.value = 0;
    try {
      const url = await upload(file, { onProgress: (share) => (this.bar.value = share), signal: this.stop.signal });
      if (this.file !== file) return;
      this.url = url;
      this.showError("");
      this.onChange();
    } catch (error) {
      if (error.name === "AbortError" || this.file !== file) return;
      this.showError(error instanceof ConnectionLost ? t("image.notSent") : error.message);
    } finally {
      if (this.file === file) {
        this.bar.hidden = true;
        this.sending = null;
        this.draw();
      }
    }
  }

  /** A picture of elsewhere, which the server will fetch; this page may not. */
  takeUrl(url) {
    this.#reset();
    this.url = url.trim();
    this.address.value = this.url;
    if (isOwnUpload(this.url)) this.#showStored(ownFile(this.url));
    this.draw();
    this.onChange();
  }

  async #showStored(address) {
    const image = new Image();
    image.src = address;
    const before = this.url;
    await image.decode().catch(() => null);
    if (this.url !== before || !image.naturalWidth) return;
    this.picture = await decoded(image);
    this.draw();
  }

  /** The picture of an earlier request: its own URL if that still works, else what the server has kept of it. */
  async takeFrom(request) {
    const named = request.input?.image_url ?? "";
    const isLost = isOwnUpload(named) && !(await isKept(named).catch(() => false));
    if (named && !isLost) {
      this.takeUrl(named);
      return;
    }
    this.#reset();
    this.draw();
    try {
      const blob = await callBlob(`playground/requests/${request.request_id}/image`);
      await this.take(new File([blob], `picture.${blob.type.split("/")[1] ?? "png"}`, { type: blob.type }));
    } catch (error) {
      this.showError(error instanceof ApiError ? t("image.notKept") : error.message);
    }
  }

  /**
   * The URL to submit, "" if there is no picture. Waits for an upload; one that expired meanwhile is sent again.
   */
  async ready() {
    if (this.sending) await this.sending;
    else if (this.file && !this.url) await (this.sending = this.#send(this.file));
    if (this.url && isOwnUpload(this.url) && !(await isKept(this.url))) {
      if (!this.file) {
        this.showError(t("image.expired"));
        return "";
      }
      this.url = "";
      await (this.sending = this.#send(this.file));
      if (this.url) announce(t("image.sentAgain"));
    }
    return this.url;
  }

  clear() {
    this.#reset();
    this.draw();
    this.onChange();
  }

  #reset() {
    this.stop?.abort();
    this.picture?.close();
    Object.assign(this, { file: null, picture: null, url: "", sending: null, stop: null });
    this.address.value = "";
    this.bar.hidden = true;
    this.showError("");
  }

  get isEmpty() {
    return !this.file && !this.url;
  }

  /** Draw what the model will see; also called when the size of the video changes. */
  draw() {
    this.view.hidden = this.isEmpty;
    this.empty.hidden = !this.isEmpty;
    this.zone.classList.toggle("filled", !this.isEmpty);
    this.named.classList.toggle("used", !this.file && !isOwnUpload(this.url));
    this.canvas.hidden = !this.picture;
    this.remove.hidden = this.isEmpty;
    this.caption.textContent = this.#captionText();
    this.root.querySelector("label[for=f-image_url] [data-t]").dataset.t = this.isEmpty
      ? "image.choose"
      : "image.replace";
    this.root.querySelector("label[for=f-image_url] [data-t]").textContent = t(
      this.isEmpty ? "image.choose" : "image.replace",
    );
  }

  #captionText() {
    if (this.isEmpty) return "";
    if (!this.picture) return t(this.file ? "image.noPreview" : "image.fetched");
    const { width, height } = this.frame();
    const box = drawFrame(this.canvas, this.picture, width, height);
    const margin = Math.round((1 - coverage(box, width, height)) * 100);
    const seen = t(margin > 1 ? "image.seesWhite" : "image.sees", { width, height, margin });
    const text = this.cutsOut ? `${seen} ${t("image.cutOut")}` : seen;
    this.canvas.setAttribute("aria-label", text);
    return text;
  }

  showError(text) {
    this.error.textContent = text;
    for (const input of [this.input, this.address]) input.setAttribute("aria-invalid", text ? "true" : "false");
    if (text) announce(`${t("field.image_url")}: ${text}`);
  }

  focus() {
    (this.isEmpty ? this.input : this.address.value ? this.address : this.input).focus();
  }
}

const LARGEST = 2048; // pixels that are kept of a picture: the preview needs no more, and 50 megapixels are 200 MB

/** A picture as an ImageBitmap, upright; null if this browser cannot read it. */
async function decoded(source) {
  try {
    const whole = await createImageBitmap(source);
    const side = Math.max(whole.width, whole.height);
    if (side <= LARGEST) return whole;
    const small = await createImageBitmap(whole, {
      resizeWidth: Math.round((whole.width / side) * LARGEST),
      resizeQuality: "medium",
    });
    whole.close();
    return small;
  } catch {
    return null;
  }
}
