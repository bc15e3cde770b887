"""Has no weights until somebody puts them there."""

from pathlib import Path

from server.generator.messages import Load
from tests.fakes import renders_colour


class Renderer(renders_colour.Renderer):
    def __init__(self, load: Load) -> None:
        super().__init__(load)
        weights = Path(load.data_dir) / "weights.safetensors"
        if not weights.exists():
            raise FileNotFoundError(f"{weights}: no such file; run: hunyuan-custom weights prepare")
