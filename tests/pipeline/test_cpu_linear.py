"""oneDNN computes the transformer's Linear layers as torch does, or torch does it after one line in the log."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline import cpu_linear
from pipeline.cpu_linear import OneDnnLinear, choose_cpu_linear, use_onednn, use_torch
from pipeline.hunyuan_custom import HunyuanCustomPipeline
from pipeline.load import load_pipeline
from pipeline.memory.fp8 import Fp8Linear
from tests.harness.tiny_bench import tiny_request

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")

CPU = torch.device("cpu")
AGREEMENT = 2e-6
SMALL: dict[str, Any] = {"height": 32, "width": 48, "num_frames": 5, "num_inference_steps": 2, "output_type": "latent"}


def _difference(actual: Tensor, expected: Tensor) -> float:
    """Relative to the largest value."""
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def _drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(64,), (1, 64), (45, 64), (2, 7, 64), (0, 64), (1, 0, 64)], ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("stride", [1, 2], ids=["contiguous", "strided"])
def test_a_layer_agrees_with_torch_and_repeats_itself(shape: tuple[int, ...], bias: bool, stride: int) -> None:
    layer = nn.Linear(64, 96, bias=bias)
    x = _drawn(*shape[:-1], shape[-1] * stride)[..., ::stride]
    expected = layer(x)
    use_onednn(layer, device=CPU, dtype=torch.float32)
    with torch.inference_mode():
        result = layer(x)
    assert result.shape == expected.shape
    assert torch.equal(layer(x.clone()), result)
    assert x.numel() == 0 or _difference(result, expected) < AGREEMENT


def test_results_do_not_depend_on_where_in_memory_the_weights_are(tmp_path: Path) -> None:
    """Mapped from a file or not, aligned or not."""
    weight, x = _drawn(96, 64), _drawn(45, 64)
    save_file({"weight": weight}, tmp_path / "weights")
    room = torch.empty(weight.numel() + 3)
    places = [weight, load_file(tmp_path / "weights")["weight"], room[3:].view(96, 64).copy_(weight)]
    results = []
    for place in places:
        layer = nn.Linear(64, 96, bias=False, device="meta")
        layer.load_state_dict({"weight": place}, assign=True)
        use_onednn(layer, device=CPU, dtype=torch.float32)
        results.append(layer(x))
    assert all(torch.equal(result, results[0]) for result in results)


def test_a_step_agrees_with_torchs_and_is_torchs_again_afterwards() -> None:
    request = tiny_request()
    names = list(request.transformer.state_dict())
    before = torch.cat(request.step())
    use_onednn(request.transformer, device=CPU, dtype=torch.float32)
    assert list(request.transformer.state_dict()) == names
    assert not any(type(layer) is nn.Linear for layer in request.transformer.modules())
    first, again = torch.cat(request.step()), torch.cat(request.step())
    use_torch(request.transformer)
    assert torch.equal(first, again)
    assert _difference(first, before) < AGREEMENT
    assert torch.equal(torch.cat(request.step()), before)


@pytest.mark.parametrize("memory_plan", ["resident", "stream_blocks"])
def test_a_loaded_pipeline_computes_with_it_under_every_memory_plan(
    memory_plan: Any, pipe: HunyuanCustomPipeline, tmp_path: Path, identity: Image.Image
) -> None:
    pipe.save_pretrained(tmp_path)
    loaded = load_pipeline(tmp_path, device="cpu", dtype="float32", memory_plan=memory_plan, cpu_linear="onednn")
    layers = [layer for layer in loaded.transformer.modules() if isinstance(layer, OneDnnLinear)]
    used: set[nn.Module] = set()
    for layer in layers:
        layer.register_forward_hook(lambda layer, *_: used.add(layer))
    arguments = SMALL | {"latents": _drawn(1, 16, 2, 4, 6)}
    frames, expected = loaded("x", identity, **arguments).frames, pipe("x", identity, **arguments).frames
    assert layers
    assert used == set(layers)
    assert _difference(frames, expected) < 2e-4  # two steps, guidance and the encoders of another load


def test_fp8_layers_stay_as_they_are() -> None:
    own = Fp8Linear(torch.zeros(96, 64, dtype=torch.float8_e4m3fn), torch.ones(1), None)
    model = nn.Sequential(own, nn.Linear(96, 64))
    assert use_onednn(model, device=CPU, dtype=torch.float32) == 1
    assert type(model[0]) is Fp8Linear


def _absent(*_: object) -> Tensor:
    raise AttributeError("no such operator")


@pytest.mark.parametrize(
    ("device", "dtype", "operator", "available", "reason"),
    [
        ("cuda", torch.float32, None, True, "not for torch.float32 on cuda"),
        ("cpu", torch.bfloat16, None, True, "not for torch.bfloat16 on cpu"),
        ("cpu", torch.float32, None, False, "built without oneDNN"),
        ("cpu", torch.float32, _absent, True, "no such operator"),
        ("cpu", torch.float32, lambda x, weight, _bias: x @ weight.T, True, "something else"),  # without the bias
    ],
    ids=["GPU", "bf16", "built without", "operator is missing", "operator is wrong"],
)
def test_where_it_cannot_be_torch_computes_and_one_line_says_why(
    device: str,
    dtype: torch.dtype,
    operator: Any,
    available: bool,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if operator is not None:
        monkeypatch.setattr(cpu_linear, "_onednn", operator)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: available)
    model = nn.Sequential(nn.Linear(64, 96))
    with caplog.at_level(logging.INFO):
        choose_cpu_linear(model, "onednn", device=torch.device(device), dtype=dtype)
    (line,) = caplog.messages
    assert line.startswith("cpu_linear = 'onednn' is ignored: ")
    assert reason in line
    assert type(model[0]) is nn.Linear


def test_torch_is_not_touched_by_default(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Linear(64, 96))
    with caplog.at_level(logging.INFO):
        choose_cpu_linear(model, "torch", device=CPU, dtype=torch.float32)
    assert type(model[0]) is nn.Linear
    assert not caplog.messages
