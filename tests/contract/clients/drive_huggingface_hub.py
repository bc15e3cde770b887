"""Makes a video with `huggingface_hub` and its provider fal-ai; fal's hosts lead to this server, as by a hosts entry.

Usage: drive_huggingface_hub.py BASE_URL PHOTO
"""

import sys
from pathlib import Path

from huggingface_hub import InferenceClient
from huggingface_hub.hf_api import InferenceProviderMapping
from huggingface_hub.inference._providers import _common

from tests.contract.clients.drive_fal_client import APP, QUICK, redirect_hosts

MODEL = "tencent/HunyuanCustom"


def main(base_url: str, photo: str) -> None:
    redirect_hosts(base_url)
    # Else the hub is asked what the model is called at its provider.
    named = InferenceProviderMapping(  # type: ignore[no-untyped-call]
        hf_model_id=MODEL, provider="fal-ai", providerId=APP, status="live", task="image-to-video"
    )
    _common.HARDCODED_MODEL_INFERENCE_MAPPING["fal-ai"] = {MODEL: named}
    client = InferenceClient(provider="fal-ai", api_key="local:local")
    video = client.image_to_video(Path(photo).read_bytes(), model=MODEL, prompt="a colour", **QUICK)
    assert video[4:8] == b"ftyp"


if __name__ == "__main__":
    main(*sys.argv[1:])
