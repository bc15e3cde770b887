"""Keys on a running server, made as the command line makes them."""

import functools

import httpx

from server.api.access.key_table import KeyTable
from server.db.connection import create_engine
from tests.harness.live_server import Server, until

_PROBE = "/queue/fal-ai/hunyuan-custom/requests/x"


def create_key(server: Server, owner: str) -> str:
    """A key, once the API knows it and asks for one."""
    key = KeyTable(create_engine(f"sqlite:///{server.data_dir / 'hunyuan-custom.sqlite'}")).create(owner)
    until(lambda: client(server).get(_PROBE).status_code == 401)
    until(lambda: client(server, key).get(_PROBE).status_code == 404)
    return key


def client(server: Server, key: str | None = None) -> httpx.Client:
    """A caller with that key, or without any."""
    return _client(server.url, key)


@functools.cache
def _client(url: str, key: str | None) -> httpx.Client:
    """Made once: a client costs as much as a hundred calls. It keeps no connections and need not be closed."""
    headers = {"Connection": "close"} | ({"Authorization": f"Key {key}"} if key else {})
    return httpx.Client(base_url=url, trust_env=False, timeout=60, headers=headers)


def use_key(server: Server, key: str) -> None:
    """The server's own calls are made with that key from now on."""
    server.http.headers["Authorization"] = f"Key {key}"
