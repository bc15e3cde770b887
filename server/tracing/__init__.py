"""Traces of requests, where OpenTelemetry's environment variables ask for them.

`start` decides that for a process; `spans` is what the other rooms use, and costs them nothing otherwise. `otlp` alone
imports OpenTelemetry, which the extra `tracing` installs.
"""
