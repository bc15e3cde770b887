"""What becomes of a job whose rendering ends in each possible way: its row, and its place in the queue."""

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from server.bench.waiting import LIMIT_S
from server.db.connection import create_engine
from server.db.migrations import migrate
from server.errors import INTERNAL_ERROR
from server.generator.faults import (
    DiskError,
    GenerationCancelled,
    GenerationError,
    GeneratorDied,
    GeneratorStalled,
    OutOfMemory,
)
from server.generator.messages import Finished, Generate
from server.jobs.dbos_queues import dbos_client
from server.jobs.job import Job, Status
from server.jobs.job_store import JobStore
from server.jobs.progress import ProgressTable
from server.jobs.worker_registry import WorkerRegistry
from server.settings_loader import load_settings
from server.storage.local import LocalStorage
from server.worker import claims
from server.worker.attempt import NotNow
from server.worker.render import RenderWorkflow
from tests.harness.new_job import new_job

Run = Callable[[Generate], Finished]


class ScriptedGenerator:
    """Does as it is told; `smaller_plans` are those that a lack of memory can still fall back on."""

    def __init__(self) -> None:
        self.ready = True
        self.run_job: Run = lambda _: Finished(seconds=1.0)
        self.smaller_plans: list[str] = []

    @contextmanager
    def reserved(self) -> Iterator[bool]:
        yield self.ready

    def wait_until_ready(self) -> None:
        pass

    def run(self, job: Generate, **_: object) -> Finished:
        return self.run_job(job)

    def shrink(self) -> str | None:
        return self.smaller_plans.pop(0) if self.smaller_plans else None


