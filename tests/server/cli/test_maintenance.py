"""Backup, restore and usage: what the operator takes along."""

import csv
import io
import sqlite3
import stat
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from server.cli.main import app
from server.db.installation_secrets import WEBHOOKS, load_secret
from server.errors import SettingsError
from server.serve.tls import self_signed
from tests.harness.keyed import client, create_key, use_key
from tests.harness.live_server import Server, example, until
from tests.harness.pictures import png
from tests.harness.uploads import INITIATE


def command(*words: str, data_dir: Path) -> str:
    done = CliRunner().invoke(app, [*words, "--data-dir", str(data_dir)])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def test_a_backup_taken_while_running_brings_everything_back(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    old = start_server(tmp_path / "old")
    assert stat.S_IMODE((old.data_dir / "hunyuan-custom.sqlite").stat().st_mode) == 0o600, "it holds keys"
    key = create_key(old, "alice")
    use_key(old, key)
    finished = old.submit(example(seed=3))
    old.finish(finished)
    others = {
        old.submit(example(num_frames=1)): ("validation_error", ""),
        old.submit(example(prompt="RAISES")): ("internal_server_error", "81"),
        old.submit(example(), **{"x-fal-store-io": "0"}): ("completed", "81"),
    }
    for one in others:
        old.finish(one)
    urls = old.http.post(INITIATE, json={}).json()
    old.http.put(urls["upload_url"], content=png())
    running = old.submit(example(prompt="WORKS_SLOWLY"))
    old.until_running(running)
    waiting = old.submit(example(seed=4))
    keys = old.http.get("/.well-known/jwks.json").json()
    until(lambda: any((old.data_dir / "inputs").rglob(f"{waiting}.png")))

    target = tmp_path / "backup.tar"
    command("backup", str(target), "--videos", data_dir=old.data_dir)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert not list(tmp_path.glob("*.part"))
    old.cancel(running)
    old.cancel(waiting)  # what happens after the backup is not in it
    old.stop()

    command("restore", str(target), data_dir=tmp_path / "new")
    new = start_server(tmp_path / "new")
    use_key(new, key)
    assert new.http.get("/.well-known/jwks.json").json() == keys
    assert client(new, "wrong:key").get("/queue/fal-ai/hunyuan-custom/requests/x").status_code == 401
    result = new.result(finished).json()
    assert result["seed"] == 3
    path = result["video"]["url"].removeprefix(old.url)
    assert len(new.http.get(path).content) == result["video"]["file_size"]
    assert new.http.get(urls["file_url"].removeprefix(old.url)).status_code == 200
    new.until_running(running)
    new.cancel(running)
    assert new.finish(waiting).json()["seed"] == 4

    records = list(csv.DictReader(io.StringIO(command("usage", "--csv", data_dir=new.data_dir))))
    by_id = {record["request_id"]: record for record in records}
    assert {record["owner"] for record in records} == {"alice"}
    assert by_id[finished]["outcome"] == by_id[waiting]["outcome"] == "completed"
    assert by_id[running]["outcome"] == "client_cancelled"
    assert {one: (by_id[one]["outcome"], by_id[one]["frames"]) for one in others} == others
    assert (by_id[waiting]["frames"], by_id[waiting]["resolution"]) == ("81", "512p 16:9")
    assert float(by_id[finished]["gpu_seconds"]) > 0
    assert not command("usage", "--csv", "--owner", "bob", data_dir=new.data_dir).splitlines()[1:]
    assert not command("usage", "--csv", "--since", "2099-01-01", data_dir=new.data_dir).splitlines()[1:]


def test_a_restore_never_overwrites_and_takes_nothing_but_a_backup(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    command("keys", "create", "alice", data_dir=data_dir)
    target = tmp_path / "backup.tar"
    command("backup", str(target), data_dir=data_dir)
    evil = tmp_path / "evil.tar"
    with tarfile.open(evil, "w") as archive:
        archive.addfile(tarfile.TarInfo("../escaped"))
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(target.read_bytes()[:2000] + b"x" * 3000)
    refused = [
        (["restore", str(target)], data_dir, "exists"),
        (["backup", str(target)], data_dir, "exists"),
        (["backup", str(tmp_path / "b.tar")], tmp_path / "empty", "no database"),
        (["restore", str(evil)], tmp_path / "x", "no backup"),
        (["restore", str(damaged)], tmp_path / "y", "damaged.tar: not a backup"),
        (["restore", str(tmp_path / "none.tar")], tmp_path / "z", "none.tar: No such file"),
    ]
    for words, where, reason in refused:
        done = CliRunner().invoke(app, [*words, "--data-dir", str(where)])
        assert isinstance(done.exception, SettingsError), (words, done.exception)
        assert reason in str(done.exception)
    assert not (tmp_path / "escaped").exists()
    for name in ("x", "y"):
        assert not list((tmp_path / name).iterdir()), "what could not be restored leaves nothing"


def test_a_damaged_database_is_noticed_before_it_is_in_place(tmp_path: Path) -> None:
    data_dir, target, damaged = tmp_path / "data", tmp_path / "backup.tar", tmp_path / "damaged.tar"
    command("keys", "create", "alice", data_dir=data_dir)
    command("backup", str(target), data_dir=data_dir)
    content = bytearray(target.read_bytes())
    start = content.index(b"SQLite format 3") + 4096  # behind the first page
    content[start : start + 3 * 4096] = bytes(3 * 4096)
    damaged.write_bytes(content)
    new = tmp_path / "new"
    done = CliRunner().invoke(app, ["restore", str(damaged), "--data-dir", str(new)])
    assert "is damaged" in str(done.exception)
    assert not list(new.iterdir())
    command("restore", str(target), data_dir=new)
    assert "alice" in command("keys", "list", data_dir=new)


def test_a_backup_follows_no_link_and_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_dir, victim = tmp_path / "data", tmp_path / "victim"
    command("keys", "create", "alice", data_dir=data_dir)
    victim.write_text("precious")
    (tmp_path / "backup.tar.part").symlink_to(victim)
    words = ["backup", str(tmp_path / "backup.tar"), "--data-dir", str(data_dir)]
    assert "backup.tar.part exists" in str(CliRunner().invoke(app, words).exception)
    assert victim.read_text() == "precious"
    (tmp_path / "backup.tar.part").unlink()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr("server.serve.backup._add_files", fail)
        assert CliRunner().invoke(app, words).exception is not None
    assert not list(tmp_path.glob("backup.tar*"))
    assert CliRunner().invoke(app, words).exit_code == 0


def test_a_certificate_of_our_own_is_part_of_a_backup(tmp_path: Path) -> None:
    """Clients trust that authority: a restored server must be the one they know."""
    old, new = tmp_path / "old", tmp_path / "new"
    command("keys", "create", "alice", data_dir=old)
    files = self_signed(old / "tls", ["localhost"], datetime.now(UTC))
    command("backup", str(tmp_path / "backup.tar"), data_dir=old)
    command("restore", str(tmp_path / "backup.tar"), data_dir=new)
    for path in (files.authority, files.certificate, files.key):
        assert (new / "tls" / path.name).read_bytes() == path.read_bytes()
    assert stat.S_IMODE((new / "tls" / files.key.name).stat().st_mode) == 0o600
    assert (
        self_signed(new / "tls", ["localhost"], datetime.now(UTC)).authority.read_bytes()
        == files.authority.read_bytes()
    )


def test_secrets_are_drawn_once_and_differ(tmp_path: Path) -> None:
    command("keys", "create", "alice", data_dir=tmp_path)
    from server.db.connection import create_engine

    database = create_engine(f"sqlite:///{tmp_path / 'hunyuan-custom.sqlite'}")
    first = load_secret(database, WEBHOOKS)
    assert first == load_secret(database, WEBHOOKS) != load_secret(database, "other")
    assert len(first) == 32
    with sqlite3.connect(tmp_path / "hunyuan-custom.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM secret").fetchone() == (2,)
    connection.close()


@pytest.mark.parametrize("words", [["migrate"], ["serve", "--port", "0"], ["demo"]])
def test_a_data_directory_that_cannot_be_made_is_named(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "data"
    done = CliRunner().invoke(app, [*words, "--data-dir", str(folder)])
    assert isinstance(done.exception, SettingsError), done.exception
    assert str(done.exception) == f"data_dir: {folder} cannot be made: Not a directory"


def test_only_states_of_deliveries_can_be_listed(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["webhooks", "list", "--state", "waiting", "--data-dir", str(tmp_path)])
    assert done.exit_code == 2
    assert "delivered" in done.output
