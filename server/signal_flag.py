"""What a signal handler sets and a main loop waits for."""

import os
import select


class SignalFlag:
    """Not an Event: a handler cannot take its lock, which the code that it interrupts may hold. A pipe wakes who waits.

    To be waited for in short pieces. The kernel may give a signal to another thread (as when the main one was stopped
    by Ctrl-Z), and Python runs its handler in the main thread only when that executes something.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._readable, self._writable = os.pipe()
        os.set_blocking(self._writable, False)

    def set(self) -> None:
        """Wake whoever waits."""
        if not self._is_set:
            self._is_set = True
            os.write(self._writable, b"!")

    def is_set(self) -> bool:
        """Whether it has been set."""
        return self._is_set

    def wait(self, seconds: float) -> bool:
        """Wait so long unless it is set; returns whether it is."""
        select.select([self._readable], [], [], seconds)
        return self._is_set
