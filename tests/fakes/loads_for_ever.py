"""Never gets its model loaded."""

import threading

from server.generator.child.contract import OnLoading
from server.generator.messages import Load
from tests.fakes import renders_colour


class Renderer(renders_colour.Renderer):
    def __init__(self, load: Load, on_loading: OnLoading) -> None:
        super().__init__(load, on_loading)
        threading.Event().wait()
