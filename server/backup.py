"""One file that brings a server back: database (requests, keys, signing keys, usage), images, and videos if wanted.

The database is copied as of one moment while the server runs. Files come after it, so that whatever it names is there
unless it was deleted in between. A cluster's database and object store have backups of their own.
"""

import os
import sqlite3
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path

from server.errors import SettingsError
from server.settings import Settings

_DATABASE = "hunyuan-custom.sqlite"
_INPUTS = ("inputs", "uploads")
_VIDEOS = "files"


def back_up(settings: Settings, target: Path, *, videos: bool) -> int:
    """Write the backup and return its size in bytes. It holds secrets: only its owner can read it.

    Raises:
        SettingsError: no SQLite database, or the target exists.
    """
    database = _database(settings)
    if not database.is_file():
        raise SettingsError(f"data_dir: there is no database at {database}")
    if target.exists():
        raise SettingsError(f"{target} exists already")
    part = target.with_name(f"{target.name}.part")
    with (
        tempfile.TemporaryDirectory(dir=target.parent) as scratch,
        open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file,  # noqa: PTH123 - the mode
    ):
        copy = Path(scratch) / _DATABASE
        with closing(sqlite3.connect(database, timeout=30)) as connection:
            connection.execute("VACUUM INTO ?", (str(copy),))
        with tarfile.open(fileobj=file, mode="w") as archive:
            archive.add(copy, _DATABASE)
            for area in (*_INPUTS, *([_VIDEOS] if videos else [])):
                _add_files(archive, settings.data_dir, area)
        file.flush()
        os.fsync(file.fileno())
    part.rename(target)
    return target.stat().st_size


def restore(settings: Settings, source: Path) -> None:
    """Unpack a backup into a data directory that has no database yet.

    Raises:
        SettingsError: there is a database already, or the file is no backup of this server.
    """
    database = _database(settings)
    if database.exists():
        raise SettingsError(f"data_dir: {database} exists; restore into an empty directory")
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    mask = os.umask(0o077)
    try:
        with tarfile.open(source) as archive:
            unknown = [name for name in archive.getnames() if name.split("/")[0] not in {_DATABASE, *_INPUTS, _VIDEOS}]
            if unknown or _DATABASE not in archive.getnames():
                raise SettingsError(f"{source} is no backup of this server")
            archive.extractall(settings.data_dir, filter="data")
        with closing(sqlite3.connect(database)) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
    except (tarfile.TarError, sqlite3.DatabaseError, OSError) as error:
        raise SettingsError(f"{source}: {error}") from error
    finally:
        os.umask(mask)
    if verdict != "ok":
        raise SettingsError(f"{source}: the database in it is damaged: {verdict}")


def _add_files(archive: tarfile.TarFile, root: Path, area: str) -> None:
    for path in sorted((root / area).rglob("*")):
        try:
            if path.is_file():
                archive.add(path, str(path.relative_to(root)), recursive=False)
        except FileNotFoundError:  # its time was over while we were at it
            continue


def _database(settings: Settings) -> Path:
    if not settings.database_url.startswith("sqlite:///"):
        raise SettingsError("database_url: this command is for SQLite; use pg_dump and pg_restore")
    return Path(settings.database_url.removeprefix("sqlite:///"))
