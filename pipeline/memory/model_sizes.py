"""How large the four models are, told by the headers of their files, or by the published config where there are none.

Imports no torch: `doctor` and the planner ask before anything is loaded.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pipeline.options import Dtype

_MODULATION = (".norm1.linear.", ".norm1_context.linear.", ".norm.linear.")


@dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """Bytes of the weights as they are loaded, and the widths that activations depend on.

    double, single: one transformer block of each kind, without its `*_modulation`; other: the rest of the transformer.
    `largest_leaf` is LLaVA's largest single layer, its token embedding.
    """

    doubles: int
    singles: int
    double: int
    double_modulation: int
    single: int
    single_modulation: int
    other: int
    text_encoder: int
    text_encoder_2: int
    vae: int
    largest_leaf: int
    hidden: int
    mlp: int
    head: int
    text_hidden: int
    text_layers: int
    text_mlp: int
    vae_channels: int
    vae_tile: tuple[int, int]
    itemsize: int
    vae_itemsize: int

    @property
    def modulation(self) -> int:
        """Of all blocks."""
        return self.doubles * self.double_modulation + self.singles * self.single_modulation

    @property
    def transformer(self) -> int:
        """All of it."""
        return self.doubles * self.double + self.singles * self.single + self.modulation + self.other

    @property
    def encoders(self) -> int:
        """LLaVA and CLIP."""
        return self.text_encoder + self.text_encoder_2

    @property
    def total(self) -> int:
        """All four models."""
        return self.transformer + self.encoders + self.vae

    @classmethod
    def of(cls, folder: Path, dtype: Dtype, *, on_cpu: bool = False) -> Self:
        """Of a converted model.

        Raises:
            OSError, ValueError, KeyError: a file is missing or is no such file.
        """
        wide = 4 if dtype == "float32" else 2
        small = 4 if on_cpu else wide
        transformer, text, vae = (_config(folder / name) for name in ("transformer", "text_encoder", "vae"))
        hidden = transformer["num_attention_heads"] * transformer["attention_head_dim"]
        parts = dict.fromkeys(("double", "double_modulation", "single", "single_modulation", "other"), 0)
        for name, count, stored in _tensors(folder / "transformer"):
            kind = {"transformer_blocks": "double", "single_transformer_blocks": "single"}.get(name.split(".")[0])
            modulates = any(part in name for part in _MODULATION)
            eight_bit = stored == "F8_E4M3"
            parts[f"{kind}{'_modulation' * modulates}" if kind else "other"] += count * (1 if eight_bit else wide)
        doubles, singles = transformer["num_layers"], transformer["num_single_layers"]
        llava = [(name, count * small) for name, count, _ in _tensors(folder / "text_encoder")]
        language = text["text_config"]
        return cls(
            doubles=doubles,
            singles=singles,
            double=parts["double"] // max(doubles, 1),
            double_modulation=parts["double_modulation"] // max(doubles, 1),
            single=parts["single"] // max(singles, 1),
            single_modulation=parts["single_modulation"] // max(singles, 1),
            other=parts["other"],
            text_encoder=sum(nbytes for _, nbytes in llava),
            text_encoder_2=sum(count * small for _, count, _ in _tensors(folder / "text_encoder_2")),
            vae=sum(count * small for _, count, _ in _tensors(folder / "vae")),
            largest_leaf=max(nbytes for _, nbytes in llava),
            hidden=hidden,
            mlp=int(hidden * transformer["mlp_ratio"]),
            head=transformer["attention_head_dim"],
            text_hidden=language["hidden_size"],
            text_layers=language["num_hidden_layers"],
            text_mlp=language["intermediate_size"],
            vae_channels=vae["block_out_channels"][0],
            vae_tile=(vae.get("sample_size", 256), vae.get("sample_tsize", 64)),
            itemsize=wide,
            vae_itemsize=small,
        )


def _published() -> ModelSizes:
    """HunyuanCustom 13B in bf16 with LLaVA-Llama-3-8B, CLIP-L and the VAE in fp16, counted layer by layer."""
    c, mlp, head, text, pooled = 3072, 12288, 128, 4096, 768

    def linear(inputs: int, outputs: int) -> int:
        return (inputs + 1) * outputs

    feed_forward = linear(c, mlp) + linear(mlp, c)
    double = 2 * (4 * linear(c, c) + 2 * head + feed_forward)
    single = 3 * linear(c, c) + 2 * head + linear(c, mlp) + linear(c + mlp, c)
    time = linear(256, c) + linear(c, c)
    refiner_block = 2 * 2 * c + 4 * linear(c, c) + feed_forward + linear(c, 2 * c)
    refiner = time + linear(text, c) + linear(c, c) + linear(text, c) + 2 * refiner_block
    patches = linear(16 * 2 * 2, c) + linear(c, 16 * 2 * 2)
    other = patches + refiner + time + linear(pooled, c) + linear(c, c) + linear(c, 2 * c)
    return ModelSizes(
        doubles=20,
        singles=40,
        double=2 * double,
        double_modulation=2 * 2 * linear(c, 6 * c),
        single=2 * single,
        single_modulation=2 * linear(c, 3 * c),
        other=2 * other,
        text_encoder=2 * 8_355_272_704,
        text_encoder_2=2 * 123_060_480,
        vae=2 * 246_478_803,
        largest_leaf=2 * 128_320 * text,
        hidden=c,
        mlp=mlp,
        head=head,
        text_hidden=text,
        text_layers=32,
        text_mlp=14_336,
        vae_channels=128,
        vae_tile=(256, 64),
        itemsize=2,
        vae_itemsize=2,
    )


PUBLISHED = _published()


def _config(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return loaded


def _tensors(folder: Path) -> Iterator[tuple[str, int, str]]:
    """Name, number of values and dtype (as safetensors writes it) of every tensor in a folder."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{folder}: no weights")
    for path in files:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            yield name, math.prod(entry["shape"]), entry["dtype"]
