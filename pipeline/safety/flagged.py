"""What the safety checker raises. No torch here: the process around the pipeline tells its worker what was found."""

from typing import Literal, TypeAlias

Where: TypeAlias = Literal["prompt", "negative_prompt", "image", "frames"]


class Flagged(Exception):
    """No video is made, or a finished one is not kept: `where` something was found, and what, without quoting it."""

    def __init__(self, where: Where, what: str) -> None:
        super().__init__(what)
        self.where: Where = where
