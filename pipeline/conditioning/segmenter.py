"""Finds the subject of a picture: instance segmentation by RF-DETR, in the class of transformers.

Of the models that transformers has a class for, RF-DETR with masks is small (36 million weights, 0.14 GB), under
Apache-2.0, and needs neither code from its repository nor packages beside ours. (DETR and Mask2Former load a backbone
through timm or have no licence for use; RMBG and SegFormer's weights are for research only.)
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import RfDetrForInstanceSegmentation

from pipeline.memory.pretrained import load_pretrained
from weights.checks.companion_check import check_companion

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SURE: Final = 0.5  # as the model's own post-processing has it
_SMALLEST: Final = 0.01  # of the picture; less is no portrait of a subject


class InstanceModel(Protocol):
    """transformers' `RfDetrForInstanceSegmentation`: logits [1,Q,C] of sigmoids, pred_masks [1,Q,h,w] logits."""

    config: Any

    def __call__(self, *, pixel_values: Tensor) -> Any: ...


@dataclass(frozen=True, slots=True)
class Subject:
    """`mask` [H,W] fp32 in 0..1, soft at the edge; `label` in the words of the model; `score` 0..1."""

    mask: NDArray[np.float32]
    label: str
    score: float


class Segmenter:
    """`side`: pictures are shown to the model in so many pixels squared."""

    def __init__(self, model: InstanceModel, *, name: str, side: int, device: torch.device) -> None:
        self.name = name
        self._model = model
        self._side = side
        self._device = device

    @torch.no_grad()
    def subject(self, pixels: NDArray[np.uint8]) -> Subject | None:
        """[H,W,3] -> the largest thing that the model is sure of; None where there is none."""
        found = self._model(pixel_values=self._view(pixels))
        scores, classes = found.logits[0].float().sigmoid().max(dim=-1)
        masks = found.pred_masks[0].float()
        share = (masks > 0).float().mean(dim=(1, 2))
        sure = (scores >= _SURE) & (share >= _SMALLEST)
        if not sure.any():
            return None
        best = int(torch.where(sure, share, -1.0).argmax())
        mask = F.interpolate(masks[None, None, best], pixels.shape[:2], mode="bilinear")[0, 0].sigmoid()
        label = self._model.config.id2label.get(int(classes[best]), "thing")
        return Subject(mask.cpu().numpy(), label, float(scores[best]))

    def _view(self, pixels: NDArray[np.uint8]) -> Tensor:
        """[1,3,S,S], the whole picture, not cropped."""
        square = Image.fromarray(pixels).resize((self._side, self._side), Image.Resampling.BILINEAR, reducing_gap=3.0)
        view = torch.from_numpy(np.asarray(square).copy()).to(self._device).permute(2, 0, 1) / 255
        return ((view - self._channels(_IMAGENET_MEAN)) / self._channels(_IMAGENET_STD)).unsqueeze(0)

    def _channels(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, device=self._device).view(3, 1, 1)


def load_segmenter(folder: Path, *, device: str) -> Segmenter:
    """A folder as published on the hub.

    Raises:
        VerifyError: a file is missing or truncated; says which command to run.
        ValueError: weights are missing, left over or of another shape.
    """
    check_companion(folder)
    model = load_pretrained(RfDetrForInstanceSegmentation, folder, torch.float32, device)
    size = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8")).get("size", {})
    side = size.get("height") or model.config.backbone_config.image_size
    return Segmenter(model, name=folder.name, side=side, device=torch.device(device))


def on_white(pixels: NDArray[np.uint8], mask: NDArray[np.float32]) -> NDArray[np.uint8]:
    """[H,W,3] and [H,W] in 0..1 -> [H,W,3]: white where the mask is 0."""
    picture = Image.fromarray(pixels)
    kept = Image.fromarray(np.rint(mask * 255).astype(np.uint8))
    return np.asarray(Image.composite(picture, Image.new("RGB", picture.size, "white"), kept))
