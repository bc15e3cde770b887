"""Docker with its compose plugin, or Podman with Buildah and podman-compose: whichever this machine has.

Everything that is started belongs to one project with a name of its own, and is removed with its volumes at the end.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PYTHON_IMAGE = "docker.io/library/python:3.11-slim-bookworm"


def run(*words: str, env: Mapping[str, str] | None = None, check: bool = True, cwd: Path = ROOT) -> str:
    """What a command printed on both streams."""
    done = subprocess.run(
        words,
        check=False,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if check and done.returncode:
        raise AssertionError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


@dataclass(frozen=True)
class Engine:
    """`tool` runs containers, `builder` makes images, `composer` reads the compose file."""

    tool: str
    builder: Sequence[str]
    composer: Sequence[str]

    @classmethod
    def here(cls) -> "Engine | None":
        """The one of this machine."""
        if (
            shutil.which("docker")
            and not subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
        ):
            return cls("docker", ["docker", "build"], ["docker", "compose"])
        if all(map(shutil.which, ("podman", "buildah", "podman-compose"))):
            isolated = ["buildah", "bud", "--format", "docker", "--layers", "--pull-never", "--isolation", "chroot"]
            wheels = os.environ.get("WHEELS")  # a folder that PIP_ARGS may name
            mounted = ["--volume", f"{wheels}:{wheels}:ro"] if wheels else []
            return cls("podman", [*isolated, *mounted], ["podman-compose"])
        return None

    def build(self, *, target: str, tag: str, context: Path = ROOT, **arguments: str) -> float:
        """Seconds that it took."""
        started = time.monotonic()
        given = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
        run(
            *self.builder, "--target", target, "--tag", tag, *given, "--file", str(context / "Dockerfile"), str(context)
        )
        return time.monotonic() - started

    def image_bytes(self, image: str) -> int:
        """All layers together."""
        return int(json.loads(run(self.tool, "image", "inspect", image))[0]["Size"])


@dataclass
class Project:
    """One run of the compose file, under a name of its own."""

    engine: Engine
    name: str
    env: dict[str, str]
    files: list[str] = field(default_factory=lambda: ["docker-compose.yml"])

    def compose(self, *words: str, check: bool = True) -> str:
        """A command of compose."""
        files = [word for file in self.files for word in ("--file", file)]
        return run(*self.engine.composer, "--project-name", self.name, *files, *words, env=self.env, check=check)

    def id(self, service: str) -> str:
        """Of the newest container of a service."""
        labels = [f"label=com.docker.compose.project={self.name}", f"label=com.docker.compose.service={service}"]
        filters = [word for label in labels for word in ("--filter", label)]
        found = run(self.engine.tool, "ps", "--all", "--quiet", *filters).split()
        assert found, f"no container of {service}"
        return found[0]

    def state(self, service: str) -> dict[str, Any]:
        """What the engine knows of the service's container."""
        state: dict[str, Any] = json.loads(run(self.engine.tool, "inspect", self.id(service)))[0]["State"]
        return state

    def logs(self, service: str) -> str:
        """Both streams."""
        return run(self.engine.tool, "logs", self.id(service))

    def exec(self, service: str, *words: str, check: bool = True) -> str:
        """A command inside."""
        return run(self.engine.tool, "exec", self.id(service), *words, check=check)

    def kill(self, service: str) -> None:
        """SIGKILL to its first process."""
        run(self.engine.tool, "kill", "--signal", "KILL", self.id(service))

    def start(self, service: str) -> None:
        """A stopped container, again."""
        run(self.engine.tool, "start", self.id(service))

    def stop(self, service: str, *, within_s: int) -> float:
        """SIGTERM, and SIGKILL after `within_s`; the seconds it took."""
        started = time.monotonic()
        run(self.engine.tool, "stop", "--time", str(within_s), self.id(service))
        return time.monotonic() - started

    def down(self) -> None:
        """Everything away, volumes too."""
        profiles = [word for name in ("demo", "cluster", "tls") for word in ("--profile", name)]
        self.compose(*profiles, "down", "--volumes", check=False)
