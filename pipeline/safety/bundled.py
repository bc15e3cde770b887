"""The small image classifier that is part of this package, so that a checker runs where nothing was downloaded.

MobileNetV2 at 224 pixels from nsfwjs 4.3.0 (npm), MIT, trained by Gant Laborde and the nsfw_model developers (MIT):
2.6 million weights, one byte each with a minimum and a scale per tensor, as published; only the names and the order of
the axes are those of transformers' class. `tests/harness/nsfwjs_weights.py` made the file.
"""

import json
from pathlib import Path
from typing import Final

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

WEIGHTS: Final = Path(__file__).with_name("nsfwjs_mobilenet_v2.safetensors")
SIZE: Final = 224
LABELS: Final = ("drawing", "hentai", "neutral", "porn", "sexy")


def bundled_model() -> MobileNetV2ForImageClassification:
    """In fp32 on the CPU. transformers' class has one linear layer as its head; this one has three."""
    config = MobileNetV2Config(image_size=SIZE, num_labels=len(LABELS), id2label=dict(enumerate(LABELS)))
    with torch.device("meta"):
        model = MobileNetV2ForImageClassification(config)
        features = model.classifier.in_features
        model.classifier = nn.Sequential(
            nn.Linear(features, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, len(LABELS))
        )
        batches = {name: torch.tensor(0, device="cpu") for name in model.state_dict() if name.endswith("_tracked")}
    model.load_state_dict(_weights() | batches, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def _weights() -> dict[str, Tensor]:
    with safe_open(WEIGHTS, framework="pt") as file:
        ranges: dict[str, tuple[float, float]] = json.loads(file.metadata()["ranges"])
        return {name: file.get_tensor(name).float() * scale + low for name, (low, scale) in ranges.items()}
