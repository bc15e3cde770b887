"""The Python, shell and n8n examples run as they stand, against a real server."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from email.message import Message
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from server.fal.example import PHOTO
from server.fal.schemas import HunyuanCustomInput
from server.webhooks.signature import WebhookSigner
from tests.harness.client_programs import clean_environment, load_file, missing
from tests.harness.keyed import create_key
from tests.harness.live_server import ROOT, Server

EXAMPLES = ROOT / "docs" / "examples"
SHELL = EXAMPLES / "shell" / "generate.sh"


@dataclass(frozen=True)
class Run:
    """What came of an example, and the folder it ran in."""

    folder: Path
    code: int
    output: str
    errors: str

    def has_video(self) -> bool:
        return (self.folder / "out.mp4").read_bytes()[4:8] == b"ftyp"


def run(path: Path, folder: Path, *arguments: str, url: str, **environment: str) -> Run:
    """With a `woman.jpg` at hand."""
    shutil.copy(PHOTO, folder / "woman.jpg")
    program = [sys.executable] if path.suffix == ".py" else ["bash"]
    variables = {"HUNYUAN_URL": url, "PYTHONPATH": str(ROOT / "server" / "clients"), **environment}
    done = subprocess.run(
        [*program, str(path), *arguments],
        cwd=folder, env=clean_environment(**variables), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return Run(folder, done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def runs(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, "Future[Run]"]]:
    """All that wait for the server, at the same time."""
    one_video = ("woman.jpg", "a colour", "out.mp4")
    python, batch = EXAMPLES / "python", tmp_path_factory.mktemp("batch")
    photos = batch / "photos"
    photos.mkdir()
    for name in ("a.jpg", "b.JPG"):
        shutil.copy(PHOTO, photos / name)
    (photos / "notes.txt").write_text("no image")
    (photos / "c.png").write_text("no image either")

    def elsewhere(path: Path, *arguments: str, **environment: str) -> Run:
        return run(path, tmp_path_factory.mktemp("example"), *arguments, url=server.url, **environment)

    with ThreadPoolExecutor() as pool:
        yield {
            "subscribe": pool.submit(elsewhere, python / "subscribe.py", *one_video),
            "refused": pool.submit(elsewhere, python / "subscribe.py", "woman.jpg", "x" * 501, "out.mp4"),
            "webhook": pool.submit(elsewhere, python / "webhook.py", "woman.jpg", "AT_ONCE"),
            "batch": pool.submit(run, python / "batch.py", batch, "photos", "videos", "AT_ONCE", url=server.url),
            "shell": pool.submit(elsewhere, SHELL, "woman.jpg", 'a "colour" \\', "out.mp4"),
            "shell, late": pool.submit(elsewhere, SHELL, "woman.jpg", "WORKS_SLOWLY", "out.mp4", LIMIT_S="0"),
            "shell, refused": pool.submit(elsewhere, SHELL, "woman.jpg", "", "out.mp4"),
        }


def test_every_example_is_in_the_table_and_short() -> None:
    files = [path for path in EXAMPLES.glob("*/*") if path.is_file()]
    table = (EXAMPLES / "README.md").read_text()
    named = re.findall(r"^\| \[`([^`]+)`", table, re.MULTILINE)
    assert {str(path.relative_to(EXAMPLES)) for path in files} == set(named)
    assert not [path.name for path in files if len(path.read_text().splitlines()) > 120]


def test_subscribe_prints_each_line_of_the_log_once(runs: dict[str, "Future[Run]"]) -> None:
    done = runs["subscribe"].result()
    assert (done.code, done.errors) == (0, "")
    lines = done.output.splitlines()
    assert [line for line in lines if line.startswith("Denoising step 30/30")]
    assert len(lines) == len(set(lines))
    assert done.has_video()


def test_a_refused_request_is_one_line(runs: dict[str, "Future[Run]"]) -> None:
    done = runs["refused"].result()
    assert done.code == 1
    assert re.fullmatch(r"HTTP 422: .*at most 500 characters.*\n", done.errors)


def test_the_webhook_of_a_request_is_received_and_verified(server: Server, runs: dict[str, "Future[Run]"]) -> None:
    done = runs["webhook"].result()
    assert done.code == 0, done.errors
    assert server.http.get(done.output.splitlines()[-1]).status_code == 200


def test_the_webhook_receiver_believes_only_what_is_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "server" / "clients"))
    receiver = load_file(EXAMPLES / "python" / "webhook.py")
    signer = WebhookSigner(bytes(32))
    keys = [signer._key.public_key()]
    body = b'{"request_id": "1"}'
    signed = signer.headers(body, request_id="1", owner="local")
    late = WebhookSigner(bytes(32), clock=lambda: time.time() - 600).headers(body, request_id="1", owner="local")

    def genuine(headers: dict[str, str], content: bytes = body) -> bool:
        message = Message()
        for name, value in headers.items():
            message[name.lower()] = value  # as a proxy may send them on
        return bool(receiver.is_genuine(message, content, keys))

    assert genuine(signed)
    assert not genuine(signed, body + b" ")
    assert not genuine(signed | {"X-Fal-Webhook-Request-Id": "2"})
    assert not genuine(signed | {"X-Fal-Webhook-Signature": "not hex"})
    assert not genuine(WebhookSigner(bytes([1] * 32)).headers(body, request_id="1", owner="local"))
    assert not genuine(late)
    assert not genuine({})


def test_a_batch_makes_what_is_missing_and_reports_what_fails(server: Server, runs: dict[str, "Future[Run]"]) -> None:
    first = runs["batch"].result()
    assert first.code == 1
    assert first.errors.startswith("photos/c.png: ")
    assert len(first.errors.splitlines()) == 1
    assert {path.name for path in (first.folder / "videos").iterdir()} == {"a.jpg.mp4", "b.JPG.mp4"}
    assert b"a file" in (first.folder / "videos" / "b.JPG.mp4").read_bytes(), "what the fake makes"
    (first.folder / "photos" / "c.png").unlink()
    again = run(EXAMPLES / "python/batch.py", first.folder, "photos", "videos", "AT_ONCE", url=server.url)
    assert (again.code, again.output, again.errors) == (0, "", "")


def test_the_shell_script_makes_a_video(runs: dict[str, "Future[Run]"]) -> None:
    done = runs["shell"].result()
    assert done.code == 0, done.errors
    assert done.output.startswith("out.mp4, seed ")
    assert done.has_video()


def test_the_shell_script_says_why_there_is_no_video(server: Server, runs: dict[str, "Future[Run]"]) -> None:
    late, refused = runs["shell, late"].result(), runs["shell, refused"].result()
    request_id, _, reason = late.errors.partition(": ")
    assert (late.code, reason) == (4, "not done within 0 s\n")
    assert server.finish(request_id).status_code == 499, "it was cancelled"
    assert (refused.code, "prompt" in refused.errors) == (1, True)
    assert run(SHELL, late.folder, "woman.jpg", url=server.url).code == 2
    nowhere = run(SHELL, late.folder, "woman.jpg", "a colour", "out.mp4", url="http://127.0.0.1:1", RETRIES="0")
    assert nowhere.code == 3
    assert [path.name for path in late.folder.iterdir()] == ["woman.jpg"]


def test_the_shell_script_shows_the_key(start_api: Callable[..., Server], tmp_path: Path) -> None:
    api = start_api()
    key = create_key(api, "local")
    call = partial(run, SHELL, tmp_path, "woman.jpg", "a colour", "out.mp4", url=api.url, LIMIT_S="0")
    without = call()
    assert (without.code, without.errors[:8]) == (1, "HTTP 401")
    assert call(FAL_KEY=key).code == 4, "accepted, and there is no worker"


def test_shell_scripts_are_clean() -> None:
    if shutil.which("shellcheck") is None:
        missing("needs shellcheck: apt-get install shellcheck")
    subprocess.run(["shellcheck", *EXAMPLES.glob("shell/*.sh"), ROOT / ".ci" / "run"], check=True)


WORKFLOW: dict[str, Any] = json.loads((EXAMPLES / "n8n" / "hunyuan_custom.json").read_text())
NODES: dict[str, dict[str, Any]] = {node["name"]: node for node in WORKFLOW["nodes"]}
TARGETS: dict[str, list[list[str]]] = {
    name: [[target["node"] for target in output] for output in outputs["main"]]
    for name, outputs in WORKFLOW["connections"].items()
}


def test_the_nodes_of_the_n8n_workflow_are_connected() -> None:
    assert len(NODES) == len(WORKFLOW["nodes"]) == len({node["id"] for node in WORKFLOW["nodes"]})
    triggers = {name for name, node in NODES.items() if node["type"].endswith("Trigger")}
    assert set.union(triggers, *(_after(trigger) for trigger in triggers)) == set(NODES)
    assert {name for name in NODES if name not in TARGETS} == {"Download"}
    over, not_over = TARGETS["Over?"]
    assert "Over?" in _after(*not_over), "it asks again"
    assert "Over?" not in _after(*over)


def test_what_the_n8n_workflow_reads_is_there(server: Server) -> None:
    for name, node in NODES.items():
        for other in re.findall(r"\$\('([^']+)'\)", json.dumps(node["parameters"])):
            assert name in _after(other), f"{name} reads {other}, which has not run before it"
    schemas = server.http.get("/api/openapi/queue/openapi.json").json()["components"]["schemas"]
    body = re.findall(r"(\w+): \$json\.", NODES["Submit"]["parameters"]["jsonBody"])
    assert set(body) <= set(HunyuanCustomInput.model_fields)
    submitted = server.http.post("/queue/fal-ai/hunyuan-custom", json={}).json()
    for name in ("Status", "Result"):
        field = NODES[name]["parameters"]["url"].partition("json.")[2].removesuffix(" }}")
        assert server.http.get(submitted[field]).status_code in {200, 422}, (name, schemas)


def test_the_n8n_workflow_shows_the_key_and_contains_none() -> None:
    for name, node in NODES.items():
        calls = node["type"] == "n8n-nodes-base.httpRequest" and name != "Download"  # whose URL needs no key
        assert ("credentials" in node) is calls
        if calls:
            assert node["parameters"]["genericAuthType"] == "httpHeaderAuth" == next(iter(node["credentials"]))
    assert "Authorization" not in json.dumps(WORKFLOW)


def _after(*names: str) -> set[str]:
    """All nodes that run after these, and these themselves if they can come again."""
    found: set[str] = set()
    waiting = list(names)
    first = set(names)
    while waiting:
        for target in (name for output in TARGETS.get(waiting.pop(), []) for name in output):
            if target not in found:
                found.add(target)
                waiting.append(target)
    return found | {name for name in first if name in found}
