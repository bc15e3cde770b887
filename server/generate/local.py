"""A video by a generator of our own: no HTTP, no database, and otherwise what a worker does with a request.

The generator is the same process that a worker has, so that the memory plan, prompt expansion, the safety checker and
the frames are those of a server with the same settings.
"""

import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from server.errors import request_failure
from server.fal.data_uri import decode_data_uri, is_data_uri
from server.fal.schemas import HunyuanCustomInput
from server.generate.outcome import RequestFailed, Video
from server.generator.faults import (
    ContentFlagged,
    DiskError,
    GenerationCancelled,
    GenerationError,
    GeneratorDied,
    GeneratorStalled,
    OutOfMemory,
)
from server.generator.job_message import LocalFiles, generate_message
from server.generator.messages import Finished, Generate, JobMessage, Log, Working
from server.generator.parent import Generator
from server.generator.state import Phase
from server.jobs.outcomes import CANCELLED
from server.settings import Settings
from server.storage.scratch import Scratch
from server.untrusted.addresses import OutboundPolicy
from server.untrusted.image_decoder import ImageDecoder
from server.untrusted.remote_image import ImageFetcher
from server.untrusted.words import refuse_words
from weights.progress_bar import ProgressBar

_LOOK_EVERY_S: Final = 0.1


class LocalGeneration:
    """One request. `cancelled` is asked all the time; the generator's own log goes to `log`."""

    def __init__(self, settings: Settings, bar: ProgressBar, cancelled: Callable[[], bool], *, log: Path) -> None:
        self._settings = settings
        self._bar = bar
        self._cancelled = cancelled
        self._log = log
        self._scratch = Scratch(settings.data_dir)
        unseen = settings.video.model_copy(update={"preview_every_s": 0.0})  # a terminal shows no previews
        self._generator = Generator(settings.model_copy(update={"video": unseen}), log=log)

    def run(self, wanted: HunyuanCustomInput, *, seed: int, output: Path) -> Video:
        """Make the video.

        Raises:
            ModelError: the prompt, the image or its URL cannot be used.
            RequestFailed: with what a client of the API would be told.
            OSError: the video cannot be written.
        """
        request_id = str(uuid.uuid4())
        refuse_words(request_id, wanted, self._settings.safety)
        with self._running_generator(), self._checked_image(wanted.image_url) as image:
            files = LocalFiles(
                image=image,
                output=self._scratch.rendering(f"{request_id}.mp4"),
                checkpoint=self._scratch.checkpoint(request_id),
                cut_out=self._scratch.cut_out(request_id),
            )
            try:
                finished = self._generate(
                    generate_message(request_id, wanted, seed=seed, files=files, settings=self._settings)
                )
                shutil.move(files.output, output)
            finally:
                self._scratch.forget_checkpoint(request_id)
                self._scratch.forget_rendering(files.output)
        return Video(path=output, seed=seed, seconds=finished.seconds)

    @contextmanager
    def _running_generator(self) -> Iterator[None]:
        """Started first: loading takes longer than all that can be wrong with an image."""
        self._generator.start()
        try:
            yield
        finally:
            self._generator.close()

    @contextmanager
    def _checked_image(self, image_url: str) -> Iterator[Path]:
        """The identity image as the plain PNG that a worker would give its generator."""
        limits = self._settings.image
        with self._scratch.file("source") as source, self._scratch.file("checked.png") as checked:
            if is_data_uri(image_url):
                source.write_bytes(decode_data_uri(image_url, max_bytes=limits.max_bytes))
            else:
                fetcher = ImageFetcher(limits, OutboundPolicy(self._settings.allow_private_networks))
                source.write_bytes(fetcher.fetch(image_url))
            ImageDecoder(limits).decode(source, checked)
            yield checked

    def _generate(self, job: Generate) -> Finished:
        """As a worker does: again after a fault of the generator, and once with a smaller memory plan."""
        made_room, faults = False, 0
        while True:
            self._wait_until_loaded()
            self._bar.show("prompt and image")
            try:
                with self._generator.reserved():
                    return self._generator.run(job, on_message=self._hear, cancel_requested=self._cancelled)
            except GenerationCancelled:
                raise RequestFailed(CANCELLED) from None
            except ContentFlagged as error:
                self._bar.say(error.log_line)
                raise RequestFailed(error.response()) from None
            except (GenerationError, DiskError) as error:
                raise self._failure(str(error)) from None
            except OutOfMemory as error:
                plan = None if made_room else self._generator.shrink()
                if plan is None:
                    self._bar.say(str(error))
                    raise RequestFailed(error.response()) from None
                made_room = True
                self._bar.say(f"Out of GPU memory; trying again with the memory plan {plan}")
            except (GeneratorDied, GeneratorStalled) as error:
                faults += 1
                self._bar.say(error.log_line)
                if faults >= self._settings.jobs.max_attempts:
                    raise RequestFailed(error.response()) from None

    def _failure(self, reason: str) -> RequestFailed:
        detail = f"{reason}; the generator's log: {self._log}"
        return RequestFailed(request_failure(500, "internal_server_error", detail))

    def _wait_until_loaded(self) -> None:
        """Returns when a model is loaded.

        Raises:
            RequestFailed: it cannot be loaded, or the user does not want to wait for it.
        """
        loading: int | None = None  # the process
        while not self._generator.usable:
            state = self._generator.state
            if self._cancelled():
                raise RequestFailed(CANCELLED)
            if state.phase is Phase.FAILED or (loading is not None and state.pid != loading):
                raise self._failure(f"the model cannot be loaded: {state.detail}")
            if state.phase is Phase.LOADING:  # else it is one that is about to end
                loading = state.pid
                self._bar.show(state.detail)
            time.sleep(_LOOK_EVERY_S)
        self._bar.say(f"Model: {self._generator.state.detail}")  # of the demo's, that it is untrained

    def _hear(self, message: JobMessage) -> None:
        if isinstance(message, Working):
            self._bar.show(message.stage, message.done, message.total, left_s=message.seconds_left)
        elif isinstance(message, Log) and message.step_seconds is None:  # the bar shows steps
            self._bar.say(message.message)
