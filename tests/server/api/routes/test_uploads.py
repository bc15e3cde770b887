"""Uploads over HTTP: what fal's clients do, and what is refused."""

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from server.api.access.key_table import KeyTable
from server.db.connection import create_engine
from server.fal.example import PHOTO
from tests.harness.in_process import open_api
from tests.harness.keyed import use_key
from tests.harness.live_server import APP, ROOT, Server, example, until
from tests.harness.pictures import png
from tests.harness.real_pictures import encoded, gradient
from tests.harness.uploads import INITIATE, initiate

# In a process of its own: the client leaves connections open, and is pointed at a server through its globals.
PYTHON_CLIENT = """
import asyncio, json, sys
import fal_client
from PIL import Image
from server.clients.fal_plain_http import use_server

use_server(sys.argv[1])
path, photo = sys.argv[2:]
content, image = open(path, "rb").read(), Image.open(path)
print(json.dumps([
    fal_client.upload(content, "image/png", file_name="../../etc/passwd.png"),
    fal_client.upload_file(path),
    fal_client.upload_image(image, format="webp"),
    fal_client.upload(content, "image/png", repository="fal"),
    fal_client.upload_file(photo, repository="fal_v3"),
    asyncio.run(fal_client.AsyncClient(key="local:local").upload(content, "image/png")),
    fal_client.encode_image(image),
    fal_client.encode_file(path),
]))
"""


def cdn_token(server: Server) -> dict[str, str]:
    return dict(server.http.post("/rest/storage/auth/token?storage_type=fal-cdn-v3", json={}).json())


def test_everything_the_python_client_uploads_can_be_submitted(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "woman with violin.png"
    path.write_bytes(png())
    command = [sys.executable, "-c", PYTHON_CLIENT, server.url, str(path), str(PHOTO)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    urls = json.loads(done.stdout)
    assert all(url.startswith((f"{server.url}/cdn/files/", "data:")) for url in urls)
    for request_id in [server.submit(example(image_url=url)) for url in urls]:
        assert server.finish(request_id).status_code == 200


@pytest.mark.parametrize("content_type", ["image/png", "application/octet-stream", ""])
def test_initiate_and_put(server: Server, content_type: str) -> None:
    urls = initiate(server, content_type)
    content = png()
    for _ in range(2):  # a client that lost the answer sends the same again
        answer = httpx.put(
            urls["upload_url"], content=content, headers={"Content-Type": "image/png"}, trust_env=False, timeout=60
        )
        assert answer.status_code == 200, answer.text
    served = server.http.get(urls["file_url"])
    assert served.content == content
    assert server.finish(server.submit(example(image_url=urls["file_url"]))).status_code == 200
    other = server.http.put(urls["upload_url"], content=png())
    assert (other.status_code, other.json()["error_type"]) == (400, "bad_request")


def test_the_token_is_bound_to_its_url_and_purpose(server: Server) -> None:
    first, second = initiate(server), initiate(server)
    query = urlsplit(first["upload_url"]).query
    bare = second["upload_url"].partition("?")[0]
    cdn = cdn_token(server)["token"]
    for url in (f"{bare}?{query}", bare, f"{bare}?token=x", f"{bare}?token={cdn}", f"{bare}?token=a:b:c:d"):
        answer = server.http.put(url, content=png())
        assert answer.status_code == 401
    put_token = parse_qs(query)["token"][0]
    answer = server.http.post("/cdn/files/upload", content=png(), headers={"Authorization": f"Bearer {put_token}"})
    assert answer.status_code == 401
    assert server.http.get(second["file_url"]).status_code == 404


def test_the_cdn_token_has_an_expiry_that_python_can_compare(server: Server) -> None:
    token = cdn_token(server)
    assert datetime.fromisoformat(token["expires_at"]).utcoffset() is not None
    assert token["token_type"] == "Bearer"
    assert token["base_url"] == f"{server.url}/cdn"


@pytest.mark.parametrize("authorization", ["", "Key local:local", "Bearer", "Bearer x", "Bearer a:b:c:d"])
def test_the_cdn_wants_its_token(server: Server, authorization: str) -> None:
    answer = server.http.post("/cdn/files/upload", content=png(), headers={"Authorization": authorization})
    assert answer.status_code == 401


NOT_IMAGES = [
    b"",
    b"<!doctype html><script>alert(1)</script>",
    b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    b"BMW and other cars",
    b"%PDF-1.7",
    b"PK\x03\x04",
    b"\x7fELF",
]


@pytest.mark.parametrize("content", NOT_IMAGES)
def test_only_images_are_kept_whatever_they_are_called(server: Server, content: bytes) -> None:
    urls = initiate(server)
    bearer = {"Authorization": f"Bearer {cdn_token(server)['token']}", "Content-Type": "image/png"}
    for answer in (
        server.http.put(urls["upload_url"], content=content, headers={"Content-Type": "image/png"}),
        server.http.post("/cdn/files/upload", content=content, headers=bearer),
    ):
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["type"] == "unsupported_image_format"
    assert server.http.get(urls["file_url"]).status_code == 404


@pytest.mark.parametrize("content_type", ["text/html", "image/*", "image/pjpeg", "None", "video/mp4"])
def test_the_content_decides_and_not_its_name(server: Server, content_type: str) -> None:
    urls = initiate(server, content_type)
    bearer = {"Authorization": f"Bearer {cdn_token(server)['token']}", "Content-Type": content_type}
    assert server.http.put(urls["upload_url"], content=png(), headers=bearer).status_code == 200
    uploaded = server.http.post("/cdn/files/upload", content=png(), headers=bearer)
    for url in (urls["file_url"], uploaded.json()["access_url"]):
        assert server.http.get(url).headers["content-type"] == "image/png"


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "AVIF"])
def test_what_is_accepted_as_an_image_can_be_uploaded(server: Server, form: str) -> None:
    urls = initiate(server, f"image/{form.lower()}", f"w.{form.lower()}")
    content = encoded(gradient(), form)
    assert server.http.put(urls["upload_url"], content=content).status_code == 200
    served = server.http.get(urls["file_url"])
    assert (served.content, served.headers["content-type"]) == (content, f"image/{form.lower()}")
    assert server.finish(server.submit(example(image_url=urls["file_url"]))).status_code == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"content_type": 5}', b'{"file_name": {}}'])
