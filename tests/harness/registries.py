"""Programs and packages of the registries that tests run; what is not installed comes into pytest's cache folder.

Where a registry, node or a browser is missing, tests skip with the reason; with CI set in the environment they fail.
"""

import fcntl
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.client_programs import OLD_FAL_CLIENT, missing

# Aliases, so that both versions of one package can be installed side by side.
NODE_PACKAGES = {
    "current": "npm:@fal-ai/client@1.10.1",
    "old": "npm:@fal-ai/client@1.6.2",
    "@fal-ai/server-proxy": "1.2.1",
    "@fal-ai/serverless-client": "0.15.0",
    "@ai-sdk/fal": "2.0.59",
    "ai": "6.0.326",
    "@huggingface/inference": "4.13.30",
    "esbuild": "0.28.2",
    "axe-core": "4.14.1",
}


def old_fal_client(config: pytest.Config) -> Path:
    """A folder with an old version of the Python client; its dependencies are those of the current one."""
    with _cache(config) as cache:
        folder = cache / f"fal-client-{OLD_FAL_CLIENT}"
        if not (folder / "fal_client").is_dir():
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
            _install([*pip, f"fal-client=={OLD_FAL_CLIENT}"], cache)
    return folder


def node_packages(config: pytest.Config) -> Path:
    """A folder with the JavaScript packages."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            missing(f"{program} is not installed")
    wanted = json.dumps({"private": True, "dependencies": NODE_PACKAGES})
    with _cache(config) as cache:
        folder = cache / "node"
        manifest = folder / "package.json"
        if not manifest.is_file() or manifest.read_text() != wanted or not (folder / "node_modules").is_dir():
            folder.mkdir(exist_ok=True)
            manifest.write_text(wanted)
            try:
                _install(["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"], folder)
            except BaseException:
                manifest.unlink()
                raise
    return folder


@contextmanager
def _cache(config: pytest.Config) -> Iterator[Path]:
    """Where installed clients are kept; one test process at a time installs into it."""
    if getattr(config, "cache", None) is None:
        missing("pytest runs without its cache")
    folder = Path(config.cache.mkdir("clients"))
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _install(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        missing(f"{command[0]} did not finish: is the registry reachable?")
    if done.returncode:
        missing(f"{' '.join(command[:3])} failed: {done.stderr.strip().splitlines()[-1:]}")
