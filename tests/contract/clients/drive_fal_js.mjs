// Makes every call of the JavaScript client once and prints what came of each as JSON.
// Usage: drive_fal_js.mjs PACKAGE MODE BASE_URL PHOTO HELPER CALL...
//   middleware  the shipped requestMiddleware
//   proxy       proxyUrl, as a browser application would have it
//   server      middleware, then @fal-ai/server-proxy in front of the server
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";

const [name, mode, baseUrl, photo, helper, ...wanted] = process.argv.slice(2);
const require = createRequire(`${process.cwd()}/`);
const { createFalClient, ApiError, ValidationError } = require(name);
const { serverUrl } = await import(helper);
const APP = "fal-ai/hunyuan-custom";

const closing = [];
const config = { credentials: "local:local" };
if (mode === "proxy") {
  config.proxyUrl = { url: `${baseUrl}/api/fal/proxy`, when: "always" };
} else {
  config.requestMiddleware = serverUrl(baseUrl);
  if (mode === "server") config.proxyUrl = { url: await startServerProxy(), when: "always" };
}
const fal = createFalClient(config);

const input = {
  prompt: "a colour",
  image_url: `data:image/jpeg;base64,${readFileSync(photo).toString("base64")}`,
  num_inference_steps: 10,
  num_frames: 81,
};

function check(condition, value) {
  if (!condition) throw new Error(`unexpected: ${JSON.stringify(value)}`);
}

async function fails(promise, status) {
  const error = await promise.then((value) => { throw new Error(`no error but ${JSON.stringify(value)}`); }, (error) => error);
  check(error instanceof ApiError && error.status === status, [String(error), error.status, error.body]);
  return error;
}

async function subscribe(options) {
  const updates = [];
  const result = await fal.subscribe(APP, { input, logs: true, onQueueUpdate: (update) => updates.push(update), ...options });
  check(result.data.video.content_type === "video/mp4", result);
  check(result.requestId.length === 36, result);
  const messages = updates.filter((u) => u.status !== "IN_QUEUE").flatMap((u) => u.logs.map((log) => log.message));
  check(messages.some((message) => message.startsWith("Denoising step")), messages);
  check(updates.at(-1).status === "COMPLETED", updates.at(-1));
  const last = updates.at(-1).logs.map((log) => log.message);
  check(new Set(last).size === last.length, last);
}

const calls = {
  async run() {
    const result = await fal.run(APP, { input: { ...input, seed: 5 } });
    check(result.data.seed === 5 && result.requestId.length === 36, result);
  },
  subscribe: () => subscribe({ pollInterval: 100 }),
  subscribe_streaming: () => subscribe({ mode: "streaming" }),
  async submit_status_result() {
    const { request_id: requestId } = await fal.queue.submit(APP, { input });
    await fal.queue.subscribeToStatus(APP, { requestId, pollInterval: 50 });
    const status = await fal.queue.status(APP, { requestId, logs: true });
    check(status.status === "COMPLETED" && status.metrics.inference_time > 0, status);
    const result = await fal.queue.result(APP, { requestId });
    check(result.data.video.file_size > 0 && result.requestId === requestId, result);
  },
  async cancel() {
    const { request_id: requestId } = await fal.queue.submit(APP, { input: { ...input, prompt: "WORKS_SLOWLY" } });
    await fal.queue.cancel(APP, { requestId });
    await fal.queue.subscribeToStatus(APP, { requestId, pollInterval: 50 });
    await fails(fal.queue.result(APP, { requestId }), 499);
    await fails(fal.queue.cancel(APP, { requestId }), 400);
  },
  async invalid_input() {
    const bad = { ...input, fps: 99 };
    const options = { input: bad, pollInterval: 50 };
    for (const call of [() => fal.run(APP, options), () => fal.subscribe(APP, options)]) {
      const error = await fails(call(), 422); // one after the other: a rejection that nobody awaits yet ends node
      check(error instanceof ValidationError && error.getFieldErrors("fps").length === 1, error.body);
    }
  },
  async unknown_request() {
    await fails(fal.queue.status(APP, { requestId: "0b7f8e8a-0000-4000-8000-000000000000" }), 404);
  },
  async upload() {
    const blob = new Blob([readFileSync(photo)], { type: "image/jpeg" });
    const result = await fal.subscribe(APP, { input: { ...input, image_url: blob }, pollInterval: 50 });
    check(result.data.video.file_size > 0, result);
  },
  async storage_upload() {
    const url = await fal.storage.upload(new Blob([readFileSync(photo)], { type: "image/jpeg" }));
    const served = await fetch(url);
    check(served.status === 200 && served.headers.get("content-type") === "image/jpeg", [url, served.status]);
    check((await served.arrayBuffer()).byteLength === readFileSync(photo).length, url); // unread, it keeps node running
    const result = await fal.subscribe(APP, { input: { ...input, image_url: url }, pollInterval: 50 });
    check(result.data.video.file_size > 0, result);
  },
};

async function startServerProxy() {
  const proxy = require("@fal-ai/server-proxy");
  const host = new URL(baseUrl).host;
  const settings = proxy.resolveProxyConfig({
    allowedUrlPatterns: [`${host}/**`],
    allowedEndpoints: [`run/${APP}`, `queue/${APP}`, "rest/**"],
    allowUnauthorizedRequests: true,
    resolveFalAuth: async () => "Key local:local",
  });
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    await proxy.handleRequest({
      id: "test",
      method: request.method,
      getRequestBody: async () => Buffer.concat(chunks).toString(),
      getHeaders: () => request.headers,
      getHeader: (header) => request.headers[header],
      sendHeader: (header, value) => response.setHeader(header, value),
      respondWith: (status, data) => { response.statusCode = status; response.end(JSON.stringify(data)); },
      sendResponse: async (res) => {
        response.statusCode = res.status;
        if (res.body !== null) for await (const chunk of res.body) response.write(chunk);
        response.end();
      },
    }, settings);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  closing.push(() => { server.closeAllConnections(); server.close(); });
  return `http://127.0.0.1:${server.address().port}/`;
}

const outcome = {};
for (const call of wanted) {
  outcome[call] = await calls[call]().then(() => "ok", (error) => `${error.name}: ${error.message} ${error.stack}`);
}
for (const close of closing) close();
console.log(JSON.stringify({ calls: outcome }));
