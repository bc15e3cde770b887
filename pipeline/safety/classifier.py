"""How explicit a picture is, by an image classifier of transformers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageClassification

from pipeline.memory.dtypes import DtypePolicy
from pipeline.memory.pretrained import load_pretrained
from pipeline.options import BUNDLED_CLASSIFIER
from pipeline.safety.bundled import SIZE, bundled_model
from weights.checks.companion_check import check_companion

EXPLICIT: Final = frozenset({"nsfw", "porn", "hentai"})
"""Labels of the known classifiers whose probabilities are added up; "sexy" of the bundled one is not explicit."""


class Classifier(Protocol):
    """A model of transformers with a classification head."""

    config: Any
    dtype: torch.dtype

    def __call__(self, *, pixel_values: Tensor) -> Any: ...


class ImageClassifier:
    """`size`, `mean` and `std` are how the model was shown its pictures: S x S pixels, channels less mean, by std."""

    def __init__(
        self,
        model: Classifier,
        *,
        name: str,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
    ) -> None:
        self.name = name
        self._model = model
        self._size = size
        self._mean, self._std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (mean, std))
        self._device = device
        labels: dict[int, str] = model.config.id2label
        self._explicit = [index for index, label in labels.items() if label.lower() in EXPLICIT]
        if not self._explicit:
            raise ValueError(f"{name}: none of its labels {sorted(labels.values())} is one of {sorted(EXPLICIT)}")

    @torch.no_grad()
    def scores(self, pictures: Sequence[NDArray[np.uint8]]) -> list[float]:
        """RGB pictures [H,W,3] of any size -> the probability 0..1 that each is explicit."""
        batch = torch.stack([self._view(picture) for picture in pictures])
        logits = self._model(pixel_values=batch.to(self._model.dtype)).logits
        explicit: list[float] = logits.float().softmax(-1)[:, self._explicit].sum(-1).tolist()
        return explicit

    def _view(self, picture: NDArray[np.uint8]) -> Tensor:
        """[3,S,S]. PIL's filter averages where it shrinks, as in training, and needs no copy of the picture in fp32."""
        square = Image.fromarray(picture).resize((self._size, self._size), Image.Resampling.BILINEAR, reducing_gap=3.0)
        pixels = torch.from_numpy(np.asarray(square).copy()).to(self._device).permute(2, 0, 1)
        return (pixels / 255 - self._mean) / self._std


def load_classifier(model: str, *, device: str, dtype: str) -> ImageClassifier:
    """`model`: "bundled", or a folder as published on the hub: config, preprocessor, safetensors.

    Raises:
        VerifyError: a file is missing or truncated; says which command to run.
        ValueError: weights are missing, left over or of another shape, or no label is known to be explicit.
    """
    where = torch.device(device)
    if model == BUNDLED_CLASSIFIER:
        small = bundled_model().to(where)
        name = f"the bundled classifier ({small.config.model_type})"
        return ImageClassifier(small, name=name, size=SIZE, mean=(0.0,) * 3, std=(1.0,) * 3, device=where)
    folder = Path(model)
    check_companion(folder)
    shown = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    side = shown["size"]["height"] if isinstance(shown["size"], dict) else shown["size"]
    policy = DtypePolicy.named(dtype, device)  # beside CLIP, and as large as its weights
    loaded = load_pretrained(AutoModelForImageClassification, folder, policy.text_encoders, device)
    return ImageClassifier(
        loaded, name=folder.name, size=side, mean=shown["image_mean"], std=shown["image_std"], device=where
    )
