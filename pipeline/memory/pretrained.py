"""A model of transformers from its folder, strictly."""

from pathlib import Path

import torch
from transformers import PreTrainedModel


def load_pretrained(
    model_class: type[PreTrainedModel], folder: Path, dtype: torch.dtype, device: str
) -> PreTrainedModel:
    """By its own loader, which knows the older names of its weights. No downloads, no code from the folder.

    Raises ValueError: a weight is missing, left over or of another shape.
    """
    model, report = model_class.from_pretrained(
        folder,
        dtype=dtype,
        device_map=None if device == "cpu" else device,
        local_files_only=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    if problems := {kind: sorted(map(str, found)) for kind, found in report.items() if found}:
        raise ValueError(f"{folder} does not hold exactly the weights of {model_class.__name__}: {problems}")
    return model.eval().requires_grad_(False)
