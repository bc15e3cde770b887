"""Time that stands still until a test moves it."""


class Clock:
    """Given in place of `time.time` or `time.monotonic`; `now` is in seconds."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
