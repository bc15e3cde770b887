"""The life of jobs as a state machine: whatever happens in whatever order, a job ends once and truthfully."""

import threading
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from server.db.tables import progress_table, request_table
from server.errors import INTERNAL_ERROR
from server.fal.submit_headers import Priority
from server.generator.faults import GeneratorDied
from server.jobs.dbos_queues import dbos_client
from server.jobs.job import CancelOutcome, Job, Rendered, Status
from server.jobs.job_store import JobStore, WorkerDrains
from server.jobs.progress import Progress, ProgressTable
from server.jobs.worker_registry import WorkerRegistry
from tests.harness.new_job import new_job
from tests.harness.queue_positions import QueuePositions


def render(store: JobStore, attempt: Job) -> Job:
    """The job as `publish` sees it, if it still is this attempt's."""
    video = Rendered(f"files/aa/{'a' * 32}/{attempt.attempt}.mp4", "/tmp/x.mp4", "w", 1.0)
    store.rendered(attempt, video)
    return replace(attempt, video_key=video.video_key)


@pytest.fixture(scope="module")
def database(either_database: sa.Engine) -> sa.Engine:
    return either_database


class Lives(RuleBasedStateMachine):
    """Submits, claims, crashes, cancels and finishes, by workers of which some are zombies."""

    database: sa.Engine
    jobs = Bundle("jobs")
    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        self.dbos = dbos_client(self.database)
        self.store = JobStore(self.database, self.dbos)
        self.positions = QueuePositions(self.database)
        self.ids: list[str] = []
        self.ends: dict[str, tuple[Any, ...]] = {}
        self.attempts_seen: dict[str, int] = {}

    def teardown(self) -> None:
        for request_id in self.ids:  # leave an empty queue to the next example
            self.store.fail(request_id, INTERNAL_ERROR)
        self.dbos.destroy()
        self.positions.close()

    @rule(target=jobs, priority=st.sampled_from(Priority))
    def submit(self, priority: Priority) -> str:
        job = new_job(priority)
        accepted = self.store.add(job)
        assert accepted.queue_position == self.positions.position(job.id)
        self.ids.append(job.id)
        return job.id

    @rule(target=jobs, refused=st.just(INTERNAL_ERROR))
    def submit_invalid(self, refused: Any) -> str:
        job = new_job()
        self.store.add_finished(job, refused)
        self.ids.append(job.id)
        return job.id

    @rule(target=attempts, job=jobs)
    def claim(self, job: str) -> Job | None:
        """Also of a running job: its worker crashed, or is about to become a zombie."""
        return self.store.claim(job, "w")

    @rule(attempt=attempts)
    def release(self, attempt: Job | None) -> None:
        if attempt:
            self.store.release(attempt)

    @rule(attempt=attempts)
    def complete(self, attempt: Job | None) -> None:
        if attempt is None:
            return
        before = self.current(attempt.id)
        video = render(self.store, attempt)
        done = self.store.complete(video, video_bytes=1, inference_time=1.0)
        mine = before.attempt == attempt.attempt and before.status is not Status.IN_QUEUE
        again = before.response_status == 200  # its first answer was lost
        assert done == (mine and (again or (before.status is not Status.COMPLETED and not before.cancel_requested)))

    @rule(attempt=attempts)
    def fail(self, attempt: Job | None) -> None:
        if attempt:
            before = self.current(attempt.id)
            failed = self.store.fail(attempt.id, GeneratorDied.told, attempt=attempt.attempt)
            assert failed == (before.status is not Status.COMPLETED and before.attempt == attempt.attempt)

    @rule(attempt=attempts, picture=st.sampled_from([None, b"picture"]))
    def report(self, attempt: Job | None, picture: bytes | None) -> None:
        if attempt:
            ProgressTable(self.database).write(attempt, Progress("denoise", attempt.attempt, 30, preview=1), picture)

    @rule(attempt=attempts)
    def stop_cancelled(self, attempt: Job | None) -> None:
        if attempt:
            self.store.finish_cancelled(attempt)

    @rule(job=jobs)
    def cancel(self, job: str) -> None:
        before = self.current(job).status
        expected = {
            Status.IN_QUEUE: CancelOutcome.WAS_QUEUED,
            Status.IN_PROGRESS: CancelOutcome.WAS_RUNNING,
            Status.COMPLETED: CancelOutcome.ALREADY_COMPLETED,
        }
        assert self.store.cancel(job) is expected[before]

    @invariant()
    def one_end_and_it_stays(self) -> None:
        for request_id in self.ids:
            job = self.current(request_id)
            assert job.attempt >= self.attempts_seen.get(request_id, 0)
            self.attempts_seen[request_id] = job.attempt
            assert job.faults <= max(job.attempt - 1, 0)
            if job.status is Status.COMPLETED:
                end = (job.response_status, job.response_json, job.video_bytes, job.finished_at)
                assert self.ends.setdefault(request_id, end) == end
                assert (job.response_status == 200) == (job.video_bytes is not None), "a result has a file"
                assert job.finished_at is not None
            else:
                assert job.response_status is None

    @invariant()
    def progress_is_that_of_the_running_attempt(self) -> None:
        with self.database.connect() as connection:
            rows = connection.execute(sa.select(progress_table.c.request_id, progress_table.c.done)).all()
        for request_id, attempt in rows:
            job = self.current(request_id)
            assert (job.status, job.attempt) == (Status.IN_PROGRESS, attempt)

    @invariant()
    def positions_are_a_permutation(self) -> None:
        waiting = [job for job in map(self.current, self.ids) if job.status is Status.IN_QUEUE]
        positions = [self.positions.position(job.id) for job in sorted(waiting, key=lambda job: job.dbos_priority)]
        assert positions == list(range(len(waiting)))

    def current(self, request_id: str) -> Job:
        job = self.store.get(request_id)
        assert job is not None
        return job


