import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo
from torch import Tensor

from pipeline.vae import network as vae_network
from pipeline.vae.codec import (
    decode_chunks,
    decode_stream,
    decode_tile_count,
    decode_tiling,
    encode_moments,
    encode_reference,
    encode_tiling,
)

TOLERANCE = 2e-5
BuildVae = Callable[..., Any]


def _pixels(io: dict[str, Tensor], name: str) -> Tensor:
    return io[f"in.{name}_u8"] / 127.5 - 1


def _decoded(vae: Any, z: Tensor) -> Tensor:
    """The whole clip in about -1..1, from latents in the VAE's own scale."""
    from pipeline.vae.tiling import tiled

    causal = vae.config["mid_block_causal_attn"]
    return torch.cat(list(tiled(lambda t: vae_network.decode(vae, t, causal=causal), z, decode_tiling(vae))), dim=2)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "full"])
def test_encode_and_decode_equal_the_reference(
    causal: bool, build_vae: BuildVae, vae_io: dict[str, Tensor], close: Any
) -> None:
    """Tiled in space, in time, in both and not at all."""
    kind = "causal" if causal else "full"
    tiled_vae = build_vae(mid_block_causal_attn=causal)
    whole_vae = build_vae(mid_block_causal_attn=causal, sample_size=256, sample_tsize=64)
    for name in ("image", "clip", "tile_image", "tile_clip"):
        moments = encode_moments(tiled_vae if "tile" in name else whole_vae, _pixels(vae_io, name))
        close(f"VAE encode, {kind}", moments, vae_io[f"{kind}.{name}.moments"], TOLERANCE)
    for name in ("z", "z_image", "z_tile", "z_tile_t"):
        decoded = _decoded(tiled_vae if "tile" in name else whole_vae, vae_io[f"in.{name}"])
        close(f"VAE decode, {kind}", decoded, vae_io[f"{kind}.{name}.decoded"], TOLERANCE)


def test_published_tile_sizes_equal_the_reference(build_vae: BuildVae, vae_io: dict[str, Tensor], close: Any) -> None:
    vae = build_vae(sample_size=256, sample_tsize=64)
    for name in ("clip", "image"):
        moments = encode_moments(vae, _pixels(vae_io, f"real_{name}"))
        close("VAE encode, tiles of 256/64", moments, vae_io[f"real.{name}.moments"], TOLERANCE)
    for name in ("z", "z_image"):
        close(
            "VAE decode, tiles of 256/64",
            _decoded(vae, vae_io[f"in.real_{name}"]),
            vae_io[f"real.{name}.decoded"],
            TOLERANCE,
        )


def test_tile_sizes_default_to_the_published_ones(build_vae: BuildVae) -> None:
    bare = AutoencoderKLHunyuanVideo(block_out_channels=(4, 4, 4, 4), norm_num_groups=2, layers_per_block=1)
    published = build_vae(sample_size=256, sample_tsize=64)
    assert decode_tiling(bare) == decode_tiling(published)
    assert encode_tiling(bare) == encode_tiling(published)


def test_tiles_equal_diffusers_own_tiling(tiny_vae: Any, close: Any) -> None:
    """An independent oracle at a size with a blend in every direction."""
    z = torch.randn(1, 16, 7, 6, 9, generator=torch.Generator().manual_seed(0))
    tiny_vae.enable_tiling(32, 32, 16, 24, 24, 12)
    try:
        expected = tiny_vae.decode(z).sample
    finally:
        tiny_vae.disable_tiling()
    close("VAE decode against diffusers' tiling", _decoded(tiny_vae, z), expected, TOLERANCE)


def test_stream_gives_the_frames_of_the_whole_clip(tiny_vae: Any, vae_io: dict[str, Tensor]) -> None:
    scale = tiny_vae.config.scaling_factor
    z = vae_io["in.z_tile"] * scale
    tiles: list[None] = []
    stream = decode_stream(tiny_vae, z, on_tile=lambda: tiles.append(None))
    first = next(stream)
    assert first.shape == (13, 40, 56, 3)  # of 21: the second temporal tile is not decoded yet
    assert len(tiles) == decode_tile_count(tiny_vae, z) // 2
    frames = np.concatenate([first, *stream])
    assert len(tiles) == decode_tile_count(tiny_vae, z)
    whole = (_decoded(tiny_vae, z / scale) / 2 + 0.5).clamp(0, 1)
    expected = (whole[0].permute(1, 2, 3, 0).numpy() * 255).astype(np.uint8)
    assert np.array_equal(frames, expected)


