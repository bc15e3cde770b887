import copy
from typing import Any

import accelerate.hooks
import pytest
import torch
from diffusers.hooks import HookRegistry, ModelHook, apply_group_offloading
from diffusers.hooks.group_offloading import LazyPrefetchGroupOffloadingHook, ModuleGroup
from PIL import Image

from pipeline.hunyuan_custom import HunyuanCustomPipeline
from pipeline.memory.device_copies import HostCopies
from pipeline.memory.placement import apply_memory_plan, onloaded
from pipeline.vae import network as vae_network
from pipeline.vae.codec import decode_chunks

SMALL: dict[str, Any] = {"height": 32, "width": 48, "num_frames": 5, "num_inference_steps": 2, "output_type": "latent"}


@pytest.mark.parametrize("level", ["block_level", "leaf_level"])
def test_group_offloading_moves_every_weight_in_time(
    level: str, pipe: HunyuanCustomPipeline, identity: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A weight that is not brought back has no values to compute with."""
    transformer = copy.deepcopy(pipe.transformer)
    other = HunyuanCustomPipeline(**(pipe.components | {"transformer": transformer}))
    arguments = SMALL | {"latents": torch.randn(1, 16, 2, 4, 6)}
    expected = other("a dog", identity, **arguments).frames
    options: dict[str, Any] = {"num_blocks_per_group": 1} if level == "block_level" else {}
    _forget_when_offloaded(monkeypatch)
    apply_group_offloading(transformer, onload_device=torch.device("cpu"), offload_type=level, **options)
    assert all(parameter.isnan().all() for parameter in transformer.parameters())
    assert torch.equal(other("a dog", identity, **arguments).frames, expected)
    assert all(parameter.isnan().all() for parameter in transformer.parameters())


def test_hooks_of_models_whose_forward_is_never_called_fire_all_the_same(
    pipe: HunyuanCustomPipeline, identity: Image.Image
) -> None:
    """As `enable_model_cpu_offload` leaves them: one accelerate hook per model."""

    class Hook(accelerate.hooks.ModelHook):
        fired = 0

        def pre_forward(self, _module: Any, *args: Any, **kwargs: Any) -> Any:
            self.fired += 1
            return args, kwargs

    models = (pipe.transformer, pipe.vae, pipe.text_encoder)
    hooks = [Hook() for _ in models]
    try:
        for model, hook in zip(models, hooks, strict=True):
            model._hf_hook = hook
        pipe("a dog", identity, **(SMALL | {"output_type": "np"}))
    finally:
        for model in models:
            del model._hf_hook
    # Preparation and 2 steps x 2 branches; encode and decode; both prompts at once.
    assert [hook.fired for hook in hooks] == [5, 2, 1]


def test_a_cancelled_pass_offloads_what_it_loaded() -> None:
    class Hook(ModelHook):
        loaded = 0

        def pre_forward(self, _module: Any, *args: Any, **kwargs: Any) -> Any:
            self.loaded += 1
            return args, kwargs

        def post_forward(self, _module: Any, output: Any) -> Any:
            self.loaded -= 1
            return output

    class Learning(Hook, LazyPrefetchGroupOffloadingHook):
        """What diffusers uses to learn the order of blocks from the first whole pass."""

        def initialize_hook(self, module: Any) -> Any:
            return module

    module, hook, learning = torch.nn.Linear(1, 1), Hook(), Learning()
    registry = HookRegistry.check_if_exists_or_initialize(module)
    registry.register_hook(hook, "offload")
    registry.register_hook(learning, "learn")
    with pytest.raises(KeyError), onloaded(module):
        raise KeyError
    assert (hook.loaded, learning.loaded) == (0, 1)
    with onloaded(module):
        assert hook.loaded == 1
    assert (hook.loaded, learning.loaded) == (0, 1)


def test_a_hook_that_fails_leaves_nothing_loaded() -> None:
    """The next request would find that much less memory on the device."""
    events: list[str] = []

    class Hook(ModelHook):
        def pre_forward(self, _module: Any, *_args: Any, **_kwargs: Any) -> Any:
            events.append("load")

        def post_forward(self, _module: Any, output: Any) -> Any:
            events.append("offload")
            return output

    class Full(Hook):
        def pre_forward(self, _module: Any, *_args: Any, **_kwargs: Any) -> Any:
            raise torch.OutOfMemoryError

    module = torch.nn.Linear(1, 1)
    registry = HookRegistry.check_if_exists_or_initialize(module)
    for name, hook in (("fits", Hook()), ("does not", Full()), ("never tried", Hook())):
        registry.register_hook(hook, name)
    with pytest.raises(torch.OutOfMemoryError), onloaded(module):
        pytest.fail("the block ran")
    assert events == ["load", "offload"]


def _forget_when_offloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes offloading erase the weights of a group until it is onloaded again."""
    saved: dict[int, torch.Tensor] = {}

    def offload(group: Any) -> None:
        for tensor in _tensors(group):
            saved.setdefault(id(tensor), tensor.data.clone())
            tensor.data = torch.full_like(tensor.data, torch.nan)

    def onload(group: Any) -> None:
        for tensor in _tensors(group):
            if id(tensor) in saved:
                tensor.data = saved.pop(id(tensor))

    monkeypatch.setattr(ModuleGroup, "offload_", offload)
    monkeypatch.setattr(ModuleGroup, "onload_", onload)


def _tensors(group: Any) -> list[torch.Tensor]:
    own = [tensor for module in group.modules for tensor in (*module.parameters(), *module.buffers())]
    return [*own, *group.parameters, *group.buffers]


def test_the_vae_s_fp32_fallback_works_while_weights_are_streamed(pipe: HunyuanCustomPipeline, close: Any) -> None:
    parts = {name: copy.deepcopy(pipe.components[name]) for name in ("transformer", "text_encoder", "text_encoder_2")}
    vae = copy.deepcopy(pipe.vae).half()
    vae.decoder.conv_in.conv.weight *= 20_000  # beyond fp16 from the first layer on; norms make it harmless in fp32
    wide = copy.deepcopy(vae).float()
    latents = torch.randn(1, 16, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    assert not vae_network.decode(vae, latents.half(), causal=True).isfinite().all()
    streamed = HunyuanCustomPipeline(**(pipe.components | parts | {"vae": vae}))

    class Copies(HostCopies):
        def there(self, tensor: torch.Tensor) -> torch.Tensor:
            return tensor.clone()

    apply_memory_plan(streamed, "stream_blocks", "cpu", Copies())
    for _ in range(2):
        frames = streamed.decode(latents, "pt", None)
        expected = torch.cat(list(decode_chunks(wide, latents)), dim=2).transpose(1, 2)
        close("VAE, fp32 fallback", frames, expected, 1e-6)
        assert {parameter.dtype for parameter in vae.parameters()} == {torch.float16}
