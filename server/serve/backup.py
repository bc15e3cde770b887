"""One file that brings a server back: database (requests, keys, signing keys, usage), its own certificate, images,
and videos if wanted.

The database is copied as of one moment while the server runs. Files come after it, so that every file it names is
there unless it was deleted in between. A cluster's database and object store have backups of their own.
"""

import os
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

from server.db.connection import sqlite_file
from server.errors import SettingsError
from server.settings import Settings

_DATABASE = "hunyuan-custom.sqlite"
_ALWAYS = ("inputs", "uploads", "tls")
_VIDEOS = "files"


def back_up(settings: Settings, target: Path, *, videos: bool) -> int:
    """Write the backup and return its size in bytes. It holds secrets: only its owner can read it.

    Raises:
        SettingsError: no SQLite database, or the target (or its `.part`, of a backup under way) exists.
    """
    database = _database(settings)
    if not database.is_file():
        raise SettingsError(f"data_dir: there is no database at {database}")
    if target.exists():
        raise SettingsError(f"{target} exists already")
    with _part_of(target) as file, tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        copy = Path(scratch) / _DATABASE
        with closing(sqlite3.connect(database, timeout=30)) as connection:
            connection.execute("VACUUM INTO ?", (str(copy),))
        with tarfile.open(fileobj=file, mode="w") as archive:
            archive.add(copy, _DATABASE)
            for area in (*_ALWAYS, *([_VIDEOS] if videos else [])):
                _add_files(archive, settings.data_dir, area)
    return target.stat().st_size


def restore(settings: Settings, source: Path) -> None:
    """Unpack a backup into a data directory that has no database yet.

    Everything is unpacked and checked in a scratch directory first: a damaged backup leaves the directory as it was.

    Raises:
        SettingsError: there is a database or a file of it already, or the file is no backup of this server.
    """
    database = _database(settings)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    targets = {_DATABASE: database, **{area: settings.data_dir / area for area in (*_ALWAYS, _VIDEOS)}}
    for target in targets.values():
        if target.is_file() or (target.is_dir() and any(target.iterdir())):
            raise SettingsError(f"data_dir: {target} exists; restore into an empty directory")
    mask = os.umask(0o077)
    try:
        with tempfile.TemporaryDirectory(dir=settings.data_dir) as scratch, tarfile.open(source) as archive:
            names = archive.getnames()
            if _DATABASE not in names or any(name.split("/")[0] not in targets for name in names):
                raise SettingsError(f"{source} is no backup of this server")
            archive.extractall(scratch, filter="data")
            _check(source, Path(scratch) / _DATABASE)
            for name in [*_ALWAYS, _VIDEOS, _DATABASE]:  # the database last: without it there is no server yet
                if (Path(scratch) / name).exists():
                    (Path(scratch) / name).rename(targets[name])
    except tarfile.TarError as error:
        raise SettingsError(f"{source}: not a backup, or a damaged one") from error
    except OSError as error:
        raise SettingsError(f"{source}: {error.strerror or error}") from error
    finally:
        os.umask(mask)


def _check(source: Path, database: Path) -> None:
    try:
        with closing(sqlite3.connect(database)) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
    except sqlite3.DatabaseError as error:
        verdict = str(error)
    if verdict != "ok":
        raise SettingsError(f"{source}: the database in it is damaged: {verdict}")


@contextmanager
def _part_of(target: Path) -> Iterator[IO[bytes]]:
    """A new file beside the target that becomes the target when all is well, and is removed when it is not."""
    part = target.with_name(f"{target.name}.part")
    try:  # never through a link that another user has made
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise SettingsError(f"{part} exists: another backup is under way, or was killed") from None
    except OSError as error:
        raise SettingsError(f"{part}: {os.strerror(error.errno or 0)}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)


def _add_files(archive: tarfile.TarFile, root: Path, area: str) -> None:
    for path in sorted((root / area).rglob("*")):
        try:
            if path.is_file():
                archive.add(path, str(path.relative_to(root)), recursive=False)
        except FileNotFoundError:  # it expired meanwhile
            continue


def _database(settings: Settings) -> Path:
    file = sqlite_file(settings.database_url)
    if file is None:
        raise SettingsError("database_url: this command is for SQLite; use pg_dump and pg_restore")
    return file
