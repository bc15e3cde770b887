// The way of a request to the queue.

import { call, ConnectionLost, pause } from "./http.js";

export const QUEUE = "queue/fal-ai/hunyuan-custom";
const SUBMIT_TRIES = 4;

/** Submit once, however often it has to be tried: the server knows a repeated call by its Idempotency-Key. */
export async function send(body) {
  const headers = { "Content-Type": "application/json", "Idempotency-Key": newKey() };
  for (let tries = 1; ; tries++) {
    try {
      const answer = await call(QUEUE, { method: "POST", body, headers });
      return (await answer.json()).request_id;
    } catch (error) {
      const mayPass = error instanceof ConnectionLost || [502, 504].includes(error.status); // of a proxy
      if (!mayPass || tries === SUBMIT_TRIES) throw error;
      await pause(1000 * tries);
    }
  }
}

/** `crypto.randomUUID` is missing on pages that come over plain http from another machine. */
function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
