"""What ffmpeg finds in a video."""

import subprocess
from pathlib import Path

import imageio_ffmpeg


def probe(path: Path) -> str:
    """What ffmpeg says about a file while it decodes all of it."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", str(path), "-map", "0:v", "-f", "null", "-"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr
