"""LLaVA and CLIP: transformers' own folders, taken over as they are once their headers have been checked.

Safetensors are hard-linked, not copied; `.bin` files are streamed into safetensors. A full CLIP checkpoint gives its
text tower only. Tokenizer files go to folders of their own, as diffusers lays a pipeline out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from weights.errors import CheckpointError, StructureError
from weights.originals.config_values import check_values
from weights.originals.encoder_check import check_encoder, is_computed
from weights.originals.structure import CONFIG_ERRORS, reason_of
from weights.originals.tokenizer_check import check_clip_tokenizer
from weights.originals.torch_checkpoint import list_torch_checkpoint
from weights.writing.component import Component, json_text, read_json, read_text
from weights.writing.move import Move
from weights.writing.safetensors_file import list_safetensors
from weights.writing.stored_tensor import StoredTensor

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)


LLAVA: dict[str, Any] = {
    "text_config": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128_320,
    },
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
    },
}
CLIP: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "vocab_size": 49_408,
}
"""Sizes of llava-llama-3-8b and clip-vit-large-patch14."""


def plan_llava(folder: Path) -> list[Component]:
    """`text_encoder/` and `tokenizer/` from LLaVA's folder. Raises `CheckpointError` and `StructureError`."""
    from transformers import LlavaForConditionalGeneration

    llava_config(folder / "config.json")
    files = weight_files(folder)
    texts = _texts(folder, ("config.json", "generation_config.json"))
    if files[0].suffix == ".safetensors":
        encoder = _linked("text_encoder", texts, files)
    else:
        encoder = _streamed("text_encoder", texts, files, prefix="")
    check_encoder(encoder, LlavaForConditionalGeneration, config=folder / "config.json", weights=_named_by(files))
    # Llama-3's tokenizer is byte-level BPE: any other class than the plain fast one rebuilds it with other ids.
    tokenizer = _texts(folder, TOKENIZER_FILES)
    settings = read_json(folder / "tokenizer_config.json") | {"tokenizer_class": "PreTrainedTokenizerFast"}
    tokenizer["tokenizer_config.json"] = json_text(settings)
    return [encoder, Component(folder="tokenizer", texts=tokenizer)]


def plan_clip(folder: Path) -> list[Component]:
    """`text_encoder_2/` and `tokenizer_2/` from CLIP's folder, text tower only. Raises as `plan_llava`."""
    from transformers import CLIPTextModel

    config, text_config = read_json(folder / "config.json"), clip_config(folder / "config.json")
    check_clip_tokenizer(folder, vocabulary=text_config["vocab_size"])
    files = weight_files(folder)
    keys = [key for file in files for key in _list(file)]
    linkable = files[0].suffix == ".safetensors" and all(key.startswith("text_model.") for key in keys)
    if linkable and config.get("model_type") == "clip_text_model":
        encoder = _linked("text_encoder_2", _texts(folder, ("config.json",)), files)
    else:
        texts = {"config.json": json_text(text_config)}
        encoder = _streamed("text_encoder_2", texts, files, prefix="text_model.")
    check_encoder(encoder, CLIPTextModel, config=folder / "config.json", weights=_named_by(files))
    return [encoder, Component(folder="tokenizer_2", texts=_texts(folder, TOKENIZER_FILES))]


def weight_files(folder: Path) -> list[Path]:
    """Safetensors of a transformers folder, else its `.bin` files; shards as its index lists them.

    Raises `CheckpointError` naming the first that is missing.
    """
    for single, index in (
        ("model.safetensors", "model.safetensors.index.json"),
        ("pytorch_model.bin", "pytorch_model.bin.index.json"),
    ):
        if (folder / index).is_file():
            weight_map = read_json(folder / index).get("weight_map")
            names = set(weight_map.values()) if isinstance(weight_map, dict) else set()
            if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
                raise CheckpointError(f"{folder / index}: its weight_map names no files of this folder")
            files = [folder / name for name in sorted(names)]
        elif (folder / single).is_file():
            files = [folder / single]
        else:
            continue
        for file in files:
            if not file.is_file():
                raise CheckpointError(f"{file}: missing, {index} lists it")
        return files
    raise CheckpointError(f"{folder / 'model.safetensors'}: missing")


def _named_by(files: Sequence[Path]) -> Path:
    """What an error about the whole of `files` names: the file, or the index of its shards."""
    first = files[0]
    stem = "model" if first.suffix == ".safetensors" else "pytorch_model"
    return first if len(files) == 1 else first.with_name(f"{stem}{first.suffix}.index.json")


def llava_config(path: Path) -> dict[str, Any]:
    """LLaVA's config, defaults filled in by transformers. Raises `StructureError`."""
    from transformers import LlavaConfig

    given = read_json(path)
    check_values(path, given, LLAVA, null=True)
    with _refusing(path, "LlavaConfig"):
        config: dict[str, Any] = LlavaConfig(**given).to_dict()
    check_values(path, config, LLAVA)
    return config


def clip_config(path: Path) -> dict[str, Any]:
    """A text-only config of a CLIP model's config, defaults filled in by transformers. Raises `StructureError`."""
    from transformers import CLIPConfig, CLIPTextConfig

    given = read_json(path)
    whole = given.get("model_type") == "clip"
    check_values(path, given, {"text_config": CLIP} if whole else CLIP, null=True)
    with _refusing(path, "CLIPTextConfig"):
        text = CLIPConfig(**given).text_config if whole else CLIPTextConfig(**given)
        settings: dict[str, Any] = text.to_dict()
    check_values(path, settings, CLIP)
    return settings | {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model"}


@contextlib.contextmanager
def _refusing(path: Path, config_class: str) -> Iterator[None]:
    try:
        yield
    except (*CONFIG_ERRORS, StrictDataclassError) as error:
        raise StructureError(f"{path}: {config_class} refuses it ({reason_of(error)})") from error


def _list(file: Path) -> dict[str, StoredTensor]:
    return list_safetensors(file) if file.suffix == ".safetensors" else list_torch_checkpoint(file)


def _linked(folder: str, texts: dict[str, str], files: Sequence[Path]) -> Component:
    index = files[0].parent / "model.safetensors.index.json"
    if index.is_file():
        texts = texts | {index.name: read_text(index)}
    return Component(folder=folder, stem="model", texts=texts, links=tuple(files))


def _streamed(folder: str, texts: dict[str, str], files: Sequence[Path], *, prefix: str) -> Component:
    moves = [
        Move.whole(tensor, key)
        for file in files
        for key, tensor in _list(file).items()
        if key.startswith(prefix) and not is_computed(key)
    ]
    return Component(folder=folder, stem="model", texts=texts, moves=tuple(moves))


def _texts(folder: Path, names: Sequence[str]) -> dict[str, str]:
    return {name: read_text(folder / name) for name in names if (folder / name).is_file()}
