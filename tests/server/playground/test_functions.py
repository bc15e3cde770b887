"""What the playground computes: bodies of requests, and figures for people."""

from pathlib import Path
from typing import Any

from server.fal.schemas import HunyuanCustomInput, parse_json_object, validate_input
from tests.harness.page_modules import in_node

SCHEMA = HunyuanCustomInput.model_json_schema()
IMAGE = "http://127.0.0.1/cdn/files/a/b/c.png"


def body(folder: Path, **values: Any) -> HunyuanCustomInput:
    """What the API reads of a form with these values."""
    script = 'import * as schema from "./schema.js";\n\n' + (
        "const fields = schema.fieldsOf(SCHEMA);\n"
        "const values = { ...schema.valuesOf(fields, {}, null), ...VALUES };\n"
        "answer(schema.bodyText(schema.chosen(fields, values)));"
    )
    text = in_node(folder, script, SCHEMA=SCHEMA, VALUES={"prompt": "x", "image_url": IMAGE} | values)
    parsed = parse_json_object(text.encode())
    assert set(parsed) == {"prompt", "image_url", *values}, "defaults are not named"
    return validate_input(parsed)


def test_a_form_becomes_a_request(tmp_path: Path) -> None:
    odd = 'a "quoted" \\ line\nand $HOME, ä, 猫, \u2028'
    sent = body(tmp_path, prompt=odd, cfg_scale=3.5, num_frames=85, enable_safety_checker=False, negative_prompt="")
    assert (sent.prompt, sent.cfg_scale, sent.num_frames) == (odd, 3.5, 85)
    assert (sent.enable_safety_checker, sent.negative_prompt) == (False, "")


def test_a_seed_of_64_bits_is_not_rounded(tmp_path: Path) -> None:
    assert body(tmp_path, seed=str(2**64 - 1)).seed == 2**64 - 1


def test_a_request_of_the_history_fills_the_form(tmp_path: Path) -> None:
    script = 'import * as schema from "./schema.js";\n\nanswer(schema.valuesOf(schema.fieldsOf(SCHEMA), INPUT, "7"));'
    values = in_node(tmp_path, script, SCHEMA=SCHEMA, INPUT={"prompt": "x", "fps": 16, "image_url": None})
    defaults = {
        name: field.default for name, field in HunyuanCustomInput.model_fields.items() if not field.is_required()
    }
    assert values == defaults | {"prompt": "x", "fps": 16, "image_url": None, "seed": "7"}


def test_figures_for_people(tmp_path: Path) -> None:
    script = 'import * as format from "./format.js";\n\n' + (
        "answer([format.duration(4.25), format.duration(4.25, 'de'), format.duration(125), format.duration(3780),"
        " format.roughly(0.2), format.roughly(43), format.roughly(420), format.bytes(459988), format.bytes(2_500_000),"
        " format.ago(100, 280), format.ago(100, 100.4, 'de'), format.stepNow(0, 600, 30), format.stepNow(599, 600, 30),"
        " format.stepNow(600, 600, 30)]);"
    )
    assert in_node(tmp_path, script) == [
        "4.3 s", "4,3 s", "2 min 05 s", "1 h 03 min", "1 s", "45 s", "7 min", "460 kB", "2.5 MB",
        "3 min. ago", "jetzt", 1, 30, 30,
    ]  # fmt: skip


def test_progress_never_goes_back(tmp_path: Path) -> None:
    stages = ["prepare", "expand", "encode", "denoise", "decode", "publish"]
    script = 'import { percent } from "./format.js";\n\n' + (
        "answer(STAGES.flatMap((stage) => [0, 1, 2, 3].map((done) => percent({ stage, done, total: 3 }))));"
    )
    seen = in_node(tmp_path, script, STAGES=stages)
    assert (seen, seen[0], seen[-1]) == (sorted(seen), 0, 100)


def test_an_address_that_is_none_is_not_taken_for_an_upload(tmp_path: Path) -> None:
    script = 'import { ownFile } from "./http.js";\nimport { isOwnUpload } from "./upload.js";\n\n' + (
        "answer(URLS.map((url) => [isOwnUpload(url), ownFile(url)]));"
    )
    mine, broken, foreign = IMAGE, "http://[/cdn/files/a/b/c.png", "https://elsewhere.example/c.png"
    found = in_node(tmp_path, script, URLS=[mine, broken, foreign])
    assert [named for named, _ in found] == [True, False, False]
    assert found[0][1].endswith("/cdn/files/a/b/c.png")
    assert [address for _, address in found[1:]] == [broken, foreign]