def test_stream_leaves_grad_mode_alone(tiny_vae: Any, vae_io: dict[str, Tensor]) -> None:
    with torch.enable_grad():
        for frames in decode_stream(tiny_vae, vae_io["in.z_tile_t"]):
            assert torch.is_grad_enabled()
            assert frames.dtype == np.uint8


def test_a_raising_callback_stops_the_stream(tiny_vae: Any, vae_io: dict[str, Tensor]) -> None:
    def cancel() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        next(decode_stream(tiny_vae, vae_io["in.z_tile"], on_tile=cancel))


def test_posterior_modes(build_vae: BuildVae, vae_io: dict[str, Tensor]) -> None:
    vae = build_vae(sample_size=256)
    pixels = _pixels(vae_io, "image")
    options: dict[str, Any] = {"posterior": "sample"}

    def sample(seed: int) -> Tensor:
        return encode_reference(vae, pixels, generator=torch.Generator().manual_seed(seed), **options)

    mode = encode_reference(vae, pixels, posterior="mode", generator=None)
    scale = vae.config.scaling_factor
    assert torch.allclose(mode, vae_io["causal.image.moments"][:, :16] * scale, atol=TOLERANCE)
    assert torch.equal(sample(1), sample(1))
    assert not torch.equal(sample(1), sample(2))
    assert not torch.equal(sample(1), mode)


def test_a_half_precision_overflow_is_decoded_again_in_fp32(
    build_vae: BuildVae, vae_io: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = build_vae().half()
    dtypes: list[torch.dtype] = []
    in_tf32: list[bool] = []
    decode = vae_network.decode

    def overflowing(model: Any, z: Tensor, *, causal: bool) -> Tensor:
        dtypes.append(z.dtype)
        in_tf32.append(torch.backends.cudnn.allow_tf32)
        out = decode(model, z, causal=causal)
        return out.fill_(torch.inf) if z.dtype == torch.float16 else out

    monkeypatch.setattr(vae_network, "decode", overflowing)
    chunk = torch.cat(list(decode_chunks(vae, vae_io["in.z"])), dim=2)
    assert torch.isfinite(chunk).all()
    assert dtypes == [torch.float16, torch.float32]
    assert in_tf32 == [False, False]
    assert torch.backends.cudnn.allow_tf32  # what else runs in the process keeps its own setting
    assert vae.dtype == torch.float16


def test_a_true_overflow_is_decoded_and_encoded_as_by_an_fp32_vae(
    build_vae: BuildVae, vae_io: dict[str, Tensor], close: Any
) -> None:
    """First layers that leave fp16's range; the norms behind them make that harmless in fp32."""
    vae = build_vae().half()
    vae.decoder.conv_in.conv.weight *= 20_000
    vae.encoder.conv_in.conv.weight *= 50_000
    wide = copy.deepcopy(vae).float()
    pixels = _pixels(vae_io, "tile_image")
    assert not vae_network.encode(vae, pixels[..., :32, :32].half(), causal=True).isfinite().all()
    moments = encode_moments(vae, pixels)
    assert moments.isfinite().all()
    close("VAE, fp32 fallback", moments, encode_moments(wide, pixels), 1e-6)
    z = vae_io["in.z_tile_t"]
    decoded, expected = (torch.cat(list(decode_chunks(model, z)), dim=2) for model in (vae, wide))
    close("VAE, fp32 fallback", decoded, expected, 1e-6)
    assert {parameter.dtype for parameter in vae.parameters()} == {torch.float16}


def test_the_extra_keys_survive_saving(build_vae: BuildVae, tmp_path: Path) -> None:
    build_vae(mid_block_causal_attn=False).save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert (stored["sample_size"], stored["sample_tsize"], stored["mid_block_causal_attn"]) == (32, 16, False)
    loaded = AutoencoderKLHunyuanVideo.from_pretrained(tmp_path)
    assert decode_tiling(loaded) == decode_tiling(build_vae())
    assert loaded.config["mid_block_causal_attn"] is False
