"""Spans of a request's trace, for all rooms. Without tracing each is `Span`, which does nothing.

The trace begins with the submit, or goes on from the trace of its client. The `traceparent` of the submit's span (W3C
Trace Context) stands in the request's row, and whichever process works on the request adds spans below that one. No
attribute holds a prompt, an image, a URL or an owner.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Literal, Protocol, TypeAlias

from server.logs import about_trace

Attributes: TypeAlias = Mapping[str, str | int | float | bool]
Kind: TypeAlias = Literal["internal", "server", "client"]

REQUEST_ID: Final = "hc.request_id"
ERROR_TYPE: Final = "error.type"
NOTHING: Final[Attributes] = {}


class Span:
    """Part of a trace. This one is not recorded, nor is any below it. Times are Unix seconds; none is now."""

    traceparent: str | None = None
    trace_id: str | None = None  # only of what is exported

    def child(self, name: str, attributes: Attributes = NOTHING, *, began: float | None = None) -> "Span":  # noqa: ARG002
        """Begin a part of this one."""
        return self

    def note(self, attributes: Attributes) -> None:
        """Add attributes."""

    def event(self, name: str, attributes: Attributes = NOTHING) -> None:
        """Note that something happened now."""

    def failed(self, error_type: str) -> None:
        """Its status is an error; the last one counts."""

    def end(self, at: float | None = None) -> None:
        """It is over."""


NO_SPAN: Final = Span()


class Tracer(Protocol):
    """Makes spans and exports those that have ended."""

    def begin(
        self, name: str, attributes: Attributes, *, kind: Kind, parent: str | None, began: float | None = None
    ) -> Span:
        """Begin a span below the one that a `traceparent` names; without a valid one it begins a trace."""

    def stop(self, within_s: float) -> None:
        """Export what is left, or give up after a while."""


_tracer: Tracer | None = None
_current: ContextVar[Span] = ContextVar("span", default=NO_SPAN)


def use_tracer(tracer: Tracer | None) -> None:
    """From now on, in this process."""
    global _tracer  # noqa: PLW0603 - like the configuration of logging
    _tracer = tracer


def stop_tracing(within_s: float = 2.0) -> None:
    """Export what is left: the last thing that a process does, within a time that the one that stops it allows."""
    if _tracer is not None:
        _tracer.stop(within_s)


def is_tracing() -> bool:
    """Whether this process makes spans."""
    return _tracer is not None


def current_span() -> Span:
    """The innermost one of this thread or task."""
    return _current.get()


def exchange(name: str, attributes: Attributes, *, parent: str | None) -> Span:
    """Begin the span of an HTTP exchange: in the trace of its client, if that sent a `traceparent`."""
    return NO_SPAN if _tracer is None else _tracer.begin(name, attributes, kind="server", parent=parent)


def continued(
    name: str,
    attributes: Attributes = NOTHING,
    *,
    traceparent: str | None,
    kind: Kind = "internal",
    began: float | None = None,
) -> Span:
    """Begin a span in the trace of a request; one that has none gets no span."""
    if _tracer is None or traceparent is None:
        return NO_SPAN
    return _tracer.begin(name, attributes, kind=kind, parent=traceparent, began=began)


@contextmanager
def within(span: Span) -> Iterator[Span]:
    """It is the current one inside, fails with what is raised there, and ends with it."""
    if span is NO_SPAN:
        yield span
        return
    before = _current.set(span)
    try:
        with about_trace(span.trace_id):
            yield span
    except BaseException as error:
        span.failed(error_type_of(error))
        raise
    finally:
        _current.reset(before)
        span.end()


@contextmanager
def step(name: str) -> Iterator[Span]:
    """A part of the current span, if there is one."""
    parent = _current.get()
    if parent is NO_SPAN:
        yield parent
        return
    with within(parent.child(name)) as span:
        yield span


def error_type_of(error: BaseException) -> str:
    """As a client is told, else the name of its class; never its text, which may be a user's."""
    return str(getattr(error, "error_type", type(error).__name__))
