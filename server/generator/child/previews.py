"""Previews of one job on their way to the worker."""

import base64
import logging
import queue

from pipeline.preview import ColourMap, LatentPreviews, Preview
from server.generator.child.contract import Report
from server.generator.messages import Generate
from server.generator.messages import Preview as PreviewMessage

logger = logging.getLogger(__name__)


class JobPreviews:
    """`on_step_end` has them made, on a thread of their own; `send` reports those that are done.

    The thread that reports everything else sends them: they arrive in order, and none after the job's end.
    """

    def __init__(self, colour_map: ColourMap, job: Generate, *, every_s: float) -> None:
        self.on_step_end = LatentPreviews(colour_map, self._encode, every_s=every_s)
        self._clip_s = job.num_frames / job.fps
        self._done: queue.SimpleQueue[PreviewMessage] = queue.SimpleQueue()

    def send(self, report: Report) -> None:
        """Never waits."""
        while not self._done.empty():
            report(self._done.get())

    def _encode(self, preview: Preview) -> None:
        try:
            picture = base64.b64encode(preview.webp(seconds=self._clip_s)).decode()
        except Exception as error:  # costs the picture, not the job
            logger.warning("no preview of step %d: %s: %s", preview.step, type(error).__name__, error)
            return
        self._done.put(PreviewMessage(picture=picture))