def test_jobs_keep_their_promises(database: sa.Engine) -> None:
    Lives.database = database
    case = Lives.TestCase()
    case.settings = settings(
        max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
    )
    case.runTest()


def test_a_claim_whose_answer_was_lost_is_no_fault_when_it_is_repeated(database: sa.Engine) -> None:
    dbos = dbos_client(database)
    store = JobStore(database, dbos)
    job = new_job()
    store.add(job)
    first, again = (store.claim(job.id, "w", attempt=0) for _ in range(2))
    assert first
    assert again
    assert (again.attempt, again.faults) == (2, 0)
    assert store.claim(job.id, "another", attempt=0) is None
    lost = store.claim(job.id, "another", attempt=again.attempt)
    assert lost
    assert lost.faults == 1
    assert store.fail(job.id, INTERNAL_ERROR)
    dbos.destroy()


def test_a_job_that_is_deleted_needs_its_checkpoint_no_more(database: sa.Engine) -> None:
    store = JobStore(database, dbos_client(database))
    job = new_job()
    store.add(job)
    assert not store.is_over(job.id)
    with database.begin() as transaction:
        transaction.execute(request_table.delete().where(request_table.c.id == job.id))
    assert store.is_over(job.id)


def test_a_start_deadline_is_over_once_the_job_has_started(database: sa.Engine) -> None:
    """Also when its worker stops and gives it back."""
    now = [1000.0]
    dbos = dbos_client(database)
    store = JobStore(database, dbos, clock=lambda: now[0])
    started, waiting = replace(new_job(), start_deadline=1005.0), replace(new_job(), start_deadline=1005.0)
    for job in (started, waiting):
        store.add(job)
    attempt = store.claim(started.id, "w")
    assert attempt
    now[0] = 1010.0
    assert store.release(attempt)
    assert store.expire_overdue() == 1
    ends = [store.get(job.id) for job in (started, waiting)]
    assert [end and end.status for end in ends] == [Status.IN_QUEUE, Status.COMPLETED]
    store.cancel(started.id)
    dbos.destroy()


def test_cancel_and_finish_race_to_one_end(database: sa.Engine) -> None:
    """200 rounds on both databases together, two threads released at once: the loser learns that it lost."""
    dbos = dbos_client(database)
    store = JobStore(database, dbos)
    cancelled = 0
    for _ in range(100):
        job = new_job()
        store.add(job)
        attempt = store.claim(job.id, "w")
        assert attempt is not None
        video = render(store, attempt)
        start = threading.Barrier(2)
        outcome: dict[str, Any] = {}

        def finish(video: Job = video, start: threading.Barrier = start, outcome: dict[str, Any] = outcome) -> None:
            start.wait()
            outcome["finished"] = store.complete(video, video_bytes=1, inference_time=1.0)

        thread = threading.Thread(target=finish)
        thread.start()
        start.wait()
        asked = store.cancel(job.id)
        thread.join()
        end = store.get(job.id)
        assert end is not None
        assert end.status is Status.COMPLETED
        assert (end.response_status == 200) == outcome["finished"]
        if asked is CancelOutcome.ALREADY_COMPLETED:
            assert outcome["finished"]
        else:
            assert end.response_status == 499
            cancelled += 1
    dbos.destroy()
    assert 0 <= cancelled <= 100


