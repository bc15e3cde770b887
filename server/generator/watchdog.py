"""How long a running request may be silent, and how long a cancelled one may go on."""

import time
from collections.abc import Callable

from server.generator.messages import Working
from server.settings import GeneratorSettings

_LONGEST_LOOK_S = 1.0


class Patience:
    """Time that has been waited, looked at every now and then.

    Time without a look, because this process or the whole machine was frozen, does not count.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.start()

    def start(self) -> None:
        """Nothing has been waited yet."""
        self._waited_s, self._looked_at = 0.0, self._clock()

    def look(self) -> float:
        """Seconds waited so far."""
        now = self._clock()
        self._waited_s += min(now - self._looked_at, _LONGEST_LOOK_S)
        self._looked_at = now
        return self._waited_s


class Watchdog:
    """The clocks of one request in the generator.

    Silence is judged by tokens, blocks and tiles, since a step can take minutes. Until the first transformer block is
    done a longer limit holds: it covers prompt expansion, text encoding, compilation and the first kernels.
    """

    def __init__(
        self,
        limits: GeneratorSettings,
        cancel_requested: Callable[[], bool],
        *,
        look_every_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._cancel_requested = cancel_requested
        self._look_every_s = look_every_s
        self._clock = clock
        self._silence = Patience(clock)
        self._limit_s = limits.first_block_timeout_s
        self._asked_at = clock()
        self._since_cancel: Patience | None = None

    def heard(self, message: object) -> None:
        """The process has said something."""
        self._silence.start()
        if isinstance(message, Working) and message.stage not in {"expand", "encode"}:
            self._limit_s = self._limits.stall_timeout_s

    @property
    def cancelled(self) -> bool:
        """Whether a cancel has been seen."""
        return self._since_cancel is not None

    def cancel_arrived(self) -> bool:
        """True once: when the user's cancel is first seen."""
        if self.cancelled or self._clock() - self._asked_at < self._look_every_s:
            return False
        requested = self._cancel_requested()
        self._asked_at = self._clock()  # by now: a slow answer must not be waited for with every message
        if requested:
            self._since_cancel = Patience(self._clock)
        return self.cancelled

    def cancel_ignored(self) -> bool:
        """Whether the process has had its time to react to a cancel."""
        return self._since_cancel is not None and self._since_cancel.look() > self._limits.cancel_grace_s

    def stalled(self) -> float | None:
        """The limit that the process's silence has passed, in seconds."""
        return self._limit_s if self._silence.look() > self._limit_s else None
