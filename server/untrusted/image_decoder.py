"""The worker's side of decoding: a process per image, with limits, whose death is a refused image."""

import json
import logging
import math
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from server.errors import ImageLoadError, ImageTooLarge, ImageTooSmall, ModelError, UnsupportedImageFormat
from server.settings import ImageSettings
from server.untrusted.decoder_process import DISK_ERROR, REFUSED, ProcessLimits
from server.untrusted.image_sanitise import PixelLimits

logger = logging.getLogger(__name__)

_LOOKS: Final = 20
# What the process needs of our environment, and no secrets.
_ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG")
_REFUSALS: dict[str, type[ImageTooSmall | ImageTooLarge | ImageLoadError]] = {
    kind.error_type: kind for kind in (ImageTooSmall, ImageTooLarge, ImageLoadError)
}


class ImageDecoder:
    """Decodes untrusted images, a few at once, so that memory stays bounded."""

    def __init__(self, settings: ImageSettings) -> None:
        self._limits = ProcessLimits(
            PixelLimits(settings.min_side, settings.max_side, settings.max_pixels),
            settings.decode_memory_bytes,
            math.ceil(settings.decode_timeout_s),
        )
        self._timeout_s = settings.decode_timeout_s
        self._slots = threading.BoundedSemaphore(settings.decode_concurrency)

    def decode(self, source: Path, target: Path) -> None:
        """Write the image at `source` as a plain PNG to `target`.

        Raises:
            UnsupportedImageFormat, ImageTooSmall, ImageTooLarge, ImageLoadError
            OSError: the disk does not take the PNG.
        """
        command = [sys.executable, "-m", "server.untrusted.decoder_process", self._limits.to_json()]
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        with (
            self._slots,
            source.open("rb") as image,
            target.open("wb") as png,
            # A process group of its own: Ctrl-C at a terminal is not the image's fault, and this process may go on.
            subprocess.Popen(
                command, stdin=image, stdout=png, stderr=subprocess.PIPE, env=environment, process_group=0
            ) as process,
        ):
            try:
                said = self._end_of(process)
            finally:
                process.kill()  # if it still runs; its slot is free when it has ended
        if process.returncode == REFUSED:
            raise _refusal(said)
        if process.returncode == DISK_ERROR:
            raise OSError(int(said), os.strerror(int(said)), str(target))
        if process.returncode != 0:
            last = said.decode("utf-8", "replace").strip().splitlines()[-1:]
            logger.warning("the decoding process ended with %d: %s", process.returncode, *last or [""])
            raise ImageLoadError

    def _end_of(self, process: subprocess.Popen[bytes]) -> bytes:
        """What it has said when it ends.

        Time in which this process is frozen, alone or with all others, counts as one look at most.

        Raises:
            ImageLoadError: it takes too long.
        """
        for _ in range(_LOOKS):
            with suppress(subprocess.TimeoutExpired):
                return process.communicate(timeout=self._timeout_s / _LOOKS)[1]
        logger.warning("an image took longer than %g s to decode", self._timeout_s)
        raise ImageLoadError


def _refusal(said: bytes) -> ModelError:
    told = json.loads(said.splitlines()[-1])
    kind = _REFUSALS.get(told["type"])
    return UnsupportedImageFormat() if kind is None else kind(told["msg"], ctx=told["ctx"])
