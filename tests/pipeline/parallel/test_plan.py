"""Several real processes on one request: the same latents on all of them, and those of a single one."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.hunyuan_custom import HunyuanCustomPipeline
from pipeline.parallel.plan import check_heads
from tests.harness import ranks_at_work
from tests.harness.forked import FORKED


@pytest.fixture(scope="module")
def alone() -> dict[str, Tensor]:
    with torch.no_grad():
        return ranks_at_work.requests(None) | ranks_at_work.decodes(None)


@pytest.fixture(scope="module", params=[2, 4])
def together(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    """Per rank: its latents of every request, its frames of every clip."""
    count, folder = request.param, tmp_path_factory.mktemp("ranks")
    processes = [FORKED.Process(target=ranks_at_work.run_rank, args=(rank, count, folder)) for rank in range(count)]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(240)
    finally:
        for process in processes:
            process.kill()
    assert [process.exitcode for process in processes] == [0] * count
    return [load_file(folder / f"{rank}.safetensors") for rank in range(count)]


@pytest.mark.parametrize("name", [*ranks_at_work.REQUESTS, ranks_at_work.INTERRUPTED])
def test_ranks_agree_with_each_other_and_with_a_single_device(
    name: str, alone: dict[str, Tensor], together: list[dict[str, Tensor]], close: Any
) -> None:
    for latents in together:
        assert torch.equal(latents[name], together[0][name])
    close(f"latents on {len(together)} ranks", together[0][name], alone[name], 2e-5)


def test_ranks_with_streamed_blocks_and_another_attention_make_the_same_latents(
    together: list[dict[str, Tensor]],
) -> None:
    for latents in together:
        assert torch.equal(latents[ranks_at_work.STREAMED], latents["unguided"])
        assert latents[ranks_at_work.HEADS].tolist() == [4 // len(together)] * 3 * 4  # steps, blocks


@pytest.mark.parametrize(
    ("name", "forwards", "rows"),  # of the first forwards; `rows` by number of ranks
    [
        ("guided", {1: 6, 2: 3, 4: 3}, {1: [45], 2: [45, 45], 4: [23, 22, 23, 22]}),
        ("unguided", {1: 3, 2: 3, 4: 3}, {1: [45], 2: [23, 22], 4: [12, 11, 11, 11]}),
        ("unguided, step cache", {1: 6, 2: 6, 4: 6}, {1: [45], 2: [23, 22], 4: [12, 11, 11, 11]}),
        ("guided, first block", {1: 12, 2: 6, 4: 6}, {1: [45], 2: [45, 45], 4: [23, 22, 23, 22]}),
        ("unguided, first block", {1: 6, 2: 6, 4: 6}, {1: [45], 2: [23, 22], 4: [12, 11, 11, 11]}),
        ("five tokens", {1: 3, 2: 3, 4: 3}, {1: [5], 2: [3, 2], 4: [2, 1, 1, 1]}),
    ],
)
def test_the_work_is_divided(
    name: str,
    forwards: dict[int, int],
    rows: dict[int, list[int]],
    alone: dict[str, Tensor],
    together: list[dict[str, Tensor]],
) -> None:
    for ranks in ([alone], together):
        expected = [[count] * forwards[len(ranks)] for count in rows[len(ranks)]]
        assert [rank[f"{name}{ranks_at_work.ROWS}"].tolist() for rank in ranks] == expected


@pytest.mark.parametrize("name", [*ranks_at_work.DECODES, ranks_at_work.AFTER_A_CANCEL])
def test_ranks_decode_the_frames_of_a_single_device_bit_for_bit(
    name: str, alone: dict[str, Tensor], together: list[dict[str, Tensor]]
) -> None:
    assert alone[name].numel() > 0
    assert torch.equal(together[0][name], alone[name])


@pytest.mark.parametrize("name", [name for name in ranks_at_work.DECODES if "overflow" not in name])
def test_each_tile_is_computed_once_and_ranks_have_about_the_same_to_do(
    name: str, alone: dict[str, Tensor], together: list[dict[str, Tensor]]
) -> None:
    expected, *tiles = [rank[f"{name}{ranks_at_work.TILES}"] for rank in (alone, *together)]
    assert torch.equal(torch.cat(tiles).sort().values, expected.sort().values)
    shares = [own.sum() for own in tiles]
    assert max(shares) - min(shares) <= expected.max()


def test_ranks_that_cannot_share_the_heads_are_refused(dit: Any) -> None:
    check_heads(dit, 4, branches=2)  # two halves of two ranks
    for ranks, branches in ((4, 1), (4, 3), (3, 2)):
        with pytest.raises(ValueError, match=r"2 attention heads cannot be shared by \d ranks"):
            check_heads(dit, ranks, branches)


def test_a_pipeline_whose_heads_so_many_ranks_cannot_share_refuses_them_at_the_start(dit: Any) -> None:
    pipe: Any = SimpleNamespace(transformer=dit)
    ranks: Any = SimpleNamespace(count=3)
    with pytest.raises(ValueError, match="2 attention heads cannot be shared by 3 ranks"):
        HunyuanCustomPipeline.enable_ranks(pipe, ranks)
