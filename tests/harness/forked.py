"""Further processes for tests of the pipeline, forked from one that has imported torch, which alone takes seconds."""

import multiprocessing
from multiprocessing.context import ForkServerContext

FORKED: ForkServerContext = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["pipeline.load", "tests.harness.ranks_at_work"])
