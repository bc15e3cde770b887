"""How several ranks stop: all at the same block, because one that went on alone would wait for the others for ever."""

from pipeline.ranks import Ranks
from server.messages import Log, Working
from server.rendering import Cancelled, Report

# Asking costs a fraction of a millisecond and keeps the ranks together. On two H100s a block of a 720p video should
# take about 0.3 s: with this a cancel comes through about a second after its block.
_BLOCKS_BETWEEN = 4


class StopTogether:
    """A `report` for the part of a request that all ranks do: what it raises, it raises on all of them at once."""

    def __init__(self, ranks: Ranks, report: Report) -> None:
        self._ranks = ranks
        self._report = report
        self._units = 0
        self._stop: Cancelled | None = None

    def __call__(self, message: Working | Log) -> None:
        """Rank 0 speaks for all; every rank counts its units, which are as many on each."""
        if self._ranks.rank == 0 and self._stop is None:
            try:
                self._report(message)
            except Cancelled as stop:
                self._stop = stop
        if isinstance(message, Working):
            self._units += 1
            if self._units % _BLOCKS_BETWEEN == 0 and self._ranks.any(self._stop is not None):
                raise self._stop or Cancelled
