"""The layers of the modulation in host memory: the same numbers, a quarter less on the device."""

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel
from torch import Tensor

from pipeline.hunyuan_custom import HunyuanCustomPipeline
from pipeline.memory.fp8 import Fp8Linear
from pipeline.memory.host_layers import HostLayer, is_modulation, keep_modulation_on_host, moved_tensors
from pipeline.memory.stored_model import load_stored
from tests.harness.ranks_at_work import REQUESTS, denoised, tiny_request_pipeline
from weights.originals.plan_transformer import FULL_SIZE

LAYERS = 2 * 2 + 2 + 1  # two double blocks with two norms, two single blocks, the output layer


@pytest.fixture
def hosted() -> HunyuanCustomPipeline:
    """With the layers on the host, one of them in fp8."""
    pipe = tiny_request_pipeline(2)
    layer = pipe.transformer.single_transformer_blocks[0].norm.linear
    scale = layer.weight.abs().max().reshape(1) / 448
    narrow = Fp8Linear((layer.weight / scale).to(torch.float8_e4m3fn), scale, layer.bias)
    pipe.transformer.single_transformer_blocks[0].norm.linear = narrow
    keep_modulation_on_host(pipe.transformer)
    return pipe


def _plain(hosted: HunyuanCustomPipeline) -> HunyuanCustomPipeline:
    """The same weights in ordinary layers."""
    transformer = copy.deepcopy(hosted.transformer)
    for name, module in list(transformer.named_modules()):
        if isinstance(module, HostLayer):
            transformer.set_submodule(name, module._layer[0])
    return HunyuanCustomPipeline(**(hosted.components | {"transformer": transformer}))


def test_each_layer_is_copied_once_in_a_request_and_the_latents_are_equal(
    hosted: HunyuanCustomPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: Counter[HostLayer] = Counter()
    copied_to = HostLayer.copied_to

    def count(layer: HostLayer, device: torch.device) -> Any:
        copies[layer] += 1
        return copied_to(layer, device)

    monkeypatch.setattr(HostLayer, "copied_to", count)
    for size, heads, options in REQUESTS.values():
        if heads == 2:
            copies.clear()
            latents = denoised(hosted, size, options)
            assert sorted(copies.values()) == [1] * LAYERS
            assert torch.equal(latents, denoised(_plain(hosted), size, options))


def test_moving_the_transformer_leaves_them_where_they_are(hosted: HunyuanCustomPipeline) -> None:
    """As accelerate's model offload does, or `pipe.to`; "meta" stands for a GPU."""
    moved = hosted.transformer.to("meta")
    places = {name: parameter.device.type for name, parameter in moved.named_parameters()}
    assert {place for name, place in places.items() if is_modulation(name)} == {"cpu"}
    assert {place for name, place in places.items() if not is_modulation(name)} == {"meta"}
    assert moved.device.type == "meta"


def test_they_are_saved_under_the_same_names(hosted: HunyuanCustomPipeline, tmp_path: Path) -> None:
    expected: dict[str, Tensor] = _plain(hosted).transformer.state_dict()
    state = hosted.transformer.state_dict()
    assert list(state) == list(expected)
    hosted.transformer.save_pretrained(tmp_path)
    again = load_stored(HunyuanVideoTransformer3DModel, tmp_path, None).state_dict()
    assert again.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.items())


def test_without_them_the_full_size_transformer_has_19_gb() -> None:
    with torch.device("meta"):
        transformer = HunyuanVideoTransformer3DModel(**FULL_SIZE).bfloat16()
    keep_modulation_on_host(transformer)
    on_device = sum(tensor.nbytes for tensor in moved_tensors(transformer))
    assert on_device < 19e9
    assert sum(parameter.nbytes for parameter in transformer.parameters()) - on_device > 6.8e9
