"""Previews against what they stand for: the decoded clip, and the latents that a step predicts for the end."""

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLHunyuanVideo
from PIL import Image
from torch import Tensor

from pipeline.conditioning.identity_image import vae_view
from pipeline.demo.codec import set_vae
from pipeline.demo.model import VAE
from pipeline.hunyuan_custom import HunyuanCustomPipeline
from pipeline.preview import ColourMap, LatentPreviews, Preview, fit_colour_map, overlapping_discs, spread
from pipeline.vae.codec import decode_stream, encode_reference

PEAK = 255
CHANNELS = 16
STEPS = 6


@pytest.fixture(scope="module")
def demo_vae() -> Any:
    vae = AutoencoderKLHunyuanVideo(**VAE).eval().requires_grad_(False)
    set_vae(vae)
    return vae


@pytest.fixture(scope="module")
def colour_map(demo_vae: Any) -> ColourMap:
    return fit_colour_map(demo_vae, "cpu")


@pytest.mark.parametrize("subject", ["a picture it was not fitted to", "grey"])
def test_a_preview_has_the_colours_of_the_decoded_clip(demo_vae: Any, colour_map: ColourMap, subject: str) -> None:
    picture = Image.new("RGB", (96, 64), "grey")
    if subject != "grey":
        picture = overlapping_discs(128).transpose(Image.Transpose.ROTATE_90).crop((0, 0, 96, 64))
    still = encode_reference(demo_vae, vae_view(np.asarray(picture), 64, 96), posterior="mode", generator=None)
    latents = still * torch.tensor([0.6, 1.0, 1.4])[:, None, None]  # [1,16,3,h,w]: a clip of three contrasts
    decoded = torch.from_numpy(np.concatenate(list(decode_stream(demo_vae, latents)))[[0, 4, 8]])
    expected = F.avg_pool2d(decoded.permute(0, 3, 1, 2).float(), 8).permute(0, 2, 3, 1)
    error = (colour_map.colours(latents[0].transpose(0, 1)).float() - expected).pow(2).mean().sqrt().item()
    assert error < 0.06 * PEAK  # PSNR 24 dB


def run(pipe: HunyuanCustomPipeline, identity: Image.Image, **options: Any) -> Any:
    size = {"height": 32, "width": 48, "num_frames": 5, "num_inference_steps": STEPS, "output_type": "latent"}
    return pipe("a dog", identity, generator=torch.Generator().manual_seed(1), **(size | options)).frames


class Shown:
    """A `show` that is done before the next step begins; what the steps before it had is at hand."""

    def __init__(self, colour_map: ColourMap) -> None:
        self.previews: list[Preview] = []
        self.latents: list[Tensor] = []
        self.maker = LatentPreviews(colour_map, self.previews.append, every_s=0)

    def __call__(self, pipe: Any, step: int, timestep: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        self.latents.append(tensors["latents"])
        self.velocity = tensors["velocity"]
        given = self.maker(pipe, step, timestep, tensors)
        assert self.maker._showing is not None
        self.maker._showing.join()
        return given


@pytest.mark.parametrize("step_cache", [None, "reference"])
def test_previews_predict_the_end_and_change_nothing(
    pipe: HunyuanCustomPipeline, identity: Image.Image, step_cache: str | None
) -> None:
    """Also after a resume: steps are counted from the start of the whole run."""
    colour_map = fit_colour_map(pipe.vae, "cpu")
    shown = Shown(colour_map)
    asked = {"callback_on_step_end": shown, "callback_on_step_end_tensor_inputs": shown.maker.tensor_inputs}
    latents = run(pipe, identity, step_cache=step_cache, **asked)
    assert torch.equal(latents, run(pipe, identity, step_cache=step_cache))
    assert [(preview.step, preview.total) for preview in shown.previews] == [(n, STEPS) for n in range(1, STEPS + 1)]
    # What is left to the end, along the same velocity, from before the last step but one, at its sigma.
    before, sigma = shown.latents[-3], pipe.scheduler.sigmas[STEPS - 2]
    after, next_sigma = shown.latents[-2], pipe.scheduler.sigmas[STEPS - 1]
    clean = before - sigma * (after - before) / (next_sigma - sigma)
    for preview, end in ((shown.previews[-2], clean), (shown.previews[-1], latents)):
        expected = colour_map.colours(end[0].transpose(0, 1)).int()
        pictures = torch.from_numpy(np.stack([np.asarray(frame) for frame in preview.frames])).int()
        assert (pictures - expected).abs().max() <= 1

    again = Shown(colour_map)
    asked["callback_on_step_end"] = again
    resumed = run(pipe, identity, step_cache=step_cache, start_step=4, latents=shown.latents[3], **asked)
    assert torch.equal(resumed, latents)
    assert [preview.step for preview in again.previews] == [5, 6]


def step_of(maker: LatentPreviews, number: int) -> None:
    pipe: Any = SimpleNamespace(scheduler=SimpleNamespace(sigmas=torch.ones(STEPS + 1), timesteps=torch.ones(STEPS)))
    clip = torch.rand(1, CHANNELS, 33, 4, 6)
    maker(pipe, number, torch.ones(1), {"latents": clip, "velocity": clip})


def test_no_step_waits_for_a_preview() -> None:
    """Those that are not due, or due while one is being shown, are left out."""
    now, go_on, shown = [0.0], threading.Event(), list[int]()

    def show(preview: Preview) -> None:
        go_on.wait()
        shown.append(preview.step)

    maker = LatentPreviews(ColourMap(torch.ones(3, CHANNELS), torch.zeros(3)), show, every_s=3, clock=lambda: now[0])
    for number, seconds in enumerate((0.0, 2.9, 9.0)):
        now[0] = seconds
        step_of(maker, number)
    first = maker._showing
    assert first is not None
    go_on.set()
    first.join()
    for number, seconds in ((3, 10.0), (4, 12.9)):
        now[0] = seconds
        step_of(maker, number)
        assert maker._showing is not None
        maker._showing.join()
    assert shown == [1, 4]


def test_eight_frames_at_most_from_end_to_end() -> None:
    assert spread(1) == [0]
    assert spread(5) == [0, 1, 2, 3, 4]
    assert (spread(33)[0], spread(33)[-1], len(set(spread(33)))) == (0, 32, 8)
