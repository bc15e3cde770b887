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
