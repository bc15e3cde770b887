"""Where compiled code is kept, so that a generator that starts again does not compile again."""

import os
from pathlib import Path


def keep_compiled_code(data_dir: Path) -> None:
    """In `data_dir`, unless the environment says otherwise. To be called before torch is imported.

    Several ranks may write there at once. Compiling is left to the generator itself: a few small kernels are not worth
    the processes that torch would start for it.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(data_dir / "compiled" / "inductor"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(data_dir / "compiled" / "triton"))
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
