// One request, followed from the queue to its end: the status stream, and once a second how far it is.
//
// Everything shown comes from the server, so a reload and another tab show the same. A broken connection, or a server
// that restarts, is waited out; the stream goes on behind the last log line that arrived.

import { ApiError, call, callBlob, callJson, calls, ConnectionLost, pause, tellConnection } from "./http.js";
import { QUEUE } from "./submit.js";

const POLL_MS = 1000;
// A hidden tab shows its title alone, and lets go of the stream: a browser has six connections for all tabs together.
const HIDDEN_POLL_MS = 10_000;
const HIDDEN_STREAM_MS = 30_000;
const SILENT_MS = 40_000; // the server says something every 15 s
const PATIENCE_MS = 10_000; // for a figure; a network may be silent without saying so
const RETRY_MS = [500, 1000, 2000, 4000];
const STILL = matchMedia("(prefers-reduced-motion: reduce)");

/** `onChange` is called after every change of `state`. */
export class Live {
  constructor(id, onChange) {
    this.id = id;
    this.path = `requests/${encodeURIComponent(id)}`; // from the address: it is to lead to no other route
    this.state = {
      id,
      request: null,
      status: null,
      position: null,
      progress: null,
      preview: null,
      lines: [],
      isGone: false,
    };
    this.lastLine = "0";
    this.closed = new AbortController();
    this.onChange = () => this.closed.signal.aborted || onChange(this.state);
    this.previewVersion = null;
    document.addEventListener("visibilitychange", () => this.#onVisibility(), { signal: this.closed.signal });
    calls.addEventListener("lost", () => this.stream?.abort(), { signal: this.closed.signal });
    addEventListener("online", () => this.wake?.(), { signal: this.closed.signal });
    this.#follow();
    this.#pollOften();
  }

  close() {
    this.closed.abort();
    this.stream?.abort();
    this.seen?.();
    this.#forgetPreview();
  }

  get isOver() {
    return this.state.isGone || this.state.request?.status === "COMPLETED";
  }

  /** The record of the request, read again: after a cancel, or an expiry. */
  async load() {
    const request = await callJson(`playground/${this.path}`, { signal: this.closed.signal });
    Object.assign(this.state, { request, status: request.status });
    if (request.status === "COMPLETED") this.#forgetPreview();
    this.onChange();
  }

  async #follow() {
    let hasAllLines = false;
    for (let tries = 0; !this.closed.signal.aborted && !this.isOver;) {
      try {
        await this.load();
        if (!this.isOver) await this.#visible();
        if (this.isOver || this.closed.signal.aborted) break;
        if (await this.#readStream()) {
          hasAllLines = true;
          await this.load();
          continue;
        }
        tries = 0; // the server ended the stream: it restarts
      } catch (error) {
        if (this.closed.signal.aborted) return;
        if (error instanceof ApiError && error.status === 404) {
          this.state.isGone = true;
          this.onChange();
          return;
        }
        if (error instanceof ApiError && error.status === 401) await this.#signedIn();
        else if (![ApiError, ConnectionLost].some((kind) => error instanceof kind) && error.name !== "AbortError")
          throw error;
      }
      await this.#wait(RETRY_MS[Math.min(tries++, RETRY_MS.length - 1)]);
    }
    if (!hasAllLines && !this.closed.signal.aborted) await this.#loadLog();
  }

