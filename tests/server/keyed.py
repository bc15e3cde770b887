"""Keys on a running server, made as the command line makes them."""

import httpx

from server.database import create_engine
from server.keys import KeyTable
from tests.live_server import Server, until


def key_table(server: Server) -> KeyTable:
    return KeyTable(create_engine(f"sqlite:///{server.data_dir / 'hunyuan-custom.sqlite'}"))


def create_key(server: Server, owner: str) -> str:
    """A key, once the API knows it and asks for it."""
    key = key_table(server).create(owner)
    with httpx.Client(base_url=server.url, trust_env=False) as stranger:
        until(lambda: stranger.get("/queue/fal-ai/hunyuan-custom/requests/x").status_code == 401)
    until(lambda: client(server, key).get("/queue/fal-ai/hunyuan-custom/requests/x").status_code == 404)
    return key


def client(server: Server, key: str) -> httpx.Client:
    """A caller with that key; closed with the process."""
    return httpx.Client(
        base_url=server.url, trust_env=False, timeout=30, headers={"Authorization": f"Key {key}", "Connection": "close"}
    )


def use_key(server: Server, key: str) -> None:
    """The server's own calls are made with that key from now on."""
    server.http.headers["Authorization"] = f"Key {key}"
