from dataclasses import replace

import torch

from pipeline.fused.kernels import EAGER
from tests.harness.ranks_at_work import REQUESTS, denoised, tiny_request_pipeline


def test_mlps_in_chunks_make_the_same_latents_and_see_no_more_tokens_than_asked() -> None:
    size, heads, options = REQUESTS["guided"]
    pipe = tiny_request_pipeline(heads)
    expected = denoised(pipe, size, options)
    seen: list[int] = []
    for layer in (pipe.transformer.transformer_blocks[0].ff, pipe.transformer.single_transformer_blocks[0].proj_mlp):
        layer.register_forward_pre_hook(lambda _layer, inputs: seen.append(len(inputs[0])))
    pipe.enable_kernels(replace(EAGER, mlp_chunk=16))
    assert torch.equal(denoised(pipe, size, options), expected)
    assert max(seen) == 16
    assert 45 % 16 in seen  # what is left of the image tokens
