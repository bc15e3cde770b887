"""Hand-set weights of the demo model's VAE: a linear codec instead of a trained one.

A latent pixel holds the mean luma of its 8x8 pixels, the slopes of luma along x, y and both, and two mean colours.
Weights that the codec does not need keep their seeded random values and run, into zeroed outputs.

Normalisation would bend a linear path. Two constant channels of +-ANCHOR, far larger than any signal, hold its
statistics still: a normalised signal is the signal divided by a known number.
"""

import torch
from diffusers import AutoencoderKLHunyuanVideo
from torch import Tensor, nn

ANCHOR = 64.0
PICTURE = 6  # channels: Y, Y_x, Y_y, Y_xy, Cb, Cr; the anchors follow
COLOURS = (0, 4, 5)  # those of them that are means: Y, Cb, Cr

_SPREAD = torch.tensor([2.0, 1.0, 1.0, 1.0, 4.0, 4.0])  # brings latents to about unit size
_SILU_BIAS = ANCHOR + 20.0  # silu(x) = x for x of about 20 and more
_YCC_OF_RGB = torch.tensor([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])

# Halving and doubling one side: [out (value, slope), in (value, slope), tap]; a slope is per pixel of its level.
# Halving fits a line to each pair. Doubling keeps constants and lines; its three free numbers (0.144, 1.095, -0.442)
# minimise the error of a round trip of 1/f signals.
_HALVE_PIXELS = torch.tensor([[[0, 0.5, 0.5], [0, 0, 0]], [[0, -2.0, 2.0], [0, 0, 0]]])
_HALVE = torch.tensor([[[0, 0.5, 0.5], [0, 0, 0]], [[0, -1.6, 1.6], [0, 0.2, 0.2]]])
_DOUBLE = torch.tensor([[[0.25, 0.5, 0.25], [0.144, 0, -0.144]], [[-1.095, 0, 1.095], [-0.442, 0.289, -0.442]]])


def set_vae(vae: AutoencoderKLHunyuanVideo) -> None:
    """Make an `AutoencoderKLHunyuanVideo` with one norm group and three resampling levels the codec."""
    for module in vae.modules():
        if hasattr(module, "conv_shortcut"):  # a residual block
            zero(module.conv2.conv)
            if module.conv_shortcut is not None:
                zero(module.conv_shortcut.conv)
                channels = min(module.conv_shortcut.conv.weight.shape[:2])
                module.conv_shortcut.conv.weight[:channels, :channels, 0, 0, 0] = torch.eye(channels)
        elif hasattr(module, "to_out"):
            zero(module.to_out[0])
    for conv in (vae.quant_conv, vae.post_quant_conv):
        zero(conv)
        conv.weight[:, :, 0, 0, 0] = torch.eye(len(conv.weight))
    encoder, decoder = vae.encoder, vae.decoder
    for level in range(3):
        _resample(encoder.down_blocks[level].downsamplers[0].conv.conv, _HALVE if level else _HALVE_PIXELS)
        _resample(decoder.up_blocks[level].upsamplers[0].conv.conv, _DOUBLE)

    picture_of_rgb = torch.zeros(PICTURE, 3)
    picture_of_rgb[COLOURS, :] = _YCC_OF_RGB
    _linear_input(encoder.conv_in.conv, picture_of_rgb)
    _linear_output(encoder, _SPREAD.diag())
    encoder.conv_out.conv.bias[vae.config.latent_channels :] = -20.0  # log variance: the posterior is its mean
    rgb_of_picture = torch.zeros(3, PICTURE)
    rgb_of_picture[:, COLOURS] = torch.linalg.inv(_YCC_OF_RGB)
    _linear_input(decoder.conv_in.conv, (1 / _SPREAD).diag())
    _linear_output(decoder, rgb_of_picture)


def zero(module: nn.Linear | nn.Conv3d) -> None:
    module.weight.zero_()
    if module.bias is not None:
        module.bias.zero_()


def _resample(conv: nn.Conv3d, side: Tensor) -> None:
    """3x3x3 resampling `conv` with `side` along both sides; in time it keeps the newest frame."""
    zero(conv)
    # Luma channels are numbered slope-in-x + 2 * slope-in-y.
    conv.weight[:4, :4, -1] = torch.einsum("oiy,pjx->opijyx", side, side).reshape(4, 4, 3, 3)
    for channel in range(4, PICTURE + 2):
        conv.weight[channel, channel, -1] = torch.outer(side[0, 0], side[0, 0])


def _linear_input(conv: nn.Conv3d, matrix: Tensor) -> None:
    """`matrix` [PICTURE, in] of each pixel, and the anchors."""
    _pointwise(conv, matrix)
    conv.bias[PICTURE : PICTURE + 2] = torch.tensor([ANCHOR, -ANCHOR])


def _linear_output(coder: nn.Module, matrix: Tensor) -> None:
    """conv_norm_out, silu and conv_out of `coder` as `matrix` [out, PICTURE].

    The norm takes the mean of all channels away; the mean of the two anchors tells it, and rows that sum to zero
    cancel it together with the bias that keeps silu linear.
    """
    norm = coder.conv_norm_out
    norm.weight.zero_()
    norm.weight[: PICTURE + 2] = ANCHOR * (2 / len(norm.weight)) ** 0.5
    norm.bias.fill_(_SILU_BIAS)
    _pointwise(coder.conv_out.conv, torch.cat([matrix, -matrix.sum(1, keepdim=True).expand(-1, 2) / 2], dim=1))


def _pointwise(conv: nn.Conv3d, matrix: Tensor) -> None:
    """A causal 3x3x3 `conv` that maps each pixel by `matrix` [out, in] and leaves other channels at zero."""
    zero(conv)
    conv.weight[: matrix.shape[0], : matrix.shape[1], -1, 1, 1] = matrix
