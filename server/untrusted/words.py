"""What may not be asked for in words: a refused prompt takes no place in a queue and waits for no model to load."""

import logging

from pipeline.safety.prompt_words import flagged, flagged_negative
from server.errors import ContentPolicyViolation
from server.fal.schemas import HunyuanCustomInput
from server.settings import SafetySettings

logger = logging.getLogger(__name__)


def refuse_words(request_id: str, wanted: HunyuanCustomInput, safety: SafetySettings) -> None:
    """Check the prompts against the word list, if the settings and the request have them checked.

    Raises:
        ContentPolicyViolation: naming the prompt that has such a word.
    """
    if safety.off or not (wanted.enable_safety_checker or safety.required):
        return
    if category := flagged(wanted.prompt):
        logger.info("request %s: prompt refused by the word list: %s", request_id, category)
        raise ContentPolicyViolation("prompt")
    if category := flagged_negative(wanted.negative_prompt):
        logger.info("request %s: negative prompt refused by the word list: %s", request_id, category)
        raise ContentPolicyViolation("negative_prompt")
