"""From where an interrupted generation can be resumed: the latents before a step, and what they belong to.

Everything else follows from the request: conditions are encoded again; the noise is not needed again. A step that the
step cache serves from an earlier one cannot be a starting point: its cached trunk is hundreds of megabytes.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """fp32 latents [1,16,T,h,w] as they are before step `next_step`, and the words they were made with."""

    next_step: int
    latents: Tensor
    prompt: str
    subject_name: str


def fingerprint(facts: Mapping[str, object]) -> str:
    """One string for all that decides the frames: request, weights, dtype, device. JSON values only."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def weights_fingerprint(folder: Path) -> str:
    """Which weights these are, without reading them: names, sizes and times of all files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stats = [(path.relative_to(folder).as_posix(), path.stat()) for path in files]
    return fingerprint({name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats})


def write_checkpoint(path: Path, checkpoint: Checkpoint, belongs_to: str) -> None:
    """Replace the checkpoint at `path`, durably and atomically: a killed writer leaves the previous one."""
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")  # a suspended writer may resume beside this one
    metadata = {
        "next_step": str(checkpoint.next_step),
        "prompt": checkpoint.prompt,
        "subject_name": checkpoint.subject_name,
        "belongs_to": belongs_to,
    }
    try:
        with part.open("wb") as handle:
            handle.write(save({"latents": checkpoint.latents.detach().cpu().contiguous()}, metadata))
            handle.flush()
            os.fsync(handle.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_checkpoint(path: Path, belongs_to: str) -> Checkpoint | None:
    """The checkpoint at `path`; None when there is none, it is damaged, or it belongs to something else."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("belongs_to") != belongs_to:
                return None
            words = metadata["prompt"], metadata["subject_name"]
            return Checkpoint(int(metadata["next_step"]), file.get_tensor("latents"), *words)
    except (OSError, SafetensorError):
        return None
