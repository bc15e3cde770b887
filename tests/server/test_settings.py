"""What is said about a wrong setting: which one, and where its value comes from."""

from pathlib import Path
from typing import Any

import pytest

from server.errors import SettingsError
from server.settings_loader import load_settings


def refusal(config: Path, content: str, options: dict[str, Any] | None = None) -> str:
    """What is said about that file."""
    config.write_text(content)
    with pytest.raises(SettingsError) as refused:
        load_settings(config, options)
    return str(refused.value)


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
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config = tmp_path / "config.toml"
    said = refusal(config, file, options)
    for words in told:
        assert words.format(file=config) in said
    assert said.count(str(config)) == sum("{file}" in words for words in told)


@pytest.mark.parametrize(
    ("file", "variables", "told"),
    [
        (
            '[generator]\nmemry_plan = "auto"',
            {},
            "generator.memry_plan: unknown setting; did you mean generator.memory_plan?",
        ),
        ("[generatr]\nranks = 2", {}, "generatr: unknown setting; did you mean generator?"),
        ("port = 9000", {}, "port: unknown setting; did you mean api.port?"),
        ("[video]\nquality = 1", {}, "video.quality: unknown setting; there are crf, encoder_threads"),
        ("", {"HUNYUAN_CUSTOM_API__PROT": "1"}, "api.prot: unknown setting; did you mean api.port?"),
        ("", {"HUNYUAN_CUSTOM_PORT": "1"}, "unknown setting; did you mean HUNYUAN_CUSTOM_API__PORT?"),
        (
            '[generator]\nmemory_plan = "residnt"',
            {},
            "Input should be 'auto', 'resident', 'offload_encoders' or 'stream_blocks', not 'residnt'; "
            "did you mean 'resident'?",
        ),
        ("[api]\nport = 99999", {}, "api.port: Input should be less than or equal to 65535, not 99999"),
        ("[video]\npreview_every_s = inf", {}, "video.preview_every_s: Input should be a finite number, not inf"),
        ("[webhooks]\nretry_delays_s = [1, 'x']", {}, "unable to parse string as a number, not 'x'"),
    ],
)
def test_an_error_says_what_was_given_and_what_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, variables: dict[str, str], told: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert told in refusal(tmp_path / "config.toml", file)


@pytest.mark.parametrize(
    "file",
    [
        'database_url = "mysql://user:s3cret@host/jobs"',
        '[api]\nmetrics_token = "s3cret"',
        "[object_storage]\nsecret_access_key = ['s3cret']",
        'object_storage = "s3cret"',
    ],
)
def test_an_error_repeats_no_secret(tmp_path: Path, file: str) -> None:
    assert "s3cret" not in refusal(tmp_path / "config.toml", file)
