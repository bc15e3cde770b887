"""The hub, as far as a download needs it: a repository's listing at a commit, and files fetched resumably.

`HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE` and proxies are `huggingface_hub`'s business. Its own
`hf_hub_download` throws a half-fetched file away when the process ends; with 25 GB files that is not good enough, so
the partial file is kept here and `http_get` resumes there.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from httpx2 import HTTPError, InvalidURL
from huggingface_hub import HfApi, file_download, hf_hub_url
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import build_hf_headers, disable_progress_bars  # type: ignore[attr-defined]  # re-exported without saying so

from weights.disk import REFUSALS, disk_errors, refusal
from weights.errors import DownloadError
from weights.hub.lock_file import LockedFile
from weights.hub.manifest import Repository
from weights.reporter import Progress, ignore

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Every file of a repository at one commit, by its path there."""

    repository: str
    commit: str
    files: dict[str, LockedFile]


def list_repository(repository: Repository) -> Listing:
    """Resolve the revision to a commit and list sizes and hashes. Raises `DownloadError`."""
    with _reported(f"{repository.name}@{repository.revision}"):
        info = HfApi().model_info(repository.name, revision=repository.revision, files_metadata=True)
    files = {}
    for entry in info.siblings or []:
        digest = f"sha256:{entry.lfs.sha256}" if entry.lfs else f"git-sha1:{entry.blob_id}"
        if info.sha is None or entry.size is None:
            raise DownloadError(f"{repository.name}: {entry.rfilename}: the hub tells neither commit nor size")
        files[entry.rfilename] = LockedFile(
            repository=repository.name, commit=info.sha, path=entry.rfilename, size=entry.size, hash=digest
        )
    return Listing(repository=repository.name, commit=info.sha or "", files=files)


def partial_path(destination: Path, locked: LockedFile) -> Path:
    """Where a half-fetched file is kept; another version of the file has another path."""
    return destination.with_name(f".{destination.name}.{locked.hash[-16:]}.part")


class _Counted(io.BufferedWriter):
    """Tells how many bytes are written."""

    def __init__(self, path: Path, progress: Progress) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self._progress = progress

    def write(self, portion: Buffer) -> int:
        """As a file does."""
        written = super().write(portion)
        self._progress(written)
        return written


def fetch(locked: LockedFile, destination: Path, progress: Progress = ignore) -> None:
    """Fetch into the partial file, resuming where it ends, and leave it there complete.

    Raises `DownloadError`, `TargetError`.
    """
    part = partial_path(destination, locked)
    with disk_errors(part):
        part.parent.mkdir(parents=True, exist_ok=True)
        have = part.stat().st_size if part.exists() else 0
        if have > locked.size:
            part.unlink()
            have = 0
        file = _Counted(part, progress)
    url = hf_hub_url(locked.repository, locked.path, revision=locked.commit)
    disable_progress_bars()  # there is one of ours
    with file, _reported(f"{locked.repository}: {locked.path}", part):
        headers = build_hf_headers()
        file_download.http_get(
            url, file, resume_size=have, headers=headers, expected_size=locked.size, displayed_filename=locked.path
        )


@contextlib.contextmanager
def _reported(what: str, part: Path | None = None) -> Iterator[None]:
    """Turn the library's errors into one line that says what to do; `part` is the file it writes."""
    try:
        yield
    except GatedRepoError as error:
        raise DownloadError(f"{what}: gated; accept its terms on the hub and set HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        raise DownloadError(f"{what}: not found, or private (is HF_TOKEN set?)") from error
    except RevisionNotFoundError as error:
        raise DownloadError(f"{what}: no such revision") from error
    except HfHubHTTPError as error:
        if error.response.status_code in {401, 403}:
            raise DownloadError(f"{what}: refused; is HF_TOKEN set, and has it access?") from error
        raise DownloadError(f"{what}: the hub answered {error.response.status_code}; run again to resume") from error
    except (HTTPError, InvalidURL) as error:
        raise DownloadError(f"{what}: {type(error).__name__}: {_line(error)}; run again to resume") from error
    except OSError as error:
        if part is not None and error.errno in REFUSALS:
            raise refusal(error, part) from error
        raise DownloadError(f"{what}: {_line(error)}; run again to resume") from error


def _line(error: Exception) -> str:
    return (str(error).strip() or "no details").splitlines()[0][:200]
