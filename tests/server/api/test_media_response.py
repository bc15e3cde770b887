"""A stored file that is deleted between two looks at it is not found, and no fault of the server."""

from pathlib import Path

import pytest

from tests.harness.in_process import open_api
from tests.harness.pictures import png


def test_a_file_that_is_deleted_when_it_was_found_is_404(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_api(tmp_path) as api:
        storage, urls = api.app.state.services.storage, []  # type: ignore[attr-defined]
        for area, path in (("files", "/files/"), ("uploads", "/cdn/files/")):
            key = storage.new_key(area, "w.png")
            storage.put_bytes(png(), key)
            urls.append(path + key.removeprefix(f"{area}/"))
        assert [api.get(url).status_code for url in urls] == [200, 200]
        find = storage.download

        def find_and_delete(key: str, method: str) -> Path:
            found: Path = find(key, method)
            storage.delete(key)
            return found

        monkeypatch.setattr(storage, "download", find_and_delete)
        assert [api.get(url).status_code for url in urls] == [404, 404]
