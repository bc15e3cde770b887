"""What a job's log says is left."""

from typing import cast

from pipeline.progress import Progress, Stage
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


def test_what_is_left_counts_down_through_the_decode() -> None:
    """The first decode of a process is left out until its second tile; the next video knows it from the start."""
    now, learned = [0.0], dict[Stage, float]()

    def left_of_a_video() -> list[float | None]:
        eta = Eta(lambda: now[0], learned, decode_units=3)
        seen = []
        for stage, units, seconds in (("denoise", 3, 2.0), ("decode", 3, 5.0)):
            for done in range(1, units + 1):
                now[0] += seconds
                eta.update(Progress(cast(Stage, stage), done, units))
                seen.append(eta.seconds_left())
        return seen

    assert left_of_a_video() == [None, 2.0, None, None, 5.0, 0.0]
    assert left_of_a_video() == [None, 17.0, 15.0, 10.0, 5.0, 0.0]
