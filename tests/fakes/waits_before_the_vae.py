"""The real renderer, held up before it reads the VAE's weights until a file appears in the data directory."""

import importlib
import time
from pathlib import Path
from typing import Any

from server.generator.child.contract import OnLoading
from server.generator.child.renderer import HunyuanCustomRenderer
from server.generator.messages import Load


class Renderer(HunyuanCustomRenderer):
    def __init__(self, load: Load, on_loading: OnLoading) -> None:
        stored_model: Any = importlib.import_module("pipeline.memory.stored_model")
        read = stored_model.load_file

        def held_up(file: Path, **options: Any) -> Any:
            while file.parent.name == "vae" and not (Path(load.data_dir) / "go").exists():
                time.sleep(0.02)
            return read(file, **options)

        stored_model.load_file = held_up
        super().__init__(load, on_loading)
