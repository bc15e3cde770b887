"""What the playground's own routes answer, beside the requests themselves (`jobs/history.py`)."""

from dataclasses import asdict
from itertools import product
from typing import Any, Final, Literal, Self, get_args

from pydantic import BaseModel, Field

from server.fal.schemas import HunyuanCustomInput
from server.fal.video_size import video_size
from server.jobs.job import Status
from server.jobs.progress import Progress, Stage
from server.settings import ImageSettings, Settings


class Crop(BaseModel):
    """How the model sees an identity image: whole, scaled to fit into a frame and centred in it.

    That of the video is in `sizes`, width and height by resolution and aspect ratio; the language model sees the same
    in a square. Sides and margins are rounded down.
    """

    fit: Literal["contain"]
    fill: Literal["#ffffff"] = Field(description="around the image")
    alpha: Literal["white", "drop"] = Field(description="transparent pixels: on white, or with the colours they have")
    background: Literal["keep", "white"] = Field(description="white: the subject is cut out, if one is found")
    sizes: dict[str, dict[str, tuple[int, int]]]

    @classmethod
    def of(cls, image: ImageSettings) -> Self:
        """With these settings."""
        return cls(fit="contain", fill="#ffffff", alpha=image.alpha, background=image.background, sizes=_SIZES)


class Limits(BaseModel):
    """Of identity images: bytes of a file, pixels of a side. `media_ttl_s`: a video is kept for so long, 0 for ever."""

    max_image_bytes: int
    min_side: int
    max_side: int
    media_ttl_s: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """With these settings."""
        image = settings.image
        return cls(
            max_image_bytes=image.max_bytes,
            min_side=image.min_side,
            max_side=image.max_side,
            media_ttl_s=settings.retention.media_s,
        )


class SessionInfo(BaseModel):
    """What the playground needs to begin.

    `owner`, `model` and `reason` (why there is no video to be had now) are null for a caller who shows no key and needs
    one.
    """

    version: str
    endpoint: str
    keys_required: bool
    owner: str | None
    ready: bool
    reason: str | None
    model: str | None
    base_url: str
    limits: Limits
    input_schema: dict[str, Any]
    example: dict[str, str]
    crop: Crop


class ProgressAnswer(BaseModel):
    """How far a request is; `preview` is the version of the picture that `.../preview` has."""

    status: Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
    queue_position: int | None
    stage: Stage | None
    done: int
    total: int
    seconds_left: float | None
    preview: int | None

    @classmethod
    def of(cls, status: Status, position: int | None, so_far: Progress) -> Self:
        """Of a request in that status."""
        return cls(status=status.value, queue_position=position, **asdict(so_far))


def _sizes() -> dict[str, dict[str, tuple[int, int]]]:
    fields = HunyuanCustomInput.model_fields
    resolutions, ratios = (get_args(fields[name].annotation) for name in ("resolution", "aspect_ratio"))
    found: dict[str, dict[str, tuple[int, int]]] = {resolution: {} for resolution in resolutions}
    for resolution, ratio in product(resolutions, ratios):
        asked = HunyuanCustomInput.model_construct(resolution=resolution, aspect_ratio=ratio)
        found[resolution][ratio] = video_size(asked)
    return found


_SIZES: Final = _sizes()
