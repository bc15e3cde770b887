// Point the unmodified JavaScript client of fal at a server of your own, in node or a browser:
//
//     import { fal } from "@fal-ai/client";
//     import { serverUrl } from "./fal_server_url.mjs"; // this file, copied beside your code
//
//     fal.config({ credentials: "local:local", requestMiddleware: serverUrl("http://127.0.0.1:8000") });
//     await fal.subscribe("fal-ai/hunyuan-custom", { input: { ... } });

const PREFIXES = {
  "fal.run": "/run",
  "queue.fal.run": "/queue",
  "rest.fal.ai": "/rest",
  "rest.alpha.fal.ai": "/rest",
  "v3.fal.media": "/cdn",
};

/** A `requestMiddleware` that sends every call for fal's hosts to `baseUrl`, and leaves others alone. */
export function serverUrl(baseUrl) {
  const base = baseUrl.replace(/\/+$/, "");
  return async (request) => {
    const url = new URL(request.url);
    const prefix = PREFIXES[url.host];
    return prefix === undefined ? request : { ...request, url: base + prefix + url.pathname + url.search };
  };
}
