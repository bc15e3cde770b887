"""What the operator's page concludes from an overview, and that it has a word for all that the server says."""

from typing import Any

import pytest

from server.generator.state import Phase
from server.worker import measuring
from tests.harness.page_modules import in_node

STEPS = """
import { DrainWatch, figures, problems, units } from "./admin_state.js";
import { TABLES } from "./messages.js";
import "./admin_messages.js";

const worker = (id, beat, more) => ({
  id, state: "ready", detail: "", draining: true, stale: false, heartbeat_age_s: 100 - beat, ...more });
const seen = (running, ...workers) => ({
  at: 100, workers, running: [{ lost: true }, ...Array(running).fill({ lost: false })],
  failures: [], webhooks: { pending: 0, failed: 0 },
  queue: { running, waiting: { normal: 2, low: 1 }, oldest_wait_s: 5 },
  server: { disk_free_bytes: 10, disk_total_bytes: 20, min_free_bytes: 1 } });
const on = { draining: false };
const gone = worker("gone", 1, { stale: true, draining: false });
const watch = new DrainWatch();
const told = [
  [0, [worker("a", 1), worker("b", 1)]],
  [0, [worker("a", 2), worker("b", 2)]],
  [0, [worker("a", 3), worker("b", 2)]],
  [0, [worker("a", 3), worker("b", 2.0001)]],
  [0, [worker("a", 4), worker("b", 4), gone]],
  [1, [worker("a", 5), worker("b", 5)]],
  [0, [worker("a", 6), worker("b", 6, on)]],
  [0, [worker("a", 6), worker("b", 6)]],
  [0, [gone]],
].map(([running, workers]) => watch.see(seen(running, ...workers)));
const keys = (o, drain = "off") => problems(o, drain).map(({ key }) => key.replace("problem.", ""));
const full = seen(0, worker("a", 1, on));
full.server.disk_free_bytes = 0;
answer({
  told,
  units: [0, 0.4, 59.6, 61, 125, 599, 601, 3599, 3600, 7325, 90061, 86400 * 3].map((s) =>
    units(s).flat().join(" ")),
  problems: {
    none: keys(seen(0, worker("a", 1, on))),
    empty: keys(seen(0)),
    gone: keys(seen(0, gone)),
    stopped: keys(seen(0, worker("a", 1, { ...on, state: "stopped" }))),
    failed: keys(seen(0, worker("a", 1, { ...on, state: "failed" }), gone)),
    mixed: keys(seen(0, worker("a", 1, on), worker("b", 1))),
    drained: keys(seen(0, worker("a", 1)), "drained"),
    full: keys(full),
  },
  readiness: [[worker("a", 1, on)], [worker("a", 1, on), gone], [worker("a", 1)], [gone]].map(
    (workers) => figures(seen(0, ...workers)).find(([name]) => name === "workers")[2]),
  words: Object.fromEntries(["en", "de"].map((name) => [name, Object.assign({}, ...TABLES.map((of) => of[name]))])),
});
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found: dict[str, Any] = in_node(tmp_path_factory.mktemp("node"), STEPS)
    return found


def test_workers_are_drained_only_when_all_have_heard_of_it(page: dict[str, Any]) -> None:
    assert page["told"] == [
        "draining",  # nothing runs, but a worker may take a request until it has beaten twice
        "draining",
        "draining",
        "draining",
        "drained",
        "draining",
        "off",
        "draining",
        "off",
    ]


def test_times_have_two_units_at_most(page: dict[str, Any]) -> None:
    assert page["units"] == [
        "0 s", "0 s", "1 min", "1 min 1 s", "2 min 5 s", "9 min 59 s", "10 min", "59 min", "1 h", "2 h 2 min",
        "1 d 1 h", "3 d",
    ]  # fmt: skip


def test_what_needs_attention(page: dict[str, Any]) -> None:
    assert page["problems"] == {
        "none": [],
        "empty": ["noWorker"],
        "gone": ["noWorker", "stale"],
        "stopped": ["noWorker"],
        "failed": ["workerFailed", "stale"],
        "mixed": ["someDrain"],
        "drained": ["drained"],
        "full": ["disk"],
    }
    assert page["readiness"] == ["good", "warn", "warn", "bad"]


@pytest.mark.parametrize("language", ["en", "de"])
def test_it_has_a_word_for_all_that_the_server_says(page: dict[str, Any], language: str) -> None:
    words = page["words"][language]
    reasons = {measuring.RENDERED, measuring.WORKER_LOST, measuring.FAILED, *measuring._REASONS.values()}
    said = [f"state.{phase}" for phase in Phase] + [f"reason.{reason}" for reason in reasons]
    assert [key for key in said if key not in words] == []
