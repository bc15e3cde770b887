"""Everything that crosses the pipe between the worker and its generator: few messages, typed, closed.

One JSON object per line over a socket pair. The end of the socket means that the other side has ended.
"""

import socket
import threading
from collections.abc import Iterator
from typing import Annotated, Generic, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from server.generator.state import GpuMemory
from server.logs import LogFormat
from server.settings import GeneratorSettings, ImageSettings, MemoryPlan, PromptSettings, SafetySettings, VideoSettings

Received = TypeVar("Received")

Where: TypeAlias = Literal["prompt", "negative_prompt", "image", "frames"]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rendezvous(_Message):
    """Where the ranks of a generator find each other: a port of 127.0.0.1. Rank 0 holds the listening socket."""

    port: int
    listener: int | None = None


class Load(_Message):
    """The worker's first message: load the model. `data_dir` is where the demo model may be built. `made_room`: the
    memory plan is there because the one before it ran out of memory; where it has no room, a smaller one does.

    With several ranks the worker's message reaches rank 0, which passes it on with the `rank` and the rendezvous.
    """

    kind: Literal["load"] = "load"
    generator: GeneratorSettings
    prompt: PromptSettings
    video: VideoSettings
    image: ImageSettings
    safety: SafetySettings
    data_dir: str
    log_format: LogFormat = "text"
    made_room: bool = False
    rank: int = 0
    rendezvous: Rendezvous | None = None


class Generate(_Message):
    """Make one video. Sizes in pixels as delivered; `image`, `output` and `checkpoint` are local paths.

    A checkpoint that is there is where an earlier attempt got to, and has the words it used. `log_prompt`: whether the
    job's log, which outlives its input, may repeat them. `cut_out` is the local path for a picture of the subject on
    white; one that is there is what the earlier attempt used. `thumbnail`, if given, is the local path for a picture of
    the clip; a clip may end without one, and one that is not finished leaves none. `trace_id`: for the lines of the
    service log.
    """

    kind: Literal["generate"] = "generate"
    request_id: str
    prompt: str
    expand_prompt: bool
    log_prompt: bool
    negative_prompt: str
    image: str
    output: str
    checkpoint: str
    cut_out: str
    thumbnail: str | None = None
    check_safety: bool
    width: int
    height: int
    num_frames: int
    fps: int
    num_inference_steps: int
    guidance_scale: float
    seed: int
    trace_id: str | None = None


class Cancel(_Message):
    """Stop working on this request; ignored when it is not running."""

    kind: Literal["cancel"] = "cancel"
    request_id: str


ToGenerator: TypeAlias = Load | Generate | Cancel
to_generator: TypeAdapter[ToGenerator] = TypeAdapter(Annotated[ToGenerator, Field(discriminator="kind")])


class Ready(_Message):
    """The model is loaded; `model` describes it to people. `memory_plan`: what became of the configured one."""

    kind: Literal["ready"] = "ready"
    model: str
    seconds: float
    memory_plan: MemoryPlan | None = None
    gpu_memory: tuple[GpuMemory, ...] = ()


class Loading(_Message):
    """How far the loading is, in words."""

    kind: Literal["loading"] = "loading"
    message: str


class LoadFailed(_Message):
    """The model cannot be loaded; the process ends."""

    kind: Literal["load_failed"] = "load_failed"
    message: str


class Working(_Message):
    """A sign of life: a token of a prompt, an encoder stage, a transformer block or a VAE tile is done.

    `seconds_left`: what is known of the rest of the job; before the first decode of a process without the decode.
    """

    kind: Literal["working"] = "working"
    stage: Literal["expand", "encode", "denoise", "decode"]
    done: int
    total: int
    seconds_left: float | None = None


class Preview(_Message):
    """What the clip will about look like: an animated WebP in base64."""

    kind: Literal["preview"] = "preview"
    picture: str


class Log(_Message):
    """A line for the job's log. `step_seconds`: of the denoising step that it is about."""

    kind: Literal["log"] = "log"
    message: str
    level: Literal["INFO", "WARN", "ERROR"] = "INFO"
    step_seconds: float | None = None


class Finished(_Message):
    """The video is at the path that was asked for. `last`: the process ends with this."""

    kind: Literal["finished"] = "finished"
    seconds: float
    gpu_memory: tuple[GpuMemory, ...] = ()
    last: bool = False


class Failed(_Message):
    """No video. `last`: the process ends with this; `reason` decides what the user is told.

    `where` the safety checker found something, if the reason is that.
    """

    kind: Literal["failed"] = "failed"
    reason: Literal["cancelled", "out_of_memory", "disk", "flagged", "error"]
    where: Where | None = None
    message: str
    last: bool = False


JobMessage: TypeAlias = Working | Log | Preview
"""What a job reports while it runs."""

FromGenerator: TypeAlias = Ready | Loading | LoadFailed | JobMessage | Finished | Failed
from_generator: TypeAdapter[FromGenerator] = TypeAdapter(Annotated[FromGenerator, Field(discriminator="kind")])


class Channel(Generic[Received]):
    """One end of the socket pair."""

    def __init__(self, connection: socket.socket, received: TypeAdapter[Received]) -> None:
        self._connection = connection
        self._lines = connection.makefile("rb")
        self._received = received
        self._sending = threading.Lock()

    def send(self, message: BaseModel) -> None:
        """Send one message; raises OSError when the other side is gone."""
        with self._sending:
            self._connection.sendall(message.model_dump_json().encode() + b"\n")

    def __iter__(self) -> Iterator[Received]:
        """Messages until the other side is gone."""
        try:
            for line in self._lines:
                if not line.endswith(b"\n"):  # it ended in the middle of a message
                    return
                yield self._received.validate_json(line)
        except ConnectionError:
            return

    def close(self) -> None:
        """Close this end."""
        self._lines.close()
        self._connection.close()
