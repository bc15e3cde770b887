// What went wrong, for people: one sentence of ours, and what the API said.

import { fieldErrors } from "./http.js";
import { hasMessage, t } from "./messages.js";

/**
 * An error of a finished request ({status, body}) as {type, sentence, detail, fields}; `fields` are its errors about
 * fields of the input.
 */
export function problem({ status, body }) {
  const fields = fieldErrors(body);
  const type = fields[0]?.type || body?.error_type || "";
  const said = fields.map(({ field, message }) => (field ? `${field}: ${message}` : message)).join("\n");
  return { type, sentence: t(sentenceKey(type, status)), detail: said || textOf(body?.detail), fields };
}

function textOf(detail) {
  return typeof detail === "string" ? detail : "";
}

/** The message key for a kind of failure; the kinds are fal's. */
function sentenceKey(type, status) {
  if (hasMessage(`problem.${type}`)) return `problem.${type}`;
  return status === 422 ? "problem.invalid" : "problem.other";
}
