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

from server.bench.waiting import until

ROOT = Path(__file__).parents[2]
CPU, GPU = "localhost/hunyuan-custom-server:cpu-test", "localhost/hunyuan-custom-server:gpu-test"
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

    def up(self, profile: str, *services: str, scale: Mapping[str, int] | None = None) -> None:
        """Start services: last those that are wanted, before them what they depend on, in order.

        Podman 4 neither waits for a dependency to be healthy nor starts what depends on a container that has ended,
        and podman-compose scales one service a call: there the services are started one by one.
        """
        scales = [f"{service}={count}" for service, count in (scale or {}).items()]
        if self.engine.tool == "docker":
            options = [word for one in scales for word in ("--scale", one)]
            self.compose("--profile", profile, "up", "--detach", *options, *services)
            return
        for service in services:
            options = [word for one in scales if one.startswith(f"{service}=") for word in ("--scale", one)]
            self.compose("--profile", profile, "up", "--detach", "--no-deps", *options, service)
            for container in self.all(service):
                container.wait_until_started()

    def ids(self, service: str) -> list[str]:
        """The containers of a service."""
        labels = [f"label=com.docker.compose.project={self.name}", f"label=com.docker.compose.service={service}"]
        filters = [word for label in labels for word in ("--filter", label)]
        return run(self.engine.tool, "ps", "--all", "--quiet", *filters).split()

    def one(self, service: str) -> "Container":
        """The only container of a service."""
        (found,) = self.all(service)
        return found

    def all(self, service: str) -> "list[Container]":
        """All containers of a service."""
        return [Container(self.engine.tool, name) for name in self.ids(service)]

    def down(self) -> None:
        """Everything away, volumes too."""
        mine = f"label=com.docker.compose.project={self.name}"
        if containers := run(self.engine.tool, "ps", "--all", "--quiet", "--filter", mine).split():
            run(self.engine.tool, "rm", "--force", "--volumes", *containers, check=False)  # podman-compose forgets some
        profiles = [word for name in ("demo", "cluster", "tls") for word in ("--profile", name)]
        self.compose(*profiles, "down", "--volumes", check=False)


@dataclass(frozen=True)
class Container:
    """One container of a project."""

    tool: str
    name: str

    def state(self) -> dict[str, Any]:
        """What the engine knows of it."""
        state: dict[str, Any] = json.loads(run(self.tool, "inspect", self.name))[0]["State"]
        return state

    def wait_until_started(self) -> None:
        """It is healthy by its own check, or has ended well, or has none and runs."""
        inspected = json.loads(run(self.tool, "inspect", self.name))[0]
        test = (inspected["Config"].get("Healthcheck") or {}).get("Test") or ["NONE"]

        def is_started() -> bool:
            state = self.state()
            if state["Status"] == "exited":
                assert state["ExitCode"] == 0, self.logs()
                return True
            return (
                test[0] == "NONE"
                or not subprocess.run(
                    [self.tool, "exec", self.name, *(["sh", "-c", test[1]] if test[0] == "CMD-SHELL" else test[1:])],
                    capture_output=True,
                    check=False,
                ).returncode
            )

        until(is_started, every_s=0.5)

    def logs(self) -> str:
        """Both streams."""
        return run(self.tool, "logs", self.name)

    def exec(self, *words: str, check: bool = True) -> str:
        """A command inside."""
        return run(self.tool, "exec", self.name, *words, check=check)

    def port(self, inside: int) -> str:
        """Where this machine reaches a published port."""
        return run(self.tool, "port", self.name, f"{inside}/tcp").strip().rpartition(":")[2]

    def kill(self) -> None:
        """SIGKILL to its first process; it is not started again."""
        run(self.tool, "kill", "--signal", "KILL", self.name)

    def start(self) -> None:
        """After a stop, again."""
        run(self.tool, "start", self.name)

    def stop(self, *, within_s: int) -> float:
        """SIGTERM, and SIGKILL after `within_s`; the seconds it took."""
        started = time.monotonic()
        run(self.tool, "stop", "--time", str(within_s), self.name)
        return time.monotonic() - started
