"""A request's trace over all processes, as a collector gets it: the last spans arrive when the server is stopped."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from server.fal.schemas import ENDPOINT
from tests.harness.live_server import FAST, Deployment, example, fake, until
from tests.harness.otlp_receiver import Collector, Received, collector

CLIENT = "00f067aa0ba902b7"
PROMPT = "a very private colour"


@dataclass
class Seen:
    collector: Collector
    requests: dict[str, str]
    log: str

    def spans(self, name: str) -> list[Received]:
        return self.collector.of(trace(name))

    def span(self, request: str, name: str) -> Received:
        (found,) = [span for span in self.spans(request) if span.name == name]
        return found


def trace(name: str) -> str:
    return name.encode().hex().ljust(32, "0")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("traces")
    settings = {**FAST, "generator__renderer": fake("by_prompt"), "jobs__max_attempts": 2, "webhooks__poll_s": 0.1}
    with pytest.MonkeyPatch.context() as patch, collector() as listening:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", listening.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
        bodies = {
            "good": example(prompt=PROMPT, image_url=f"{listening.url}/woman.jpg"),
            "raises": example(prompt="RAISES"),
            "killed": example(prompt="IS_KILLED"),
            "invalid": example(num_frames=-1),
        }
        with Deployment(folder / "data", settings, log=folder / "log") as deployment:
            server = deployment.serve()
            requests = {
                name: server.submit(
                    body,
                    webhook=f"{listening.url}/webhook" if name == "good" else "",
                    traceparent=f"00-{trace(name)}-{CLIENT}-01",
                )
                for name, body in bodies.items()
            }
            statuses = [server.finish(request_id).status_code for request_id in requests.values()]
            assert statuses == [200, 500, 503, 422]
            until(lambda: bool(listening.webhooks))
            assert server.stop() == 0
        yield Seen(listening, requests, (folder / "log").read_text())


def test_one_trace_leads_from_the_client_through_all_processes(seen: Seen) -> None:
    assert seen.collector.tree(trace("good"), CLIENT) == [
        (
            f"POST /queue/{ENDPOINT}",
            [
                "wait",
                ("prepare", ["fetch image", "decode image", "store image"]),
                ("render", ["denoise"]),
                ("publish", ["store", "store thumbnail", "transaction"]),
                "webhook",
            ],
        )
    ]
    found = seen.spans("good")
    assert {span.error for span in found} == {None}
    assert {span.attributes["hc.request_id"] for span in found if "hc.request_id" in span.attributes} == {
        seen.requests["good"]
    }
    assert all(span.began <= span.ended for span in found)
    submit, render = seen.span("good", f"POST /queue/{ENDPOINT}"), seen.span("good", "render")
    assert (submit.service, render.service) == ("hunyuan-custom-api", "hunyuan-custom-worker")
    assert submit.attributes["http.response.status_code"] == 200
    about = {name: render.attributes[f"hc.{name}"] for name in ("attempt", "worker_id", "model", "frames", "steps")}
    assert about == {"attempt": 1, "worker_id": "local", "model": "demo", "frames": 81, "steps": 10}
    assert seen.span("good", "denoise").events == ["step"] * 10
    assert seen.span("good", "wait").ended <= render.began


def test_the_receiver_of_a_webhook_can_go_on_with_the_trace(seen: Seen) -> None:
    (headers,) = seen.collector.webhooks
    assert headers["traceparent"] == f"00-{trace('good')}-{seen.span('good', 'webhook').span_id}-01"


def test_a_failed_request_says_where_and_why(seen: Seen) -> None:
    assert seen.span("raises", "render").error == "internal_server_error"
    assert seen.span("raises", "denoise").error == "GenerationError"
    assert seen.span("raises", f"POST /queue/{ENDPOINT}").error is None
    assert "publish" not in [span.name for span in seen.spans("raises")]


def test_each_attempt_is_a_span_of_the_same_trace(seen: Seen) -> None:
    first, second = (span for span in seen.spans("killed") if span.name == "render")
    assert [span.attributes["hc.attempt"] for span in (first, second)] == [1, 2]
    assert (first.error, second.error) == ("generator_lost", "runner_disconnected")
    assert first.parent_id == second.parent_id == seen.span("killed", f"POST /queue/{ENDPOINT}").span_id


def test_what_a_client_does_wrong_has_a_type_and_is_no_error_of_ours(seen: Seen) -> None:
    (only,) = seen.spans("invalid")
    assert (only.attributes["error.type"], only.error) == ("validation_error", None)


def test_nothing_of_the_user_is_in_a_span(seen: Seen) -> None:
    said = repr(seen.collector.spans)
    for private in (PROMPT, "woman.jpg", seen.collector.url, "'local'}"):
        assert private not in said


def test_lines_of_the_log_name_the_trace_in_each_process(seen: Seen) -> None:
    about = [line for line in seen.log.splitlines() if f"trace {trace('raises')}" in line]
    assert {line.split()[2] for line in about} >= {"generator", "worker"}
    assert all(seen.requests["raises"] in line for line in about)
