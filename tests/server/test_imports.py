"""What each process may load."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "diffusers", "transformers", "opentelemetry.sdk", "opentelemetry.exporter", "google.protobuf")
PROCESSES = ("server.api.app", "server.worker.process", "server.cli.main", "server.serve.supervisor", "pipeline")

# One interpreter for all: what the first loads, the others need not load again.
IMPORT_EACH = """
import importlib, sys
*modules, heavy = sys.argv[1:]
for module in modules:
    importlib.import_module(module)
    found = sys.modules.keys() & set(heavy.split(","))
    assert not found, (module, found)
"""


def test_torch_lives_in_the_generator_alone_and_tracing_is_loaded_when_asked_for() -> None:
    command = [sys.executable, "-c", IMPORT_EACH, *PROCESSES, ",".join(HEAVY)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("module", ["server.generator.parent", "server.worker.worker_lock"])
def test_a_worker_starts_its_generator_before_it_imports_what_takes_long(module: str) -> None:
    code = f"import sys, {module}; sys.exit(any(name in sys.modules for name in ('dbos', 'sqlalchemy', 'PIL')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
