"""Backends of other packages, which need a GPU: here their modules are stand-ins that compute in torch."""

import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pipeline.attention.backends import UnusableAttentionError
from pipeline.attention.choice import choose_attention
from pipeline.attention.function import sdpa
from pipeline.attention.probe import Heads, teraflops
from pipeline.demo.model import build_demo_model
from pipeline.load import load_pipeline

HEADS = Heads(count=3, width=32, dtype=torch.bfloat16, device=torch.device("cpu"))
HOPPER, ADA, BLACKWELL = (9, 0), (8, 9), (10, 0)
Install = Callable[..., None]

FLASH = """
from torch.nn.functional import scaled_dot_product_attention
def flash_attn_func(q, k, v, softmax_scale=None, causal=False):
    out = scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    return {result}
"""
GOOD = FLASH.format(result="out")
WITH_LSE = FLASH.format(result="(out, None)")
WRONG = {
    "raises": (FLASH.format(result="1 / 0"), "fails with 3 heads of 32, torch.bfloat16: ZeroDivisionError: division"),
    "one key too few": (GOOD.replace("(q, k, v))", "(q, k[:, :-1], v[:, :-1]))"), "computes something else"),
    "a mask": (GOOD.replace("(q, k, v)))", "(q, k, v)), is_causal=True)"), "computes something else"),
    "another scale": (GOOD.replace("(q, k, v)))", "(q, k, v)), scale=0.2)"), "computes something else"),
    "odd lengths": (FLASH.format(result="out if q.shape[1] % 2 == 0 else out * 1.05"), "computes something else"),
    "NaN": (FLASH.format(result="out.where(out > -0.5, float('nan'))"), "computes something else: error inf"),
    "heads first": (FLASH.format(result="out.transpose(1, 2)"), "the result for .* is .1, 3, 384, 32."),
    "fp32": (FLASH.format(result="out.float()"), "the result for .* is .* of torch.float32"),
    "cannot be loaded": ("raise ImportError('undefined symbol: x')", "cannot be loaded: ImportError: undefined symbol"),
    "needs more": ("import not_there_either", "cannot be loaded: No module named 'not_there_either'"),
}
FP8 = """
import torch
from torch.nn.functional import scaled_dot_product_attention
def flash_attn_func(q, k, v, q_descale, k_descale, v_descale):
    assert {x.dtype for x in (q, k, v)} == {torch.float8_e4m3fn}
    assert q_descale.shape == q.shape[::2] and q_descale.dtype == torch.float32
    wide = [x.float() * s[:, None, :, None] for x, s in ((q, q_descale), (k, k_descale), (v, v_descale))]
    return scaled_dot_product_attention(*(x.transpose(1, 2) for x in wide)).transpose(1, 2).bfloat16()
"""
SAGE = """
from torch.nn.functional import scaled_dot_product_attention
def sageattn(q, k, v, tensor_layout="HND"):
    assert tensor_layout == "NHD"
    return scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a module's source, and the record of its distribution, where Python looks for installed packages."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(module: str, source: str, distribution: str = "") -> None:
        file = tmp_path / f"{module.replace('.', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
        if distribution:
            name, version = distribution.split()
            record = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
            record.mkdir()
            (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        for part in (module, module.partition(".")[0]):
            monkeypatch.delitem(sys.modules, part, raising=False)
        importlib.invalidate_caches()

    yield install
    for module in ("fa3_fwd_interface", "flash_attn", "flash_attn.cute", "sageattention"):
        sys.modules.pop(module, None)


def test_without_a_gpu_it_is_torch_s_own(install: Install) -> None:
    install("fa3_fwd_interface", GOOD)
    assert choose_attention("auto", HEADS).function is sdpa
    assert str(choose_attention("sdpa", HEADS)) == f"sdpa (torch {torch.__version__})"


@pytest.mark.parametrize(
    ("installed", "capability", "name"),
    [
        ({"fa3_fwd_interface": GOOD, "flash_attn.cute": GOOD}, HOPPER, "fa3"),
        ({"flash_attn.cute": WITH_LSE}, HOPPER, "fa4"),
        ({"fa3_fwd_interface": GOOD, "flash_attn.cute": GOOD}, BLACKWELL, "fa4"),
        ({"fa3_fwd_interface": GOOD, "flash_attn.cute": GOOD}, ADA, "sdpa"),
        ({"fa3_fwd_interface": FP8, "sageattention": SAGE}, HOPPER, "sdpa"),
        ({"flash_attn": "an_older_version = True"}, HOPPER, "sdpa"),
        ({}, HOPPER, "sdpa"),
    ],
)
def test_auto_takes_the_fastest_that_gives_the_same_picture(
    installed: dict[str, str], capability: tuple[int, int], name: str, install: Install
) -> None:
    for module, source in installed.items():
        install(module, source)
    assert choose_attention("auto", HEADS, capability=capability).name == name
    wide = Heads(count=3, width=32, dtype=torch.float32, device=torch.device("cpu"))
    assert choose_attention("auto", wide, capability=capability).name == "sdpa", "the others have no fp32"


def test_the_log_says_what_was_chosen(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    install("fa3_fwd_interface", GOOD, "fa3-fwd 0.0.3")
    with caplog.at_level(logging.INFO):
        choose_attention("auto", HEADS, capability=HOPPER)
    (line,) = caplog.messages
    assert line.startswith("attention: fa3 (fa3-fwd 0.0.3), error 0.0")


@pytest.mark.parametrize("fault", WRONG)
def test_one_that_does_not_work_is_not_taken(fault: str, install: Install, caplog: pytest.LogCaptureFixture) -> None:
    source, reason = WRONG[fault]
    install("fa3_fwd_interface", source)
    with caplog.at_level(logging.WARNING):
        assert choose_attention("auto", HEADS, capability=HOPPER).function is sdpa
    (line,) = caplog.messages
    with pytest.raises(UnusableAttentionError, match=rf"^attention = 'fa3': .*{reason}.*; 'sdpa' works here$") as told:
        choose_attention("fa3", HEADS, capability=HOPPER)
    assert line.removeprefix("attention: fa3 ") in str(told.value)


@pytest.mark.parametrize(
    ("name", "package"),
    [("fa3", "hunyuan-custom-server[fa3]"), ("fa4", "flash-attn-4"), ("sage", "sageattention")],
)
def test_one_that_is_not_installed_says_how_to(name: Any, package: str) -> None:
    with pytest.raises(UnusableAttentionError) as told:
        choose_attention(name, HEADS)
    assert str(told.value) == f"attention = '{name}': it is not installed (pip install '{package}'); 'sdpa' works here"


def test_the_nearest_that_works_is_named(install: Install) -> None:
    install("fa3_fwd_interface", GOOD)
    with pytest.raises(UnusableAttentionError, match=r"fails with .*q_descale.*; 'fa3' works here$"):
        choose_attention("fa3_fp8", HEADS, capability=HOPPER)


@pytest.mark.parametrize(
    ("name", "module", "source"), [("fa3_fp8", "fa3_fwd_interface", FP8), ("sage", "sageattention", SAGE)]
)
def test_those_that_change_the_picture_say_so(
    name: Any, module: str, source: str, install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install(module, source)
    chosen = choose_attention(name, HEADS)
    assert chosen.changes_picture
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().endswith(", changes the picture")


def test_fp8_uses_the_range_of_each_head(install: Install) -> None:
    install("fa3_fwd_interface", FP8)
    attend = choose_attention("fa3_fp8", HEADS).function
    q, k, v = HEADS.drawn(64)
    ranges = torch.tensor([1e-5, 1.0, 1e5], dtype=v.dtype)[:, None]  # float8 alone has 0.002 to 448
    out, exact = attend(q, k, v * ranges).float(), sdpa(q.float(), k.float(), (v * ranges).float())
    assert (out - exact).norm(dim=(1, 3)).div(exact.norm(dim=(1, 3))).max() < 0.1
    assert attend(q, k, torch.zeros_like(v)).abs().max() == 0


def test_a_rate_is_measured() -> None:
    assert 0 < teraflops(sdpa, HEADS, tokens=64) < 1e3


def test_the_pipeline_computes_with_it(install: Install, identity: Image.Image, tmp_path: Path) -> None:
    folder = build_demo_model(tmp_path / "demo")
    read: list[str] = []
    with pytest.raises(UnusableAttentionError, match="is not installed"):
        load_pipeline(folder, device="cpu", dtype="float32", attention="fa3", on_progress=read.append)
    assert not read, "known before the weights are read"
    install(
        "fa3_fwd_interface",
        f"{GOOD}\ncalls = []\nattend = flash_attn_func\n"
        "def flash_attn_func(q, k, v):\n    calls.append(q.shape)\n    return attend(q, k, v)\n",
    )
    call: dict[str, Any] = {
        "height": 32,
        "width": 48,
        "num_frames": 5,
        "num_inference_steps": 6,
        "output_type": "latent",
    }
    frames = [
        load_pipeline(folder, device="cpu", dtype="float32", attention=name)(
            "a dog", identity, step_cache="reference", generator=torch.Generator().manual_seed(0), **call
        ).frames
        for name in ("fa3", "sdpa")
    ]
    assert torch.equal(*frames)
    probes, denoising = 2, 2 * (5 * 4 + 1)  # branches, full steps, blocks; and one cached step
    assert len(sys.modules["fa3_fwd_interface"].calls) == probes + denoising
