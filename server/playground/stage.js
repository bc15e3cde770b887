// The chosen request, in the view for its state.

import { BusyView } from "./busy_view.js";
import { announce, el } from "./dom.js";
import { percent } from "./format.js";
import { t } from "./messages.js";
import { problem } from "./problems.js";
import { resultView } from "./result_view.js";
import { fieldsOf } from "./schema.js";
import { LogBox, message } from "./stage_parts.js";

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
    this.clear();
    document.addEventListener("language", () => this.#again());
  }

  /** No request is chosen. */
  clear() {
    this.#end();
    this.root.replaceChildren(...this.empty);
    this.state = null;
    this.shown = "";
  }

  #again() {
    if (!this.state) return;
    this.shown = "";
    this.show(this.state);
  }

  #end() {
    this.ended?.abort();
    this.ended = new AbortController();
    this.busy = null;
  }

  /** Show a state; what is there already is kept, so that a video plays on and the focus stays. */
  show(state) {
    this.state = state;
    const what = `${state.id} ${viewOf(state)}`;
    if (what !== this.shown) {
      const wasShown = this.shown.startsWith(state.id);
      this.shown = what;
      this.#end();
      this.log = new LogBox({ isOpen: wasShown && this.log?.isOpen });
      const hadFocus = this.root.contains(document.activeElement);
      this.root.replaceChildren(...this.#view(state));
      if (hadFocus) this.root.focus(); // its button is gone
      if (wasShown) announceEnd(state);
    }
    this.busy?.fill(state);
    this.log.fill(state.lines);
  }

  #view(state) {
    const parts = { actions: this.actions, stage: this, log: this.log, signal: this.ended.signal };
    switch (viewOf(state)) {
      case "gone":
        return [message("warn", t("stage.gone"))];
      case "loading":
        return [el("div", { className: "frame waiting", "aria-busy": "true" })];
      case "busy":
        this.busy = new BusyView(state.request, parts);
        return this.busy.elements;
      default:
        return resultView(state.request, parts);
    }
  }
}

function viewOf({ request, isGone }) {
  if (isGone) return "gone";
  if (!request) return "loading";
  if (request.status !== "COMPLETED") return "busy";
  return request.error ? "failed" : request.expired ? "expired" : "video";
}

function announceEnd(state) {
  if (state.request?.status !== "COMPLETED") return;
  const { error, expired } = state.request;
  announce(error ? problem(error).sentence : t(expired ? "result.expired" : "result.ready"));
}

/** The title of the tab while a request is on its way, "" otherwise. */
export function titleOf(state) {
  if (!state.request || state.request.status === "COMPLETED") return "";
  if (state.status === "IN_QUEUE") return t("title.queued");
  return `${Math.floor(percent(state.progress ?? {}))} %`;
}