class Worker:
    """One worker's render workflow on a real database; `requeued` counts workflows that went back to the queue."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        url = f"sqlite:///{folder / 'x.sqlite'}"
        migrate(url, folder / "lock")
        self.database = create_engine(url)
        self.dbos = dbos_client(self.database)
        self.store = JobStore(self.database, self.dbos)
        self.storage, self.generator = LocalStorage(folder), ScriptedGenerator()
        self.requeued = 0
        settings = load_settings(None, {"data_dir": folder, "jobs": {"max_attempts": 2}})
        generator: Any = self.generator
        self.render = RenderWorkflow(
            self.store, self.storage, generator, self.dbos, progress=ProgressTable(self.database), settings=settings
        )
        monkeypatch.setattr(claims, "running_workflow", lambda: "workflow")
        monkeypatch.setattr(claims, "give_back_render", self._count_requeued)

    def _count_requeued(self, *_: object) -> None:
        self.requeued += 1

    def prepared_job(self, **options: Any) -> str:
        job = new_job(**options)
        key = self.storage.new_key("inputs", "image")
        self.storage.put_bytes(b"image", key)
        self.store.add(replace(job, source_key=key))
        self.store.prepared(self.job(job.id), key)
        return job.id

    def job(self, request_id: str) -> Job:
        job = self.store.get(request_id)
        assert job is not None
        return job

    def messages(self, request_id: str) -> list[str]:
        return [line.message for line in self.store.logs(request_id)]

    def close(self) -> None:
        self.dbos.destroy()
        self.database.dispose()


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    made = Worker(tmp_path, monkeypatch)
    yield made
    made.close()


def raising(error: Exception) -> Run:
    def run(job: Generate) -> Finished:
        Path(job.checkpoint).write_bytes(b"latents")
        for name in (job.output, f"{job.output}.part", job.thumbnail or ""):
            Path(name).write_bytes(b"of a generator that was killed when it had finished")
        raise error

    return run


def files_left(worker: Worker) -> list[str]:
    return [path.name for path in worker.storage.scratch.rendering("").iterdir()]


def test_a_video_is_handed_on(worker: Worker) -> None:
    request_id = worker.prepared_job()
    worker.render.run(request_id)
    job = worker.job(request_id)
    assert (job.status, job.attempt, job.video_key is not None) == (Status.IN_PROGRESS, 1, True)
    assert [one.name for one in worker.dbos.list_workflows(name="publish")] == ["publish"]
    assert worker.requeued == 0


@pytest.mark.parametrize(("error", "status"), [(GeneratorDied("x"), 503), (GeneratorStalled("x"), 504)])
def test_a_lost_generator_is_a_fault_of_which_a_job_has_so_many(worker: Worker, error: Exception, status: int) -> None:
    worker.generator.run_job = raising(error)
    request_id = worker.prepared_job()
    worker.render.run(request_id)
    job = worker.job(request_id)
    assert (job.status, job.faults, worker.requeued) == (Status.IN_QUEUE, 1, 1)
    assert files_left(worker) == [f"{request_id}.checkpoint"], "the next attempt goes on from there"
    worker.render.run(request_id)
    job = worker.job(request_id)
    assert (job.status, job.response_status, worker.requeued) == (Status.COMPLETED, status, 1)
    assert files_left(worker) == []


def test_a_job_that_must_not_be_retried_ends_with_its_first_fault(worker: Worker) -> None:
    worker.generator.run_job = raising(GeneratorDied("x"))
    request_id = worker.prepared_job(no_retry=True)
    worker.render.run(request_id)
    assert worker.job(request_id).response_status == 503
    assert worker.requeued == 0


@pytest.mark.parametrize(
    ("error", "status"),
    [(GenerationError("x"), 500), (ValueError("unforeseen"), INTERNAL_ERROR.status)],
)
def test_an_error_that_would_repeat_ends_the_job(worker: Worker, error: Exception, status: int) -> None:
    worker.generator.run_job = raising(error)
    request_id = worker.prepared_job()
    worker.render.run(request_id)
    job = worker.job(request_id)
    assert (job.status, job.response_status, worker.requeued) == (Status.COMPLETED, status, 0)


def test_lack_of_memory_is_tried_again_once_with_a_smaller_plan_and_is_no_fault(worker: Worker) -> None:
    worker.generator.run_job = raising(OutOfMemory("x"))
    worker.generator.smaller_plans = ["offload_encoders", "stream_blocks"]
    request_id = worker.prepared_job()
    worker.render.run(request_id)
    job = worker.job(request_id)
    assert (job.status, job.faults, worker.requeued) == (Status.IN_QUEUE, 0, 1)
    worker.render.run(request_id)
    assert worker.job(request_id).response_status == 503
    assert worker.generator.smaller_plans == ["stream_blocks"]


@pytest.mark.parametrize(
    "error", [GenerationCancelled(), GenerationError("x"), GeneratorDied("x"), ValueError("unforeseen")]
)
def test_a_cancel_while_it_renders_ends_the_job_whether_the_generator_heard_of_it_or_not(
    worker: Worker, error: Exception
) -> None:
    request_id = worker.prepared_job(no_retry=True)

    def cancelled(_: Generate) -> Finished:
        worker.store.cancel(request_id)
        raise error

    worker.generator.run_job = cancelled
    worker.render.run(request_id)
    assert worker.job(request_id).response_status == 499


def test_a_job_past_its_start_deadline_is_not_rendered(worker: Worker) -> None:
    worker.generator.run_job = raising(AssertionError("it was rendered"))
    request_id = worker.prepared_job(start_deadline=1.0)
    worker.render.run(request_id)
    assert worker.job(request_id).response_status == 504


def test_a_worker_that_was_frozen_after_a_claim_in_time_renders_the_job(worker: Worker) -> None:
    request_id = worker.prepared_job(start_deadline=1.0)
    worker.store._clock = lambda: 0.5  # when it is claimed; it is later now
    worker.render.run(request_id)
    assert worker.job(request_id).video_key is not None


def test_a_worker_without_a_model_claims_nothing(worker: Worker) -> None:
    worker.generator.ready = False
    request_id = worker.prepared_job()
    worker.render.run(request_id)
    job = worker.job(request_id)
    assert (job.status, job.attempt, worker.requeued) == (Status.IN_QUEUE, 0, 1)


def test_only_the_job_that_found_no_disk_pauses_its_worker(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("server.worker.render.time.sleep", pauses.append)
    worker.generator.run_job = raising(DiskError("full"))
    request_id = worker.prepared_job()
    worker.render.run(request_id)
    assert pauses == [1.0]
    worker.generator.ready = False
    worker.render.run(request_id)
    assert (worker.requeued, pauses) == (2, [1.0])


def test_a_disk_that_turns_read_only_is_a_fault_and_not_the_end(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("server.worker.render.time.sleep", Mock())
    monkeypatch.setattr(worker.storage.scratch, "forget_rendering", refuse)
    worker.generator.run_job = raising(DiskError("read-only"))
    request_id = worker.prepared_job()
    worker.render.run(request_id)
    job = worker.job(request_id)
    assert (job.status, job.faults, worker.requeued) == (Status.IN_QUEUE, 1, 1)


def test_a_worker_that_drains_claims_nothing_until_it_may_again(worker: Worker) -> None:
    request_id = worker.prepared_job()
    worker.render.claims.allow(False)
    assert worker.render.claims.claim(worker.job(request_id)) == NotNow()
    worker.render.claims.allow(True)
    worker.render.run(request_id)
    assert worker.job(request_id).attempt == 1


def test_a_drain_holds_before_the_worker_has_read_of_it(worker: Worker) -> None:
    request_id, registry, claims = worker.prepared_job(), WorkerRegistry(worker.database), worker.render.claims

    def beat() -> None:
        claims.allow(not registry.beat("local", pid=1, generator_pid=2, state="ready", detail=""))

    beat()
    registry.drain(True)
    assert claims.claim(worker.job(request_id)) == NotNow()
    waiting = threading.Thread(target=claims.wait_until_allowed, daemon=True)
    waiting.start()
    beat()
    registry.drain(False)
    assert waiting.is_alive()
    beat()
    waiting.join(LIMIT_S)
    worker.render.run(request_id)
    assert worker.job(request_id).attempt == 1


def test_a_stop_in_the_middle_gives_the_job_back_without_a_fault(worker: Worker) -> None:
    request_id = worker.prepared_job()

    def stopped(_: Generate) -> Finished:
        worker.render.claims.release()
        raise GeneratorDied("it ends with its worker")

    worker.generator.run_job = stopped
    worker.render.run(request_id)
    job = worker.job(request_id)
    assert (job.status, job.faults) == (Status.IN_QUEUE, 0)
    assert "The worker is stopping; the job goes on with the next one" in worker.messages(request_id)


@pytest.mark.parametrize(
    ("wanted", "allowed", "expanded"),
    [
        (True, True, True),
        (True, False, False),
        (False, True, False),
        (False, False, False),
    ],
)
def test_a_prompt_is_expanded_if_request_and_server_agree(
    worker: Worker, wanted: bool, allowed: bool, expanded: bool, tmp_path: Path
) -> None:
    asked: list[Generate] = []

    def run(job: Generate) -> Finished:
        asked.append(job)
        return Finished(seconds=1.0)

    settings = load_settings(None, {"data_dir": tmp_path, "prompt": {"expansion": allowed}})
    generator: Any = worker.generator
    worker.generator.run_job = run
    render = RenderWorkflow(
        worker.store, worker.storage, generator, worker.dbos, progress=ProgressTable(worker.database), settings=settings
    )
    request_id = worker.prepared_job(asked={"enable_prompt_expansion": wanted})
    render.run(request_id)
    assert [job.expand_prompt for job in asked] == [expanded]
    off = "Prompt expansion is switched off on this server"
    assert (off in worker.messages(request_id)) is (wanted and not allowed)