def test_a_bad_description_is_refused(server: Server, body: bytes) -> None:
    assert server.http.post(INITIATE, content=body).status_code in {400, 422}


def test_a_polyglot_is_served_as_an_image_and_nothing_else(server: Server) -> None:
    content = png() + b"<script>alert(1)</script>"
    urls = initiate(server, name="x.html")
    assert urls["file_url"].endswith("/x.png")
    server.http.put(urls["upload_url"], content=content)
    for answer in (server.http.get(urls["file_url"]), server.http.head(urls["file_url"])):
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
        assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    "name", ["../../x", "a/b\\c.png", "x\r\nSet-Cookie: a=b", "\0", "ü" * 300, "." * 50, "", "CON"]
)
def test_names_of_clients_never_become_paths(server: Server, name: str) -> None:
    url = initiate(server, name=name)["file_url"]
    assert len(urlsplit(url).path.removeprefix("/cdn/files/").split("/")) == 3
    assert url.isascii()


@pytest.mark.parametrize("size", [20 * 2**20 + 1, 25 * 2**20])
def test_files_over_the_limit_are_413(server: Server, size: int) -> None:
    content = png() + b"\0" * size
    urls = initiate(server)
    bearer = {"Authorization": f"Bearer {cdn_token(server)['token']}", "Content-Type": "image/png"}
    assert server.http.put(urls["upload_url"], content=content).status_code == 413
    assert server.http.post("/cdn/files/upload", content=content, headers=bearer).status_code == 413
    assert server.http.put(urls["upload_url"], content=iter([content])).status_code == 413
    assert not list((server.data_dir / "tmp").glob("*upload.part"))


def test_multipart_is_for_larger_files_than_any_image(server: Server) -> None:
    description = {"content_type": "image/png", "file_name": "w.png"}
    answer = server.http.post("/rest/storage/upload/initiate-multipart?storage_type=fal-cdn-v3", json=description)
    assert answer.status_code == 413
    bearer = {"Authorization": f"Bearer {cdn_token(server)['token']}"}
    assert server.http.post("/cdn/files/upload/multipart", headers=bearer).status_code == 413


@pytest.mark.parametrize(
    "path", ["files/aa/x/y", "files/../../etc/passwd", "files/aa/" + "a" * 32 + "/%00", "upload/x"]
)
def test_unknown_uploads_are_404(server: Server, path: str) -> None:
    assert server.http.get(f"/cdn/{path}").status_code in {404, 405}


def test_fals_hosts_lead_to_the_same_places(server: Server) -> None:
    answer = server.http.post("/storage/upload/initiate", json={}, headers={"Host": "rest.fal.ai"})
    upload_url = urlsplit(answer.json()["upload_url"])
    assert upload_url.netloc == "rest.fal.ai"
    put = server.http.put(f"{upload_url.path}?{upload_url.query}", content=png(), headers={"Host": "rest.fal.ai"})
    assert put.status_code == 200
    token = server.http.post("/storage/auth/token", headers={"Host": "rest.fal.ai"}).json()["token"]
    headers = {"Host": "v3.fal.media", "Authorization": f"Bearer {token}", "Content-Type": "image/png"}
    access_url = urlsplit(server.http.post("/files/upload", content=png(), headers=headers).json()["access_url"])
    assert server.http.get(access_url.path, headers={"Host": "v3.fal.media"}).status_code == 200
    # Such a URL is ours wherever its host points to: it is not fetched over the network.
    job = server.submit(example(image_url=f"https://v3.fal.media{access_url.path}"))
    assert server.finish(job).status_code == 200


