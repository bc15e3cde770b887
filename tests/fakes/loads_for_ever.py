"""Never gets its model loaded."""

import threading

from server.generator.messages import Load
from tests.fakes import renders_colour


class Renderer(renders_colour.Renderer):
    def __init__(self, load: Load) -> None:
        super().__init__(load)
        threading.Event().wait()
