"""Whether a compiled pass computes what the eager one computes."""

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

_ROWS: Final = 8192  # compared at a time: the eager pass needs several times the memory of its result
_SELDOM: Final = 2**-10


class PassesDiffer(ArithmeticError):
    """The results of a compiled pass are not those of the eager one."""


def check_agreement(eager: Callable[..., Any], tensors: tuple[Tensor, ...], result: Tensor | None) -> None:
    """Compares `result`, or what was written into the last of `tensors` if it is None, with `eager` of the same.

    Tensors of more than one dimension have a row for each token, and rows do not depend on each other.

    Raises:
        PassesDiffer: by more than `agree` allows.
    """
    actual = tensors[-1] if result is None else result
    for start in range(0, len(actual), _ROWS):
        rows = slice(start, start + _ROWS)
        part = [tensor[rows] if tensor.ndim > 1 else tensor for tensor in tensors]
        if result is None:
            part[-1] = torch.empty_like(part[-1])
        expected = eager(*part)
        expected = part[-1] if result is None else expected
        if not agree(actual[rows], expected):
            worst = (actual[rows].float() - expected.float()).abs().max().item()
            raise PassesDiffer(f"compiled and eager results differ, by {worst:.2g} at most")


def agree(actual: Tensor, expected: Tensor) -> bool:
    """Whether the results [N,...,C] differ by single roundings, of an operation or of the result, and seldom.

    A sum in another order changes a value by one ulp (unit in the last place) when it is rounded. Further operations
    on that value may move a smaller result by several ulps of its own, but by none of the largest of its row.
    """
    ulp = torch.finfo(expected.dtype).eps
    actual, expected = actual.float(), expected.float()
    difference, largest = (actual - expected).abs(), expected.abs().amax(-1, keepdim=True)
    in_fp32 = 2**-18 * largest  # what is left of terms that cancel
    beyond_one_ulp = difference > ulp * expected.abs() + in_fp32
    return bool((difference <= ulp * largest + in_fp32).all() & (beyond_one_ulp.float().mean() <= _SELDOM))