def test_uploads_are_our_own_under_a_prefix_too(start_server: Callable[..., Server]) -> None:
    """A proxy serves us under /hc: every URL in an answer has that prefix, and the calls that it passes on do not."""
    server = start_server(api__trusted_proxies='["127.0.0.1"]', allow_private_networks="[]", ready=False)
    assert server.process.stdout is not None
    use_key(server, server.process.stdout.readline().split()[-1])
    server.http.headers["X-Forwarded-Prefix"] = "/hc"
    urls = initiate(server)
    assert urls["file_url"].startswith(f"{server.url}/hc/cdn/files/")
    assert server.http.put(urls["upload_url"].replace("/hc/", "/"), content=png()).status_code == 200
    output = server.finish(server.submit(example(image_url=urls["file_url"])))
    assert output.status_code == 200, output.text
    video = output.json()["video"]["url"]
    assert video.startswith(f"{server.url}/hc/files/")
    again = server.finish(server.submit(example(image_url=video)))
    assert again.json()["detail"][0]["type"] == "image_load_error", "found, and no image"


def test_an_upload_that_is_gone_is_a_failed_download(server: Server) -> None:
    url = initiate(server)["file_url"]  # never put
    answer = server.finish(server.submit(example(image_url=url)))
    assert (answer.status_code, answer.json()["detail"][0]["type"]) == (422, "file_download_error")


def test_of_two_files_for_one_url_one_is_kept(server: Server) -> None:
    url = initiate(server)["upload_url"]
    images = [png((70 + number, 70)) for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda image: server.http.put(url, content=image), images))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 5
    (winner,) = [image for image, answer in zip(images, answers, strict=True) if answer.status_code == 200]
    assert server.http.get(next(answer for answer in answers if answer.is_success).json()["url"]).content == winner


def test_a_full_disk_takes_no_uploads(tmp_path: Path) -> None:
    with open_api(tmp_path, jobs={"min_free_bytes": 10**18}) as client:
        answer = client.put(client.post(INITIATE, json={}).json()["upload_url"], content=png())
        refused = client.post(f"/queue/{APP}", json=example())
    for full in (answer, refused):
        assert (full.status_code, full.json()["error_type"]) == (503, "internal_error")
        assert full.headers["retry-after"] == "60"
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize("value", ["bytes=9999999-", "bytes=5-1", "bytes=x-y", "lines=1-2", "bytes=", "-", "bytes=-"])
def test_a_range_that_an_image_does_not_have_is_a_json_416(server: Server, value: str) -> None:
    urls, content = initiate(server), png()
    server.http.put(urls["upload_url"], content=content)
    answer = server.http.get(urls["file_url"], headers={"Range": value})
    assert (answer.status_code, answer.json()["error_type"]) == (416, "bad_request")
    assert answer.headers["content-range"] == f"bytes */{len(content)}"
    assert server.http.get(urls["file_url"], headers={"Range": "bytes=2-4"}).content == content[2:5]


def test_an_upload_is_gone_when_its_time_is_over_and_not_with_the_sweep(tmp_path: Path) -> None:
    with open_api(tmp_path) as client:
        life = {"X-Fal-Object-Lifecycle": '{"expiration_duration_seconds": 0.2}'}
        urls = client.post(INITIATE, json={}, headers=life).json()
        assert client.put(urls["upload_url"], content=png()).status_code == 200
        until(lambda: client.get(urls["file_url"]).status_code == 410)
        assert client.get(urls["file_url"]).json() == {"detail": "File expired", "error_type": "expired"}


@pytest.mark.parametrize("end", ["revoke", "rotate"])
def test_upload_tokens_end_with_their_key(tmp_path: Path, end: str) -> None:
    with open_api(tmp_path, api={"keys_reload_s": 1e-9}) as client:
        anonymous = client.post(INITIATE, json={}).json()["upload_url"]
        table = KeyTable(create_engine(f"sqlite:///{tmp_path / 'hunyuan-custom.sqlite'}"))
        key, other = table.create("alice"), table.create("alice")
        headers = {"Authorization": f"Key {key}"}
        put_url = client.post(INITIATE, json={}, headers=headers).json()["upload_url"]
        token = client.post("/rest/storage/auth/token", headers=headers).json()["token"]
        kept_url = client.post(INITIATE, json={}, headers={"Authorization": f"Key {other}"}).json()["upload_url"]
        bearer = {"Authorization": f"Bearer {token}"}
        assert client.put(anonymous, content=png()).status_code == 401, "now a key is needed"
        assert client.post("/cdn/files/upload", content=png(), headers=bearer).status_code == 200
        (table.revoke if end == "revoke" else table.rotate)(key.partition(":")[0])
        assert client.put(put_url, content=png()).status_code == 401
        assert client.post("/cdn/files/upload", content=png(), headers=bearer).status_code == 401
        assert client.put(kept_url, content=png()).status_code == 200, "of another key of the same owner"
