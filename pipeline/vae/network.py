"""One pass through the VAE's encoder or decoder, over the submodules of `AutoencoderKLHunyuanVideo`.

B C T H W. Driven here instead of through diffusers' forward for its middle attention (diffusers builds a causal mask of
(T*H*W)^2 entries, gigabytes per tile at full size, and cannot leave it out) and for the layers of `vae/streamed.py`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.components import MiddleBlock, SpatialAttention, Vae
from pipeline.vae.layers import Layers
from pipeline.vae.passes import EAGER_PASSES
from pipeline.vae.streamed import StreamedLayers


def layers_on(device: torch.device, *, compiled: bool = True) -> Layers:
    """What is fastest there, with compiled passes or without. On the CPU streamed layers win nothing."""
    if device.type == "cpu":
        return Layers()
    return StreamedLayers(passes=None if compiled else EAGER_PASSES)


def use_layers(vae: Any, layers: Layers) -> None:
    """From now on `vae` is computed in them; otherwise in what is fastest on its device."""
    vae._layers = layers


def _layers_of(vae: Vae, device: torch.device) -> Layers:
    layers: Layers | None = getattr(vae, "_layers", None)
    return layers or layers_on(device)


def encode(vae: Vae, x: Tensor, *, causal: bool, layers: Layers | None = None) -> Tensor:
    """[B,3,F,H,W] in -1..1 -> moments [B,32,T,h,w] (mean, log variance)."""
    encoder, layers = vae.encoder, layers or _layers_of(vae, x.device)
    x = layers.conv(encoder.conv_in, x)
    for block in encoder.down_blocks:
        for resnet in block.resnets:
            x = layers.resnet(resnet, x)
        for sampler in block.downsamplers or ():
            x = layers.downsample(sampler, x)
    x = _middle(layers, encoder.mid_block, x, causal=causal)
    return vae.quant_conv(layers.activated_conv(encoder.conv_norm_out, encoder.conv_out, x)).contiguous()


def decode(vae: Vae, z: Tensor, *, causal: bool, layers: Layers | None = None) -> Tensor:
    """[B,16,T,h,w] in the VAE's own scale -> [B,3,F,H,W] in about -1..1."""
    decoder, layers = vae.decoder, layers or _layers_of(vae, z.device)
    x = layers.conv(decoder.conv_in, vae.post_quant_conv(z))
    x = _middle(layers, decoder.mid_block, x, causal=causal)
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            x = layers.resnet(resnet, x)
        for sampler in block.upsamplers or ():
            x = layers.upsample(sampler, x)
    return layers.activated_conv(decoder.conv_norm_out, decoder.conv_out, x).contiguous()


def _middle(layers: Layers, block: MiddleBlock, x: Tensor, *, causal: bool) -> Tensor:
    x = layers.resnet(block.resnets[0], x)
    for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
        if attention is not None:
            x = _attend(layers, attention, x, causal=causal)
        x = layers.resnet(resnet, x)
    return x


def _attend(layers: Layers, attention: SpatialAttention, x: Tensor, *, causal: bool) -> Tensor:
    """Single-head self attention over all positions of [B,C,T,H,W].

    Causal means that a frame sees itself and earlier frames, all positions of each: frame by frame it needs no mask.
    """
    _, _, frames, height, width = x.shape
    tokens, normed = (each.permute(0, 2, 3, 4, 1).flatten(1, 3) for each in (x, layers.norm(attention.group_norm, x)))
    query, key, value = (
        project(normed).unflatten(2, (attention.heads, -1)).transpose(1, 2)
        for project in (attention.to_q, attention.to_k, attention.to_v)
    )
    if causal:
        ends = range(height * width, (frames + 1) * height * width, height * width)
        attended = torch.cat(
            [
                F.scaled_dot_product_attention(frame, key[:, :, :end], value[:, :, :end])
                for frame, end in zip(query.split(height * width, dim=2), ends, strict=True)
            ],
            dim=2,
        )
    else:
        attended = F.scaled_dot_product_attention(query, key, value)
    out = attention.to_out[0](attended.transpose(1, 2).flatten(2)) + tokens
    return out.unflatten(1, (frames, height, width)).permute(0, 4, 1, 2, 3)
