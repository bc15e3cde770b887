"""Moving weights in parts by several threads against moving them in one go. The CPU stands for the device."""

import copy

import pytest
import torch
from torch import nn

from pipeline.memory import transfer
from pipeline.memory.transfer import Transfer

CPU = torch.device("cpu")


class Several(nn.Module):
    """Parameters of many kinds, one of them shared by two modules, and buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(300, 70)
        self.tied = nn.Linear(300, 70)
        self.tied.weight = self.wide.weight
        self.conv = nn.Conv3d(3, 5, 3).half()
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.fp8 = nn.Parameter(torch.randn(8, 8).to(torch.float8_e4m3fn), requires_grad=False)
        self.register_buffer("places", torch.arange(10))
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("empty", torch.zeros(0))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["as stored", "cast"])
def test_every_value_arrives_and_is_cast_as_by_torch(
    threads: int, dtype: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_STAGE_BYTES", 1000)  # several parts, the last one shorter
    model = Several()
    before = copy.deepcopy(model).state_dict()
    homes = {name: tensor.data_ptr() for name, tensor in model.state_dict().items() if tensor.numel()}
    with Transfer(CPU, threads=threads) as moving:
        moving.move(model, dtype)
    after = model.state_dict()
    for name, tensor in before.items():
        casts = dtype is not None and tensor.is_floating_point() and tensor.dtype != torch.float8_e4m3fn
        expected = tensor.to(dtype) if casts else tensor
        assert after[name].dtype == expected.dtype
        assert torch.equal(after[name].view(-1).view(torch.uint8), expected.reshape(-1).view(torch.uint8)), name
    assert all(after[name].data_ptr() != home for name, home in homes.items())
    assert model.tied.weight is model.wide.weight


def test_a_copy_that_fails_is_an_error_and_not_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(transfer._Lane, "copy", fail)
    with pytest.raises(RuntimeError, match="CUDA error"), Transfer(CPU) as moving:
        moving.move(Several())
