"""Resizing beyond the pictures of the reference, which `test_identity_image.py` compares pixel by pixel."""

import numpy as np

from pipeline.conditioning.bilinear import resize_bilinear


def test_exactly_half_size_averages_quads() -> None:
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    expected = np.floor(image.reshape(2, 2, 3, 2, 3).mean(axis=(1, 3)) + 0.5)
    assert np.array_equal(resize_bilinear(image, 2, 3), expected)


def test_same_size_is_untouched() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(resize_bilinear(image, 5, 7), image)


def test_a_flat_image_stays_flat_at_any_size() -> None:
    image = np.full((7, 5, 3), 200, dtype=np.uint8)
    for size in ((1, 1), (3, 9), (64, 2), (100, 100)):
        assert (resize_bilinear(image, *size) == 200).all()
