"""The API alone, in this process and without a worker: for what needs no video."""

from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from server.api.access.key_table import KeyTable
from server.api.app import create_app
from server.db.connection import create_engine
from server.db.migrations import migrate
from server.jobs.job import LOCAL_OWNER
from server.settings import Settings
from server.settings_loader import load_settings


def settings_for(data_dir: Path, **sections: Any) -> Settings:
    return load_settings(None, {"data_dir": data_dir, **sections})


def open_api(data_dir: Path, *, address: str = "127.0.0.1", keyed: bool = False, **sections: Any) -> TestClient:
    """A client of a fresh API; `address` is where its calls seem to come from, `keyed` gives it a key."""
    settings = settings_for(data_dir, **sections)
    migrate(settings.database_url, data_dir / "migrate.lock")
    key = KeyTable(create_engine(settings.database_url)).create(LOCAL_OWNER) if keyed else None
    return TestClient(
        create_app(settings),
        base_url="http://127.0.0.1:8000",
        client=(address, 5000),
        headers={"Authorization": f"Key {key}"} if key else {},
        raise_server_exceptions=False,
    )
