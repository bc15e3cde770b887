"""Has no weights until a file appears."""

from pathlib import Path

from server.generator.child.contract import OnLoading
from server.generator.messages import Load
from tests.fakes import renders_colour


class Renderer(renders_colour.Renderer):
    def __init__(self, load: Load, on_loading: OnLoading) -> None:
        super().__init__(load, on_loading)
        weights = Path(load.data_dir) / "weights.safetensors"
        if not weights.exists():
            raise FileNotFoundError(f"{weights}: no such file; run: hunyuan-custom weights prepare")
