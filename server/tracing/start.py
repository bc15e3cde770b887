"""Whether this process traces: OpenTelemetry's own environment variables decide."""

import logging
import os
from collections.abc import Mapping
from typing import Final

from server.tracing.spans import use_tracer

logger = logging.getLogger(__name__)

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_EXPORTER: Final = "OTEL_TRACES_EXPORTER"
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_ONLY_EXPORTER: Final = "otlp"
_ONLY_PROTOCOL: Final = "http/protobuf"


def start_tracing(role: str, environment: Mapping[str, str] = os.environ) -> None:
    """Trace from now on, if that is asked for; what is wrong with it is one line in the log, and no traces.

    `role` is the process's, `api` or `worker ...`. All else, as samplers and headers, OpenTelemetry reads by itself.
    """
    asked_by = _asked_by(environment)
    if asked_by is None:
        return
    wrong = _unsupported(environment)
    if wrong is not None:
        logger.warning("no traces: %s", wrong)
        return
    try:
        from server.tracing.otlp import OtlpTracer
    except ImportError as error:
        logger.warning(
            'no traces: %s is set, but %s is not installed: pip install "hunyuan-custom-server[tracing]"',
            asked_by,
            error.name,
        )
        return
    try:
        use_tracer(OtlpTracer(role))
    except Exception as error:  # what OpenTelemetry makes of its variables
        logger.warning("no traces: %s", error)


def _asked_by(environment: Mapping[str, str]) -> str | None:
    """The variable that asks for traces."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    exporter = environment.get(_EXPORTER, "").strip().lower()
    if exporter == "none":
        return None
    named = [name for name in _ENDPOINTS if environment.get(name, "").strip()]
    return next(iter(named), _EXPORTER if exporter else None)


def _unsupported(environment: Mapping[str, str]) -> str | None:
    """The variable whose value is not supported, and what is."""
    exporter = environment.get(_EXPORTER, "").strip().lower()
    if exporter not in {"", _ONLY_EXPORTER}:
        return f"{_EXPORTER}: {exporter!r} is not supported, only {_ONLY_EXPORTER!r} and 'none'"
    for name in _PROTOCOLS:
        protocol = environment.get(name, "").strip()
        if protocol:
            return None if protocol == _ONLY_PROTOCOL else f"{name}: only {_ONLY_PROTOCOL!r}, not {protocol!r}"
    return None
