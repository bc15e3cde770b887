"""What each process may load."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "diffusers", "transformers")


@pytest.mark.parametrize(
    "module", ["server.api.app", "server.worker.process", "server.cli.main", "server.serve.supervisor", "pipeline"]
)
def test_torch_lives_in_the_generator_alone(module: str) -> None:
    code = f"import sys, {module}; sys.exit(any(name in sys.modules for name in {HEAVY}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("module", ["server.generator.parent", "server.worker.worker_lock"])
def test_a_worker_starts_its_generator_before_it_imports_what_takes_long(module: str) -> None:
    code = f"import sys, {module}; sys.exit(any(name in sys.modules for name in ('dbos', 'sqlalchemy', 'PIL')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
