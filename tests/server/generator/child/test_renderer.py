"""A whole job in this process: which of its models come to the device, and how often."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload_with_hook
from accelerate.hooks import ModelHook

from pipeline.demo.model import MARKER, build_demo_model
from pipeline.hunyuan_custom import HunyuanCustomPipeline
from pipeline.memory.device_copies import HostCopies
from server.generator.child.renderer import HunyuanCustomRenderer
from server.generator.messages import JobMessage, Load, Log
from server.settings import GeneratorSettings, ImageSettings, PromptSettings, SafetySettings, VideoSettings
from tests.harness.generate_job import generate_job
from tests.harness.scripted_llava import saying

MODELS = ("text_encoder", "text_encoder_2", "transformer", "vae")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's model as if it had learned something: LLaVA itself is asked."""
    folder = tmp_path_factory.mktemp("model") / "trained"
    shutil.copytree(build_demo_model(tmp_path_factory.mktemp("demo") / "model"), folder)
    (folder / MARKER).unlink()
    return folder


@pytest.fixture(params=["stream_blocks", "offload_encoders"])
def renderer(request: pytest.FixtureRequest, folder: Path) -> HunyuanCustomRenderer:
    # The other plan is diffusers', which has nothing to move on a CPU: its hooks are put on below.
    plan = request.param if request.param == "stream_blocks" else "resident"
    load = Load(
        generator=GeneratorSettings(
            model=str(folder), device="cpu", dtype="float32", memory_plan=plan, torch_threads=1, render_divisor=4
        ),
        prompt=PromptSettings(),
        video=VideoSettings(preview_every_s=0),
        image=ImageSettings(),
        safety=SafetySettings(),
        data_dir="",
    )
    return HunyuanCustomRenderer(load, lambda what: None)  # noqa: ARG005


@pytest.fixture
def moves(
    request: pytest.FixtureRequest, renderer: HunyuanCustomRenderer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[str]]:
    """The models in the order in which they come to the device."""
    pipe, came = renderer._pipe, []
    if request.node.callspec.params["renderer"] == "stream_blocks":
        first = {next(getattr(pipe, name).parameters()).data_ptr(): name for name in MODELS}

        def there(_copies: Any, tensor: torch.Tensor) -> torch.Tensor:
            if tensor.data_ptr() in first:
                came.append(first[tensor.data_ptr()])
            return tensor.clone()

        monkeypatch.setattr(HostCopies, "there", there)
        yield came
        return
    _offload_with_accelerate(pipe, came)
    yield came


class _Follows(ModelHook):
    """Does with a small module what accelerate's hooks do with a model; meta stands for the GPU."""

    def __init__(self, small: torch.nn.Module) -> None:
        self._small = small

    def pre_forward(self, _module: Any, *args: Any, **kwargs: Any) -> Any:
        self._small._hf_hook.pre_forward(self._small)
        return args, kwargs


def _offload_with_accelerate(pipe: HunyuanCustomPipeline, came: list[str]) -> None:
    before = None
    for name in pipe.model_cpu_offload_seq.split("->"):
        small = torch.nn.Linear(1, 1)

        def to(device: Any, small: torch.nn.Linear = small, name: str = name) -> torch.nn.Module:
            if torch.device(device).type == "meta":
                came.append(name)
            return small.to_empty(device=device)

        small.to = to  # type: ignore[method-assign, assignment]
        _, before = cpu_offload_with_hook(small, torch.device("meta"), prev_module_hook=before)
        getattr(pipe, name)._hf_hook = _Follows(small)


def test_llava_comes_once_for_all_that_it_is_asked_in_a_job(
    renderer: HunyuanCustomRenderer, moves: list[str], tmp_path: Path
) -> None:
    """Whether the prompt is allowed, the subject's name, its expansion, and both prompts' states."""
    said: list[str] = []

    def report(message: JobMessage) -> None:
        if isinstance(message, Log):
            said.append(message.message)

    pipe = renderer._pipe
    job = generate_job(tmp_path, width=128, height=128, num_frames=5, num_inference_steps=2)
    with saying(pipe.text_encoder, pipe.tokenizer, "No", "Violin", "The light is warm. The camera is still."):
        renderer.render(job, report)
    assert any("Prompt expanded by LLaVA" in line for line in said)
    assert Path(job.output).is_file()
    assert moves.count("text_encoder") == 1
    assert list(dict.fromkeys(moves))[:3] == ["text_encoder", "text_encoder_2", "vae"]
