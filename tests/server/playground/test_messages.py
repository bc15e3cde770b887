"""The words of the pages: both languages say everything, and every text that a page asks for exists."""

import re
from pathlib import Path

import pytest

from server.fal.schemas import HunyuanCustomInput
from tests.harness.page_modules import FILES, in_node

SOURCES = sorted([*FILES.glob("*.js"), *FILES.glob("*.html")])
TABLES = [path for path in SOURCES if path.name.endswith("messages.js")]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, str]]]:
    imports = "".join(f'import "./{path.name}";\n' for path in TABLES)
    script = f'import {{ TABLES }} from "./messages.js";\n{imports}\n\nanswer(TABLES);'
    found: list[dict[str, dict[str, str]]] = in_node(tmp_path_factory.mktemp("node"), script)
    return found


def test_both_languages_have_the_same_texts(tables: list[dict[str, dict[str, str]]]) -> None:
    assert len(tables) == len(TABLES)
    for table in tables:
        assert list(table["en"]) == list(table["de"])
        for key, text in table["en"].items():
            assert text.strip(), key
            assert table["de"][key].strip(), key
            assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", table["de"][key])), key


def test_no_key_stands_twice(tables: list[dict[str, dict[str, str]]]) -> None:
    keys = [key for table in tables for key in table["en"]]
    assert sorted(keys) == sorted(set(keys))


def test_every_text_that_a_page_names_exists_and_every_text_is_named(tables: list[dict[str, dict[str, str]]]) -> None:
    known = {key for table in tables for key in table["en"]}
    text = "\n".join(path.read_text() for path in SOURCES if path not in TABLES)
    text += "".join(_code_of(path) for path in TABLES)
    quoted = set(re.findall(r'"([\w.]+)"', text))
    rooms = {key.split(".")[0] for key in known if "." in key}
    named = set(re.findall(r'(?:\bt\(|\bt: |data-t(?:-\w+)?=)"([\w.]+)"', text))
    named |= {key for key in quoted if "." in key and key.split(".")[0] in rooms}
    assert not {key for key in named - known if f"{key}.one" not in known}
    # `stage.short.${name}` names all that begin so.
    begun = tuple(begin for begin in re.findall(r"`([\w.]+\.)\$\{", text))
    ends = (".one", ".other")
    counted = {key for key in known if key.endswith(ends) and key.rpartition(".")[0] in quoted}
    unused = {key for key in known - quoted - counted if not key.startswith(begun)}
    assert not unused


def test_every_field_of_the_input_has_a_name(tables: list[dict[str, dict[str, str]]]) -> None:
    fields = {f"field.{name}" for name in HunyuanCustomInput.model_fields}
    assert fields == {key for table in tables for key in table["de"] if key.startswith("field.")}


def _code_of(table: Path) -> str:
    """What a file of messages has beside its table."""
    return table.read_text().partition("addMessages({")[0]
