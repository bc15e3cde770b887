"""A new file written past the page cache, where the file system lets us.

Converting moves as many bytes as the disk can take; copying them into the page cache first would cost more processor
time than all checks together, and push everything else out of memory. Direct writes must be whole blocks from
block-aligned memory: bytes are gathered in an aligned buffer, and the last block is cut to size afterwards.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

BLOCK = 4096  # the largest block size in common use
BUFFER_BYTES = 8 * 2**20


class DirectFile:
    """Context manager; on a clean exit all bytes are on the disk. Raises `OSError` as a plain file would."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        try:
            self._handle = os.open(path, flags | os.O_DIRECT, 0o666)
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: this file system has no direct writes (tmpfs, some networks)
                raise
            self._handle = os.open(path, flags, 0o666)
        self._memory = mmap.mmap(-1, BUFFER_BYTES)
        self._buffer = torch.frombuffer(self._memory, dtype=torch.uint8)
        self._filled = 0
        self.size = 0

    def __enter__(self) -> DirectFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                padded = -(-self._filled // BLOCK) * BLOCK
                self._buffer[self._filled : padded] = 0
                self._flush(padded)
                os.ftruncate(self._handle, self.size)
                os.fsync(self._handle)
        finally:
            os.close(self._handle)

    def write(self, data: Tensor) -> None:
        """Append flat uint8 `data`."""
        self.size += data.numel()
        while data.numel():
            part = data[: BUFFER_BYTES - self._filled]
            self._buffer[self._filled : self._filled + part.numel()].copy_(part)
            self._filled += part.numel()
            data = data[part.numel() :]
            if self._filled == BUFFER_BYTES:
                self._flush(BUFFER_BYTES)

    def _flush(self, count: int) -> None:
        write_all(self._handle, memoryview(self._buffer.numpy())[:count])
        self._filled = 0


def write_all(handle: int, view: memoryview) -> None:
    """Write all of `view`, through the page cache from where a direct write is refused; raises `OSError`."""
    while view:
        try:
            view = view[os.write(handle, view) :]
        except OSError as error:
            flags = fcntl.fcntl(handle, fcntl.F_GETFL)
            if error.errno != errno.EINVAL or not flags & os.O_DIRECT:
                raise
            fcntl.fcntl(handle, fcntl.F_SETFL, flags & ~os.O_DIRECT)
