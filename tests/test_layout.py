"""What the folders of the tests promise."""

import re
from pathlib import Path

TESTS = Path(__file__).parent


def test_no_test_imports_from_another_test() -> None:
    """Nor from a conftest: what several need stands in tests/harness or tests/fakes."""
    found = [
        f"{path.relative_to(TESTS)}: {line}"
        for path in TESTS.rglob("*.py")
        for line in path.read_text().splitlines()
        if re.match(r"(from|import) tests\.[\w.]*\b(test_\w+|conftest)\b", line)
    ]
    assert not found


def test_servers_are_started_in_one_way() -> None:
    """By `server.bench.deployment`, which ties them to the process of the test."""
    starts = re.compile(r'"-m",\s*"server",\s*"(serve|api|worker)"')
    assert not [str(path) for path in TESTS.rglob("*.py") if starts.search(path.read_text())]
