"""Real servers with fake generators: the launcher of the benchmarks, with the settings that tests use."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from server.bench.deployment import ROOT, Deployment
from server.bench.live_server import LiveServer as Server
from server.bench.sample_request import example, photo_uri
from server.bench.waiting import until
from server.fal.schemas import ENDPOINT as APP

__all__ = ["APP", "ROOT", "Deployment", "Server", "example", "fake", "launch", "photo_uri", "until"]


def fake(renderer: str) -> str:
    """The setting that names a generator of tests/fakes."""
    return f"tests.fakes.{renderer}:Renderer"


def launch(
    data_dir: Path,
    *,
    options: Sequence[str] = (),
    ready: bool = True,
    renderer: str = "by_prompt",
    root: Path = ROOT,
    own_group: bool = False,
    **settings: Any,
) -> Server:
    """Start `serve` of the packages at `root` with command-line options; settings as `section__key=value`."""
    deployment = Deployment(data_dir, settings | {"generator__renderer": fake(renderer)}, root=root)
    return deployment.serve(*options, ready=ready, own_group=own_group)


FAST: dict[str, Any] = {
    "jobs__engine_poll_s": 0.05,
    "jobs__cancel_poll_s": 0.05,
    "jobs__heartbeat_s": 0.3,
    "generator__restart_delay_s": 0.05,
    "generator__stall_timeout_s": 60,  # a busy machine must not look as if something hung
    "generator__cancel_grace_s": 1,
    "api__keys_reload_s": 0.2,
    "limits__posts_per_s": 1e6,
    "limits__posts_burst": 10**6,
}

# For the real renderer with a small model.
ON_CPU = FAST | {
    "generator__device": "cpu",
    "generator__dtype": "float32",
    "generator__torch_threads": 1,
    "generator__render_divisor": 8,
    "generator__cancel_grace_s": 20,  # on a busy machine a block takes its time
}

# For what is refused after a while, and what is tried again.
SHORT_LIMITS: dict[str, Any] = {
    "api__header_timeout_s": 1,
    "api__body_idle_s": 0.6,
    "api__body_timeout_s": 1.5,
    "api__max_body_bytes": 1_000_000,
    "api__body_memory_bytes": 1_000_000,
    "image__max_bytes": 200_000,
    "image__total_timeout_s": 1.5,
    "webhooks__retry_delays_s": "[0.1, 0.1, 0.1]",
    "webhooks__jitter": 0,
    "webhooks__poll_s": 0.2,
    "webhooks__timeout_s": 1,
    "webhooks__retry_timeout_s": 1,
}
