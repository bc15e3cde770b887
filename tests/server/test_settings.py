"""What is said about a wrong setting: which one, and where its value comes from."""

from pathlib import Path
from typing import Any

import pytest

from server.errors import SettingsError
from server.settings_loader import load_settings


@pytest.mark.parametrize(
    ("file", "variables", "options", "told"),
    [
        ("[api]\nport = 99999", {}, {}, ["{file}: api.port: "]),
        ("", {"hunyuan_custom_api__port": "99999"}, {}, ["hunyuan_custom_api__port: api.port: "]),
        ("", {"HUNYUAN_CUSTOM_API": '{"port": 99999}'}, {}, ["HUNYUAN_CUSTOM_API: api.port: "]),
        ("[api]\nport = 1", {}, {"api": {"port": 99999}}, ["command line: api.port: "]),
        ("", {"HUNYUAN_CUSTOM_API__PORT": "1"}, {"api": {"port": 99999}}, ["command line: api.port: "]),
        ("", {"HUNYUAN_CUSTOM_ALLOW_PRIVATE_NETWORKS": '["x"]'}, {}, ["HUNYUAN_CUSTOM_ALLOW_PRIVATE_NETWORKS: "]),
        ('[generator]\nattention = "cudnn"', {}, {}, ["{file}: generator.attention: Input should be 'auto', 'sdpa',"]),
        ("foo = 1", {"HUNYUAN_CUSTOM_API__PORT": "x"}, {}, ["{file}: foo: ", "HUNYUAN_CUSTOM_API__PORT: api.port: "]),
    ],
)
def test_an_error_names_the_place_of_the_value(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    variables: dict[str, str],
    options: dict[str, Any],
    told: list[str],
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(file)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        load_settings(config, options)
    for words in told:
        assert words.format(file=config) in str(refused.value)
    assert str(refused.value).count(str(config)) == sum("{file}" in words for words in told)
