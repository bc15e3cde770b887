"""A node for ComfyUI that has the video made by the server: copy this file into `ComfyUI/custom_nodes/`.

It speaks HTTP with Python's own library and needs nothing that ComfyUI does not have. It is written for ComfyUI's node
API V3 (`comfy_api.latest`). The key, if the server asks for one, comes from ComfyUI's environment (FAL_KEY), so that no
saved workflow contains it. "Get Video Components" makes frames and their rate of the video, where they are wanted.
"""

import asyncio
import base64
import io as streams
import json
import os
import urllib.error
import urllib.request
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy_api.latest import ComfyAPI, ComfyExtension, Input, InputImpl, io
from PIL import Image

POLL_S, TIMEOUT_S = 0.5, 300.0


class HunyuanCustomServer(io.ComfyNode):
    """The first image of the batch and a prompt in, a video and its seed out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The fields of the endpoint, with its ranges; `num_frames` and `fps` decide the length."""
        return io.Schema(
            node_id="HunyuanCustomServer",
            display_name="HunyuanCustom (server)",
            category="video/api",
            description="A video of the subject of an image, made by hunyuan-custom-server.",
            inputs=[
                io.Image.Input("image", tooltip="Who or what the video shows."),
                io.String.Input("prompt", multiline=True, tooltip="At most 500 characters."),
                io.String.Input("server", default="http://127.0.0.1:8000"),
                io.Int.Input("seed", default=0, min=0, max=2**32 - 1, control_after_generate=True),
                io.Combo.Input("resolution", options=["512p", "720p"]),
                io.Combo.Input("aspect_ratio", options=["16:9", "9:16"]),
                io.Int.Input("num_frames", default=129, min=81, max=129),
                io.Int.Input("fps", default=25, min=16, max=30),
                io.Int.Input("num_inference_steps", default=30, min=10, max=30),
                io.Float.Input("cfg_scale", default=7.5, min=1.5, max=13.0, step=0.1),
                io.Boolean.Input("enable_prompt_expansion", default=True),
                io.Boolean.Input("enable_safety_checker", default=True),
                io.String.Input("negative_prompt", optional=True, multiline=True, tooltip="Empty: the endpoint's own."),
            ],
            outputs=[io.Video.Output(), io.Int.Output(display_name="seed")],
        )

    @classmethod
    async def execute(
        cls, image: Input.Image, prompt: str, server: str, negative_prompt: str = "", **fields: Any
    ) -> io.NodeOutput:
        """Other nodes go on meanwhile; if ComfyUI is interrupted, or anything fails, the request is cancelled."""
        negative = {"negative_prompt": negative_prompt} if negative_prompt else {}
        body = {"prompt": prompt, "image_url": _png_uri(image[0]), **fields, **negative}
        queue = f"{server.rstrip('/')}/queue/fal-ai/hunyuan-custom"
        submitted = json.loads(await asyncio.to_thread(_call, "POST", queue, json.dumps(body).encode()))
        request = f"{queue}/requests/{submitted['request_id']}"
        try:
            while True:
                status = json.loads(await asyncio.to_thread(_call, "GET", f"{request}/status?logs=1"))
                if status["status"] == "COMPLETED":
                    break
                throw_exception_if_processing_interrupted()
                await _show(status.get("logs") or [], fields["num_inference_steps"])
                await asyncio.sleep(POLL_S)
        except BaseException:
            with suppress(OSError, RuntimeError):  # the server is gone, or the request is over
                await asyncio.to_thread(_call, "PUT", f"{request}/cancel")
            raise
        result = json.loads(await asyncio.to_thread(_call, "GET", request))
        video = streams.BytesIO(await asyncio.to_thread(_download, result["video"]["url"]))
        return io.NodeOutput(InputImpl.VideoFromFile(video), result["seed"])


async def _show(logs: list[dict[str, Any]], steps: int) -> None:
    """The bar of the node: denoising steps that the job's log has reported."""
    done = sum(line["message"].startswith("Denoising step ") for line in logs)
    await ComfyAPI().execution.set_progress(min(done, steps), steps)


def _png_uri(image: torch.Tensor) -> str:
    """[H, W, 3 or 4] in 0..1 -> a data: URI."""
    pixels = (image.clamp(0, 1) * 255).round().to("cpu", torch.uint8)
    png = streams.BytesIO()
    Image.fromarray(np.asarray(pixels)).save(png, "PNG")
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"


def _call(method: str, url: str, body: bytes | None = None) -> bytes:
    """What the server answers; its own words if it refuses."""
    key = os.environ.get("FAL_KEY")
    headers = {"Content-Type": "application/json", **({"Authorization": f"Key {key}"} if key else {})}
    try:
        return _download(urllib.request.Request(url, data=body, headers=headers, method=method))  # noqa: S310
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"HTTP {error.code}: {error.read().decode(errors='replace')}") from None


def _download(request: urllib.request.Request | str) -> bytes:
    """A video's URL needs no key, and may lead to an object store."""
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - the user's own server
        return bytes(answer.read())


class Extension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [HunyuanCustomServer]


async def comfy_entrypoint() -> Extension:
    return Extension()
