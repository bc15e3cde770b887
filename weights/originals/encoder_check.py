"""Do an encoder's files hold what its config asks for? transformers' own answer, which knows older names of keys.

It is asked with headers alone: before a conversion by way of a sparse file that has a header and no bytes, so that
every source (linked, streamed from `.bin`, a tower of a larger model) is judged as what it will become.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from weights.errors import CheckpointError, StructureError
from weights.originals.quiet import quiet_libraries
from weights.originals.structure import CONFIG_ERRORS, Faults, check_dtypes, reason_of, summary
from weights.writing.component import Component
from weights.writing.safetensors_file import list_safetensors, safetensors_header


def check_encoder(component: Component, model_class: Any, *, config: Path, weights: Path) -> None:
    """Raise `StructureError` naming `weights`, or `config` if that is at fault; no weight is read."""
    entries = {}
    for tensor in (tensor for path in component.links for tensor in list_safetensors(path).values()):
        entries[tensor.key] = (tensor.key, tensor.dtype, tensor.shape)
    for name, dtype, shape in (entry for move in component.moves for entry in move.entries()):
        if name in entries:
            raise CheckpointError(f"{weights}: {name}: stored twice")
        entries[name] = (name, dtype, shape)
    check_dtypes({name: dtype for name, dtype, _ in entries.values() if not is_computed(name)}, where=weights)
    header = safetensors_header(list(entries.values()))
    nbytes = sum(math.prod(shape) * dtype.itemsize for _, dtype, shape in entries.values())
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(component.texts["config.json"])
        with (Path(folder) / "model.safetensors").open("wb") as file:
            file.write(header)
            file.truncate(len(header) + nbytes)
        faults = encoder_faults(Path(folder), model_class, config=config)
    if faults:
        raise StructureError(f"{weights}: {summary(faults)}")


def encoder_faults(folder: Path, model_class: Any, *, config: Path) -> Faults:
    """By kind, the keys transformers misses, does not know or finds of another shape in `folder`.

    Raises `StructureError` naming `config` when no model can be built by it.
    """
    try:
        with quiet_libraries():
            _, info = model_class.from_pretrained(
                folder, device_map="meta", output_loading_info=True, ignore_mismatched_sizes=True, local_files_only=True
            )
    except (*CONFIG_ERRORS, OSError, StrictDataclassError) as error:
        raise StructureError(f"{config}: {model_class.__name__} refuses it ({reason_of(error)})") from error
    kinds = (("missing", "missing_keys"), ("left over", "unexpected_keys"), ("wrong shape", "mismatched_keys"))
    named = {kind: sorted(str(key[0] if isinstance(key, tuple) else key) for key in info[name]) for kind, name in kinds}
    return {kind: keys for kind, names in named.items() if (keys := [key for key in names if not is_computed(key)])}


def is_computed(key: str) -> bool:
    """Buffers that old versions of transformers wrote into checkpoints and the current one computes."""
    return key.endswith(("position_ids", "inv_freq"))
