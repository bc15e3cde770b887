"""The code that the playground offers runs as it stands, whatever stands in the prompt."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from server.fal.example import PHOTO
from tests.harness.client_programs import clean_environment
from tests.harness.live_server import ROOT, Server
from tests.harness.page_modules import in_node
from tests.harness.uploads import initiate

COMMANDS = {"python": [sys.executable, "code"], "javascript": ["node", "code.mjs"], "curl": ["bash", "-eu", "code"]}


@pytest.mark.parametrize("language", COMMANDS)
def test_copied_code_makes_the_video_of_the_form(
    server: Server, node_packages: Path, tmp_path: Path, language: str
) -> None:
    prompt = 'AT_ONCE "quoted" \\ back $HOME `date` $(date)\nä 猫'
    seed = 2**64 - 1
    values = {"num_frames": 81, "num_inference_steps": 10, "seed": str(seed), "enable_prompt_expansion": False}
    urls = initiate(server, "image/jpeg", "woman.jpg")
    assert server.http.put(urls["upload_url"], content=PHOTO.read_bytes()).status_code == 200
    request = {
        "base": server.url,
        "needsKey": False,
        "input": {"prompt": prompt, "image_url": urls["file_url"], **values},
    }
    script = 'import { LANGUAGES } from "./snippets.js";\n\nanswer(LANGUAGES[NAME](REQUEST));'
    command = COMMANDS[language]
    (tmp_path / command[-1]).write_text(in_node(tmp_path, script, NAME=language, REQUEST=request))
    shutil.copy(ROOT / "server" / "clients" / "fal_plain_http.py", tmp_path)
    scope = tmp_path / "node_modules" / "@fal-ai"
    scope.mkdir(parents=True)
    (scope / "client").symlink_to(node_packages / "node_modules" / "current")
    done = subprocess.run(
        command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert ".mp4" in done.stdout
    made = server.http.get("/playground/requests", params={"limit": 1}).json()["requests"][0]
    assert (made["input"]["prompt"], made["seed"]) == (prompt, str(seed))
    assert made["input"]["enable_prompt_expansion"] is False
