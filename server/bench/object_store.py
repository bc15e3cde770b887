"""A bucket over real HTTP on loopback: as much of S3's protocol as the server's client speaks. Can be told to fail.

A call must be signed, in its header or, with a time that is not over, in its URL. Signatures are not computed again:
that both sides agree on them is the client library's business.
"""

import re
import threading
import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from server.bench.loopback import serving

_KEPT_HEADERS = ("Content-Type", "Content-Disposition", "Cache-Control")


@dataclass(frozen=True)
class Stored:
    """An object, the headers it is served with, in how many parts it came (0: in one PUT), and when."""

    content: bytes
    headers: dict[str, str]
    parts: int = 0
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass
class _Upload:
    headers: dict[str, str]
    parts: dict[int, bytes]


class ObjectStore:
    """Context of a running store; `failing` answers every call with 500."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.objects: dict[str, Stored] = {}
        self.failing = False
        self.refused = threading.Event()  # set when a call was answered with 500
        self.uploads: dict[str, _Upload] = {}  # begun in parts, not ended
        store = self

        class Handler(_Handler):
            bucket = store

        self._serving = serving(Handler, host, port)
        self.url = ""  # where it listens, from the start on

    @property
    def settings(self) -> dict[str, Any]:
        """What a server needs to use it."""
        return {
            "storage_url": "s3://videos/here",
            "object_storage__endpoint": self.url,
            "object_storage__access_key_id": "id",
            "object_storage__secret_access_key": "secret",
        }

    def keys(self, area: str) -> list[str]:
        """What is stored under `inputs`, `uploads` or `files`."""
        return [key for key in list(self.objects) if key.startswith(f"here/{area}/")]

    def age(self) -> None:
        """From now on everything in it is many years old."""
        for key, stored in list(self.objects.items()):
            self.objects[key] = replace(stored, at=datetime(2015, 10, 21, tzinfo=UTC))

    def __enter__(self) -> Self:
        self.url = self._serving.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._serving.__exit__(kind, error, trace)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket: ObjectStore

    def do_GET(self) -> None:
        if (key := self._admitted()) is None:
            return
        if "list-type" in self._query():
            self._list(self._query()["prefix"])
            return
        stored = self.bucket.objects.get(key)
        if stored is None:
            self._refuse(404, "NoSuchKey")
            return
        content, modified = stored.content, format_datetime(stored.at, usegmt=True)
        headers = {**stored.headers, "Accept-Ranges": "bytes", "Last-Modified": modified}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        if wanted is None:
            self._answer(200, content, headers)
            return
        first, last = int(wanted[1]), min(int(wanted[2] or 2**62), len(content) - 1)
        self._answer(
            206, content[first : last + 1], headers | {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
        )

    def _list(self, prefix: str) -> None:
        found = "".join(
            f"<Contents><Key>{key}</Key><Size>{len(stored.content)}</Size>"
            f"<LastModified>{stored.at.isoformat(timespec='milliseconds')}</LastModified></Contents>"
            for key, stored in list(self.bucket.objects.items())
            if key.startswith(prefix)
        )
        self._answer(200, f"<ListBucketResult>{found}</ListBucketResult>".encode())

    do_HEAD = do_GET  # noqa: N815 - the name is the library's

    def do_PUT(self) -> None:
        body = self._body()
        if (key := self._admitted()) is None:
            return
        query = self._query()
        if "uploadId" in query:
            self.bucket.uploads[query["uploadId"]].parts[int(query["partNumber"])] = body
        else:
            self.bucket.objects[key] = Stored(body, self._kept_headers())
        self._answer(200)

    def do_POST(self) -> None:
        body = self._body()
        if (key := self._admitted()) is None:
            return
        query = self._query()
        if "delete" in query:
            names = re.findall("<Key>(.*?)</Key>", body.decode())
            for name in names:
                self.bucket.objects.pop(name, None)
            deleted = "".join(f"<Deleted><Key>{name}</Key></Deleted>" for name in names)
            self._answer(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())
        elif "uploads" in query:
            upload = uuid.uuid4().hex
            self.bucket.uploads[upload] = _Upload(self._kept_headers(), {})
            made = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            self._answer(200, made.encode())
        else:
            done = self.bucket.uploads.pop(query["uploadId"])
            content = b"".join(done.parts[number] for number in sorted(done.parts))
            self.bucket.objects[key] = Stored(content, done.headers, len(done.parts))
            self._answer(200, b'<CompleteMultipartUploadResult><ETag>"e"</ETag></CompleteMultipartUploadResult>')

    def do_DELETE(self) -> None:
        """The end of an upload in parts that is given up."""
        if self._admitted() is not None:
            del self.bucket.uploads[self._query()["uploadId"]]
            self._answer(204)

    def _admitted(self) -> str | None:
        """The key; None when the call has been answered already."""
        if self.bucket.failing:
            self._refuse(500, "InternalError")
            self.bucket.refused.set()
            return None
        query = self._query()
        if "X-Amz-Signature" in query:
            signed = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            admitted = datetime.now(UTC) < signed + timedelta(seconds=int(query["X-Amz-Expires"]))
        else:
            admitted = "Credential=id/" in self.headers.get("authorization", "")
        if not admitted:
            self._refuse(403, "InvalidAccessKeyId")
            return None
        bucket, _, key = unquote(urlsplit(self.path).path).removeprefix("/").partition("/")
        if bucket != "videos":
            self._refuse(404, "NoSuchBucket")
            return None
        return key

    def _query(self) -> dict[str, str]:
        pairs = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        return {name: values[0] for name, values in pairs.items()}

    def _kept_headers(self) -> dict[str, str]:
        return {name: self.headers[name] for name in _KEPT_HEADERS if name in self.headers}

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code></Error>".encode())

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(HTTPStatus(status))
        sent = {"ETag": '"e"', "Content-Length": str(len(body)), **(headers or {})}
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
