"""The streamed layers compute what diffusers' do, in any parts and memory format, on a CPU as on a GPU."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.memory.dtypes import exact_float32
from pipeline.vae import network
from pipeline.vae.compiled import compiled_passes
from pipeline.vae.layers import Layers
from pipeline.vae.passes import EAGER_PASSES
from pipeline.vae.streamed import StreamedLayers

BuildVae = Callable[..., Any]
CPU = torch.device("cpu")


def streamed(**options: Any) -> StreamedLayers:
    return StreamedLayers(**({"passes": EAGER_PASSES} | options))


@pytest.mark.parametrize(
    "options",
    [{}, {"part_bytes": 20_000}, {"part_bytes": 1}, {"part_bytes": 20_000, "memory_format": torch.contiguous_format}],
    ids=["whole", "parts", "single frames", "contiguous"],
)
def test_the_results_are_those_of_the_whole_layers(
    options: dict[str, Any], build_vae: BuildVae, vae_io: dict[str, Tensor], close: Any
) -> None:
    """Within 1e-5 of the largest value; odd sides, one frame, several, and both kinds of the middle attention."""
    layers, vae = streamed(**options), build_vae()
    for name, frames, causal in (("z", 2, False), ("z_image", 1, True), ("z_tile", 3, True)):
        z = vae_io[f"in.{name}"][:, :, :frames, :3]
        expected = network.decode(vae, z, causal=causal, layers=Layers())
        decoded = network.decode(vae, z, causal=causal, layers=layers)
        close("VAE decode, streamed", decoded / expected.abs().max(), expected / expected.abs().max(), 1e-5)
    for name in ("clip", "image"):
        pixels = vae_io[f"in.{name}_u8"][..., :24] / 127.5 - 1
        expected = network.encode(vae, pixels, causal=True, layers=Layers())
        encoded = network.encode(vae, pixels, causal=True, layers=layers)
        close("VAE encode, streamed", encoded / expected.abs().max(), expected / expected.abs().max(), 1e-5)


def test_the_reference_is_met(build_vae: BuildVae, vae_io: dict[str, Tensor], close: Any) -> None:
    vae = build_vae()
    close(
        "VAE decode, streamed, against the reference",
        network.decode(vae, vae_io["in.z"], causal=True, layers=streamed()),
        vae_io["causal.z.decoded"],
        2e-5,
    )
    close(
        "VAE encode, streamed, against the reference",
        network.encode(vae, vae_io["in.clip_u8"] / 127.5 - 1, causal=True, layers=streamed()),
        vae_io["causal.clip.moments"],
        2e-5,
    )


def test_half_precision_is_no_further_from_fp32_than_that_of_the_whole_layers(
    build_vae: BuildVae, vae_io: dict[str, Tensor]
) -> None:
    wide, half = build_vae(), build_vae().half()
    z = vae_io["in.z"].half()
    exact = network.decode(wide, z.float(), causal=True, layers=Layers())
    whole, parts = (
        (network.decode(half, z, causal=True, layers=layers).float() - exact).square().mean().sqrt()
        for layers in (Layers(), streamed(part_bytes=20_000))
    )
    assert 0 < parts <= 1.1 * whole


def test_the_input_is_left_alone(build_vae: BuildVae, vae_io: dict[str, Tensor]) -> None:
    """Residual blocks write into their input: never into the caller's."""
    z = vae_io["in.z"].clone(memory_format=torch.channels_last_3d)
    network.decode(build_vae(), z, causal=True, layers=streamed())
    assert torch.equal(z, vae_io["in.z"])


@pytest.mark.parametrize(("mean", "tolerance"), [(0.0, 1e-6), (1000.0, 5e-4)])
def test_a_norm_of_values_far_from_zero_keeps_its_digits(mean: float, tolerance: float) -> None:
    """At a mean of a thousand deviations sums of squares would lose all of them."""
    norm = torch.nn.GroupNorm(4, 16, eps=1e-6)
    torch.nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))
    x = mean + torch.randn(1, 16, 5, 12, 20, generator=torch.Generator().manual_seed(0))
    exact = norm.double()(x.double())
    assert (streamed().norm(norm.float(), x) - exact).abs().max() <= tolerance


def test_one_compilation_serves_tiles_of_every_size(
    build_vae: BuildVae, vae_io: dict[str, Tensor], close: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Any] = []

    def backend(graph: Any, _inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    passes = compiled_passes(CPU, torch.float32, torch.channels_last_3d, backend)
    assert len(compiled) == 3
    monkeypatch.setattr("pipeline.vae.streamed.compiled_passes", lambda *_: passes)
    vae = build_vae()
    for size in ((3, 4, 4), (3, 4, 2), (2, 3, 4), (5, 4, 4)):
        z = vae_io["in.z_tile"][:, :, : size[0], : size[1], : size[2]]
        expected = network.decode(vae, z, causal=True, layers=Layers())
        for part_bytes in (2**29, 100_000):
            with exact_float32():  # as tiles are; the compiler depends on some of torch's global settings
                decoded = network.decode(vae, z, causal=True, layers=StreamedLayers(part_bytes=part_bytes))
            close("VAE decode, compiled passes", decoded, expected, 2e-5)
    assert len(compiled) == 3


@pytest.mark.parametrize("fault", ["no compiler", "wrong results"])
def test_what_cannot_be_compiled_runs_as_it_is_after_a_warning(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    def backend(graph: Any, _inputs: Any) -> Any:
        if fault == "no compiler":
            raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")
        return lambda *arguments: [result + 1 for result in graph.forward(*arguments)]

    with caplog.at_level(logging.WARNING):
        passes = compiled_passes(CPU, torch.float32, torch.channels_last_3d, backend)
    assert passes is EAGER_PASSES
    assert len(caplog.records) == 1
    assert ("Failed to find C compiler. Please" if fault == "no compiler" else "PassesDiffer: by 1") in caplog.text
