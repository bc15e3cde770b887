"""Cutting the subject out: the choice among what a model finds, white around it, and a real model of that class."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.conditioning.segmenter import Segmenter, load_segmenter, on_white
from tests.harness.tiny_segmenter import SIDE, write_segmenter
from weights.errors import VerifyError


class Finds:
    """Answers with these instances: score, class, and the square `rows x cols` of an 8x8 mask that each covers."""

    config = SimpleNamespace(id2label={0: "person", 1: "dog"})

    def __init__(self, *found: tuple[float, int, slice, slice]) -> None:
        self._found = found

    def __call__(self, *, pixel_values: Tensor) -> Any:
        assert pixel_values.shape == (1, 3, SIDE, SIDE)
        logits, masks = torch.full((1, len(self._found), 2), -20.0), torch.full((1, len(self._found), 8, 8), -20.0)
        for query, (score, label, rows, cols) in enumerate(self._found):
            logits[0, query, label] = torch.logit(torch.tensor(score))
            masks[0, query, rows, cols] = 20.0
        return SimpleNamespace(logits=logits, pred_masks=masks)


def segmenter(*found: tuple[float, int, slice, slice]) -> Segmenter:
    return Segmenter(Finds(*found), name="fake", side=SIDE, device=torch.device("cpu"))


LEFT, ALL = slice(0, 4), slice(0, 8)
PICTURE = np.random.default_rng(0).integers(0, 255, (80, 160, 3), dtype=np.uint8)


def test_the_largest_thing_that_is_sure_is_the_subject_and_all_around_it_is_white() -> None:
    unsure, small = (0.4, 1, ALL, ALL), (0.99, 1, slice(0, 1), slice(0, 2))
    subject = segmenter(unsure, small, (0.9, 0, ALL, LEFT)).subject(PICTURE)
    assert subject is not None
    assert subject.label == "person"
    assert subject.score == pytest.approx(0.9, abs=1e-3)
    cut = on_white(PICTURE, subject.mask)
    assert (cut[:, :60] == PICTURE[:, :60]).all()
    assert (cut[:, 100:] == 255).all()
    assert cut.shape == PICTURE.shape


@pytest.mark.parametrize("found", [[], [(0.3, 0, ALL, ALL)], [(0.9, 0, slice(0, 0), ALL)]])
def test_a_picture_without_a_subject_has_none(found: list[tuple[float, int, slice, slice]]) -> None:
    assert segmenter(*(found or [(0.01, 0, ALL, ALL)])).subject(PICTURE) is None


def test_a_soft_edge_mixes_with_white() -> None:
    grey = np.full((1, 3, 3), 100, np.uint8)
    mixed = on_white(grey, np.array([[0.0, 0.5, 1.0]], np.float32))
    assert mixed[0, :, 0].tolist() == [255, pytest.approx(178, abs=1), 100]


def test_a_real_model_of_that_class_loads_strictly_and_gives_masks_of_the_picture(tmp_path: Path) -> None:
    folder = write_segmenter(tmp_path / "segmenter")
    loaded = load_segmenter(folder, device="cpu")
    loaded._model.model.class_embed.bias.data.fill_(5.0)  # type: ignore[attr-defined]  # sure of everything it finds
    loaded._model.segmentation_bias.data.fill_(5.0)  # type: ignore[attr-defined]
    subject = loaded.subject(PICTURE)
    assert subject is not None
    assert subject.mask.shape == PICTURE.shape[:2]
    assert 0 <= subject.mask.min() <= subject.mask.max() <= 1
    (folder / "model.safetensors").unlink()
    with pytest.raises(VerifyError, match=r"model\.safetensors: missing; run: hunyuan-custom weights prepare"):
        load_segmenter(folder, device="cpu")
