// A request as code: the lines of docs/clients.md, for the address of this server. Pure functions; no key is in them.
//
// `request` is {base, needsKey, input, file}: `base` the server's address without a slash at the end, `input` the named
// values in the schema's order, `file` {name, type} where the picture is a file beside the code instead of a URL.

import { bodyText } from "./schema.js";

const ENDPOINT = "fal-ai/hunyuan-custom";
const KEY_NOTE = "The key is in the environment variable FAL_KEY.";

export const LANGUAGES = { python, javascript, curl };

export function python({ base, needsKey, input, file }) {
  const image = file ? `fal_client.encode_file(${JSON.stringify(file.name)})` : null;
  const lines = ordered(input).map(([name, value]) => {
    const shown = name === "image_url" && image ? image : pythonValue(name, value);
    return `        ${JSON.stringify(name)}: ${shown},`;
  });
  return `${needsKey ? `# ${KEY_NOTE}\n` : ""}${pythonServer(base, needsKey)}


def on_queue_update(update):
    if isinstance(update, fal_client.InProgress):
        for log in update.logs:
            print(log["message"])


result = fal_client.subscribe(
    "${ENDPOINT}",
    arguments={
${lines.join("\n")}
    },
    with_logs=True,
    on_queue_update=on_queue_update,
)
print(result["video"]["url"])
`;
}

function pythonServer(base, needsKey) {
  if (base.startsWith("http://")) {
    return `import fal_client\nfrom fal_plain_http import use_server\n\nuse_server(${JSON.stringify(base)})`;
  }
  const host = base.slice("https://".length);
  const key = needsKey ? "" : 'os.environ["FAL_KEY"] = "local:local"\n'; // any will do, but the client wants one
  return `import os

${key}os.environ["FAL_RUN_HOST"] = ${JSON.stringify(`${host}/run`)}
os.environ["FAL_QUEUE_RUN_HOST"] = ${JSON.stringify(`${host}/queue`)}
# A certificate of \`serve --tls-self-signed\` needs SSL_CERT_FILE in the environment too.

import fal_client`;
}

function pythonValue(name, value) {
  if (typeof value === "boolean") return value ? "True" : "False";
  return name === "seed" ? String(value) : JSON.stringify(value);
}

export function javascript({ base, needsKey, input, file }) {
  const image = file ? `\`data:${file.type};base64,\${photo.toString("base64")}\`` : null;
  const lines = ordered(input).map(([name, value]) => {
    const shown = name === "image_url" && image ? image : javascriptValue(name, value);
    return `    ${name}: ${shown},`;
  });
  return `${file ? 'import { readFile } from "node:fs/promises";\n' : ""}import { fal } from "@fal-ai/client";

fal.config({
  credentials: ${needsKey ? "process.env.FAL_KEY" : '"local:local"'},
  proxyUrl: { url: "${base}/api/fal/proxy", when: "always" },
});

${file ? `const photo = await readFile(${JSON.stringify(file.name)});\n` : ""}const result = await fal.subscribe("${ENDPOINT}", {
  input: {
${lines.join("\n")}
  },
  logs: true,
  onQueueUpdate: (update) => {
    if (update.status === "IN_PROGRESS") update.logs.map((log) => log.message).forEach((line) => console.log(line));
  },
});
console.log(result.data.video.url);
`;
}

function javascriptValue(name, value) {
  // A seed that JavaScript would round is sent as text, which the server takes too.
  if (name === "seed") return Number.isSafeInteger(Number(value)) ? String(value) : JSON.stringify(String(value));
  return JSON.stringify(value);
}

export function curl({ base, needsKey, input, file }) {
  const key = needsKey ? ' -H "Authorization: Key $FAL_KEY"' : "";
  const MARK = "\u0000image\u0000";
  let body = bodyText(Object.fromEntries(ordered(file ? { ...input, image_url: MARK } : input)));
  body = body.replace(/[\\$`]/g, "\\$&"); // the shell reads the text below
  if (file) {
    const name = /^[\w.-]+$/.test(file.name) ? file.name : `'${file.name.replaceAll("'", "'\\''")}'`;
    body = body.replace(/\\\\u0000image\\\\u0000/, () => `data:${file.type};base64,$(base64 -w0 ${name})`);
  }
  return `QUEUE=${base}/queue/${ENDPOINT}
cat > in.json <<END
${body}
END
ID=$(curl -s${key} $QUEUE -d @in.json | sed 's/.*"request_id":"\\([^"]*\\)".*/\\1/')
while curl -s${key} "$QUEUE/requests/$ID/status?logs=1" | grep -qv COMPLETED; do sleep 1; done
curl -s${key} "$QUEUE/requests/$ID"
`;
}

/** As the documentation has it: prompt, picture, then the rest. */
function ordered(input) {
  const { prompt, image_url: image, ...rest } = input;
  return Object.entries({ prompt: prompt ?? "", image_url: image ?? "", ...rest });
}
