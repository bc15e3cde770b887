"""Makes a video with `huggingface_hub` and its provider fal-ai; fal's hosts lead to this server, as by a hosts entry.

Usage: drive_huggingface_hub.py BASE_URL PHOTO
"""

import importlib.util
import sys
from pathlib import Path
from typing import Any

from huggingface_hub import InferenceClient
from huggingface_hub.hf_api import InferenceProviderMapping
from huggingface_hub.inference._providers import _common

MODEL = "tencent/HunyuanCustom"


def fal_driver() -> Any:
    """The program beside this one, by its path: it can redirect fal's hosts."""
    spec = importlib.util.spec_from_file_location("drive_fal_client", Path(__file__).parent / "drive_fal_client.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(base_url: str, photo: str) -> None:
    fal = fal_driver()
    fal.redirect_hosts(base_url)
    # Else the hub is asked what the model is called at its provider.
    named = InferenceProviderMapping(  # type: ignore[no-untyped-call]
        hf_model_id=MODEL, provider="fal-ai", providerId=fal.APP, status="live", task="image-to-video"
    )
    _common.HARDCODED_MODEL_INFERENCE_MAPPING["fal-ai"] = {MODEL: named}
    client = InferenceClient(provider="fal-ai", api_key="local:local")
    video = client.image_to_video(Path(photo).read_bytes(), model=MODEL, prompt="a colour", **fal.QUICK)
    assert video[4:8] == b"ftyp"


if __name__ == "__main__":
    main(*sys.argv[1:])
