"""The other ranks of a generator, as rank 0 sees them: processes like itself that get every request it gets.

The worker knows rank 0 alone. What happens to one rank happens to all: a rank may be waiting for another inside an
exchange that only the end of its process can interrupt, so ranks that are out of step all end and are started afresh.
"""

import logging
import os
import queue
import socket
import threading
import time
from typing import assert_never

from server.generator.launch import start_generator_process
from server.generator.messages import (
    Channel,
    Failed,
    Finished,
    FromGenerator,
    Generate,
    Load,
    LoadFailed,
    Loading,
    Log,
    Preview,
    Ready,
    Rendezvous,
    ToGenerator,
    Working,
)
from server.generator.state import GpuMemory

logger = logging.getLogger(__name__)


class RankProcesses:
    """Made on rank 0's main thread, with which the others end. `load` is what rank 0 itself has to load."""

    def __init__(self, load: Load, worker: Channel[ToGenerator]) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self._port = listener.getsockname()[1]
        self.load = load.model_copy(update={"rendezvous": Rendezvous(port=self._port, listener=listener.detach())})
        self._worker = worker
        self._grace_s = load.generator.cancel_grace_s
        self._answers: queue.SimpleQueue[Ready | Finished | Failed] = queue.SimpleQueue()
        self._rank_0_ended = threading.Event()
        self.gpu_memory: tuple[GpuMemory, ...] = ()  # of these ranks, after their last video
        self._channels = [self._start(rank) for rank in range(1, load.generator.ranks)]

    def _start(self, rank: int) -> Channel[FromGenerator]:
        process, channel = start_generator_process()
        channel.send(self.load.model_copy(update={"rank": rank, "rendezvous": Rendezvous(port=self._port)}))
        logger.info("rank %d is process %d", rank, process.pid)
        threading.Thread(target=self._follow, args=(rank, channel), name=f"rank-{rank}", daemon=True).start()
        return channel

    def wait_until_ready(self) -> None:
        """Block until every rank has loaded. A rank that cannot, ends this process."""
        for _ in self._channels:
            self._answers.get()

    def begin(self, job: Generate) -> None:
        """Give every rank the request."""
        self._rank_0_ended.clear()
        for channel in self._channels:
            channel.send(job)

    def finish(self, answer: Finished | Failed) -> bool:
        """Wait until every rank is done with the request; false when they are out of step."""
        self._rank_0_ended.set()
        if isinstance(answer, Failed) and answer.reason == "out_of_memory":
            return False
        deadline = time.monotonic() + self._grace_s
        try:
            answers = [self._answers.get(timeout=max(0.0, deadline - time.monotonic())) for _ in self._channels]
        except queue.Empty:
            return False
        seen = [gpu for one in answers if isinstance(one, Finished) for gpu in one.gpu_memory]
        self.gpu_memory = tuple(sorted(seen, key=lambda gpu: gpu.gpu))
        return True

    def _follow(self, rank: int, channel: Channel[FromGenerator]) -> None:
        for message in channel:
            match message:
                case Ready() | Finished():
                    self._answers.put(message)
                case LoadFailed():
                    self._end_all(message)
                case Failed():
                    # An error that all ranks have in common reaches rank 0 as well; lack of memory need not.
                    grace_s = 0 if message.reason == "out_of_memory" else self._grace_s
                    if not self._rank_0_ended.wait(grace_s):
                        self._end_all(message.model_copy(update={"last": True}))
                    self._answers.put(message)
                case Loading() | Working() | Log() | Preview():
                    pass  # the worker gets it from rank 0
                case _:
                    assert_never(message)
        logger.error("rank %d is gone", rank)
        os._exit(1)

    def _end_all(self, last_words: LoadFailed | Failed) -> None:
        self._worker.send(last_words)
        os._exit(1)
