import pytest
import torch

from pipeline.options import StepCacheName
from pipeline.step_cache import FirstBlock, FirstBlockCache, StepCache, full_steps, reference_schedule


def test_thirty_steps_are_the_reference_s(pipeline_io: dict[str, torch.Tensor]) -> None:
    full = [i for i, runs in enumerate(reference_schedule(30)) if runs]
    assert full == [*range(11), 13, 16, 19, *range(22, 30)]
    tags = [key for key in pipeline_io if key.endswith(".is_cache")]
    assert len(tags) == 6
    for tag in tags:
        name: StepCacheName | None = "reference" if "deepcache" in tag else None
        is_cache = pipeline_io[tag].tolist()
        assert [not runs for runs in full_steps(name, len(is_cache))] == is_cache, tag


def test_any_count_starts_and_ends_in_full_and_never_skips_three() -> None:
    for steps in range(1, 101):
        schedule = reference_schedule(steps)
        assert len(schedule) == steps
        assert schedule[0]
        assert schedule[-1]
        assert "..." not in "".join("x" if full else "." for full in schedule)
        assert steps < 30 or abs(sum(schedule) / steps - 22 / 30) < 0.05


def test_a_trunk_is_kept_only_while_cached_steps_follow() -> None:
    cache = StepCache([True, False, False, True])
    trunk = torch.zeros(1)
    assert cache.recall(0, row=0) is None
    cache.remember(0, 0, trunk)
    assert cache.recall(1, row=0) is trunk
    cache.remember(1, 0, trunk)
    assert cache.recall(2, row=0) is trunk
    cache.remember(2, 0, trunk)
    assert not cache._trunks
    assert cache.recall(3, row=0) is None


def test_rows_do_not_share() -> None:
    cache = StepCache([True, False, True])
    rows = [torch.zeros(1), torch.ones(1)]
    for row, trunk in enumerate(rows):
        cache.remember(0, row, trunk)
    assert [cache.recall(1, row) for row in range(2)] == rows


def test_first_block_may_reuse_one_step_in_the_first_quarter_and_two_after_it() -> None:
    for steps in range(1, 101):
        schedule = "".join("x" if full else "." for full in full_steps("first_block", steps))
        assert schedule[0] == schedule[-1] == "x"
        assert ".." not in schedule[: -(-steps // 4) + 1]
        assert "..." not in schedule
    assert full_steps("first_block", 30).count(False) == 18


def _decided(effects: list[float], threshold: float) -> bool:
    """Whether a step reuses whose branches' first blocks have these effects; in the step before all had 1."""
    cache = FirstBlockCache([True, False, True], threshold, branches=len(effects))
    x = torch.zeros(1, 1, 1)
    for row in range(len(effects)):
        cache.remember(0, row, x, FirstBlock(x, x, torch.ones(1, 4, 1)))
    cache.decide(
        1,
        {row: FirstBlock(x, x, torch.full((1, 4, 1), effect)) for row, effect in enumerate(effects)},
        lambda here: here,
    )
    reused = [cache.recall(1, row, FirstBlock(x, x, x)) is not None for row in range(len(effects))]
    assert len(set(reused)) == 1
    return reused[0]


def test_the_branch_that_changed_most_decides_for_all() -> None:
    assert _decided([1.0, 0.95], 0.1)
    assert not _decided([1.0, 0.85], 0.1)
    assert not _decided([1.15, 1.0], 0.1)
    assert not _decided([1.0, float("nan")], 0.1)
    assert not _decided([1.0, 1.0], 0.0)


def test_without_a_cache_every_step_is_full() -> None:
    assert full_steps(None, 30) == (True,) * 30


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="`step_cache` must be 'reference', 'first_block' or None"):
        full_steps("second_block", 30)  # type: ignore[arg-type]