def test_a_cancelled_job_without_a_worker_ends_and_does_not_wait_again(database: sa.Engine) -> None:
    dbos = dbos_client(database)
    store = JobStore(database, dbos)
    ends = (store.release, lambda job: store.claim(job.id, "another"))
    for end in ends:
        job = new_job()
        store.add(job)
        attempt = store.claim(job.id, "w")
        assert attempt is not None
        assert store.cancel(job.id) is CancelOutcome.WAS_RUNNING
        assert not end(attempt)
        found = store.get(job.id)
        assert found is not None
        assert (found.status, found.response_status) == (Status.COMPLETED, 499)
    dbos.destroy()


def test_an_attempt_that_has_been_overtaken_writes_nothing(database: sa.Engine) -> None:
    dbos = dbos_client(database)
    store = JobStore(database, dbos)
    job = new_job()
    store.add(job)
    fresh = store.get(job.id)
    assert fresh is not None
    assert store.prepared(fresh, "inputs/first") == "inputs/first"
    assert store.prepared(fresh, "inputs/second") == "inputs/first"
    assert not store.refuse(fresh, INTERNAL_ERROR), "another try of prepare has succeeded"
    zombie = store.claim(job.id, "w", attempt=0)
    assert zombie is not None
    assert store.claim(job.id, "other", attempt=0) is None
    owner = store.claim(job.id, "other", attempt=1)
    assert owner is not None
    assert store.claim(job.id, "w", attempt=1) is None
    store.log(zombie, [("INFO", "too late")])
    assert store.is_unwanted(zombie)
    assert not store.is_unwanted(owner)
    render(store, zombie)
    video = render(store, owner)
    assert store.claim(job.id, "third") is None, "its video is about to be published"
    assert not store.release(owner)
    assert store.complete(video, video_bytes=1, inference_time=1.0)
    store.log(owner, [("INFO", "after the end")])
    assert store.logs(job.id) == []
    assert store.prepared(fresh, "inputs/third") is None
    dbos.destroy()


def test_a_claim_whose_answer_was_lost_is_repeated(database: sa.Engine) -> None:
    dbos = dbos_client(database)
    store = JobStore(database, dbos)
    job = new_job()
    store.add(job)
    assert store.claim(job.id, "w", attempt=0)
    repeated = store.claim(job.id, "w", attempt=0)
    assert repeated is not None
    assert repeated.attempt == 2
    store.fail(job.id, INTERNAL_ERROR)
    dbos.destroy()


def test_a_draining_worker_claims_nothing_but_what_it_has(database: sa.Engine) -> None:
    dbos, registry = dbos_client(database), WorkerRegistry(database)
    store, has, waits = JobStore(database, dbos), new_job(), new_job()
    registry.beat("w", pid=1, generator_pid=2, state="ready", detail="")
    store.add(has)
    store.add(waits)
    assert store.claim(has.id, "w", attempt=0)
    registry.drain(True)
    with pytest.raises(WorkerDrains):
        store.claim(waits.id, "w", attempt=0)
    waiting = store.get(waits.id)
    assert waiting
    assert (waiting.status, waiting.attempt, waiting.started_at) == (Status.IN_QUEUE, 0, None)
    repeated = store.claim(has.id, "w", attempt=0)
    assert repeated, "its answer was lost; nothing else would end what the row says is running"
    registry.drain(False)
    assert store.claim(waits.id, "w", attempt=0)
    registry.forget("w")
    for job in (has, waits):
        assert store.fail(job.id, INTERNAL_ERROR)
    dbos.destroy()


def test_a_draining_worker_is_not_forgotten(database: sa.Engine) -> None:
    registry = WorkerRegistry(database)
    registry.beat("frozen", pid=1, generator_pid=2, state="ready", detail="")
    registry.drain(True)
    registry.forget("frozen")
    assert registry.beat("frozen", pid=1, generator_pid=2, state="ready", detail=""), "it still knows when it thaws"
    registry.drain(False)
    registry.forget("frozen")
    assert not registry.all()


def test_a_submit_that_fails_half_way_leaves_nothing(database: sa.Engine) -> None:
    """The row and its workflow are one transaction."""

    class BrokenQueue:
        def enqueue_in_transaction(self, *_: object) -> None:
            raise OSError("disk full")

    store, job = JobStore(database, BrokenQueue()), new_job()  # type: ignore[arg-type]
    with pytest.raises(OSError, match="disk full"):
        store.add(job)
    assert store.get(job.id) is None
