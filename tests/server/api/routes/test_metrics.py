"""Metrics: what is told, from which rows, and who may read it."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from starlette.testclient import TestClient

from server.api.access.key_table import KeyTable
from server.db.connection import create_engine
from server.db.tables import request_table
from server.errors import SettingsError
from server.jobs.measurements import Measured, MeasurementTable
from server.jobs.worker_registry import WorkerRegistry
from tests.harness.in_process import open_api, settings_for
from tests.harness.live_server import APP, ROOT, Server, example, until
from tests.harness.metrics import families, sample_names, value

TOKEN = "of-the-operator-0123"
MONITORING = ROOT / "docs" / "monitoring"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[TestClient]:
    with open_api(tmp_path, jobs={"min_free_bytes": 0}) as client:
        yield client


def database_of(folder: Path) -> sa.Engine:
    return create_engine(f"sqlite:///{folder / 'hunyuan-custom.sqlite'}")


def submit(api: TestClient, **fields: object) -> None:
    assert api.post(f"/queue/{APP}", json=example(**fields)).status_code == 200


def test_it_tells_of_the_queue_and_of_what_has_ended(api: TestClient, tmp_path: Path) -> None:
    submit(api)
    assert api.post(f"/queue/{APP}", json=example(), headers={"X-Fal-Queue-Priority": "low"}).status_code == 200
    submit(api, num_frames=1)
    hook = {"fal_webhook": "https://93.184.216.34/hook"}
    assert api.post(f"/queue/{APP}", json={}, params=hook).status_code == 200
    found = families(api.get("/metrics"))
    assert value(found, "hc_queue_depth", priority="normal") == 1
    assert value(found, "hc_queue_depth", priority="low") == 1
    assert 0 < (value(found, "hc_oldest_wait_seconds") or 0) < 60
    assert value(found, "hc_jobs_running") == 0
    assert value(found, "hc_jobs_total", status="failed", error_type="validation_error") == 2
    assert value(found, "hc_webhook_pending") == 1
    assert (value(found, "hc_disk_free_bytes") or 0) > 0
    with database_of(tmp_path).begin() as transaction:  # as retention does
        transaction.execute(request_table.delete())
    with open_api(tmp_path) as restarted:
        found = families(restarted.get("/metrics"))
    assert value(found, "hc_jobs_total", status="failed", error_type="validation_error") == 2
    assert value(found, "hc_queue_depth", priority="normal") == 0


def test_it_tells_of_workers_and_what_they_have_measured(api: TestClient, tmp_path: Path) -> None:
    registry = WorkerRegistry(database_of(tmp_path))
    gone = WorkerRegistry(database_of(tmp_path), clock=lambda: time.time() - 3600)
    for worker_id, workers in (("a", registry), ("b", registry), ("gone", gone)):
        workers.beat(worker_id, pid=1, generator_pid=2, state="ready", detail="")
        one = Measured(gpus=[{"gpu": 0, "used_bytes": 3, "peak_bytes": 2, "total_bytes": 5}])
        one.count_attempt("rendered")
        one.steps.add(0.3)
        one.stage("decode").add(7.0)
        MeasurementTable(database_of(tmp_path)).write(worker_id, one.model_dump_json())
    found = families(api.get("/metrics"))
    assert value(found, "hc_workers", state="ready") == 2
    assert (value(found, "hc_worker_heartbeat_age_seconds", worker="a") or 0) < 60
    assert (value(found, "hc_worker_heartbeat_age_seconds", worker="gone") or 0) > 3500
    assert value(found, "hc_attempts_total", reason="rendered") == 3
    assert value(found, "hc_step_seconds_bucket", le="0.25") == 0
    assert value(found, "hc_step_seconds_bucket", le="0.5") == 3
    assert value(found, "hc_stage_seconds_count", stage="decode") == 3
    assert value(found, "hc_stage_seconds_sum", stage="decode") == 21
    assert value(found, "hc_gpu_memory_used_bytes", worker="a", gpu="0") == 3
    assert value(found, "hc_gpu_memory_used_bytes", worker="gone", gpu="0") is None


def test_a_real_server_measures_its_work(server: Server) -> None:
    before = families(server.http.get("/metrics"))
    server.finish(server.submit(example(prompt="a colour")))

    def is_told() -> bool:
        found = families(server.http.get("/metrics"))
        names = ("hc_attempts_total", {"reason": "rendered"}), ("hc_stage_seconds_count", {"stage": "publish"})
        return all((value(found, name, **by) or 0) > (value(before, name, **by) or 0) for name, by in names)

    until(is_told)
    found = families(server.http.get("/metrics"))
    assert value(found, "hc_workers", state="ready") == 1
    assert (value(found, "hc_jobs_total", status="completed", error_type="") or 0) >= 1
    assert (value(found, "hc_gpu_seconds_total") or 0) > 0
    for stage in ("wait", "prepare"):
        assert (value(found, "hc_stage_seconds_count", stage=stage) or 0) >= 1


def test_clients_cannot_make_label_values(api: TestClient) -> None:
    for path in ("/x", "/y", f"/queue/{APP}/requests/1/status", f"/{APP}/requests/2/status"):
        assert api.get(path).status_code == 404
    assert api.request("BREW", "/health/live").status_code == 405
    assert api.post("/health/live", headers={"Origin": "https://evil.example"}).status_code == 403
    found = families(api.get("/metrics"))
    status = "/queue/fal-ai/hunyuan-custom/requests/{request_id}/status"
    assert value(found, "hc_http_requests_total", method="GET", route=status, status="404") == 2
    assert value(found, "hc_http_requests_total", method="GET", route="none", status="404") == 2
    assert value(found, "hc_http_requests_total", method="other", route="/health/live", status="405") == 1
    assert value(found, "hc_http_requests_total", method="POST", route="none", status="403") == 1
    assert value(found, "hc_http_request_seconds_count", route=status) == 2


def test_open_metrics_is_spoken_where_it_is_asked_for(api: TestClient) -> None:
    answer = api.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert sum(family.name.startswith("hc_") for family in open_metrics(answer.text)) > 15  # type: ignore[no-untyped-call]
    assert api.get("/metrics").headers["content-type"].startswith("text/plain; version=")


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, dict[str, str]]]:
    """An API with a token and two owners, and what each caller shows."""
    folder = tmp_path_factory.mktemp("keyed")
    with open_api(folder, api={"metrics_token": TOKEN, "proxy_owner": "local", "keys_reload_s": 1e-9}) as client:
        table = KeyTable(database_of(folder))
        yield (
            client,
            {
                "token": f"Bearer {TOKEN}",
                "operator": f"Bearer {table.create('local')}",
                "alice": f"Key {table.create('alice')}",
                "wrong": f"Bearer {TOKEN}0",
                "as a key": f"Key {TOKEN}",
                "empty": "",
            },
        )


@pytest.mark.parametrize(
    ("who", "status"),
    [("token", 200), ("operator", 200), ("alice", 403), ("wrong", 401), ("as a key", 401), ("empty", 401)],
)
def test_where_keys_are_metrics_are_the_operators(
    keyed: tuple[TestClient, dict[str, str]], who: str, status: int
) -> None:
    client, shown = keyed
    answer = client.get("/metrics", headers={"Authorization": shown[who]})
    assert answer.status_code == status
    assert ("hc_queue_depth" in answer.text) is (status == 200)


def test_without_a_key_or_through_the_proxy_there_are_none(keyed: tuple[TestClient, dict[str, str]]) -> None:
    client, shown = keyed
    assert client.get("/metrics").status_code == 401
    target = {"x-fal-target-url": "https://queue.fal.run/metrics"}
    assert "hc_queue_depth" not in client.get("/api/fal/proxy", headers=target).text
    assert client.get(f"/queue/{APP}/requests/x", headers={"Authorization": shown["token"]}).status_code == 401


def test_a_short_token_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"api\.metrics_token: .*16 or more"):
        settings_for(tmp_path, api={"metrics_token": "short"})


def test_the_metrics_of_the_dashboard_exist(api: TestClient) -> None:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    asked += re.findall(r"expr: (.+)", (MONITORING / "alerts.yml").read_text())
    assert len(asked) > 15
    known = sample_names(families(api.get("/metrics")).values())
    used = {name for query in asked for name in re.findall(r"\b(?:hc|process)_[a-z_]+", query)}
    assert used <= known
    documented = (ROOT / "docs" / "operations.md").read_text()
    assert not [
        name for name in known if name.startswith("hc_") and re.sub(r"_(bucket|sum|count)$", "", name) not in documented
    ]
