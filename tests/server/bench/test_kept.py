"""`bench kept` measures what it says, on databases that it fills."""

import pytest
from typer.testing import CliRunner

from server.bench import kept
from server.cli.main import app


def test_it_measures_every_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "find_binaries", lambda: None)
    done = CliRunner().invoke(app, ["bench", "kept", "--requests", "300"])
    assert done.exit_code == 0, done.output
    heading, *lines = done.output.splitlines()
    assert heading.startswith("300 requests kept")
    assert [line[11:39].strip() for line in lines] == [
        "operator's overview",
        "totals for /metrics",
        "first page of an owner",
    ]
