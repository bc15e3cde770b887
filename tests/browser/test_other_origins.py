"""Web pages of other origins: they subscribe through fal's client, then play the video."""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from server.fal.example import PHOTO
from tests.harness.chromium import Page
from tests.harness.client_programs import clean_environment
from tests.harness.live_server import ROOT, Server, photo_uri

PAGE = """<!doctype html><meta charset="utf-8"><video id="video" muted></video>
<script src="bundle.js"></script>"""
SCRIPT = """
import { createFalClient } from "current";
import { serverUrl } from "HELPER";
async function main() {
  const fal = createFalClient(CONFIG);
  const statuses = new Set();
  const result = await fal.subscribe("fal-ai/hunyuan-custom", {
    input: INPUT, logs: true, mode: MODE, pollInterval: 100, onQueueUpdate: (update) => statuses.add(update.status),
  });
  const video = document.getElementById("video");
  video.src = result.data.video.url;
  await video.play();
  await new Promise((resolve, reject) => {
    video.onerror = () => reject(new Error(video.error.message));
    video.ontimeupdate = () => video.currentTime > 0.1 && resolve();
  });
  return { requestId: result.requestId, statuses: [...statuses], size: [video.videoWidth, video.videoHeight] };
}
main().catch((error) => ({ error: `${error.name}: ${error.message}` }))
  .then((outcome) => { window.outcome = outcome; });
"""
# A visitor of the example page: first a good request, then one with a prompt that is too long.
VISITOR = """
const [form, video, words] = ["form", "video", "output"].map((name) => document.querySelector(name));
const said = [];
new MutationObserver(() => said.push(words.textContent)).observe(words, { childList: true });
const spoken = (pattern) => new Promise((resolve) => {
  const look = () => (pattern.test(words.textContent) ? resolve() : setTimeout(look, 20));
  look();
});
const files = new DataTransfer();
files.items.add(new File([await (await fetch("woman.jpg")).blob()], "woman.jpg"));
form.photo.files = files.files;
form.requestSubmit();
await spoken(/^Seed/);
await video.play();
const width = video.videoWidth;
form.prompt.removeAttribute("maxlength");
form.prompt.value = "x".repeat(501);
form.requestSubmit();
await spoken(/characters/);
window.outcome = { said, width };
"""


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def website(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server for `tmp_path`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(tmp_path))) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{site.server_port}", tmp_path
        site.shutdown()
        thread.join()


@pytest.mark.parametrize("way", ["middleware, polling", "middleware, streaming", "proxyUrl"])
def test_a_page_subscribes_and_plays(
    tab: Page,
    server: Server,
    node_packages: Path,
    website: tuple[str, Path],
    way: str,
) -> None:
    url, folder = website
    config = f'{{ proxyUrl: "{server.url}/api/fal/proxy" }}'
    if way.startswith("middleware"):
        config = f'{{ credentials: "local:local", requestMiddleware: serverUrl("{server.url}") }}'
    wanted = {"prompt": "a colour", "image_url": photo_uri(), "num_inference_steps": 10, "num_frames": 81}
    script = SCRIPT.replace("HELPER", str(ROOT / "server" / "clients" / "fal_server_url.mjs"))
    script = script.replace("CONFIG", config).replace("INPUT", json.dumps(wanted))
    script = script.replace("MODE", '"streaming"' if way.endswith("streaming") else '"polling"')
    (folder / "page.mjs").write_text(script)
    (folder / "index.html").write_text(PAGE)
    bundle(node_packages, str(folder / "page.mjs"), f"--outfile={folder / 'bundle.js'}")
    tab.go(f"{url}/index.html", ready="window.outcome")
    outcome = tab.js("window.outcome")
    assert outcome.get("size") == [896, 512], outcome
    assert len(outcome["requestId"]) == 36, "the id is in an exposed header"
    assert outcome["statuses"][-1] == "COMPLETED"


def test_the_example_page_makes_and_plays_a_video(
    tab: Page, server: Server, node_packages: Path, website: tuple[str, Path]
) -> None:
    url, folder = website
    bundle(node_packages, "./node_modules/current", "--global-name=falClient", f"--outfile={folder / 'fal_client.js'}")
    page = (ROOT / "docs/examples/javascript/page.html").read_text()
    (folder / "page.html").write_text(page.replace("</body>", f"<script type='module'>{VISITOR}</script></body>"))
    shutil.copy(PHOTO, folder / "woman.jpg")
    tab.go(f"{url}/page.html?server={server.url}", ready="window.outcome")
    outcome = tab.js("window.outcome")
    assert outcome["width"] == 896, outcome
    assert "In the queue" in outcome["said"][1]
    assert any(words.startswith("Denoising step") for words in outcome["said"])
    assert outcome["said"][-1] == "prompt: String should have at most 500 characters"


def bundle(node_packages: Path, *arguments: str) -> None:
    paths = clean_environment(NODE_PATH=str(node_packages / "node_modules"))
    command = ["node_modules/.bin/esbuild", "--bundle", *arguments]
    subprocess.run(command, cwd=node_packages, env=paths, check=True, capture_output=True)
