"""What the pipeline uses of the model classes of diffusers and transformers, as types. No torch at run time.

Shapes stand at the functions that make the calls. C: hidden channels of the transformer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Layer(Protocol):
    """A Linear layer, a convolution, a norm or an activation: one tensor in, one out."""

    def __call__(self, x: Tensor, /) -> Tensor: ...


class WeightedLayer(Layer, Protocol):
    weight: Tensor


class AdaptiveNorm(Protocol):
    """Its `linear` makes shifts, scales and gates of the conditioning vector."""

    linear: Layer


class JointAttention(Protocol):
    """Attention of a transformer block. Only double blocks have `add_*_proj`, `norm_added_*`, `to_out` and
    `to_add_out`; single blocks project their output together with that of their MLP.
    """

    heads: int
    to_q: Layer
    to_k: Layer
    to_v: Layer
    norm_q: WeightedLayer
    norm_k: WeightedLayer
    add_q_proj: Layer
    add_k_proj: Layer
    add_v_proj: Layer
    norm_added_q: WeightedLayer
    norm_added_k: WeightedLayer
    to_out: Sequence[Layer]
    to_add_out: Layer


class DoubleBlock(Protocol):
    """Two streams, image and text, that meet in the attention."""

    norm1: AdaptiveNorm
    norm1_context: AdaptiveNorm
    attn: JointAttention
    ff: Layer
    ff_context: Layer


class SingleBlock(Protocol):
    """One stream of image and text tokens; attention and MLP side by side."""

    norm: AdaptiveNorm
    attn: JointAttention
    proj_mlp: Layer
    proj_out: Layer


class PatchEmbedding(Layer, Protocol):
    proj: WeightedLayer


class TimeTextEmbedding(Protocol):
    def __call__(self, timestep: Tensor, pooled: Tensor, /) -> tuple[Tensor, Any]: ...


class TokenRefiner(Protocol):
    """Only its parts are called."""

    proj_in: Layer

    def time_text_embed(self, timestep: Tensor, pooled: Tensor, /) -> Tensor: ...

    def token_refiner(self, text: Tensor, vec: Tensor, mask: Tensor, /) -> Tensor: ...


class TransformerConfig(Protocol):
    in_channels: int
    num_attention_heads: int
    attention_head_dim: int
    mlp_ratio: float
    patch_size: int
    patch_size_t: int
    rope_axes_dim: Sequence[int]
    rope_theta: float
    text_embed_dim: int
    pooled_projection_dim: int


class Transformer(Protocol):
    """diffusers' `HunyuanVideoTransformer3DModel`."""

    config: TransformerConfig
    x_embedder: PatchEmbedding
    time_text_embed: TimeTextEmbedding
    context_embedder: TokenRefiner
    transformer_blocks: Sequence[DoubleBlock]
    single_transformer_blocks: Sequence[SingleBlock]
    norm_out: AdaptiveNorm
    proj_out: Layer


class VaeConfig(Protocol):
    scaling_factor: float
    out_channels: int
    spatial_compression_ratio: int
    temporal_compression_ratio: int

    def get(self, key: str, default: Any, /) -> Any:
        """For the keys that diffusers' class does not declare, see `vae/codec.py`."""


class SpatialAttention(Protocol):
    """The single-head attention in the middle of the VAE's encoder and decoder."""

    heads: int
    group_norm: GroupNorm
    to_q: Layer
    to_k: Layer
    to_v: Layer
    to_out: Sequence[Layer]


class Convolution(WeightedLayer, Protocol):
    bias: Tensor
    kernel_size: tuple[int, int, int]
    stride: tuple[int, int, int]


class CausalConvolution(Layer, Protocol):
    """Pads by repeating the edges, in time in front only, and convolves."""

    conv: Convolution


class GroupNorm(WeightedLayer, Protocol):
    bias: Tensor
    num_groups: int
    eps: float


class ResidualBlock(Layer, Protocol):
    """Twice norm, SiLU and convolution, plus its input."""

    norm1: GroupNorm
    conv1: CausalConvolution
    norm2: GroupNorm
    conv2: CausalConvolution
    conv_shortcut: CausalConvolution | None


class Sampler(Layer, Protocol):
    """Halves or doubles sides. A doubling one repeats positions, but not the first frame, before its convolution."""

    conv: CausalConvolution


class Upsampler(Sampler, Protocol):
    upsample_factor: tuple[int, int, int]


class DownBlock(Protocol):
    resnets: Sequence[ResidualBlock]
    downsamplers: Sequence[Sampler] | None


class UpBlock(Protocol):
    resnets: Sequence[ResidualBlock]
    upsamplers: Sequence[Upsampler] | None


class MiddleBlock(Protocol):
    resnets: Sequence[ResidualBlock]
    attentions: Sequence[SpatialAttention | None]


class Coder(Protocol):
    """The VAE's encoder or decoder, without its blocks that change the size."""

    conv_in: CausalConvolution
    mid_block: MiddleBlock
    conv_norm_out: GroupNorm
    conv_out: CausalConvolution


class Encoder(Coder, Protocol):
    down_blocks: Sequence[DownBlock]


class Decoder(Coder, Protocol):
    up_blocks: Sequence[UpBlock]


class Vae(Protocol):
    """diffusers' `AutoencoderKLHunyuanVideo`."""

    config: VaeConfig
    dtype: torch.dtype
    spatial_compression_ratio: int
    temporal_compression_ratio: int
    encoder: Encoder
    decoder: Decoder
    quant_conv: Layer
    post_quant_conv: Layer


class VisionConfig(Protocol):
    image_size: int
    patch_size: int


class LlavaConfig(Protocol):
    vision_config: VisionConfig
    vision_feature_layer: Any  # an index, or a list of them
    vision_feature_select_strategy: str
    image_token_id: int


class Llava(Protocol):
    """transformers' `LlavaForConditionalGeneration`."""

    config: LlavaConfig
    dtype: torch.dtype
    model: Any  # its `language_model` is called with embeddings
    lm_head: Layer

    def get_input_embeddings(self) -> Layer: ...

    def get_image_features(
        self, *, pixel_values: Tensor, vision_feature_layer: Any, vision_feature_select_strategy: str
    ) -> Any: ...


class ClipTextConfig(Protocol):
    max_position_embeddings: int


class ClipText(Protocol):
    """transformers' `CLIPTextModel`."""

    config: ClipTextConfig

    def __call__(self, ids: Tensor, /) -> Any: ...


class Tokenizer(Protocol):
    """A tokenizer of transformers. Its result is a mapping with the list `input_ids`."""

    bos_token_id: int
    eos_token_id: int
    pad_token_id: int

    def __len__(self) -> int: ...

    def get_added_vocab(self) -> dict[str, int]: ...

    def __call__(self, text: str, /, *, add_special_tokens: bool = True, verbose: bool = True) -> Any: ...

    def decode(self, ids: list[int], /, *, clean_up_tokenization_spaces: bool) -> str: ...


class Scheduler(Protocol):
    """diffusers' `FlowMatchEulerDiscreteScheduler`."""

    timesteps: Tensor
    sigmas: Tensor

    def set_timesteps(self, *, sigmas: Any) -> None: ...


class ConditioningModels(Protocol):
    """What prompts and pictures go through, under the names of the pipeline's components."""

    @property
    def text_encoder(self) -> Llava: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def text_encoder_2(self) -> ClipText: ...

    @property
    def tokenizer_2(self) -> Tokenizer: ...

    @property
    def vae(self) -> Vae: ...
