"""Two schemas: fal's for the model's queue, and FastAPI's for this server."""

import json
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from tests.harness.in_process import open_api
from tests.harness.live_server import APP

URL = "/api/openapi/queue/openapi.json"
FIELDS: dict[str, dict[str, Any]] = {
    "prompt": {"type": "string", "maxLength": 500},
    "negative_prompt": {"type": "string", "maxLength": 10_000},
    "image_url": {"type": "string"},
    "num_inference_steps": {"type": "integer", "default": 30, "minimum": 10, "maximum": 30},
    "seed": {"type": "integer"},
    "aspect_ratio": {"type": "string", "default": "16:9", "enum": ["16:9", "9:16"], "title": "Aspect Ratio (W:H)"},
    "resolution": {"type": "string", "default": "512p", "enum": ["512p", "720p"]},
    "fps": {"type": "integer", "default": 25, "minimum": 16, "maximum": 30},
    "cfg_scale": {"type": "number", "default": 7.5, "minimum": 1.5, "maximum": 13},
    "num_frames": {"type": "integer", "default": 129, "minimum": 81, "maximum": 129},
    "enable_prompt_expansion": {"type": "boolean", "default": True},
    "enable_safety_checker": {"type": "boolean", "default": True},
}


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    with open_api(tmp_path_factory.mktemp("api"), api={"public_base_url": "https://gpu.example/hc"}) as client:
        return client.get(URL, params={"endpoint_id": APP}).json(), client.get("/openapi.json").json()


def test_fals_schema_is_valid_and_of_fals_shape(schemas: tuple[dict[str, Any], dict[str, Any]]) -> None:
    schema, _ = schemas
    validate(schema)
    assert schema["openapi"] == "3.0.4"
    assert schema["info"]["title"] == f"Queue OpenAPI for {APP}"
    assert schema["servers"] == [{"url": "https://gpu.example/hc/queue"}]
    request = f"/{APP}/requests/{{request_id}}"
    assert list(schema["paths"]) == [f"{request}/status", f"{request}/cancel", f"/{APP}", request]
    body = schema["components"]["schemas"]["HunyuanCustomInput"]
    assert (body["title"], body["required"]) == ("HunyuanCustomRequest", ["prompt", "image_url"])
    assert body["x-fal-order-properties"] == list(body["properties"]) == list(FIELDS)
    for name, expected in FIELDS.items():
        assert expected.items() <= body["properties"][name].items(), name
    output = schema["components"]["schemas"]["HunyuanCustomOutput"]
    assert output["properties"]["video"]["allOf"] == [{"$ref": "#/components/schemas/File"}]
    assert (output["required"], output["x-fal-order-properties"]) == (["video", "seed"], ["video", "seed"])
    assert "null" not in json.dumps(schema), "OpenAPI 3.0 knows no null type"


def test_another_endpoint_is_404(tmp_path: Path) -> None:
    with open_api(tmp_path) as client:
        answer = client.get(URL, params={"endpoint_id": "fal-ai/flux"})
        assert client.get(URL).status_code == 200
    assert (answer.status_code, answer.json()["detail"]) == (404, 'Application "flux" not found')


def test_our_own_schema_is_valid_and_complete(schemas: tuple[dict[str, Any], dict[str, Any]]) -> None:
    _, schema = schemas
    validate(schema)
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            answers = set(operation["responses"])
            assert {"400", "403", "405", "413", "431", "500", "503"} <= answers, (method, path)
            assert ("401" in answers) or not operation.get("security"), (method, path)
            assert ("404" in answers) or "{" not in path, (method, path)
            body = operation.get("requestBody")
            assert ("429" in answers) or body is None, (method, path)
            success = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
            described = path == "/api/fal/proxy" or all(
                content.get("schema") != {} or "json" not in kind
                for answer in success
                for kind, content in answer.get("content", {}).items()
            )
            assert described, (method, path)
    status = schema["paths"][f"/queue/{APP}/requests/{{request_id}}/status"]["get"]
    assert {"200", "202"} <= set(status["responses"])
    result = schema["paths"][f"/queue/{APP}/requests/{{request_id}}"]["get"]
    assert {"200", "400", "404", "422", "499", "500", "503", "504"} <= set(result["responses"])
