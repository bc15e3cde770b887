"""Shards are written beside one another, until the first error."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from weights.errors import BadValuesError
from weights.reporter import ignore
from weights.writing import shard_writer
from weights.writing.move import Move
from weights.writing.stored_tensor import StoredTensor


def a_shard(key: str, read: Callable[[], Tensor]) -> Move:
    return Move.whole(StoredTensor(key=key, path=Path("x"), dtype=torch.float32, shape=(4,), read=read), key)


def test_after_the_first_error_no_other_shard_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_writer, "SHARD_BYTES", 16)
    others: list[Tensor] = []

    def large() -> Tensor:
        time.sleep(2)
        return torch.zeros(4)

    def other() -> Tensor:
        others.append(torch.zeros(4))
        time.sleep(0.05)
        return others[-1]

    shards = [a_shard("large", large), a_shard("bad", lambda: torch.full((4,), torch.nan))]
    shards += [a_shard(f"other {number}", other) for number in range(40)]
    with pytest.raises(BadValuesError, match="bad: holds NaN"):
        shard_writer.write_shards(shards, tmp_path, stem="model", progress=ignore)
    assert len(others) < 40
