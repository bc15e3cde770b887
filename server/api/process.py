"""Run the API under uvicorn."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from server.api.http_protocol import limited_protocol
from server.api.large_blocks import give_back_large_blocks
from server.api.late_start import LateApi
from server.api.middleware.keep_alive import KeepAlive
from server.db.outage import OUTAGES, is_outage
from server.service_manager import READY, STOPPING, notify
from server.settings import Settings
from server.tracing.spans import stop_tracing

_TICK_S: Final = 0.5


class _Server(uvicorn.Server):
    """Ends open streams and waiting sync runs first: uvicorn would wait for them and then cut them off.

    Is woken by a signal instead of looking for one ten times a second.
    """

    def __init__(self, config: uvicorn.Config, app: LateApi | FastAPI) -> None:
        super().__init__(config)
        self._app = app
        self._woken = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def main_loop(self) -> None:
        """Renew the Date header until the end."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), _TICK_S)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal that ends the process."""
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._woken.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve; under a supervisor it is for that to say."""
        await super().startup(sockets)
        if self.started and not sockets:
            notify(READY)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop serving."""
        if not sockets:
            notify(STOPPING)
        app = self._app.app if isinstance(self._app, LateApi) else self._app
        if app is not None:
            app.state.services.tail.close()
        await super().shutdown(sockets)
        await asyncio.to_thread(stop_tracing)  # not after this: uvicorn raises the signal again


def run_api(settings: Settings, open_app: Callable[[], FastAPI], listener: socket.socket | None) -> None:
    """Serve until SIGTERM or SIGINT, on the inherited socket if there is one."""
    give_back_large_blocks()
    api = settings.api
    app = _open(settings, open_app)
    config = uvicorn.Config(
        KeepAlive(app, seconds=api.keep_alive_s),
        host=api.host,
        port=api.port,
        http=limited_protocol(api),
        ws="none",  # this model has no such endpoint: an upgrade is answered like any unknown path
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=api.keep_alive_s,  # type: ignore[arg-type] # it goes to `call_later`, which takes fractions
        timeout_graceful_shutdown=int(api.shutdown_grace_s),
        ssl_certfile=api.tls_cert,
        ssl_keyfile=api.tls_key,
    )
    _Server(config, app).run(sockets=[listener] if listener else None)


def _open(settings: Settings, open_app: Callable[[], FastAPI]) -> LateApi | FastAPI:
    """The app, or what stands for it while the database is away."""
    try:
        return open_app()
    except Exception as error:
        if not is_outage(error):
            raise
        OUTAGES.noticed(error)
        return LateApi(settings, open_app)
