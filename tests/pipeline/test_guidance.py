from typing import Any

import pytest
import torch

from pipeline.guidance import unconditional_mask


@pytest.mark.parametrize("case", ["woman", "empty_neg", "gradio"])
def test_cfg_masks_equal_the_reference(
    case: str, text_io: dict[str, torch.Tensor], text_cases: dict[str, Any], close: Any
) -> None:
    rewritten = unconditional_mask(text_io[f"{case}.neg.mask_before_fix"], image_tokens=576)
    batch = torch.cat([rewritten, text_io[f"{case}.pos.mask"]])
    close("text masks", batch, text_io[f"{case}.mask_cfg_batch"], 0)
    assert int(rewritten.sum()) == text_cases[case]["valid_neg"]
