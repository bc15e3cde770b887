"""The child side of the generator: the only process that loads torch.

`python -m server.generator.child.process FD WORKER`: one end of a socket pair, and the id of the process to end with.
"""

import importlib
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import assert_never

from pipeline.safety.flagged import Flagged
from server.errors import is_disk_error
from server.generator.child import head_start
from server.generator.child.compile_cache import keep_compiled_code
from server.generator.child.contract import Cancelled, DeviceLost, OutOfMemory, Renderer
from server.generator.child.gpu_memory import gpu_memory
from server.generator.child.rank_processes import RankProcesses
from server.generator.messages import (
    Cancel,
    Channel,
    Failed,
    Finished,
    Generate,
    JobMessage,
    Load,
    LoadFailed,
    Loading,
    Ready,
    ToGenerator,
    to_generator,
)
from server.logs import about_request, about_trace, configure_logging
from server.parent_death import die_with_parent

logger = logging.getLogger(__name__)


class GeneratorProcess:
    """Reads requests on one thread, works on them on the main thread. With several ranks, each is such a process."""

    def __init__(self, channel: Channel[ToGenerator]) -> None:
        self._channel = channel
        self._requests: queue.SimpleQueue[Load | Generate] = queue.SimpleQueue()
        self._cancelled: str | None = None

    def main(self) -> int:
        """Load, then handle requests until the worker is gone."""
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        load = self._requests.get()
        assert isinstance(load, Load)  # noqa: S101 - the worker's first message
        keep_compiled_code(Path(load.data_dir))
        head_start.begin(load)
        others = None
        role = f"generator rank {load.rank}" if load.rank else "generator"
        configure_logging(role, log_format=load.log_format)
        if load.rank == 0 and load.generator.ranks > 1:
            others = RankProcesses(load, self._channel)
            load = others.load
        started = time.perf_counter()
        try:
            renderer = _renderer_class(load.generator.renderer)(load, self._say_loading)
        except Exception as error:
            logger.exception("the model cannot be loaded")
            self._channel.send(LoadFailed(message=_one_line(error)))
            return 1
        if others is not None:
            others.wait_until_ready()
        ready = Ready(
            model=renderer.model,
            seconds=time.perf_counter() - started,
            memory_plan=getattr(renderer, "plan", None),
            gpu_memory=gpu_memory(),
        )
        self._channel.send(ready)
        head_start.end()
        while True:
            job = self._requests.get()
            assert isinstance(job, Generate)  # noqa: S101 - Load comes once
            with about_request(job.request_id), about_trace(job.trace_id):
                self._serve_one(renderer, others, job)

    def _say_loading(self, what: str) -> None:
        logger.info(what)
        self._channel.send(Loading(message=what))

    def _serve_one(self, renderer: Renderer, others: RankProcesses | None, job: Generate) -> None:
        if others is not None:
            others.begin(job)
        answer = self._handle(renderer, job)
        in_step = others is None or others.finish(answer)
        if others is not None and isinstance(answer, Finished):
            answer = answer.model_copy(update={"gpu_memory": answer.gpu_memory + others.gpu_memory})
        self._channel.send(answer.model_copy(update={"last": not in_step}))
        if not in_step:
            os._exit(1)

    def _handle(self, renderer: Renderer, job: Generate) -> Finished | Failed:
        started = time.perf_counter()

        def report(message: JobMessage) -> None:
            if self._cancelled == job.request_id:
                raise Cancelled
            self._channel.send(message)

        try:
            renderer.render(job, report)
        except Cancelled:
            return Failed(reason="cancelled", message="cancelled")
        except Flagged as error:
            logger.info("request %s flagged: %s", job.request_id, error.where)
            return Failed(reason="flagged", where=error.where, message=str(error))
        except DeviceLost:
            logger.exception("request %s: the device is lost", job.request_id)
            os._exit(1)  # not through torch's own cleanup, which would touch the device again
        except OutOfMemory as error:
            logger.warning("request %s: %s", job.request_id, error)
            return Failed(reason="out_of_memory", message=_one_line(error))
        except Exception as error:
            if is_disk_error(error):
                logger.warning("request %s: %s", job.request_id, error)
                return Failed(reason="disk", message=_one_line(error))
            logger.exception("request %s failed", job.request_id)
            return Failed(reason="error", message=_one_line(error))
        return Finished(seconds=time.perf_counter() - started, gpu_memory=gpu_memory())

    def _read(self) -> None:
        try:
            for message in self._channel:
                self._receive(message)
        except Exception:  # a worker of another version, say; without this thread nothing would be heard any more
            logger.exception("the worker says what cannot be understood")
            os._exit(1)
        os._exit(0)  # the worker is gone

    def _receive(self, message: ToGenerator) -> None:
        match message:
            case Load() | Generate():
                self._cancelled = None  # that was an earlier attempt
                self._requests.put(message)
            case Cancel():
                self._cancelled = message.request_id
            case _:
                assert_never(message)


def _renderer_class(path: str) -> type[Renderer]:
    module, _, name = path.partition(":")
    found: type[Renderer] = getattr(importlib.import_module(module), name)
    return found


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]


if __name__ == "__main__":
    die_with_parent(int(sys.argv[2]))
    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C and systemd reach the whole group; the worker decides
        signal.signal(number, signal.SIG_IGN)
    configure_logging("generator")
    pipe = socket.socket(fileno=int(sys.argv[1]))
    sys.exit(GeneratorProcess(Channel(pipe, to_generator)).main())
