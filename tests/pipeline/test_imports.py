import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module", ["pipeline", "pipeline.memory.planner", "pipeline.options", "pipeline.progress", "pipeline.shapes"]
)
def test_torch_is_not_loaded(module: str) -> None:
    program = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
