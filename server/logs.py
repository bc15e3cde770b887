"""Service logs: one line per event on stderr, with the process's role."""

import logging
import sys


def configure_logging(role: str, level: int = logging.INFO) -> None:
    """Log to stderr as `time role LEVEL logger: message`."""
    form = f"%(asctime)s {role} %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(stream=sys.stderr, level=level, format=form, force=True)
    for chatty in ("httpx", "httpcore", "dbos", "PIL", "imageio_ffmpeg"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
