"""The real renderer and its weights: how far loading is, and what happens when they are not there or damaged."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from server.cli.main import app
from server.settings import CONFIGS
from server.settings_loader import load_settings
from tests.harness.live_server import ON_CPU, Server, example, until
from tests.harness.tiny_model import DIT_CONFIG, dit_weights, write_original
from weights.commands import CONVERTED
from weights.convert import convert
from weights.hub.manifest import MANIFEST, read_manifest
from weights.originals.layout import Variant

LOADING_S = 90  # every attempt to load imports torch
CPU = ON_CPU | {
    "generator__render_divisor": 16,
    "safety__ask_language_model": False,  # an untrained one says anything
    "generator__restart_delay_s": 1,  # no attempt after the other: each takes a processor that the test needs
}


def is_loading(worker: dict[str, Any], how_far: str) -> bool:
    return worker["state"] == "loading" and how_far in worker["detail"]


def test_damaged_weights_are_named_with_the_command_that_repairs_them_and_loading_says_how_far_it_is(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    originals = write_original(tmp_path / "original", dit_weights(), DIT_CONFIG)
    model = convert(originals, tmp_path / "models/bf16").target
    damaged = model / "vae/diffusion_pytorch_model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-8])
    server = start_server(renderer="waits_before_the_vae", ready=False, generator__model=model, **CPU)
    waiting = server.submit(example())
    reason = f"VerifyError: {damaged}: "
    until(lambda: reason in server.http.get("/health/ready").text, LOADING_S)
    assert server.http.get("/health/live").is_success
    assert server.http.get("/health/ready").status_code == 503
    # The reason stays while it is tried again.
    until(lambda: is_loading(server.worker(), f"before: {reason}"), LOADING_S)
    assert server.status(waiting)["status"] == "IN_QUEUE"

    command = re.search(r"run: hunyuan-custom (weights prepare .+)$", server.worker()["detail"])
    assert command is not None
    options = ["--originals", str(originals), "--no-companions"]  # those are on the hub
    done = CliRunner().invoke(app, [*shlex.split(command[1]), *options])
    assert done.exit_code == 0, done.output
    until(lambda: "loading vae: file 1 of 1" in server.worker()["detail"], LOADING_S)
    (tmp_path / "go").touch()
    assert server.finish(waiting, LOADING_S).status_code == 200
    assert server.worker()["detail"] == "bf16", "what went wrong before is over"
    said = server.messages(waiting)
    assert any(line.startswith("Prompt not expanded: the model ") for line in said), "an untrained LLaVA was asked"


DEPLOYMENTS = sorted(path.name for path in CONFIGS.glob("*.toml") if path != MANIFEST)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_every_deployment_loads(name: str) -> None:
    settings = load_settings(CONFIGS / name)
    if name.startswith("gpu"):
        assert Path(settings.generator.model) == CONVERTED / Variant.BF16, "where `weights prepare` puts it"
        companions = {companion.name: CONVERTED / companion.folder for companion in read_manifest().companions}
        assert companions == {"safety": Path(settings.safety.model), "segmenter": Path(settings.image.segmenter)}


def test_the_manifest_loads() -> None:
    assert read_manifest().of(Variant.BF16)
