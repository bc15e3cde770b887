"""Frames in, one H.264 MP4 out: streamed through ffmpeg, renamed into place only when it is complete.

Frames are uint8 RGB `[n, h, w, 3]` chunks. The file is yuv420p, BT.709 limited range, faststart, one constant frame
rate; the same frames, options and ffmpeg give the same bytes. ffmpeg is that of imageio-ffmpeg, whose own writer does
not keep stderr, hence the process here.
"""

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe

from pipeline.options import CRF

FPS_RANGE = range(16, 31)
STDERR_KEPT = 2000  # bytes
GRACE_SECONDS = 5.0  # for an ffmpeg that closed its input to print why and exit


class Mp4Error(RuntimeError):
    """The MP4 could not be written: ffmpeg failed (the message ends with its last lines), or frames are missing."""


def write_mp4(
    frames: Iterable[np.ndarray],
    path: Path,
    *,
    fps: int,
    num_frames: int,
    width: int,
    height: int,
    threads: int,
    crf: int = CRF,
) -> int:
    """Encode exactly `num_frames` frames as `path` and return its size in bytes.

    `frames` yields uint8 chunks `[n, h, w, 3]` of one size, which is scaled to `width` x `height` pixels; frames beyond
    `num_frames` are read and dropped. `threads` bounds the encoder; `crf` is x264's quality, lower is better (the
    reference writes 10, i.e. quality 8 of imageio). Neither a partial file nor an ffmpeg process survives an error.

    Raises ValueError for arguments or chunks that can never be encoded, Mp4Error for everything that fails on the way,
    and what `frames` itself raises.
    """
    if fps not in FPS_RANGE:
        raise ValueError(f"fps must be {FPS_RANGE.start}..{FPS_RANGE.stop - 1}, not {fps}")
    if width < 2 or height < 2 or width % 2 or height % 2:
        raise ValueError(f"yuv420p needs even sides, not {width}x{height}")
    if num_frames < 1 or threads < 1:
        raise ValueError(f"num_frames and threads must be at least 1, not {num_frames} and {threads}")
    part = path.with_name(path.name + ".part")
    chunks = _exactly(num_frames, frames)
    first = next(chunks)
    arguments = _arguments(
        part,
        source=f"{first.shape[2]}x{first.shape[1]}",
        fps=fps,
        width=width,
        height=height,
        threads=threads,
        crf=crf,
    )
    try:
        with _Ffmpeg(arguments) as ffmpeg:
            ffmpeg.write(first)
            for chunk in chunks:
                ffmpeg.write(chunk)
            ffmpeg.finish()
        return _publish(part, path)
    finally:
        with contextlib.suppress(OSError):  # usually it no longer exists; the error that led here must not be hidden
            part.unlink()


def _exactly(num_frames: int, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Non-empty chunks that add up to `num_frames`, all of one frame size."""
    left = num_frames
    size: tuple[int, ...] | None = None
    for chunk in frames:
        if chunk.dtype != np.uint8 or chunk.ndim != 4 or chunk.shape[3] != 3 or 0 in chunk.shape[1:]:
            raise ValueError(f"a chunk must be uint8 [n, h, w, 3], not {chunk.dtype} {list(chunk.shape)}")
        size = size or chunk.shape[1:]
        if chunk.shape[1:] != size:
            raise ValueError(f"the frame size changed from {size} to {chunk.shape[1:]}")
        if kept := min(left, len(chunk)):
            yield chunk[:kept]
            left -= kept
    if left:
        raise Mp4Error(f"only {num_frames - left} of {num_frames} frames were rendered")


def _arguments(part: Path, *, source: str, fps: int, width: int, height: int, threads: int, crf: int) -> list[str]:
    # swscale converts with BT.601 unless told; setparams writes the tags that players trust.
    resize = f"scale={width}:{height}:flags=bicubic+accurate_rnd+full_chroma_int+bitexact"
    convert = "in_range=full:out_range=limited:out_color_matrix=bt709,format=yuv420p"
    tags = "setparams=range=limited:color_primaries=bt709:color_trc=bt709:colorspace=bt709"
    return [
        *("-nostdin", "-hide_banner", "-nostats", "-loglevel", "error", "-y"),
        *("-filter_threads", "1", "-threads", "1"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", source, "-framerate", str(fps), "-i", "pipe:0"),
        *("-vf", f"{resize}:{convert},{tags}"),
        *("-c:v", "libx264", "-preset", "medium", "-crf", str(crf), "-g", str(2 * fps), "-threads", str(threads)),
        *("-fps_mode", "passthrough", "-flags:v", "+bitexact", "-fflags", "+bitexact"),
        *("-movflags", "+faststart", "-f", "mp4", f"file:{part}"),
    ]


def _publish(part: Path, path: Path) -> int:
    try:
        with part.open("rb") as file:
            os.fsync(file.fileno())
            size = os.fstat(file.fileno()).st_size
        part.replace(path)
    except OSError as error:
        raise Mp4Error(f"the finished file could not be stored: {error}") from error
    return size


class _Ffmpeg:
    """One ffmpeg process fed through its stdin; leaving the block ends it in every case."""

    def __init__(self, arguments: list[str]) -> None:
        try:
            # A process group of its own: Ctrl-C at a terminal is handled by the server, not by its encoder.
            self._process = subprocess.Popen(
                [get_ffmpeg_exe(), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                process_group=0,
            )
        except (OSError, RuntimeError) as error:  # RuntimeError: imageio-ffmpeg found no binary
            raise Mp4Error(f"ffmpeg could not be started: {error}") from error
        assert self._process.stdin is not None and self._process.stderr is not None  # noqa: S101
        self._stdin = self._process.stdin
        self._stderr = self._process.stderr
        self._stderr_tail = b""
        # A thread reads stderr: ffmpeg would block on a full stderr pipe while we wait to write to its stdin.
        self._reader = threading.Thread(target=self._read_stderr, name="ffmpeg-stderr", daemon=True)
        self._reader.start()

    def __enter__(self) -> "_Ffmpeg":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):  # what was still buffered can no longer be delivered
            self._stdin.close()
        self._reader.join(GRACE_SECONDS)
        self._stderr.close()

    def write(self, chunk: np.ndarray) -> None:
        """Send a chunk `[n, h, w, 3]`; blocks while ffmpeg is busy. Raises Mp4Error if ffmpeg has ended."""
        try:
            self._stdin.write(np.ascontiguousarray(chunk).data)
        except OSError as error:
            raise self._failure() from error

    def finish(self) -> None:
        """End the stream and wait for the complete file. Raises Mp4Error unless ffmpeg succeeds."""
        try:
            self._stdin.close()
        except OSError as error:
            raise self._failure() from error
        if self._process.wait() != 0:
            raise self._failure()

    def _failure(self) -> Mp4Error:
        try:
            code = self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._reader.join(GRACE_SECONDS)
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        lines = self._stderr_tail.decode("utf-8", errors="replace").strip()
        return Mp4Error(f"ffmpeg {how}: {lines or 'it gave no reason'}")

    def _read_stderr(self) -> None:
        while block := os.read(self._stderr.fileno(), 4096):
            self._stderr_tail = (self._stderr_tail + block)[-STDERR_KEPT:]
