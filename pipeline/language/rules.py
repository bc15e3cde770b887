"""The words of the demo, whose model has learned none: by rule, at no cost, through the same interface."""

from PIL import Image

from pipeline.components import Tokenizer
from pipeline.conditioning.prompt import prompt_room
from pipeline.language.expansion import begun
from pipeline.language.subject_name import name_by_rule
from pipeline.language.writer import Words
from pipeline.progress import ProgressCallback

_ADDED = "The scene is calm, the motion natural, the camera slowly moves closer, the light is soft."
_STYLE = "Realistic, High-quality."


class RuleWriter:
    """Adds the same sentence to every prompt. The picture is not looked at."""

    method = "by rule, since the demo model has learned nothing"

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def write(self, prompt: str, image: Image.Image, *, expand: bool, callback: ProgressCallback | None) -> Words:  # noqa: ARG002
        """Reports no progress: it takes no time."""
        name = name_by_rule(prompt)
        if not expand:
            return Words(prompt=prompt, subject_name=name)
        style = [] if "realistic" in prompt.lower() else [_STYLE]
        longer = " ".join([begun(prompt), _ADDED, *style])
        if prompt_room(self._tokenizer, longer, name) < 0:
            return Words(prompt=prompt, subject_name=name, problem="it leaves no room")
        return Words(prompt=longer, subject_name=name, expanded=True)
