"""The modules of the pages, run by node: those that need no browser."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

from tests.harness.client_programs import clean_environment, missing
from tests.harness.live_server import ROOT

FILES: Final = ROOT / "server" / "playground"


def in_node(folder: Path, script: str, **values: Any) -> Any:
    """What `script` gives to `answer`, as JSON; `values` are constants in it, and modules are imported from "./"."""
    if shutil.which("node") is None:
        missing("node is not installed")
    for module in FILES.glob("*.js"):
        shutil.copy(module, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    constants = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in values.items())
    answer = "const answer = (value) => process.stdout.write(JSON.stringify(value));\n"
    imports, _, rest = script.rpartition("\n\n")
    (folder / "script.js").write_text(f"{imports}\n{constants}{answer}{rest}")
    command = ["node", str(folder / "script.js")]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