  /** The log of a request whose end was not watched. */
  async #loadLog() {
    try {
      const status = await callJson(`${QUEUE}/${this.path}/status?logs=1`, { signal: this.closed.signal });
      this.state.lines = status.logs ?? [];
      this.onChange();
    } catch {
      // It is an extra: the result is there without.
    }
  }

  /** Read events until the stream ends; true if the request is over. */
  async #readStream() {
    const path = `${QUEUE}/${this.path}/status/stream?logs=1`;
    this.stream = new AbortController();
    const unanswered = setTimeout(() => this.stream.abort(), SILENT_MS);
    const answer = await call(path, {
      signal: this.stream.signal,
      headers: { "Last-Event-ID": this.lastLine },
    }).finally(() => clearTimeout(unanswered));
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const silence = setTimeout(() => this.stream.abort(), SILENT_MS);
      let part;
      try {
        part = await reader.read();
      } catch (error) {
        if (!this.closed.signal.aborted && !this.stream.signal.aborted) tellConnection(false);
        throw new ConnectionLost(error);
      } finally {
        clearTimeout(silence);
      }
      if (part.done) return this.state.status === "COMPLETED";
      const events = (rest + part.value).split("\n\n");
      rest = events.pop();
      events.forEach((event) => this.#take(event));
    }
  }

  #take(event) {
    const lines = event.split("\n");
    const id = lines.find((line) => line.startsWith("id: "));
    const data = lines.find((line) => line.startsWith("data: "));
    if (id) this.lastLine = id.slice(4);
    if (!data) return;
    const status = JSON.parse(data.slice(6));
    const began = this.state.status !== status.status && status.status === "IN_PROGRESS";
    Object.assign(this.state, { status: status.status, position: status.queue_position ?? null });
    if (status.logs) this.state.lines = [...this.state.lines, ...status.logs];
    if (began && this.state.request) this.load().catch(() => {}); // when it started
    this.onChange();
  }

  async #pollOften() {
    while (!this.closed.signal.aborted && !this.isOver) {
      await this.#poll();
      await pause(document.hidden ? HIDDEN_POLL_MS : POLL_MS, this.closed.signal);
    }
  }

  async #poll() {
    if (this.isOver || this.isPolling || !this.state.request) return;
    this.isPolling = true;
    try {
      const signal = AbortSignal.any([this.closed.signal, AbortSignal.timeout(PATIENCE_MS)]);
      const progress = await callJson(`playground/${this.path}/progress`, { signal });
      this.wake?.(); // the server answers: a stream that waits for it need not
      this.state.progress = progress;
      // A hidden tab hears of changes here.
      if (progress.status === "COMPLETED") await this.load();
      else Object.assign(this.state, { status: progress.status, position: progress.queue_position });
      if (progress.preview !== null && progress.preview !== this.previewVersion && !document.hidden)
        await this.#loadPreview(progress.preview);
      this.onChange();
    } catch {
      // The stream says so too, and the next poll comes in a second.
    } finally {
      this.isPolling = false;
    }
  }

  async #loadPreview(version) {
    this.previewVersion = version;
    const blob = await callBlob(`playground/${this.path}/preview`, { signal: this.closed.signal });
    if (this.isOver || this.closed.signal.aborted) return;
    const before = this.state.preview;
    this.state.preview = URL.createObjectURL(STILL.matches ? await firstFrame(blob) : blob);
    // The picture before is on the page until the new one is decoded.
    if (before) setTimeout(() => URL.revokeObjectURL(before), 2000);
  }

  #forgetPreview() {
    if (this.state.preview) URL.revokeObjectURL(this.state.preview);
    this.state.preview = null;
  }

  #wait(ms) {
    return new Promise((resolve) => {
      this.wake = resolve;
      pause(ms, this.closed.signal).then(resolve);
    });
  }

  #onVisibility() {
    clearTimeout(this.letGo);
    if (document.hidden) this.letGo = setTimeout(() => this.stream?.abort(), HIDDEN_STREAM_MS);
    else {
      this.seen?.();
      this.#poll();
    }
  }

  async #visible() {
    if (document.hidden) await new Promise((resolve) => (this.seen = resolve));
  }

  #signedIn() {
    return new Promise((resolve) => calls.addEventListener("signedIn", resolve, { once: true }));
  }
}

/** An animated picture without its animation. */
async function firstFrame(blob) {
  const frame = await createImageBitmap(blob);
  const canvas = new OffscreenCanvas(frame.width, frame.height);
  canvas.getContext("2d").drawImage(frame, 0, 0);
  frame.close();
  return canvas.convertToBlob();
}
