"""`weights.lock.json` beside the originals: what was downloaded, from which commit, with which hashes.

The hub's own metadata (LFS: SHA-256; small files: git's blob hash) at the first download; every later run compares
with it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from weights.disk import disk_errors
from weights.errors import CheckpointError, ManifestError, VerifyError
from weights.reporter import Progress, ignore
from weights.writing.written_file import chunks_of

LOCK_NAME = "weights.lock.json"


@dataclass(frozen=True, kw_only=True)
class LockedFile:
    """One file: `hash` is "sha256:..." or "git-sha1:..."; `path` is its name in `repository` at `commit`."""

    repository: str
    commit: str
    path: str
    size: int
    hash: str

    def __post_init__(self) -> None:
        if not str(self.hash).startswith(("sha256:", "git-sha1:")):
            raise ValueError(f"{self.path}: unknown kind of hash {self.hash!r}")


@dataclass(kw_only=True)
class LockFile:
    """Local path (relative to the lock file's folder) -> what it must be. `licence` names the one accepted here."""

    licence: str | None = None
    files: dict[str, LockedFile] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> LockFile:
        """The folder's lock file, empty if there is none. Raises `ManifestError`."""
        path = folder / LOCK_NAME
        try:
            if not path.is_file():
                return cls()
            content = json.loads(path.read_text())
            files = {name: LockedFile(**entry) for name, entry in content["files"].items()}
            return cls(licence=content["licence"], files=files)
        except OSError as error:
            raise ManifestError(f"{path}: cannot be read ({error.strerror})") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ManifestError(f"{path}: not a lock file ({error})") from error

    def write(self, folder: Path) -> None:
        """Replace the folder's lock file in one step. Raises `TargetError`."""
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            new = folder / f".{LOCK_NAME}.new"
            new.write_text(json.dumps(asdict(self), indent=2, sort_keys=True) + "\n")
            new.replace(folder / LOCK_NAME)

    def commit_of(self, repository: str) -> str | None:
        """The commit all files of `repository` came from, if any did."""
        return next((file.commit for file in self.files.values() if file.repository == repository), None)


def check_size(path: Path, locked: LockedFile) -> None:
    """Raise `VerifyError` unless the file exists with its locked size."""
    if not path.is_file():
        raise VerifyError(f"{path}: missing")
    if path.stat().st_size != locked.size:
        raise VerifyError(f"{path}: {path.stat().st_size} bytes, the lock file says {locked.size}")


def check_hash(path: Path, locked: LockedFile, progress: Progress = ignore) -> None:
    """Raise `VerifyError` unless the file's content is the locked one."""
    kind, _, expected = locked.hash.partition(":")
    if kind == "sha256":
        digest = hashlib.sha256()
    else:
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    try:
        for chunk in chunks_of(path):
            digest.update(chunk)
            progress(len(chunk))
    except CheckpointError as error:
        raise VerifyError(str(error)) from error
    if digest.hexdigest() != expected:
        raise VerifyError(f"{path}: {kind} {digest.hexdigest()[:12]}..., the lock file says {expected[:12]}...")
