"""Images and projects of containers. `make containers` runs these tests; `make test` leaves them out."""

import os
import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.containers.engine import CPU, PYTHON_IMAGE, ROOT, Engine, Project
from tests.containers.fal_calls import FalCalls
from tests.harness.client_programs import missing

STAND_INS = ROOT / "tests" / "containers" / "stand_ins"


@pytest.fixture(scope="session")
def engine() -> Engine:
    found = Engine.here()
    if found is None:
        missing("neither Docker nor Podman, Buildah and podman-compose are here")
    return found


@pytest.fixture(scope="session")
def cpu_image(engine: Engine) -> str:
    engine.build(target="cpu", tag=CPU, PIP_ARGS=os.environ.get("PIP_ARGS", ""))
    return CPU


@pytest.fixture(scope="session")
def stand_ins(engine: Engine, cpu_image: str) -> None:
    """PostgreSQL and a store under the names of the compose file, where those cannot be pulled."""
    images = {"postgres": "docker.io/library/postgres:17-bookworm", "store": "docker.io/chrislusf/seaweedfs:4.48"}
    for target, image in images.items():
        engine.build(target=target, tag=image, context=STAND_INS, PYTHON_IMAGE=PYTHON_IMAGE, SERVER_IMAGE=cpu_image)


@pytest.fixture
def project(engine: Engine, cpu_image: str) -> Iterator[Callable[..., Project]]:
    """Makes a project that is removed at the end of the test."""
    made: list[Project] = []

    def make(*files: str, **env: str) -> Project:
        images = {"IMAGE_CPU": cpu_image, "IMAGE_GPU": cpu_image}
        one = Project(engine, f"hunyuan-test-{uuid.uuid4().hex[:6]}", images | env)
        one.files += files
        made.append(one)
        return one

    yield make
    for one in made:
        one.down()


@pytest.fixture
def connect() -> Iterator[Callable[[str, str], FalCalls]]:
    """Clients by port and key, which hang up at the end of the test."""
    made: list[FalCalls] = []

    def make(port: str, key: str) -> FalCalls:
        made.append(FalCalls(port, key))
        return made[-1]

    yield make
    for one in made:
        one.http.close()
