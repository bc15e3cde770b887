"""How much memory of its own a process has (Linux)."""

from __future__ import annotations

import re
from pathlib import Path


def rss_anon(pid: int) -> int:
    """Anonymous memory of a process in bytes; 0 if it has just ended. Pages of mapped files do not count."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0
