"""Run the API under uvicorn."""

import socket

import uvicorn

from server.api.app import create_app
from server.api.event_stream import Tail
from server.api.http_protocol import limited_protocol
from server.settings import Settings


class _Server(uvicorn.Server):
    """Ends open streams and waiting sync runs first: uvicorn would wait for them and then cut them off."""

    def __init__(self, config: uvicorn.Config, tail: Tail) -> None:
        super().__init__(config)
        self._tail = tail

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop serving."""
        self._tail.close()
        await super().shutdown(sockets)


def run_api(settings: Settings, listener: socket.socket | None) -> None:
    """Serve until SIGTERM or SIGINT, on the inherited socket if there is one."""
    api = settings.api
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=api.host,
        port=api.port,
        http=limited_protocol(api),
        ws="none",  # this model has no such endpoint: an upgrade is answered like any unknown path
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        # Clients that read it hang up first (Node's fetch, agents with a timeout): no request meets the server's end.
        headers=[("keep-alive", f"timeout={max(1, int(api.keep_alive_s) - 1)}")],
        timeout_keep_alive=api.keep_alive_s,  # type: ignore[arg-type] # it goes to `call_later`, which takes fractions
        timeout_graceful_shutdown=int(api.shutdown_grace_s),
        ssl_certfile=api.tls_cert,
        ssl_keyfile=api.tls_key,
    )
    _Server(config, app.state.services.tail).run(sockets=[listener] if listener else None)
