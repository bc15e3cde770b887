// One video, with the job's log while it is made; Ctrl+C cancels it.
//
//   npm install @fal-ai/client
//   node subscribe.mjs woman.jpg "A woman is playing a violin." out.mp4
//
// HUNYUAN_URL names the server, FAL_KEY its key if it asks for one. `fal_server_url.mjs` stands beside this file.
import { createWriteStream } from "node:fs";
import { readFile, rename, rm } from "node:fs/promises";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createFalClient } from "@fal-ai/client";
import { serverUrl } from "./fal_server_url.mjs";

const ENDPOINT = "fal-ai/hunyuan-custom";
const [photo, prompt, video] = process.argv.slice(2);
const fal = createFalClient({
  credentials: process.env.FAL_KEY ?? "local:local",
  requestMiddleware: serverUrl(process.env.HUNYUAN_URL ?? "http://127.0.0.1:8000"),
});

/** Prints what is new: every update brings all lines of the log so far. */
function progress() {
  let position;
  let printed = 0;
  return (update) => {
    if (update.status === "IN_QUEUE" && update.queue_position !== position) {
      position = update.queue_position;
      console.log(`In the queue, ${position} before this request`);
    }
    const lines = update.logs ?? [];
    lines.slice(printed).forEach((line) => console.log(line.message));
    printed = Math.max(printed, lines.length);
  };
}

/** The file appears under its name when all of it is there. */
async function download(url, path) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url}: HTTP ${answer.status}`);
  const part = `${path}.part`;
  try {
    await pipeline(Readable.fromWeb(answer.body), createWriteStream(part));
    await rename(part, path);
  } finally {
    await rm(part, { force: true });
  }
}

try {
  const image_url = await fal.storage.upload(new Blob([await readFile(photo)]));
  const result = await fal.subscribe(ENDPOINT, {
    input: { prompt, image_url },
    logs: true,
    onEnqueue: (requestId) => process.once("SIGINT", () => fal.queue.cancel(ENDPOINT, { requestId })),
    onQueueUpdate: progress(),
  });
  await download(result.data.video.url, video);
  console.log(`${video}, seed ${result.data.seed}`);
} catch (error) {
  console.error(error.message, JSON.stringify(error.body ?? "")); // the body says which field is wrong
  process.exitCode = 1;
}
