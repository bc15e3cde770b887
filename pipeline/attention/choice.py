"""Which attention backend is used: the one that is named, or the fastest that gives the same picture."""

import logging
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import torch

from pipeline.attention.backends import BACKENDS, Backend, NotInstalledError, UnusableAttentionError, load
from pipeline.attention.function import AttentionFunction
from pipeline.attention.probe import Heads, teraflops, worst_row
from pipeline.options import AttentionName

logger = logging.getLogger(__name__)

_TIMED_TOKENS: Final = 8192  # about a millisecond on a GPU
_HOPPER: Final = (9, 0)


@dataclass(frozen=True, kw_only=True)
class Attention:
    """A backend that passed its probe. `error`: of the worst row. None, as is the rate, for torch's own on a CPU, which
    is what others are compared with.
    """

    name: str
    function: AttentionFunction
    package: str
    error: float | None = None
    teraflops: float | None = None
    changes_picture: bool = False

    def __str__(self) -> str:
        facts = [f"{self.name} ({self.package})"]
        if self.teraflops is not None:
            facts.append(f"{self.teraflops:.0f} TFLOP/s")
        if self.error is not None:
            facts.append(f"error {self.error:.1g}")
        if self.changes_picture:
            facts.append("changes the picture")
        return ", ".join(facts)


def choose_attention(name: AttentionName, heads: Heads, *, capability: tuple[int, int] | None = None) -> Attention:
    """The backend of that name; for "auto" FlashAttention 3 or 4 where it is installed for the GPU, else torch's own.

    Each is tried on random tensors of the model's heads against fp32 before it is used. `capability`: of the GPU, by
    default that of the heads' device.

    Raises:
        UnusableAttentionError: names the setting, the reason and the nearest backend that works.
    """
    if capability is None and heads.device.type == "cuda":
        capability = torch.cuda.get_device_capability(heads.device)
    fastest = _fastest_first(capability, heads.dtype)
    try:
        chosen = _first_that_works(fastest, heads) if name == "auto" else _tried(name, heads)
    except UnusableAttentionError as error:
        instead = "" if name in {"auto", "sdpa"} else f"; {_first_that_works(fastest, heads).name!r} works here"
        raise UnusableAttentionError(f"attention = {name!r}: it {error}{instead}") from error
    logger.log(logging.WARNING if chosen.changes_picture else logging.INFO, "attention: %s", chosen)
    return chosen


def _fastest_first(capability: tuple[int, int] | None, dtype: torch.dtype) -> list[str]:
    """Those that give the same picture as torch's own and are faster."""
    if capability is None or capability < _HOPPER or dtype != torch.bfloat16:
        return []
    return ["fa3", "fa4"] if capability == _HOPPER else ["fa4"]


def _first_that_works(names: list[str], heads: Heads) -> Attention:
    for name in names:
        try:
            return _tried(name, heads)
        except NotInstalledError as error:
            logger.info("attention: %s %s", name, error)
        except UnusableAttentionError as error:
            logger.warning("attention: %s %s", name, error)
    return _tried("sdpa", heads)


def _tried(name: str, heads: Heads) -> Attention:
    backend = BACKENDS[name]
    function = load(backend)
    if name == "sdpa" and heads.device.type == "cpu":
        return Attention(name=name, function=function, package=_package(backend))
    rate = None
    try:
        worst = worst_row(function, heads)
        if heads.device.type == "cuda":
            rate = teraflops(function, heads, tokens=_TIMED_TOKENS)
    except Exception as error:  # kernels of other packages raise what they like
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        shape = f"{heads.count} heads of {heads.width}, {heads.dtype}"
        raise UnusableAttentionError(f"fails with {shape}: {reason}") from error
    if worst > backend.bound:
        raise UnusableAttentionError(f"computes something else: error {worst:.2g}, allowed {backend.bound:g}")
    return Attention(
        name=name,
        function=function,
        package=_package(backend),
        error=worst,
        teraflops=rate,
        changes_picture=backend.changes_picture,
    )


def _package(backend: Backend) -> str:
    try:
        return f"{backend.package} {version(backend.package)}"
    except PackageNotFoundError:  # built from source under another name
        return backend.package
