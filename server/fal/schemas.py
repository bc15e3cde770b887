"""The endpoint's input and output, field by field as fal documents them (order, defaults, ranges, examples).

Source: the public page of fal-ai/hunyuan-custom.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticKnownError

from server.errors import InvalidInput
from server.fal.data_uri import is_data_uri
from server.fal.input_echo import echo
from server.fal.json_text import parse_json

ENDPOINT = "fal-ai/hunyuan-custom"

DEFAULT_NEGATIVE_PROMPT = (
    "Aerial view, aerial view, overexposed, low quality, deformation, a poor composition, bad hands, bad teeth, "
    "bad eyes, bad limbs, distortion, blurring, text, subtitles, static, picture, black border."
)
EXAMPLE_PROMPT = "Realistic, High-quality. A woman is playing a violin."
EXAMPLE_IMAGE = "https://storage.googleapis.com/falserverless/model_tests/hidream/woman.png"
EXAMPLE_VIDEO = (
    "https://storage.googleapis.com/falserverless/example_outputs/test/p1/"
    "uQ4ddGyJ9U6cymnns0l6o_input-image-1747117169.mp4"
)

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_LONGEST_PROMPT = 500
_LONGEST_NEGATIVE = 10_000  # fal documents none; the text encoder reads a few hundred words
_LONGEST_URL = 2048  # of http; the images in data: URIs are limited as files are


def _plain_text(value: str) -> str:
    """Refuse what no tokenizer was trained on: control characters and lone surrogates."""
    if _CONTROL.search(value):
        raise ValueError("contains control characters")
    return value


def _at_most(length: int) -> BeforeValidator:
    """The rule of `max_length`, asked before pydantic encodes the text to count its letters: it may have millions."""

    def check(value: Any) -> Any:
        if isinstance(value, str) and len(value) > length:
            raise PydanticKnownError("string_too_long", {"max_length": length})
        return value

    return BeforeValidator(check)


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value


def _short_url(value: str) -> str:
    if len(value) > _LONGEST_URL and not is_data_uri(value):
        raise PydanticKnownError("string_too_long", {"max_length": _LONGEST_URL})
    return value


Text = Annotated[str, AfterValidator(_plain_text)]


class HunyuanCustomInput(BaseModel):
    """Input of `fal-ai/hunyuan-custom`. Unknown fields are ignored, as on fal."""

    model_config = ConfigDict(title="HunyuanCustomRequest", extra="ignore", frozen=True, allow_inf_nan=False)

    prompt: Annotated[Text, _at_most(_LONGEST_PROMPT), AfterValidator(_not_blank)] = Field(
        title="Prompt",
        description="Text prompt for video generation (max 500 characters).",
        min_length=1,
        max_length=_LONGEST_PROMPT,
        examples=[EXAMPLE_PROMPT],
    )
    negative_prompt: Annotated[Text, _at_most(_LONGEST_NEGATIVE)] = Field(
        default=DEFAULT_NEGATIVE_PROMPT,
        title="Negative Prompt",
        description="Negative prompt for video generation.",
        max_length=_LONGEST_NEGATIVE,
        examples=["Ugly, blurry."],
    )
    image_url: Annotated[str, AfterValidator(_not_blank), AfterValidator(str.strip), AfterValidator(_short_url)] = (
        Field(title="Image Url", description="URL of the image input.", min_length=1, examples=[EXAMPLE_IMAGE])
    )
    num_inference_steps: int = Field(
        default=30,
        ge=10,
        le=30,
        title="Num Inference Steps",
        description="The number of inference steps to run. Lower gets faster results, higher gets better results.",
    )
    seed: int | None = Field(
        default=None,
        ge=-(2**63),
        lt=2**64,
        title="Seed",
        description="The seed to use for generating the video.",
    )
    aspect_ratio: Literal["16:9", "9:16"] = Field(
        default="16:9", title="Aspect Ratio (W:H)", description="The aspect ratio of the video to generate."
    )
    resolution: Literal["512p", "720p"] = Field(
        default="512p",
        title="Resolution",
        description=("The resolution of the video to generate. 720p generations cost 1.5x more than 480p generations."),
    )
    fps: int = Field(default=25, ge=16, le=30, title="FPS", description="The frames per second of the generated video.")
    cfg_scale: float = Field(
        default=7.5,
        ge=1.5,
        le=13,
        title="CFG Scale",
        description="Classifier-Free Guidance scale for the generation.",
    )
    num_frames: int = Field(
        default=129, ge=81, le=129, title="Num Frames", description="The number of frames to generate."
    )
    enable_prompt_expansion: bool = Field(
        default=True,
        title="Enable Prompt Expansion",
        description="Whether to enable prompt expansion.",
        examples=[True],
    )
    enable_safety_checker: bool = Field(
        default=True,
        title="Enable Safety Checker",
        description="If set to true, the safety checker will be enabled.",
        examples=[True],
    )


class File(BaseModel):
    """A file on this server."""

    url: str = Field(title="Url", description="The URL where the file can be downloaded from.")
    content_type: str | None = Field(
        default=None, title="Content Type", description="The mime type of the file.", examples=["image/png"]
    )
    file_name: str | None = Field(
        default=None,
        title="File Name",
        description="The name of the file. It will be auto-generated if not provided.",
        examples=["z9RV14K95DvU.png"],
    )
    file_size: int | None = Field(
        default=None, title="File Size", description="The size of the file in bytes.", examples=[4404019]
    )


class HunyuanCustomOutput(BaseModel):
    """Output of `fal-ai/hunyuan-custom`."""

    video: File = Field(title="Video", examples=[{"url": EXAMPLE_VIDEO}])
    seed: int = Field(title="Seed", description="The seed used for generating the video.")


def parse_json_object(body: bytes | bytearray) -> dict[str, Any]:
    """Parse a request body; a bytearray is empty afterwards.

    Raises:
        InvalidInput: not JSON (as NaN and Infinity are not), or JSON but not an object. Such a body is refused at
            once, also by the queue: there is nothing that could be stored as a request.
    """
    try:
        parsed = parse_json(body)
    except ValueError as error:
        item = {"type": "json_invalid", "loc": ["body", 0], "msg": "JSON decode error", "input": {}}
        raise InvalidInput([{**item, "ctx": {"error": str(error)}}]) from None
    if not isinstance(parsed, dict):
        message = "Input should be a valid dictionary or object to extract fields from"
        item = {"type": "model_attributes_type", "loc": ["body"], "msg": message, "input": echo(parsed)}
        raise InvalidInput([item])
    return parsed


def validate_input(body: dict[str, Any]) -> HunyuanCustomInput:
    """Check a parsed body against the schema.

    Raises:
        InvalidInput: with the `detail` list FastAPI would send (`type`, `loc`, `msg`, `input`, `ctx`).
    """
    try:
        return HunyuanCustomInput.model_validate(body)
    except ValidationError as error:
        raise invalid_body(error) from None


def invalid_body(error: ValidationError) -> InvalidInput:
    """What is wrong with a body, as the `detail` list that FastAPI would send."""
    return InvalidInput([_detail_item(item) for item in error.errors(include_url=False)])


def _detail_item(error: Any) -> dict[str, Any]:
    item = {**error, "loc": ["body", *error["loc"]], "input": echo(error["input"])}
    if "ctx" in error:
        item["ctx"] = {key: str(v) if isinstance(v, Exception) else v for key, v in error["ctx"].items()}
    return item
