"""The image classifiers: the bundled one, and one from a folder as the hub publishes it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification

from pipeline.options import EXPLICIT_SCORE
from pipeline.safety.bundled import WEIGHTS
from pipeline.safety.classifier import ImageClassifier, load_classifier
from server.fal.example import PHOTO
from tests.harness.explicit_picture import explicit_pixels
from weights.errors import VerifyError

GREY = np.full((300, 200, 3), 128, np.uint8)


@pytest.fixture(scope="module")
def bundled() -> ImageClassifier:
    return load_classifier("bundled", device="cpu", dtype="float32")


def photo() -> np.ndarray:
    return np.asarray(Image.open(PHOTO).convert("RGB"))


def test_the_bundled_classifier_knows_a_portrait_from_what_it_refuses(bundled: ImageClassifier) -> None:
    portrait, explicit, grey = bundled.scores([photo(), explicit_pixels(), GREY])
    assert portrait < 0.01
    assert grey < EXPLICIT_SCORE
    assert explicit > 0.99


def test_it_gives_what_the_published_model_gives_in_tensorflow(bundled: ImageClassifier) -> None:
    # TensorFlow.js 4.22 on nsfwjs 4.3.0's own files, for the picture whose pixel [y, x] is (x, y, 128).
    hentai, porn = 0.019031275, 0.003238423
    y, x = np.mgrid[0:224, 0:224]
    picture = np.stack([x, y, np.full_like(x, 128)], axis=-1).astype(np.uint8)
    assert bundled.scores([picture]) == pytest.approx([hentai + porn], abs=1e-4)


def test_it_fits_into_the_wheel() -> None:
    assert WEIGHTS.stat().st_size < 3_000_000


def vit(folder: Path, **config: Any) -> Path:
    """A tiny, untrained ViT in a folder with the files and the labels of Falconsai/nsfw_image_detection."""
    torch.manual_seed(0)
    labels = {"id2label": {0: "normal", 1: "nsfw"}, "label2id": {"normal": 0, "nsfw": 1}} | config
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = ViTForImageClassification(ViTConfig(image_size=32, patch_size=16, **sizes, **labels)).eval()
    model.save_pretrained(folder)
    shown = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(shown))
    return folder


def test_a_vit_from_a_folder_reads_pictures_as_it_was_trained(tmp_path: Path) -> None:
    folder = vit(tmp_path / "safety")
    model = ViTForImageClassification.from_pretrained(folder)
    small = Image.fromarray(photo()).resize((32, 32), Image.Resampling.BILINEAR)  # as ViTImageProcessor does
    pixels = (torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1).float()[None] / 255 - 0.5) / 0.5
    with torch.no_grad():
        expected = model(pixel_values=pixels).logits.softmax(-1)[0, 1]
    loaded = load_classifier(str(folder), device="cpu", dtype="float32")
    assert loaded.scores([photo()]) == pytest.approx([float(expected)], abs=2e-3)


def test_a_folder_that_is_not_whole_is_refused_with_the_command_that_repairs_it(tmp_path: Path) -> None:
    command = r"run: hunyuan-custom weights prepare --out .+/bf16"
    with pytest.raises(VerifyError, match=rf"safety/config\.json: missing; {command}"):
        load_classifier(str(tmp_path / "safety"), device="cpu", dtype="float32")
    weights = vit(tmp_path / "safety") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(VerifyError, match=rf"model\.safetensors: truncated.*{command}"):
        load_classifier(str(tmp_path / "safety"), device="cpu", dtype="float32")


def test_a_classifier_whose_labels_say_nothing_of_the_kind_is_refused(tmp_path: Path) -> None:
    folder = vit(tmp_path / "cats", id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1})
    with pytest.raises(ValueError, match=r"none of its labels \['cat', 'dog'\]"):
        load_classifier(str(folder), device="cpu", dtype="float32")
