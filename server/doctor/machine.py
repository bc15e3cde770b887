"""GPU, driver, torch, kernels, compiler and video encoder; nothing of them is loaded."""

import csv
import importlib.util
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from server.doctor.finding import Finding

_TIMEOUT_S: Final = 10.0
_QUERY: Final = ("name", "compute_cap", "memory.total", "memory.free", "driver_version")
_OLDEST_DRIVER: Final = {11: 450, 12: 525, 13: 580}
"""By CUDA's major version: minor version compatibility, in the release notes of the CUDA toolkit."""
_OLDEST_CAPABILITY: Final = (8, 0)  # bfloat16 in hardware
_MEBIBYTE: Final = 2**20
_ATTENTION: Final = ("fa3-fwd", "flash-attn-4", "sageattention")


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU as its driver describes it; memory in bytes."""

    name: str
    capability: tuple[int, int]
    memory: int
    free: int
    driver: str

    @property
    def driver_major(self) -> int:
        """595 of 595.71.05."""
        return int(self.driver.split(".")[0])


def cards() -> list[Card]:
    """The GPUs of this machine; none where `nvidia-smi` is missing or cannot reach the driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S).stdout
        return [_card(row) for row in csv.reader(answer.splitlines(), skipinitialspace=True) if row]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


def _card(row: list[str]) -> Card:
    name, capability, total, free, driver = row
    major, minor = capability.split(".")
    return Card(name, (int(major), int(minor)), int(total) * _MEBIBYTE, int(free) * _MEBIBYTE, driver)


def check_gpu(device: str, found: list[Card], *, ranks: int, replicas: int) -> Iterator[Finding]:
    """Whether the GPUs are there, can do what the model needs, and have a driver for the installed torch."""
    built_for = _cuda_of_torch()
    if not device.startswith("cuda"):
        yield Finding("gpu", "ok", f"not needed: generator.device is {device!r}")
        return
    if not found:
        remedy = "install NVIDIA's driver, or set generator.device; in a container pass the GPU (--gpus all)"
        yield Finding("gpu", "problem", "none: nvidia-smi is missing or cannot reach the driver", remedy)
        return
    needed, setting = ranks * replicas, "generator.ranks" if replicas == 1 else "generator.ranks x generator.replicas"
    if len(found) < needed:
        text = f"{setting} is {needed}, GPUs here: {len(found)}"
        yield Finding("gpu", "problem", text, f"set {setting} to {len(found)} or less")
    for card in found[:needed]:
        major, minor = card.capability
        text = (
            f"{card.name}, compute capability {major}.{minor}, {card.free / 1e9:.1f} of {card.memory / 1e9:.1f} GB free"
        )
        if card.capability < _OLDEST_CAPABILITY:
            yield Finding("gpu", "problem", text, "bfloat16 needs 8.0 (A100, RTX 3090) or newer")
        else:
            yield Finding("gpu", "ok", text)
    driver = found[0]
    oldest = _OLDEST_DRIVER.get(int(built_for.split(".")[0])) if built_for else None
    if oldest is not None and driver.driver_major < oldest:
        text = f"{driver.driver} is too old for torch, which is built for CUDA {built_for}"
        remedy = f"install driver {oldest} or newer, or torch for an older CUDA (make PIP_ARGS=..., see README.md)"
        yield Finding("driver", "problem", text, remedy)
    else:
        yield Finding("driver", "ok", f"{driver.driver}, torch is built for CUDA {built_for or 'none'}")


def check_torch(device: str) -> Finding:
    """Which build is installed."""
    built_for = _cuda_of_torch()
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return Finding("torch", "problem", "not installed", "pip install hunyuan-custom-server")
    if device.startswith("cuda") and built_for is None:
        return Finding(
            "torch", "problem", f"{version} is a build for the CPU", "install the CUDA build of this version"
        )
    return Finding("torch", "ok", f"{version}, {f'CUDA {built_for}' if built_for else 'CPU'}")


def _cuda_of_torch() -> str | None:
    """Read from torch's own file of versions: importing torch takes seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^cuda\b.*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return found[1] if found else None


def check_kernels(device: str) -> Iterator[Finding]:
    """Attention kernels beside torch's own, and a compiler for those that are made when they are first used."""
    if not device.startswith("cuda"):
        return
    installed = []
    for name in _ATTENTION:
        try:
            installed.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    yield Finding("attention", "ok", ", ".join(installed) or "torch's own kernels; no others are installed")
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if compiler is None or not shutil.which(compiler):
        yield Finding("compiler", "warning", "none: Triton cannot compile kernels", "apt-get install gcc, or set CC")
    elif not Path(sysconfig.get_path("include"), "Python.h").is_file():
        text = f"{compiler}, but no Python.h: Triton cannot compile kernels"
        yield Finding("compiler", "warning", text, "apt-get install python3-dev")
    else:
        yield Finding("compiler", "ok", f"{compiler}, for Triton")


def check_encoder() -> Finding:
    """Whether ffmpeg is there and writes H.264."""
    from imageio_ffmpeg import get_ffmpeg_exe

    remedy = "pip install --force-reinstall imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE"
    try:
        program = get_ffmpeg_exe()
        command = [program, "-hide_banner", "-encoders"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S).stdout
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return Finding("ffmpeg", "problem", " ".join(str(error).split())[:200], remedy)
    if "libx264" not in listed:
        return Finding("ffmpeg", "problem", f"{program} has no libx264", remedy)
    return Finding("ffmpeg", "ok", f"{Path(program).name} with libx264")
