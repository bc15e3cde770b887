"""An OpenTelemetry collector as this server sees it: it takes spans over HTTP. Serves an image, takes webhooks."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from server.fal.example import PHOTO


@dataclass(frozen=True)
class Received:
    """A span as it came; ids are hexadecimal, times Unix seconds."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    began: float
    ended: float
    attributes: dict[str, Any]
    events: list[str]
    error: str | None


@dataclass
class Collector:
    url: str
    spans: list[Received] = field(default_factory=list)
    webhooks: list[dict[str, str]] = field(default_factory=list)  # their headers
    status: int = 200
    refused: int = 0  # exports, by a status that is not 200
    answers: threading.Event = field(default_factory=threading.Event)  # it is set while exports get an answer

    def of(self, trace_id: str) -> list[Received]:
        """The spans of a trace, by when they began."""
        return sorted((span for span in self.spans if span.trace_id == trace_id), key=lambda span: span.began)

    def tree(self, trace_id: str, parent_id: str) -> list[Any]:
        """What is below a span: names, each with what is below it where there is something."""
        found: list[Any] = []
        for span in self.of(trace_id):
            if span.parent_id == parent_id:
                below = self.tree(trace_id, span.span_id)
                found.append((span.name, below) if below else span.name)
        return found


@contextmanager
def collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = received.status
            if self.path != "/v1/traces":
                received.webhooks.append({name.lower(): value for name, value in self.headers.items()})
            elif status == 200:
                received.answers.wait()
                received.spans += _spans(ExportTraceServiceRequest.FromString(body))
            else:
                received.refused += 1
            self._answer(status, b"")

        def do_GET(self) -> None:
            self._answer(200, PHOTO.read_bytes())

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        received = Collector(f"http://127.0.0.1:{server.server_port}")
        received.answers.set()
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield received
        server.shutdown()
        thread.join()


def _spans(request: ExportTraceServiceRequest) -> list[Received]:
    return [
        _received(_attributes(resource.resource.attributes)["service.name"], span)
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _received(service: str, span: Span) -> Received:
    failed = span.status.code == Status.STATUS_CODE_ERROR
    return Received(
        service,
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano / 1e9,
        span.end_time_unix_nano / 1e9,
        _attributes(span.attributes),
        [event.name for event in span.events],
        span.status.message if failed else None,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
