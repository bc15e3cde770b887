"""The benchmarks' S3 store at the address of the compose file's store; what is in it ends with it."""

import signal

from server.bench.object_store import ObjectStore

with ObjectStore("0.0.0.0", 8333):  # noqa: S104 - inside a container
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
