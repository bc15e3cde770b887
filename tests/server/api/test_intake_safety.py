"""Which requests have their words checked when they are submitted: what the settings and the request say."""

from pathlib import Path
from typing import Any

import pytest

from server.errors import SettingsError
from server.settings_loader import load_settings
from tests.harness.in_process import open_api
from tests.harness.live_server import APP, example


@pytest.mark.parametrize(
    ("settings", "asks", "refused"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"required": True}, False, True),
        ({"model": "none"}, True, False),
    ],
)
def test_a_request_may_switch_the_checker_off_unless_it_is_required(
    tmp_path: Path, settings: dict[str, Any], asks: bool, refused: bool
) -> None:
    with open_api(tmp_path, safety=settings) as api:
        body = example(prompt="porn", enable_safety_checker=asks)
        request_id = api.post(f"/queue/{APP}", json=body).json()["request_id"]
        status = api.get(f"/queue/{APP}/requests/{request_id}/status").json()["status"]
        assert status == ("COMPLETED" if refused else "IN_QUEUE")


def test_what_is_required_cannot_be_switched_off() -> None:
    with pytest.raises(SettingsError, match=r'safety: required is true and model is "none"'):
        load_settings(None, {"safety": {"model": "none", "required": True}})
