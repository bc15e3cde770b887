"""What a job's log says is left."""

from pipeline.progress import Progress
from server.generator.child.eta import Eta


def test_tokens_of_the_prompt_do_not_change_what_is_left_of_the_video() -> None:
    """However many LLaVA writes of those it might."""
    now = [0.0]
    eta = Eta(lambda: now[0], {"decode": 1.0}, decode_units=4)
    for done in range(1, 9):
        now[0] += 0.5
        eta.update(Progress("expand", done, 268))
        assert eta.describe() == ""
    for done in range(1, 4):
        now[0] += 2
        eta.update(Progress("denoise", done, 10))
    assert eta.describe() == "about 18 s left"  # 7 blocks of 2 s, 4 tiles of 1 s
