// Makes a video with clients that were made for fal's hosts, which lead to this server as by a hosts entry.
// Usage: drive_other_js.mjs BASE_URL PHOTO CALL...; prints what came of each call as JSON.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import net from "node:net";

const [baseUrl, photo, ...wanted] = process.argv.slice(2);
const require = createRequire(`${process.cwd()}/`);
const APP = "fal-ai/hunyuan-custom";
const bytes = readFileSync(photo);
const quick = { num_inference_steps: 10, num_frames: 81 };
const input = { prompt: "a colour", image_url: `data:image/jpeg;base64,${bytes.toString("base64")}`, ...quick };

const connect = net.Socket.prototype.connect;
net.Socket.prototype.connect = function (...given) {
  const options = Array.isArray(given[0]) ? given[0][0] : given[0];
  if (/^([a-z0-9.]+\.)?fal\.(run|ai|media)$/.test(options.host ?? "")) {
    Object.assign(options, { host: "127.0.0.1", port: Number(new URL(baseUrl).port) });
  }
  return connect.apply(this, given);
};

function check(condition, value) {
  if (!condition) throw new Error(`unexpected: ${JSON.stringify(value)}`);
}

const isVideo = (content) => Buffer.from(content).subarray(4, 8).toString() === "ftyp";

const generate = (createOptions) => {
  const { createFal } = require("@ai-sdk/fal");
  const { experimental_generateVideo: generateVideo } = require("ai");
  return generateVideo({
    model: createFal({ apiKey: "local:local", ...createOptions }).video(APP),
    prompt: { text: "a colour", image: bytes },
    aspectRatio: "9:16",
    seed: 5,
    maxRetries: 0,
    providerOptions: { fal: { ...quick, pollIntervalMs: 100 } },
  });
};

const calls = {
  async ai_sdk() {
    const { video, providerMetadata } = await generate({});
    check(isVideo(video.uint8Array) && providerMetadata.fal.seed === 5, providerMetadata);
  },
  // What keeps it from a server at an address of this machine, without fal's host names.
  async ai_sdk_elsewhere() {
    const moved = (url, options) => fetch(String(url).replace("https://queue.fal.run", `${baseUrl}/queue`), options);
    const error = await generate({ fetch: moved }).then(() => undefined, (error) => error);
    check(error !== undefined, "a video");
    console.error(String(error));
  },
  async huggingface() {
    const { InferenceClient } = require("@huggingface/inference");
    const mapping = { "fal-ai": { providerId: APP, status: "live", task: "image-to-video" } };
    const really = globalThis.fetch;
    globalThis.fetch = async (url, options) => // the hub, which knows what a model is called at its provider
      String(url).startsWith("https://huggingface.co/") ? Response.json({ inferenceProviderMapping: mapping }) : really(url, options);
    const awake = setInterval(() => {}, 1000); // the client's own timer does not keep node running
    const video = await new InferenceClient("local:local").imageToVideo({
      provider: "fal-ai",
      model: "tencent/HunyuanCustom",
      inputs: new Blob([bytes], { type: "image/jpeg" }),
      parameters: { prompt: "a colour", ...quick },
    });
    clearInterval(awake);
    globalThis.fetch = really;
    check(isVideo(await video.arrayBuffer()), video);
  },
  async serverless_client() {
    const fal = require("@fal-ai/serverless-client");
    fal.config({ credentials: "local:local" });
    const ran = await fal.run(APP, { input: { ...input, seed: 5 } });
    check(ran.seed === 5, ran);
    const updates = [];
    const result = await fal.subscribe(APP, { input, logs: true, pollInterval: 100, onQueueUpdate: (update) => updates.push(update) });
    check(result.video.content_type === "video/mp4" && updates.at(-1).status === "COMPLETED", [result, updates]);
    const url = await fal.storage.upload(new Blob([bytes], { type: "image/jpeg" }));
    const uploaded = await fal.subscribe(APP, { input: { ...input, image_url: url }, pollInterval: 100 });
    check(uploaded.video.file_size > 0, uploaded);
  },
};

const outcome = {};
for (const call of wanted) {
  outcome[call] = await calls[call]().then(() => "ok", (error) => `${error.name}: ${error.message} ${error.stack} ${error.cause}`);
}
console.log(JSON.stringify({ calls: outcome }));
