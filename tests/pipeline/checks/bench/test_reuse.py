"""PSNR and SSIM where their values are known."""

import math

import pytest
import torch

from pipeline.checks.bench.reuse import psnr, ssim


def test_equal_frames() -> None:
    frames = torch.randint(0, 256, (2, 16, 24, 3), dtype=torch.uint8)
    assert psnr(frames, frames) == math.inf
    assert ssim(frames, frames) == pytest.approx(1.0)


def test_flat_frames_differ_by_their_brightness_alone() -> None:
    dark, bright = (torch.full((1, 16, 16, 3), value, dtype=torch.uint8) for value in (51, 102))  # 0.2 and 0.4
    assert psnr(dark, bright) == pytest.approx(20 * math.log10(5))
    assert ssim(dark, bright) == pytest.approx((2 * 0.2 * 0.4 + 1e-4) / (0.2**2 + 0.4**2 + 1e-4), rel=1e-4)


def test_unrelated_frames_are_not_alike() -> None:
    random = torch.Generator().manual_seed(0)
    frames, others = torch.randint(0, 256, (2, 1, 64, 64, 3), dtype=torch.uint8, generator=random)
    assert ssim(frames, others) < 0.1
