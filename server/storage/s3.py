"""A bucket of S3, or of any store with its protocol. Needs the extra `cluster`.

Downloads do not pass through this server: it answers with a link that is signed for a few minutes. The links name
`public_endpoint`, which is part of what is signed, so two clients of the same bucket are kept.
"""

import logging
import mimetypes
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

from server.errors import SettingsError, StorageAway
from server.settings import ObjectStorageSettings
from server.storage.files import Storage, checked_key, is_key
from server.storage.scratch import Scratch

try:
    import obstore
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
    from obstore.store import S3Store
except ImportError as error:
    raise SettingsError("storage_url: needs `pip install hunyuan-custom-server[cluster]`") from error

if TYPE_CHECKING:
    from obstore.store import S3Config

logger = logging.getLogger(__name__)

_WRONG: Final = (FileNotFoundError, PermissionDeniedError, UnauthenticatedError)  # no such bucket, refused credentials
_KINDS: Final = {".webp": "image/webp"}  # not in every machine's table
_CHUNK: Final = 8 * 2**20


class ObjectStorage(Storage):
    """Objects under a prefix. A put is atomic: an upload in parts shows at its end, or never."""

    def __init__(self, url: str, settings: ObjectStorageSettings, *, scratch: Scratch) -> None:
        super().__init__(scratch)
        bucket, path = urlsplit(url).netloc, urlsplit(url).path
        self._prefix = path.strip("/")
        self._ttl = timedelta(seconds=settings.link_ttl_s)
        self._store = _client(bucket, settings.endpoint, settings)
        public = settings.public_endpoint or settings.endpoint
        self._public = self._store if public == settings.endpoint else _client(bucket, public, settings)

    def check(self) -> None:
        """Store a small object and remove it; a store that is away now is no error: it may answer later."""
        probe = self.new_key("inputs", "start")
        try:
            self.put_bytes(b"", probe)
            self.delete(probe)
        except StorageAway as error:
            if isinstance(error.__cause__, _WRONG):
                raise SettingsError(f"storage_url, object_storage: {error}") from error
            logger.warning("the storage is away: %s", error)

    def put(self, source: Path, key: str) -> int:
        """Upload a finished file; the source is gone afterwards."""
        size = source.stat().st_size
        suffix = PurePosixPath(key).suffix
        kind = _KINDS.get(suffix) or mimetypes.types_map.get(suffix)
        attributes = {
            "Content-Type": kind or "application/octet-stream",
            "Content-Disposition": "inline",
            "Cache-Control": "private, max-age=31536000, immutable",
        }
        with _away():
            obstore.put(self._store, self._path(key), source, attributes=attributes, chunk_size=_CHUNK)
        source.unlink()
        return size

    def size(self, key: str) -> int | None:
        """Bytes of an object."""
        if not is_key(key):
            return None
        with _away():
            try:
                return obstore.head(self._store, self._path(key))["size"]
            except FileNotFoundError:
                return None

    @contextmanager
    def local(self, key: str) -> Iterator[Path | None]:
        """A copy in the scratch directory."""
        with self.scratch.file("copy") as copy:
            yield copy if is_key(key) and self._download(key, copy) else None

    def download(self, key: str, method: str) -> str | None:
        """A signed URL, if the object is there."""
        if self.size(key) is None:
            return None
        signed: Literal["GET", "HEAD"] = "HEAD" if method == "HEAD" else "GET"
        return obstore.sign(self._public, signed, self._path(key), self._ttl)

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if it is not there."""
        with _away():
            try:
                obstore.delete(self._store, self._path(key))
            except FileNotFoundError:
                return

    def stored(self, area: str, *, older_than_s: float) -> Iterator[str]:
        """From the bucket's list. Needs the right to list, which nothing else does."""
        limit = datetime.now(UTC) - timedelta(seconds=older_than_s)
        before = f"{self._prefix}/" if self._prefix else ""
        with _away():
            for batch in obstore.list(self._store, prefix=f"{before}{area}"):
                for found in batch:
                    key = found["path"].removeprefix(before)
                    if found["last_modified"] < limit and is_key(key):
                        yield key

    def _download(self, key: str, target: Path) -> bool:
        with target.open("wb") as file, _away():
            try:
                for chunk in obstore.get(self._store, self._path(key)):
                    file.write(chunk)
            except FileNotFoundError:
                return False
        return True

    def _path(self, key: str) -> str:
        return f"{self._prefix}/{checked_key(key)}" if self._prefix else checked_key(key)


def _client(bucket: str, endpoint: str, settings: ObjectStorageSettings) -> S3Store:
    """Retries here are short: a publish waits longer by itself, and a caller of the API does not wait."""
    config: S3Config = {"region": settings.region, "virtual_hosted_style_request": not endpoint}
    if endpoint:
        config["endpoint"] = endpoint
    if settings.access_key_id:
        config["access_key_id"] = settings.access_key_id
        config["secret_access_key"] = settings.secret_access_key.get_secret_value()
    return S3Store(
        bucket,
        config=config,
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=5),
            "timeout": timedelta(seconds=settings.timeout_s),
        },
        retry_config={
            "max_retries": 2,
            "retry_timeout": timedelta(seconds=5),
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=1),
                "base": 2,
            },
        },
    )


@contextmanager
def _away() -> Iterator[None]:
    """What the store's client raises, as ours.

    Refused credentials too, and a bucket that is not there (the FileNotFoundError of a put): an operator can repair
    them in time.
    """
    try:
        yield
    except (BaseError, FileNotFoundError) as error:
        said = str(error).partition("Debug source:")[0]
        raise StorageAway(" ".join(said.split())[:500]) from error
