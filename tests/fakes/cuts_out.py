"""Works, and leaves the picture that it made of the identity image, as the real one does with a white background."""

from pathlib import Path

from server.generator.child.contract import Report
from server.generator.messages import Generate
from tests.fakes import renders_colour

PICTURE = b"\x89PNG the subject on white"


class Renderer(renders_colour.Renderer):
    model = "fake: cuts out"

    def render(self, job: Generate, report: Report) -> None:
        Path(job.cut_out).write_bytes(PICTURE)
        super().render(job, report)
