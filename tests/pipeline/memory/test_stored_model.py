"""Several processes over the files of one model."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from diffusers import HunyuanVideoTransformer3DModel

from pipeline.memory.stored_model import load_stored
from tests.harness.forked import FORKED
from weights.checks.synthetic import write_converted_transformer
from weights.originals.plan_transformer import FULL_SIZE
from weights.process_memory import rss_anon

MEDIUM = FULL_SIZE | {"num_attention_heads": 8, "num_layers": 2, "num_single_layers": 4, "text_embed_dim": 64}


def load_and_touch(folder: Path, both: Any, answers: Any) -> None:
    """One rank: what loading added to its own memory, and the kernel's view of the mapping once both have read it."""
    before = rss_anon(os.getpid())
    model = load_stored(HunyuanVideoTransformer3DModel, folder, torch.bfloat16)
    for parameter in model.parameters():
        parameter.view(-1)[:: 4096 // parameter.itemsize].float().sum()  # a value of every page
    own = rss_anon(os.getpid()) - before
    both.wait()
    sums: Counter[str] = Counter()
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *rest = line.split()
        if not name.endswith(":"):
            inside = str(folder) in line
        elif inside and rest[-1] == "kB":
            sums[name] += 1024 * int(rest[0])
    both.wait()
    answers.put((own, sums))


def test_ranks_on_one_machine_share_the_weights_and_none_copies_them(tmp_path: Path) -> None:
    folder = tmp_path / "transformer"
    nbytes = write_converted_transformer(folder, MEDIUM)
    both, answers = FORKED.Barrier(2, timeout=120), FORKED.Queue()
    other = FORKED.Process(target=load_and_touch, args=(folder, both, answers))
    other.start()
    load_and_touch(folder, both, answers)
    for own, mapped in [answers.get(timeout=120) for _ in range(2)]:
        assert nbytes > 250e6
        assert own < 0.1 * nbytes
        assert mapped["Rss:"] > 0.95 * nbytes
        assert mapped["Pss:"] < 0.55 * nbytes
        assert mapped["Anonymous:"] == mapped["Private_Dirty:"] == 0
    other.join()
