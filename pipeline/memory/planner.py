"""How much memory a clip takes under each memory plan, before anything is loaded. Imports no torch.

Bytes, stage by stage: what lies on the GPU while the prompt is encoded, while the transformer denoises and while the
VAE decodes. Every term has a name. What the code allocates is counted from its shapes; what libraries and the allocator
add are the constants of `Engine`, each with its source.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias, get_args

from pipeline.memory.model_sizes import ModelSizes
from pipeline.options import MEMORY_PLANS, MemoryPlan, StepCacheName

Stage: TypeAlias = Literal["encode", "denoise", "decode"]
Terms: TypeAlias = Mapping[str, int]

_GB: Final = 10**9
_PIXELS_PER_TOKEN: Final = 16
_FRAMES_PER_LATENT: Final = 4
_TEXT_ROWS: Final = 831  # 256 - 1 tokens and 576 image rows; at most so many take part in attention
_CACHED: Final[Mapping[StepCacheName | None, int]] = {None: 0, "reference": 2, "first_block": 8}
"""What the step cache holds of two branches, in tensors of the size of the hidden states, while it decides."""
_PROMPT_ROWS: Final = 927  # what LLaVA reads: 351 tokens, one of them an image of 576 rows, and the padding row


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What depends on how the code computes, not on the model. The defaults are today's code.

    context: CUDA context with the kernels in use. On one H100 a loaded server took 41 GB by nvidia-smi, of which
        40.1 GiB or 43.1 GB were weights.
    tile_tensors: a tile's decoding at its peak, in tensors of the widest layer (all frames and pixels, twice the VAE's
        first width: 2.18 GB). Counted from shapes, 2.3 of them, and 1.3 for cuDNN's workspace, which has not been
        measured. By diffusers' layers 14.2 GB were measured on one H100, cuDNN 9.19, with its workspace: 6.5.
    streamed_blocks: the buffers on the GPU under `stream_blocks`, see `memory/block_ring.py`.
    lean_blocks: a block lets go of what it has used, and the double blocks' image tokens are gone in the single ones.
    encoders_whole: LLaVA comes to the GPU as a whole under `stream_blocks`, not layer by layer.
    modulation_stays: the adaLN layers, a quarter of the transformer, are on the GPU while it denoises.
    expandable: the allocator's segments grow and shrink. Those of fixed size keep what they had: by two readings of
        nvidia-smi on one H100 three times the tensors of denoising (the two branches differ in length, and neither
        fits into what the other left) and 1.2 times those of decoding. A GPU that is full gives them back, so that
        they count for what is taken, and not for what is needed.
    slack: of the activations, which the allocator loses to rounding.
    step_cache: the setting of that name.
    """

    context: int = 600 * 10**6
    tile_tensors: float = 3.6
    streamed_blocks: int = 3
    lean_blocks: bool = True
    encoders_whole: bool = True
    modulation_stays: bool = False
    expandable: bool = True
    kept_of_denoising: float = 3.0
    kept_of_decoding: float = 1.2
    slack: float = 0.05
    step_cache: StepCacheName | None = None


TODAY: Final = Engine()
MEASURED: Final = replace(
    TODAY,
    tile_tensors=6.5,
    streamed_blocks=2,
    lean_blocks=False,
    encoders_whole=False,
    modulation_stays=True,
    expandable=False,
    slack=0.0,
)
"""The code whose figures on one H100 this module is checked against."""


