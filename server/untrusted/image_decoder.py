"""The worker's side of decoding: a process per image, with limits, whose death is a refused image."""

import json
import logging
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

from server.errors import ImageLoadError, ImageTooLarge, ImageTooSmall, ModelError, UnsupportedImageFormat
from server.settings import ImageSettings
from server.untrusted.decoder_process import DISK_ERROR, REFUSED, ProcessLimits
from server.untrusted.image_sanitise import PixelLimits

logger = logging.getLogger(__name__)

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
        with self._slots, source.open("rb") as image, target.open("wb") as png:
            try:
                done = subprocess.run(
                    command,
                    stdin=image,
                    stdout=png,
                    stderr=subprocess.PIPE,
                    env=environment,
                    timeout=self._timeout_s,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                logger.warning("an image took longer than %g s to decode", self._timeout_s)
                raise ImageLoadError from None
        if done.returncode == REFUSED:
            raise _refusal(done.stderr)
        if done.returncode == DISK_ERROR:
            raise OSError(int(done.stderr), os.strerror(int(done.stderr)), str(target))
        if done.returncode != 0:
            last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            logger.warning("the decoding process ended with %d: %s", done.returncode, *last or [""])
            raise ImageLoadError


def _refusal(said: bytes) -> ModelError:
    told = json.loads(said.splitlines()[-1])
    kind = _REFUSALS.get(told["type"])
    return UnsupportedImageFormat() if kind is None else kind(told["msg"], ctx=told["ctx"])
