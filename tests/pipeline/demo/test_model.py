"""The demo model: built from a seed in seconds, in the layout of the real one, and fit to render a clip."""

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.conditioning.prompt import ENDING
from pipeline.demo.model import build_demo_model, demo_facts, render_size
from pipeline.load import load_pipeline
from pipeline.mp4 import write_mp4
from pipeline.vae.codec import decode_stream, encode_reference
from tests.harness.forked import FORKED
from weights.originals.prompt_template import TEMPLATE

WIDTH, HEIGHT = 224, 128


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def photo() -> Image.Image:
    """Red above, blue below, a white disc to the left; wide enough to fill the frame."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.where((y < 64)[..., None], (200, 40, 40), (40, 60, 180)).astype(np.uint8)
    pixels[(x - 60) ** 2 + (y - 64) ** 2 < 30**2] = 255
    return Image.fromarray(pixels)


def difference(frames: np.ndarray) -> float:
    """Mean difference from the photo, 0..255."""
    return float(np.abs(frames.astype(int) - np.asarray(photo())).mean())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_demo_model(tmp_path_factory.mktemp("demo") / "model")


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Any:
    pipe = load_pipeline(folder, device="cpu", dtype="float32")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_it_says_that_it_is_untrained(folder: Path) -> None:
    facts = json.loads((folder / "demo.json").read_text())
    assert facts["demo"] is True
    assert "Untrained" in facts["note"]
    assert demo_facts(folder) == facts
    assert demo_facts(folder.parent) is None
    assert (folder / "model_index.json").is_file()


def test_a_second_start_neither_builds_nor_imports_torch(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pipeline.demo.model import build_demo_model\n"
        "build_demo_model(Path(sys.argv[1])); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, folder], check=False).returncode == 0


def test_the_same_seed_gives_the_same_files_and_leaves_the_global_seed_alone(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    started = time.process_time()
    again = build_demo_model(tmp_path / "again")
    assert time.process_time() - started < 20
    assert torch.equal(torch.rand(3), expected)
    assert digests(again) == digests(folder)


def test_another_seed_replaces_the_model(tmp_path: Path) -> None:
    first = digests(build_demo_model(tmp_path / "model"))
    second = digests(build_demo_model(tmp_path / "model", seed=1))
    changed = {name for name in first if first[name] != second[name]}
    assert "demo.json" in changed
    assert any(name.startswith("transformer") for name in changed)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("keep me")
    with pytest.raises(FileExistsError, match="not a demo model"):
        build_demo_model(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.txt"]


def test_two_processes_at_once(tmp_path: Path, folder: Path) -> None:
    processes = [FORKED.Process(target=build_demo_model, args=(tmp_path / "model",)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert digests(tmp_path / "model") == digests(folder)


def test_the_template_counts_as_with_the_real_tokenizer(pipe: Any) -> None:
    assert len(pipe.tokenizer(TEMPLATE).input_ids) == 95
    ids = pipe.tokenizer(TEMPLATE + "Grüße, 東京 🎻!" + ENDING.format(name="object")).input_ids
    assert ids[0] == pipe.tokenizer.convert_tokens_to_ids("<|begin_of_text|>")
    assert ids[-1] == pipe.text_encoder.config.image_token_id
    assert "Grüße, 東京 🎻!" in pipe.tokenizer.decode(ids)


def test_clip_reads_the_end_of_the_text(pipe: Any) -> None:
    ids = pipe.tokenizer_2("A woman is playing a violin.").input_ids
    assert (ids[0], ids[-1]) == (pipe.tokenizer_2.bos_token_id, pipe.text_encoder_2.config.eos_token_id)
    assert max(ids) < pipe.text_encoder_2.config.vocab_size


def test_the_vae_keeps_the_picture(pipe: Any) -> None:
    pixels = torch.from_numpy(np.asarray(photo()).copy()).permute(2, 0, 1)[None, :, None] / 127.5 - 1
    latents = encode_reference(pipe.vae, pixels, posterior="mode", generator=None)
    (frames,) = decode_stream(pipe.vae, latents.expand(-1, -1, 3, -1, -1))
    assert frames.shape == (9, HEIGHT, WIDTH, 3)
    assert difference(frames) < 12


def render(pipe: Any, prompt: str, seed: int, **options: Any) -> torch.Tensor:
    call = {"width": WIDTH, "height": HEIGHT, "num_frames": 5, "num_inference_steps": 15} | options
    generator = torch.Generator().manual_seed(seed)
    return pipe(prompt, photo(), generator=generator, output_type="latent", **call).frames


def test_prompt_and_seed_decide_the_clip(pipe: Any) -> None:
    small = {"width": 64, "height": 32, "num_inference_steps": 2}
    latents = render(pipe, "A woman is playing a violin.", 0, **small)
    assert torch.equal(render(pipe, "A woman is playing a violin.", 0, **small), latents)
    assert not torch.equal(render(pipe, "A woman is playing a violin.", 1, **small), latents)
    assert not torch.equal(render(pipe, "A man walks in the city.", 0, **small), latents)


def test_a_clip_shows_the_identity_photo_from_the_first_step_on(pipe: Any, tmp_path: Path) -> None:
    ends: list[torch.Tensor] = []

    def predict(pipe: Any, step: int, _timestep: torch.Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
        ends.append(tensors["latents"] - pipe.scheduler.sigmas[step + 1] * tensors["velocity"])
        return tensors

    watched = {"callback_on_step_end": predict, "callback_on_step_end_tensor_inputs": ["latents", "velocity"]}
    latents = render(pipe, "A woman is playing a violin.", 0, **watched)
    (frames,) = decode_stream(pipe.vae, latents)
    assert difference(frames) < 20
    for end in (ends[0], ends[7]):
        (preview,) = decode_stream(pipe.vae, end)
        assert difference(preview) < 20
    write_mp4([frames], tmp_path / "a.mp4", fps=25, num_frames=5, width=4 * WIDTH, height=4 * HEIGHT, threads=1)


@pytest.mark.parametrize(
    ("asked", "scale", "rendered"),
    [
        ((896, 512), 4, (224, 128)),
        ((512, 896), 4, (128, 224)),
        ((1280, 720), 4, (320, 192)),
        ((720, 1280), 4, (192, 320)),
        ((1280, 720), 1, (1280, 720)),
    ],
)
def test_the_render_size_can_be_rendered(asked: tuple[int, int], scale: int, rendered: tuple[int, int]) -> None:
    assert render_size(*asked, scale=scale) == rendered
