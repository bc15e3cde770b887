"""The decoding process: `python -m server.untrusted.decoder_process LIMITS <image >png`.

It may die without harm to others. A refused image is exit code 3 and one line of JSON on stderr; a disk that does not
take the PNG is exit code 4 and the number of the error.
"""

import json
import os
import resource
import sys
import warnings
from dataclasses import asdict, dataclass

from server.errors import ModelError, is_disk_error
from server.parent_death import die_with_parent
from server.untrusted.image_sanitise import PixelLimits, sanitise

REFUSED = 3
DISK_ERROR = 4
_BYTES_PER_PIXEL = 5  # of a PNG that does not compress: four channels, and room for filters and headers


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """What one decoding process may use. Crosses the process boundary as JSON."""

    pixels: PixelLimits
    memory_bytes: int
    cpu_s: int

    def to_json(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "ProcessLimits":
        """From the command line."""
        values = json.loads(text)
        return cls(PixelLimits(**values["pixels"]), values["memory_bytes"], values["cpu_s"])


def main(limits: ProcessLimits) -> int:
    """Decode stdin, a file, to stdout, another one."""
    for name, value in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_FSIZE, limits.pixels.max_pixels * _BYTES_PER_PIXEL),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(name, (value, value))
    warnings.simplefilter("ignore")  # Pillow warns about sizes that our own limits allow
    try:
        sanitise(sys.stdin.buffer, sys.stdout.buffer, limits.pixels)
        sys.stdout.flush()
    except OSError as error:
        if not is_disk_error(error) or error.errno is None:
            raise
        sys.stderr.write(str(error.errno))
        sys.stderr.flush()
        os._exit(DISK_ERROR)  # not through the flush at the interpreter's end, which would fail again
    except ModelError as error:
        sys.stderr.write(json.dumps({"type": error.error_type, "msg": str(error), "ctx": error.ctx}))
        return REFUSED
    return 0


if __name__ == "__main__":
    die_with_parent()
    sys.exit(main(ProcessLimits.from_json(sys.argv[1])))
