import os
from pathlib import Path

import pytest

from server.generator.child.compile_cache import keep_compiled_code


def test_compiled_code_is_kept_in_the_data_directory_unless_the_environment_says_where(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TORCHINDUCTOR_COMPILE_THREADS"):
        monkeypatch.setenv(name, "")  # remembered, and put back at the end
        monkeypatch.delenv(name)
    monkeypatch.setenv("TRITON_CACHE_DIR", "/elsewhere")
    keep_compiled_code(tmp_path)
    assert os.environ["TRITON_CACHE_DIR"] == "/elsewhere"
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    assert Path(cache_dir()).is_relative_to(tmp_path)
