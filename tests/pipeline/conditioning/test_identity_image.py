import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pipeline.conditioning.identity_image import fit_on_white, llava_view, rgb_pixels, vae_view, white_pixels
from server.api.playground_models import Crop
from server.settings import ImageSettings
from tests.harness.page_modules import in_node

# The reference decodes with OpenCV; other JPEG and WebP decoders may differ by two levels.
LOSSY = {"exif_rot6", "webp"}


@pytest.fixture(scope="module")
def cases(golden_folder: Path) -> dict[str, Any]:
    return json.loads((golden_folder / "images.json").read_text())["cases"]


@pytest.fixture(scope="module")
def images_io(golden_folder: Path) -> dict[str, torch.Tensor]:
    return load_file(golden_folder / "images_io.safetensors")


def test_both_views_equal_the_reference(
    cases: dict[str, Any], images_io: dict[str, torch.Tensor], golden_folder: Path, close: Any
) -> None:
    for name, case in cases.items():
        pixels = rgb_pixels(Image.open(golden_folder / "images" / case["file"]), alpha="drop")
        assert pixels.shape == tuple(case["src_shape"])
        tolerance = 2 if name in LOSSY else 0
        kind = "image views, lossy files" if name in LOSSY else "image views"
        keys = [key for key in images_io if key.startswith(f"{name}.ref_u8.")]
        assert keys, name
        for key in keys:
            height, width = map(int, key.rsplit(".", 1)[1].split("x"))
            view = torch.from_numpy(fit_on_white(pixels, height, width)).permute(2, 0, 1)
            close(kind, view, images_io[key], tolerance, unit="levels of 255")
            expected = (images_io[key].float() / 255 * 2 - 1)[None, :, None]
            close(f"{kind}, normalised", vae_view(pixels, height, width), expected, tolerance / 127)
        square = images_io[f"{name}.llava_u8"]
        view = torch.from_numpy(fit_on_white(pixels, 336, 336)).permute(2, 0, 1)
        close(kind, view, square, tolerance, unit="levels of 255")
        if name not in LOSSY:
            normalised = llava_view(pixels, 336).contiguous().numpy().tobytes()
            assert hashlib.sha256(normalised).hexdigest() == case["llava_sha256"], name


def test_unconditional_views_are_white(images_io: dict[str, torch.Tensor]) -> None:
    corner = images_io["uncond_pixel_value_llava_corner"]
    assert torch.equal(llava_view(white_pixels(), 336)[0, :, :2, :2], corner)
    assert torch.equal(vae_view(white_pixels(), 48, 32), torch.ones(1, 3, 1, 48, 32))


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (1, 1), (3, 2000)])
def test_extremely_thin_images_keep_a_pixel(size: tuple[int, int]) -> None:
    pixels = rgb_pixels(Image.new("RGB", size, (10, 20, 30)), alpha="white")
    fitted = fit_on_white(pixels, 64, 96)
    assert fitted.shape == (64, 96, 3)
    assert (fitted == (10, 20, 30)).all(axis=2).any()


@pytest.mark.parametrize("upright", [True, False])
def test_a_thin_gradient_becomes_one_line_of_its_samples(upright: bool) -> None:
    """1 x 4000, where the reference fails: interpolated along the line at pixel centres, all else white."""
    line = (np.arange(4000) * 200 // 4000).astype(np.uint8)
    image = np.repeat(line[:, None, None] if upright else line[None, :, None], 3, axis=2)
    fitted = fit_on_white(image, 64, 96)
    length = 64 if upright else 96
    samples = np.interp((np.arange(length) + 0.5) * 4000 / length - 0.5, np.arange(4000), line)
    drawn = fitted[:, 47] if upright else fitted[31]  # (96 - 1) // 2, (64 - 1) // 2
    assert np.abs(drawn - samples[:, None]).max() <= 1
    white = np.delete(fitted, 47 if upright else 31, axis=1 if upright else 0)
    assert (white == 255).all()


class TestModes:
    """Everything PIL opens becomes 8-bit RGB."""

    def test_transparency_is_composited_on_white_or_dropped(self) -> None:
        image = Image.new("RGBA", (2, 1), (100, 0, 0, 0))
        image.putpixel((1, 0), (100, 0, 0, 255))
        assert rgb_pixels(image, alpha="white").tolist() == [[[255, 255, 255], [100, 0, 0]]]
        assert rgb_pixels(image, alpha="drop").tolist() == [[[100, 0, 0], [100, 0, 0]]]

    def test_palette_with_a_transparent_colour(self) -> None:
        image = Image.new("P", (2, 1))
        image.putpalette([255, 0, 0, 0, 0, 255])
        image.putpixel((1, 0), 1)
        image.info["transparency"] = 0
        assert rgb_pixels(image, alpha="white").tolist() == [[[255, 255, 255], [0, 0, 255]]]
        assert rgb_pixels(image, alpha="drop").tolist() == [[[255, 0, 0], [0, 0, 255]]]

    def test_sixteen_bit_grey_keeps_its_high_byte(self, tmp_path: Path) -> None:
        values = np.array([[0, 255, 256, 65535]], dtype=np.uint16)
        Image.fromarray(values).save(tmp_path / "deep.png")
        pixels = rgb_pixels(Image.open(tmp_path / "deep.png"), alpha="white")
        assert pixels[0].tolist() == [[0] * 3, [0] * 3, [1] * 3, [255] * 3]

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I", "F"])
    def test_every_mode_gives_rgb(self, mode: str) -> None:
        pixels = rgb_pixels(Image.new(mode, (3, 2)), alpha="white")
        assert pixels.shape == (2, 3, 3)
        assert pixels.dtype == np.uint8

    def test_exif_rotation_is_applied(self) -> None:
        image = Image.new("RGB", (4, 2))
        image.getexif()[0x0112] = 6
        assert rgb_pixels(image, alpha="white").shape == (4, 2, 3)


def test_the_playground_draws_what_the_model_sees(tmp_path: Path) -> None:
    """By the arithmetic of the page, in the sizes that the server gives to it."""
    crop = Crop.of(ImageSettings())
    cases = [(*image, *size) for image in [(300, 100), (101, 300), (224, 128), (97, 55), (1, 999)]
             for size in crop.sizes["512p"].values()]  # fmt: skip
    script = 'import { fitOnWhite } from "./crop.js";\n\nanswer(CASES.map((sizes) => fitOnWhite(...sizes)));'
    for (cols, rows, width, height), box in zip(cases, in_node(tmp_path, script, CASES=cases), strict=True):
        expected = np.full((height, width, 3), int(crop.fill[1:3], 16), np.uint8)
        expected[box["y"] : box["y"] + box["height"], box["x"] : box["x"] + box["width"]] = 0
        assert np.array_equal(fit_on_white(np.zeros((rows, cols, 3), np.uint8), height, width), expected)
