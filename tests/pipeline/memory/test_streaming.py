"""`stream_blocks` in the whole pipeline: what is computed is bit for bit what resident weights give."""

import copy
import gc
import threading
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from pipeline.conditioning.encode import Subject
from pipeline.conditioning.identity_image import rgb_pixels
from pipeline.demo.model import build_demo_model
from pipeline.denoise import Sampling
from pipeline.hunyuan_custom import HunyuanCustomPipeline
from pipeline.load import load_pipeline
from pipeline.memory.device_copies import HostCopies, Mark
from pipeline.memory.host_layers import keep_modulation_on_host
from pipeline.memory.placement import apply_memory_plan, onloaded
from pipeline.memory.streaming import Turns, onload_in_turn, stream_blocks
from pipeline.progress import Progress
from pipeline.shapes import PixelShape

SMALL: dict[str, Any] = {"height": 32, "width": 48, "num_frames": 5, "output_type": "latent"}


class Copies(HostCopies):
    """Fails where it is told; keeps track of the buffers. What is there is another tensor than what is here."""

    def __init__(self) -> None:
        self.fails_at: set[int] = set()
        self.count = 0
        self.too_much: tuple[int, ...] | None = None
        self._buffers: list[weakref.ref[Tensor]] = []

    def there(self, tensor: Tensor) -> Tensor:
        if tensor.shape == self.too_much:
            raise torch.OutOfMemoryError
        return tensor.clone()

    def buffer(self, size: int) -> Tensor:
        made = super().buffer(size).fill_(255)  # NaN, until a block is there
        self._buffers.append(weakref.ref(made))
        return made

    def copy(self, target: Tensor, source: Tensor, after: Mark) -> Mark:
        self.count += 1
        if self.count in self.fails_at:
            raise OSError("cannot read the weights")
        return super().copy(target, source, after)

    def buffers(self) -> int:
        return sum(buffer() is not None for buffer in self._buffers)


@pytest.fixture
def copies() -> Copies:
    return Copies()


@pytest.fixture(params=[True, False], ids=["modulation on the host", "modulation streamed"])
def streamed(request: pytest.FixtureRequest, pipe: HunyuanCustomPipeline, copies: Copies) -> HunyuanCustomPipeline:
    """The tiny pipeline (2 + 2 blocks) on copies of its models, streamed."""
    parts = {name: copy.deepcopy(pipe.components[name]) for name in _MODELS}
    if request.param:
        keep_modulation_on_host(parts["transformer"])
    made = HunyuanCustomPipeline(**(pipe.components | parts))
    apply_memory_plan(made, "stream_blocks", "cpu", copies)
    return made


_MODELS = ("transformer", "vae", "text_encoder", "text_encoder_2")


