"""How several ranks stop: all at the same block, because one that went on alone would wait for the others for ever."""

from pipeline.parallel.ranks import Ranks
from server.generator.child.contract import Cancelled, Report
from server.generator.messages import JobMessage, Working

# Seldom enough that no GPU runs dry while its CPU waits for the other ranks (`pipeline/pacing.py` keeps two blocks
# queued), and often enough that a cancel waits for two blocks at most: about 0.7 s of a 720p video on two H100s, by
# calculation.
_BLOCKS_BETWEEN = 2


class StopTogether:
    """A `report` for the part of a request that all ranks do: what it raises, it raises on all of them at once."""

    def __init__(self, ranks: Ranks, report: Report) -> None:
        self._ranks = ranks
        self._report = report
        self._units = 0
        self._stop: Cancelled | None = None

    def __call__(self, message: JobMessage) -> None:
        """Rank 0 reports for all; every rank counts its units, which are as many on each."""
        if self._ranks.rank == 0 and self._stop is None:
            try:
                self._report(message)
            except Cancelled as stop:
                self._stop = stop
        if isinstance(message, Working):
            self._units += 1
            if self._units % _BLOCKS_BETWEEN == 0 and self._ranks.any(self._stop is not None):
                raise self._stop or Cancelled
