"""What is in the images, and how they refuse what cannot work."""

import os

from tests.containers.engine import GPU, PYTHON_IMAGE, Engine, run


def test_the_cpu_image_is_small(engine: Engine, cpu_image: str) -> None:
    base = engine.image_bytes(PYTHON_IMAGE)
    ours = engine.image_bytes(cpu_image) - base
    print(f"cpu image: {ours / 1e9:.2f} GB on a base of {base / 1e9:.2f} GB")  # noqa: T201
    assert ours < 1.36e9, "with the 0.13 GB of the hub's base it must stay below 1.5 GB"


def test_a_change_of_the_code_keeps_the_layers_below(engine: Engine, cpu_image: str) -> None:
    again = engine.build(target="cpu", tag=cpu_image, PIP_ARGS=os.environ.get("PIP_ARGS", ""))
    print(f"built again, nothing changed: {again:.0f} s")  # noqa: T201


def test_nothing_runs_as_root_or_writes_to_the_root_file_system(engine: Engine, cpu_image: str) -> None:
    shell = [engine.tool, "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--entrypoint", "sh", cpu_image, "-c"]
    assert run(*shell, "id --user").split()[-1] == "1000"
    assert "Read-only file system" in run(*shell, "touch /opt/venv/x; true")
    assert run(*shell, "cd /data && touch x && stat -c %U x").split()[-1] == "hunyuan"


def test_secrets_and_sources_of_no_use_stay_outside(engine: Engine, cpu_image: str) -> None:
    listed = run(engine.tool, "run", "--rm", "--entrypoint", "sh", cpu_image, "-c", "ls -a /app /app/configs")
    assert "demo.toml" in listed
    assert not {"tests", ".git", ".env", "pyproject.toml"} & set(listed.split())


def test_a_server_without_a_gpu_says_so(engine: Engine, cpu_image: str) -> None:
    script = "hunyuan-custom weights prepare --originals /data/o --out /data/m; echo ended with $?"
    said = run(engine.tool, "run", "--rm", "--network", "none", "--entrypoint", "sh", cpu_image, "-c", script)
    assert "ACCEPT_LICENCE=yes" in said
    assert "ended with 1" in said


def test_the_gpu_image_can_compile_what_triton_makes(engine: Engine) -> None:
    """Without a GPU: the C compiler and Python's headers work together."""
    engine.build(target="gpu", tag=GPU, PIP_ARGS=os.environ.get("PIP_ARGS", ""))
    script = (
        "printf '#include <Python.h>\\nint main(void){return 0;}' > /tmp/a.c && "
        'gcc -c /tmp/a.c -o /tmp/a.o $(python -c \'import sysconfig; print("-I" + sysconfig.get_path("include"))\')'
    )
    run(engine.tool, "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--entrypoint", "sh", GPU, "-c", script)
