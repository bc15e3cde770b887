"""Starting a process without looking for garbage."""

import gc

import pytest

from server.quick_start import uncollected


def test_garbage_is_looked_for_again_after_a_start_that_failed_too() -> None:
    with pytest.raises(ImportError), uncollected():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()


def test_what_a_start_made_is_not_looked_through_again() -> None:
    before = gc.get_freeze_count()
    with uncollected():
        kept = [[number] for number in range(1000)]
    assert gc.get_freeze_count() - before >= len(kept)
