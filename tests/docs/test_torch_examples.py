"""The examples that compute with tensors: the node for ComfyUI, and the pipeline in cells."""

import asyncio
import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from server.fal.example import PHOTO
from server.fal.schemas import HunyuanCustomInput
from tests.harness.client_programs import load_file
from tests.harness.comfyui import Comfy, Input, Interrupted
from tests.harness.live_server import ROOT, Server

EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture
def comfy(monkeypatch: pytest.MonkeyPatch) -> Comfy:
    installed = Comfy()
    installed.install(monkeypatch)
    return installed


@pytest.fixture
def node(comfy: Comfy) -> Any:  # noqa: ARG001 - makes what the node imports
    """The example's module."""
    return load_file(EXAMPLES / "comfyui" / "hunyuan_custom_server.py")


def workflow(server: Server, prompt: str) -> dict[str, Any]:
    """The inputs of the node in the example's workflow, with the image as ComfyUI loads it: [1, H, W, 3] in 0..1."""
    nodes = json.loads((EXAMPLES / "comfyui" / "workflow_api.json").read_text())
    (inputs,) = [node["inputs"] for node in nodes.values() if node["class_type"] == "HunyuanCustomServer"]
    image = torch.from_numpy(np.array(Image.open(PHOTO).convert("RGB"))).float()[None] / 255
    return {**inputs, "image": image, "server": server.url, "prompt": prompt}


def test_the_comfyui_node_makes_a_video(server: Server, comfy: Comfy, node: Any) -> None:
    (class_,) = asyncio.run(asyncio.run(node.comfy_entrypoint()).get_node_list())
    video, seed = asyncio.run(class_.execute(**workflow(server, "a colour")))
    assert video[4:8] == b"ftyp"
    assert seed == 7
    assert [row[1] for row in comfy.progress] == [30] * len(comfy.progress)
    assert comfy.progress == sorted(comfy.progress)


def test_an_interrupted_workflow_cancels_the_request(
    server: Server, comfy: Comfy, node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    call = node._call

    def recorded(method: str, url: str, body: bytes | None = None) -> bytes:
        calls.append(url)
        return bytes(call(method, url, body))

    monkeypatch.setattr(node, "_call", recorded)
    comfy.interrupted = True
    with pytest.raises(Interrupted):
        asyncio.run(node.HunyuanCustomServer.execute(**workflow(server, "WORKS_SLOWLY")))
    assert server.finish(calls[-1].split("/")[-2]).status_code == 499


def test_the_comfyui_node_repeats_what_the_server_says(server: Server, node: Any) -> None:
    with pytest.raises(RuntimeError, match=r"HTTP 422: .*500 characters"):
        asyncio.run(node.HunyuanCustomServer.execute(**workflow(server, "x" * 501)))


def test_the_comfyui_node_has_the_fields_of_the_endpoint(node: Any) -> None:
    schema = node.HunyuanCustomServer.define_schema()
    inputs: dict[str, Input] = {each.id: each for each in schema.inputs}
    fields = HunyuanCustomInput.model_json_schema()["properties"]
    assert inputs.keys() == fields.keys() - {"image_url"} | {"image", "server"}
    for name in inputs.keys() - {"image", "server", "seed", "negative_prompt", "prompt"}:
        options, field = inputs[name].options, fields[name]
        assert options.get("default", field["default"]) == field["default"]
        limits = (options.get("min"), options.get("max"), options.get("options"))
        assert limits == (field.get("minimum"), field.get("maximum"), field.get("enum"))
    assert inputs.keys() == workflow_inputs()


def workflow_inputs() -> set[str]:
    nodes = json.loads((EXAMPLES / "comfyui" / "workflow_api.json").read_text())
    return {name for node in nodes.values() if node["class_type"] == "HunyuanCustomServer" for name in node["inputs"]}


def test_the_cells_of_the_pipeline_make_a_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(PHOTO, tmp_path / "woman.jpg")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "python" / "pipeline_notebook.py"), run_name="__main__")
    assert "step 4/4" in capsys.readouterr().out
    assert Path("notebook.mp4").read_bytes()[4:8] == b"ftyp"
    with Image.open("notebook.seen.png") as seen, Image.open("notebook.strip.png") as strip:
        assert (seen.size, strip.size) == ((224, 128), (3 * 224, 128))
