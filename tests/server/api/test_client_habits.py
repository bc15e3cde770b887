"""What programs send besides what is documented, each with the right result in the end."""

import json

import pytest
from PIL import Image, ImageChops

from tests.harness.data_uris import SPELLINGS
from tests.harness.live_server import APP, Server, example
from tests.harness.real_pictures import encoded, gradient


def is_stored(server: Server, request_id: str) -> bool:
    """Whether the identity image of this request has the gradient's pixels."""
    (stored,) = (server.data_dir / "inputs").rglob(f"{request_id}.png")
    return ImageChops.difference(Image.open(stored), gradient()).getbbox() is None


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_data_uri_in_any_spelling_is_the_picture(server: Server, name: str) -> None:
    uri = SPELLINGS[name](encoded(gradient(), "PNG"))
    request_id = server.submit(example(image_url=uri, num_inference_steps=10))
    answer = server.finish(request_id)
    assert answer.status_code == 200, answer.text
    assert is_stored(server, request_id)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-le"])
def test_a_body_in_any_encoding_of_json(server: Server, encoding: str) -> None:
    body = json.dumps(example(prompt="REPEATS Grüße 👩", num_inference_steps=10), ensure_ascii=False)
    answer = server.http.post(f"/queue/{APP}", content=body.encode(encoding))
    assert answer.status_code == 200, answer.text
    request_id = answer.json()["request_id"]
    assert server.finish(request_id).status_code == 200
    assert "REPEATS Grüße 👩" in server.messages(request_id)


def test_half_an_emoji_becomes_a_replacement_character(server: Server) -> None:
    body = json.dumps(example(num_inference_steps=10, prompt="REPEATS cut \ud83d", negative_prompt="\udc69 cut"))
    answer = server.http.post(f"/queue/{APP}", content=body)
    assert answer.status_code == 200, answer.text
    request_id = answer.json()["request_id"]
    assert server.finish(request_id).status_code == 200
    assert "REPEATS cut \ufffd" in server.messages(request_id)


def test_a_seed_of_minus_one_is_random(server: Server) -> None:
    drawn = set()
    for seed in (-1, "-1"):
        output = server.finish(server.submit(example(seed=seed, num_inference_steps=10))).json()
        drawn.add(output["seed"])
        assert output["seed"] >= 0
    assert len(drawn) == 2
    assert server.finish(server.submit(example(seed=-2, num_inference_steps=10))).json()["seed"] == -2