def run(pipe: HunyuanCustomPipeline, identity: Image.Image, **options: Any) -> Tensor:
    latents = torch.randn(1, 16, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    call = {"num_inference_steps": 2, "latents": latents} | SMALL | options
    return pipe("a dog", identity, **call).frames


def test_requests_in_a_row_are_bit_for_bit_those_of_resident_weights(
    pipe: HunyuanCustomPipeline, streamed: HunyuanCustomPipeline, copies: Copies, identity: Image.Image
) -> None:
    options = {"num_inference_steps": 6, "step_cache": "reference", "output_type": "pt"}
    expected = run(pipe, identity, **options)
    home = [_places(streamed.components[name]) for name in ("vae", "text_encoder", "text_encoder_2")]
    for request in (1, 2):
        assert torch.equal(run(streamed, identity, **options), expected)
        passes = 1 + 2 * 5  # for the modulation; one step of six is cached
        assert copies.count <= request * (4 * passes + 2)
        assert copies.buffers() == 0, "the VAE has had its memory"
    assert home == [_places(streamed.components[name]) for name in ("vae", "text_encoder", "text_encoder_2")]


@pytest.fixture
def denoised(pipe: HunyuanCustomPipeline, identity: Image.Image) -> Callable[..., Tensor]:
    """The latents that a pipeline makes of one encoded request in a guided step, 8 blocks."""
    noise = torch.randn(1, 16, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    subject = Subject(
        pixels=rgb_pixels(identity, alpha="white"),
        prompt="a dog",
        subject_name="dog",
        negative_prompt="",
        negative_subject_name="person",
        reference=None,
        identity_guidance=False,
    )
    branches = pipe.encode(subject, PixelShape(frames=5, height=32, width=48))
    sampling = Sampling(steps=1, guidance_scale=7.5, ip_cfg_scale=0.0, step_cache=None)
    return lambda made_by, callback=None: made_by.denoise(noise, branches, sampling, callback=callback)


def test_latents_are_made_where_the_blocks_compute(pipe: HunyuanCustomPipeline, copies: Copies) -> None:
    copies.device = torch.device("cuda", 1)
    parts = {name: copy.deepcopy(pipe.components[name]) for name in _MODELS}
    made = HunyuanCustomPipeline(**(pipe.components | parts))
    apply_memory_plan(made, "stream_blocks", "cuda:1", copies)
    assert made._execution_device == torch.device("cuda", 1)


def test_a_cancel_at_any_block_leaves_the_streaming_ready(
    pipe: HunyuanCustomPipeline, streamed: HunyuanCustomPipeline, denoised: Callable[..., Tensor]
) -> None:
    expected = denoised(pipe)
    for last in range(1, 9):

        def cancel(progress: Progress, last: int = last) -> None:
            if progress.done == last and last % 2:
                raise KeyError("cancelled")
            streamed._interrupt = progress.done == last

        with pytest.raises(KeyError) if last % 2 else nullcontext():
            denoised(streamed, cancel)
        streamed._interrupt = False
        assert torch.equal(denoised(streamed), expected)


def test_a_failed_copy_fails_one_request(
    pipe: HunyuanCustomPipeline, streamed: HunyuanCustomPipeline, copies: Copies, denoised: Callable[..., Tensor]
) -> None:
    expected = denoised(pipe)
    for failing in range(1, 6):  # of 8 blocks one may still be there, and two copies be for a next forward
        with onloaded(streamed.vae):
            """Nothing is left of the request before."""
        copies.fails_at = {copies.count + failing}
        with pytest.raises(OSError, match="cannot read the weights"):
            denoised(streamed)
        assert torch.equal(denoised(streamed), expected)


def test_a_block_that_fails_leaves_its_buffer(streamed: HunyuanCustomPipeline, copies: Copies) -> None:
    first, second = streamed.transformer.transformer_blocks
    home = first.attn.to_q.weight.data_ptr()
    for block in (first, second, first):
        with pytest.raises(torch.OutOfMemoryError), onloaded(block):
            assert first.attn.to_q.weight.data_ptr() == home or block is first
            raise torch.OutOfMemoryError
    assert first.attn.to_q.weight.data_ptr() == home
    assert copies.buffers() == 3


def test_mapped_weights_stay_mapped(identity: Image.Image, tmp_path: Path) -> None:
    folder = build_demo_model(tmp_path / "demo")
    pipe = load_pipeline(folder, device="cpu", dtype="float32", memory_plan="stream_blocks")
    run(pipe, identity)
    (file,) = (folder / "transformer").glob("*.safetensors")
    ranges = [
        [int(end, 16) for end in line.split()[0].split("-")]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(file))
    ]
    for parameter in pipe.transformer.transformer_blocks.parameters():
        assert any(start <= parameter.data_ptr() < end for start, end in ranges)


def test_the_thread_ends_with_the_model(dit: Any) -> None:
    def copiers() -> int:
        return sum(thread.name == "block copier" for thread in threading.enumerate())

    gc.collect()
    before, transformer = copiers(), copy.deepcopy(dit)
    stream_blocks(transformer, HostCopies())
    with onloaded(transformer), onloaded(transformer.transformer_blocks[0]):
        assert copiers() == before + 1
    del transformer
    gc.collect()
    assert copiers() == before


class TestWholeModels:
    def test_come_while_they_work_and_go_without_a_copy(self, copies: Copies) -> None:
        model, cleared = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)), []
        home = _places(model)
        onload_in_turn(model, copies, Turns(), make_room=lambda: cleared.append(_places(model)))
        for _ in range(2):
            with onloaded(model):
                assert not _places(model) & home
                with onloaded(model):  # frames of a decode that was given up end when their generator is collected
                    pass
                assert not _places(model) & home
            assert _places(model) == home
        assert cleared[0] == home

    def test_without_room_for_all_of_it_nothing_stays(self, copies: Copies) -> None:
        model = torch.nn.Linear(2, 3)
        home = _places(model)
        onload_in_turn(model, copies, Turns(), make_room=lambda: None)
        copies.too_much = (3,)
        for _ in range(2):
            with pytest.raises(torch.OutOfMemoryError), onloaded(model):
                pytest.fail("it ran")
            assert _places(model) == home

    def test_one_that_stays_leaves_when_it_is_another_one_s_turn(self, copies: Copies) -> None:
        stays, other, turns = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3), Turns()
        home = _places(stays)
        onload_in_turn(stays, copies, turns, make_room=lambda: None, stays=True)
        onload_in_turn(other, copies, turns, make_room=lambda: None)
        with onloaded(stays):
            there = _places(stays)
        with onloaded(stays):
            assert _places(stays) == there != home
        with onloaded(other):
            assert _places(stays) == home
        with onloaded(stays), onloaded(other):  # at work still, in a generator that was given up
            assert _places(stays) != home
        assert _places(stays) == home

    def test_one_that_stays_leaves_before_a_block_comes(self, streamed: HunyuanCustomPipeline, copies: Copies) -> None:
        home = _places(streamed.text_encoder)
        with onloaded(streamed.text_encoder):
            pass
        assert _places(streamed.text_encoder) != home
        with onloaded(streamed.transformer):
            assert _places(streamed.text_encoder) == home
        with onloaded(streamed.text_encoder):
            assert copies.buffers() == 0


def _places(module: torch.nn.Module) -> set[int]:
    return {tensor.data_ptr() for tensor in module.state_dict().values()}
