"""The embedded demo model: the classes of the real one with a tiny, untrained, hand-set configuration.

It exists so that the whole service runs on any machine without downloads. Nothing in it was trained: its weights are
drawn from a seed or set by rule (`demo/codec.py`, `demo/transformer.py`), so that the clip shows the identity photo.
torch is imported only when a model is really built.
"""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from pipeline.hunyuan_custom import HunyuanCustomPipeline

MARKER = "demo.json"
NOTE = (
    "Untrained demonstration model: weights drawn from a seed or set by hand, nothing learned. "
    "It exercises every step of the pipeline; its videos are not HunyuanCustom's."
)


def build_demo_model(folder: Path, *, seed: int = 0) -> Path:
    """Return `folder` holding the demo model of `seed` in diffusers layout; built when it is not there yet.

    The same seed gives the same files; torch's global random state is left alone. Several processes may call at once:
    a complete folder appears by rename. `demo.json` beside `model_index.json` marks it, readable without torch.

    Raises FileExistsError if `folder` holds anything but a demo model, OSError if it cannot be written.
    """
    facts = {"demo": True, "name": "hunyuan-custom-demo", "recipe": _recipe(), "seed": seed, "note": NOTE}
    if demo_facts(folder) == facts:
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        built = Path(scratch) / "new"
        _pipeline(seed).save_pretrained(built)
        (built / MARKER).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        _move_into_place(built, folder, facts)
    return folder


def demo_facts(folder: Path) -> dict[str, Any] | None:
    """What `demo.json` says about the model in `folder`; None for a model that is no demo, or no folder at all."""
    try:
        facts: dict[str, Any] = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return facts


def render_size(width: int, height: int, *, scale: int, multiple: int = 16) -> tuple[int, int]:
    """The size to render at, one `scale`-th of each side of `width` x `height` rounded up to what the model can make.

    224x128 for 896x512 and 320x192 for 1280x720 at scale 4. The MP4 writer brings the frames to the requested size.
    """
    if scale == 1:
        return width, height
    step = scale * multiple
    return -(-width // step) * multiple, -(-height // step) * multiple


def _recipe() -> str:
    """Changes with the code that builds the model: a folder that older code built is built again."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]


def _move_into_place(built: Path, folder: Path, facts: dict[str, Any]) -> None:
    if folder.exists() and any(folder.iterdir()):
        stale = demo_facts(folder)
        if stale is None:
            raise FileExistsError(f"{folder} exists and is not a demo model")
        if stale != facts:
            folder.rename(built.with_name("old"))
    try:
        built.rename(folder)
    except OSError:
        if demo_facts(folder) != facts:  # else another process was first
            raise


def _pipeline(seed: int) -> "HunyuanCustomPipeline":
    import torch
    from diffusers import (
        AutoencoderKLHunyuanVideo,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideoTransformer3DModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, LlavaConfig, LlavaForConditionalGeneration

    from pipeline.demo.codec import set_vae
    from pipeline.demo.tokenizer import clip_tokenizer, llama_tokenizer
    from pipeline.demo.transformer import set_transformer
    from pipeline.hunyuan_custom import HunyuanCustomPipeline
    from weights.convert import SHIFT

    tokenizer, tokenizer_2 = llama_tokenizer(), clip_tokenizer()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        transformer = HunyuanVideoTransformer3DModel(**TRANSFORMER)
        set_transformer(transformer)
        vae = AutoencoderKLHunyuanVideo(**VAE)
        set_vae(vae)
        text_encoder = LlavaForConditionalGeneration(LlavaConfig(**_llava_config(tokenizer)))
        text_encoder_2 = CLIPTextModel(CLIPTextConfig(**_clip_config(tokenizer_2)))
    return HunyuanCustomPipeline(
        transformer=transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        text_encoder_2=text_encoder_2.eval(),
        tokenizer_2=tokenizer_2,
    )


TEXT_WIDTH, POOLED_WIDTH = 32, 32

TRANSFORMER: dict[str, Any] = {
    "in_channels": 16,
    "out_channels": 16,
    "num_attention_heads": 2,
    "attention_head_dim": 32,
    "num_layers": 2,
    "num_single_layers": 2,
    "num_refiner_layers": 2,
    "guidance_embeds": False,
    "text_embed_dim": TEXT_WIDTH,
    "pooled_projection_dim": POOLED_WIDTH,
    "rope_theta": 256.0,
    "rope_axes_dim": (8, 12, 12),
}

VAE: dict[str, Any] = {
    "latent_channels": 16,
    "block_out_channels": (8, 8, 16, 16),
    "layers_per_block": 2,
    "norm_num_groups": 1,  # the anchors of `demo/codec.py` must be in every group
    "scaling_factor": 0.476986,
}


def _llava_config(tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    return {
        "text_config": {
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": TEXT_WIDTH,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 8192,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "image_size": 56,
            "patch_size": 14,
            "hidden_size": 32,
            "intermediate_size": 64,
            "projection_dim": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
        },
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
        "pad_token_id": tokenizer.pad_token_id,
        "image_seq_length": (56 // 14) ** 2,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "projector_hidden_act": "gelu",
    }


def _clip_config(tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": POOLED_WIDTH,
        "intermediate_size": 64,
        "projection_dim": POOLED_WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 77,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
