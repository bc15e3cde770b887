"""A diffusers model from its folder, strictly: the files hold every weight of the model and no other."""

import inspect
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import ModelMixin
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from pipeline.memory.fp8 import load_fp8_state_dict
from weights.originals.key_map import SCALE_NAME

_BOOKKEEPING = ("_class_name", "_diffusers_version", "_name_or_path")


def load_stored(
    model_class: type[ModelMixin],
    folder: Path,
    dtype: torch.dtype | None,
    *,
    on_file: Callable[[str], None] = lambda message: None,  # noqa: ARG005
) -> ModelMixin:
    """The model is created without memory of its own and takes over the tensors of the files, cast to `dtype` if given.

    Tensors of that dtype stay mapped to their files: no copy, and processes share the pages. fp8 layers keep their
    dtype. `on_file` is called with a line about every file before it is read.

    Raises:
        ValueError: names the weights that are missing, left over or of another shape.
    """
    config = model_class.load_config(folder, local_files_only=True)
    known = inspect.signature(model_class.__init__).parameters
    with torch.device("meta"):
        model = model_class(**{key: value for key, value in config.items() if key in known})
    # Keys the class does not know (the VAE's, see `vae/codec.py`). `from_config` would keep them too, but call
    # them ignored.
    model.register_to_config(**{key: value for key, value in config.items() if key not in {*known, *_BOOKKEEPING}})
    state: dict[str, Tensor] = {}
    files = _weight_files(folder)
    for number, file in enumerate(files, start=1):
        on_file(f"{folder.name}: file {number} of {len(files)}")
        state |= {key: _converted(tensor, dtype) for key, tensor in load_file(file).items()}
    try:
        load_fp8_state_dict(model, state)
    except (RuntimeError, KeyError, AttributeError) as error:
        raise ValueError(f"{folder} does not hold exactly the weights of {model_class.__name__}: {error}") from error
    return model.eval().requires_grad_(False)


def has_fp8_layers(folder: Path) -> bool:
    """Whether any weight in the folder comes with a scale."""
    for file in _weight_files(folder):
        with safe_open(file, framework="pt") as tensors:
            if any(key.endswith(f".{SCALE_NAME}") for key in tensors.keys()):  # noqa: SIM118 - not a dict
                return True
    return False


def _weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _converted(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor if dtype is None or tensor.dtype == torch.float8_e4m3fn else tensor.to(dtype)
