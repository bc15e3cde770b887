"""Companions: models that are fetched and used as published, each into a folder with a lock file of its own."""

from __future__ import annotations

from pathlib import Path

from weights.disk import require_space
from weights.errors import DownloadError
from weights.hub.download import Wanted, bytes_to_fetch, fetch_all, is_present, is_there
from weights.hub.lock_file import LockFile
from weights.hub.manifest import Companion, Repository
from weights.hub.repository import list_repository
from weights.reporter import Reporter


def fetch_companion(companion: Companion, folder: Path, *, reporter: Reporter) -> int:
    """Bring its files into `folder`; returns how many were fetched. What is there costs no request.

    Raises `DownloadError`, `TargetError`; a file on the hub that is not the lock file's is refused.
    """
    lock = LockFile.read(folder)
    if all(name in lock.files and is_present(folder / name, lock.files[name]) for name in companion.files):
        return 0
    commit = lock.commit_of(companion.repository.name) or companion.repository.revision
    listing = list_repository(Repository(name=companion.repository.name, revision=commit))
    for name in companion.files:
        if name not in listing.files:
            raise DownloadError(f"{listing.repository}: {name}: not in the repository")
        if name in lock.files and lock.files[name].hash != listing.files[name].hash:
            raise DownloadError(f"{listing.repository}: {name}: the hub's hash is not the lock file's")
    wanted = [Wanted(local=name, locked=listing.files[name]) for name in companion.files]
    missing = [want for want in wanted if not is_there(want, folder, lock)]
    require_space(folder, sum(bytes_to_fetch(want, folder) for want in missing))
    fetch_all(missing, folder, lock, reporter=reporter)
    lock.licence = companion.licence
    lock.files |= {want.local: want.locked for want in wanted}
    lock.write(folder)
    return len(missing)
