"""No library output while files are checked: what matters is raised, and reported in one line."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """No warnings and no progress bars of transformers, diffusers and Python inside the block."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    levels = [(library, library.get_verbosity()) for library in (of_diffusers, of_transformers)]
    bar = of_transformers.is_progress_bar_enabled()
    for library, _ in levels:
        library.set_verbosity_error()
    of_transformers.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for library, level in levels:
            library.set_verbosity(level)
        if bar:
            of_transformers.enable_progress_bar()
