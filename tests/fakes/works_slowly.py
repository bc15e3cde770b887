"""Never finishes, but reports ten blocks a second, and what it sees: something to watch and to cancel."""

import base64
import itertools
import time

from server.generator.child.contract import OnLoading, Report
from server.generator.messages import Generate, Load, Log, Preview, Working
from tests.harness.pictures import webp


class Renderer:
    model = "fake: works slowly"

    def __init__(self, load: Load, on_loading: OnLoading) -> None:
        pass

    def render(self, job: Generate, report: Report) -> None:
        for block in itertools.count(1):
            report(Working(stage="denoise", done=block, total=10**6 * job.num_inference_steps, seconds_left=1e5))
            if block % 10 == 1:
                picture = base64.b64encode(webp(block % 256)).decode()
                report(Preview(picture=picture))
            report(Log(message=f"block {block}: 0.10 s, about 27 hours, 46 minutes and the decoding left"))
            time.sleep(0.1)
