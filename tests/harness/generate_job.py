"""The message that has a generator make one video."""

from pathlib import Path
from typing import Any

from server.fal.example import PHOTO
from server.generator.messages import Generate


def generate_job(folder: Path = Path(), **changes: Any) -> Generate:
    """Of the example photo, everything that it leaves in `folder`; `changes`: fields that are not the usual ones."""
    usual: dict[str, Any] = {
        "request_id": "x",
        "prompt": "a violin",
        "expand_prompt": True,
        "log_prompt": True,
        "negative_prompt": "",
        "image": str(PHOTO),
        "output": str(folder / "x.mp4"),
        "checkpoint": str(folder / "x.checkpoint"),
        "cut_out": str(folder / "x.checkpoint.png"),
        "check_safety": True,
        "width": 896,
        "height": 512,
        "num_frames": 81,
        "fps": 25,
        "num_inference_steps": 10,
        "guidance_scale": 7.5,
        "seed": 1,
    }
    return Generate(**usual | changes)
