"""Run the API under uvicorn."""

import socket

import uvicorn

from server.app import create_app
from server.settings import Settings


def run_api(settings: Settings, listener: socket.socket | None) -> None:
    """Serve until SIGTERM or SIGINT, on the inherited socket if there is one."""
    config = uvicorn.Config(
        create_app(settings),
        host=settings.api.host,
        port=settings.api.port,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=int(settings.api.shutdown_grace_s),
    )
    uvicorn.Server(config).run(sockets=[listener] if listener else None)