@dataclass(frozen=True, slots=True)
class Clip:
    """Pixels and frames of a video."""

    width: int
    height: int
    frames: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}, {self.frames} frames"

    @property
    def tokens(self) -> int:
        """Of the video and the reference frame before it."""
        latent_frames = (self.frames - 1) // _FRAMES_PER_LATENT + 1
        return (latent_frames + 1) * (self.width // _PIXELS_PER_TOKEN) * (self.height // _PIXELS_PER_TOKEN)


LARGEST: Final = Clip(1280, 720, 129)
"""That the endpoint allows."""
CLIPS: Final = (Clip(896, 512, 81), Clip(896, 512, 129), Clip(1280, 720, 81), LARGEST)
SMALLEST: Final = Clip(896, 512, 1)


@dataclass(frozen=True, kw_only=True)
class Need:
    """What one clip takes under one plan.

    taken: from a GPU that has plenty, at the end of each stage and as its driver counts. host: memory of the machine,
    page cache not counted.
    """

    plan: MemoryPlan
    stages: Mapping[Stage, Terms]
    taken: Mapping[Stage, int]
    host: int

    @property
    def peak(self) -> int:
        """What the GPU must have free, in the stage that needs most."""
        return max(sum(terms.values()) for terms in self.stages.values())


def need(model: ModelSizes, plan: MemoryPlan, clip: Clip, *, engine: Engine = TODAY) -> Need:
    """The memory that this clip takes."""
    work: dict[Stage, Terms] = {
        "encode": {"activations": encoding(model)},
        "denoise": denoising(model, clip, engine),
        "decode": decoding(model, clip, engine),
    }
    weights = _weights(model, plan, engine)
    stages: dict[Stage, Terms] = {
        stage: {
            "CUDA context": engine.context,
            **weights[stage],
            **work[stage],
            "allocator": int(engine.slack * sum(work[stage].values())),
        }
        for stage in get_args(Stage)
    }
    # Offloaded models come back to the host's own memory; the other plans leave the weights in their files.
    host = 4 * _GB + (model.total if plan == "offload_encoders" else 0)
    return Need(plan=plan, stages=stages, taken=_taken(stages, weights, work, plan, engine), host=host)


def _taken(
    stages: Mapping[Stage, Terms],
    weights: Mapping[Stage, Terms],
    work: Mapping[Stage, Terms],
    plan: MemoryPlan,
    engine: Engine,
) -> dict[Stage, int]:
    kept = {"encode": 1.0, "denoise": engine.kept_of_denoising, "decode": engine.kept_of_decoding}
    taken: dict[Stage, int] = {}
    weights_so_far = work_so_far = 0
    for stage in get_args(Stage):
        if engine.expandable:
            taken[stage] = max(sum(stages[stage].values()), *taken.values(), 0)
            continue
        own = sum(weights[stage].values())
        # Layers come and go one by one under this plan; elsewhere models do, and free what they had.
        weights_so_far = weights_so_far + own if plan == "stream_blocks" else max(weights_so_far, own)
        work_so_far += int(kept[stage] * sum(work[stage].values()))
        taken[stage] = engine.context + weights_so_far + work_so_far
    return taken


def encoding(model: ModelSizes) -> int:
    """LLaVA over one prompt: the states of every layer, which it returns, and one layer's MLP."""
    states = (model.text_layers + 1) * model.text_hidden + 3 * model.text_mlp
    return _PROMPT_ROWS * states * model.vae_itemsize


def denoising(model: ModelSizes, clip: Clip, engine: Engine = TODAY, *, text_rows: int = _TEXT_ROWS) -> dict[str, int]:
    """One branch through a single block, when the input of its last Linear layer has been put together.

    There live: the block's input, its norm, the attention's output, the MLP's, both of these once more as one; and the
    rotary tables in fp32. Blocks that are not lean also held the image tokens of the double blocks and the result.
    """
    rows = clip.tokens + text_rows
    mlp = model.mlp / model.hidden
    tensors = 1 + 1 + 1 + mlp + (1 + mlp)
    more = 0 if engine.lean_blocks else rows + clip.tokens
    terms = {
        "activations": int((tensors * rows + more) * model.hidden * model.itemsize),
        "rotary tables": 2 * rows * model.head * 4,
    }
    if cached := _CACHED[engine.step_cache]:
        terms["step cache"] = cached * rows * model.hidden * model.itemsize
    return terms


def decoding(model: ModelSizes, clip: Clip, engine: Engine = TODAY) -> dict[str, int]:
    """One tile, and the fp32 pixels of the tiles before it: two rows of them, and two copies of what they make."""
    side, frames = model.vae_tile
    frames = min(frames + 1, clip.frames)
    tile = frames * min(side, clip.width) * min(side, clip.height)
    columns = -(-clip.width // (side * 3 // 4))
    pixels = 2 * min(columns * tile, frames * clip.width * side) + 2 * frames * clip.width * clip.height
    return {
        "tile": int(engine.tile_tensors * tile * 2 * model.vae_channels * model.vae_itemsize),
        "pixels": pixels * 3 * 4,
    }


def _weights(model: ModelSizes, plan: MemoryPlan, engine: Engine) -> dict[Stage, dict[str, int]]:
    transformer = model.transformer - (0 if engine.modulation_stays else model.modulation)
    if plan == "resident":
        everything = {"transformer": transformer, "encoders": model.encoders, "VAE": model.vae}
        return dict.fromkeys(get_args(Stage), everything)
    if plan == "offload_encoders":
        # accelerate's hooks move off the model before, and nothing comes after the VAE.
        return {
            "encode": {"encoders": model.text_encoder, "VAE": model.vae},
            "denoise": {"transformer": transformer, "VAE": model.vae},
            "decode": {"VAE": model.vae},
        }
    block = max(
        model.double + engine.modulation_stays * model.double_modulation,
        model.single + engine.modulation_stays * model.single_modulation,
    )
    denoise = {"blocks": engine.streamed_blocks * block, "transformer": model.other}
    if not engine.encoders_whole:
        return {
            "encode": {"encoders": 2 * model.largest_leaf, "VAE": model.vae},
            "denoise": denoise,
            "decode": {"VAE": model.vae},
        }
    return {
        "encode": {"LLaVA": model.text_encoder, "transformer": model.other},
        "denoise": denoise,
        "decode": {"VAE": model.vae, "transformer": model.other},
    }


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A plan and why. `fits`: whether the clip can be made under it at all."""

    plan: MemoryPlan
    reason: str
    fits: bool


def choose(model: ModelSizes, *, gpu: int, host: int, clip: Clip = LARGEST, engine: Engine = TODAY) -> Choice:
    """The fastest plan under which `clip` fits into `gpu` and `host` bytes that are free; else the smallest."""
    refused: list[str] = []
    for plan in MEMORY_PLANS:
        needed = need(model, plan, clip, engine=engine)
        if needed.peak <= gpu and needed.host <= host:
            taken = f"{plan} takes {_gb(needed.peak)} of {_gb(gpu)} for {clip}"
            return Choice(plan=plan, reason="; ".join([taken, *refused]), fits=True)
        refused.append(f"{plan} needs {_gb(needed.peak)}, and {_gb(needed.host)} of the host")
    there = f"{_gb(gpu)} are too little for {clip}"
    return Choice(plan=MEMORY_PLANS[-1], reason="; ".join([there, *refused]), fits=False)


def lacks(
    model: ModelSizes, plan: MemoryPlan, *, gpu: int, host: int, clip: Clip, engine: Engine = TODAY
) -> str | None:
    """Why the clip does not fit under this plan; None if it does."""
    needed = need(model, plan, clip, engine=engine)
    if needed.peak > gpu:
        return f"needs {_gb(needed.peak)} of GPU memory for {clip}, {_gb(gpu)} are free"
    if needed.host > host:
        return f"needs {_gb(needed.host)} of host memory, {_gb(host)} are free"
    return None


def _gb(nbytes: int) -> str:
    return f"{nbytes / _GB:.1f} GB"
