"""The workflows as a state machine over real rows, real engine entries and real files, crashed between any two steps.

The machine is the engine: it runs what is enqueued, again after a crash, and by two workers at once where one is
thought dead. What a step is: a call of the store, the storage, the engine or the generator.
"""

import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import DBOS, DBOSClient
from dbos._sys_db import WorkflowStatus
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from server.database import create_engine, migrate
from server.engine import engine_client
from server.errors import InternalError
from server.generator import GenerationCancelled, GenerationError, GeneratorDied
from server.job import Job, Priority, Status
from server.job_store import JobStore
from server.leftovers import Leftovers
from server.messages import Finished, Generate, Log
from server.settings import RetentionSettings, load_settings
from server.storage import LocalStorage
from server.workflows import Workflows
from tests.server.test_job_store import new_job


class Crashed(BaseException):
    """The process is gone: nothing in it may catch this."""


class Wire:
    """Counts the steps of a process and does something before one of them."""

    def __init__(self, at: int, action: Callable[[], None]) -> None:
        self._left = at
        self._action = action
        self._dead = False

    def step(self) -> None:
        if self._dead:
            raise Crashed
        self._left -= 1
        if self._left == 0:
            try:
                self._action()
            except Crashed:
                self._dead = True
                raise


class Watched:
    """Something whose calls are steps, and their answers too."""

    def __init__(self, real: Any, wire: Wire) -> None:
        self._real = real
        self._wire = wire

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._real, name)
        if not callable(attribute):
            return attribute

        @functools.wraps(attribute)
        def call(*args: Any, **kwargs: Any) -> Any:
            self._wire.step()
            answer = attribute(*args, **kwargs)
            self._wire.step()
            return answer

        return call


class Generator:
    """Writes a file and a checkpoint, or fails as it is told."""

    def __init__(self, wire: Wire, mood: str) -> None:
        self._wire = wire
        self._mood = mood

    def wait_until_ready(self) -> None:
        pass

    def run(
        self, job: Generate, *, on_message: Callable[[Any], None], cancel_requested: Callable[[], bool]
    ) -> Finished:
        Path(job.checkpoint).write_bytes(b"latents")
        on_message(Log(message="a step"))
        self._wire.step()
        if cancel_requested():
            raise GenerationCancelled
        if self._mood == "dies":
            raise GeneratorDied("killed")
        if self._mood == "raises":
            raise GenerationError("wrong")
        Path(job.output).write_bytes(b"video of " + job.request_id.encode())
        self._wire.step()
        return Finished(seconds=1.0)


class LivesWithFiles(RuleBasedStateMachine):
    """Submits, runs with a mishap at any step, cancels, ends from outside."""

    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="lives-"))
        url = f"sqlite:///{self.folder / 'x.sqlite'}"
        shutil.copy(TEMPLATE[0], self.folder / "x.sqlite")
        self.database = create_engine(url)
        sa.event.listen(self.database, "connect", lambda made, _: made.execute("PRAGMA synchronous=OFF"))
        self.settings = load_settings(None, {"data_dir": self.folder, "jobs": {"min_free_bytes": 0}})
        self.store, self.storage = JobStore(self.database), LocalStorage(self.folder)
        self.engine = engine_client(self.database)
        self.ends: dict[str, tuple[Any, ...]] = {}
        self.attempts: dict[str, int] = {}
        self.failed_from_outside: set[str] = set()
        self.crashes = 0

    # -- what happens ------------------------------------------------------------------------------------------

    @rule(target=jobs, priority=st.sampled_from(Priority))
    def submit(self, priority: Priority) -> str:
        job = new_job(priority)
        key = self.storage.new_key("inputs", job.id)
        self.storage.put_bytes(b"image", key)
        self.store.add(replace(job, source_key=key), self.engine)
        self.attempts[job.id] = 0
        return job.id

    @rule(job=jobs)
    def cancel(self, job: str) -> None:
        self.store.cancel(job)

    @rule(
        which=st.integers(0, 20),
        at=st.integers(1, 24),
        mishap=st.sampled_from(["crash", "crash", "stop", "cancel", "fail", "overtake", "none"]),
        mood=st.sampled_from(["finishes", "finishes", "dies", "raises"]),
    )
    def run(self, which: int, at: int, mishap: str, mood: str) -> None:
        """One of the workflows that wait, with a mishap somewhere on its way."""
        waiting = self.waiting()
        if not waiting:
            return
        chosen = waiting[which % len(waiting)]
        request_id = chosen.workflow_id.partition(":")[0]

        def crash() -> None:
            self.crashes += 1
            raise Crashed

        def stop() -> None:
            worker.release_running()
            crash()

        def fail() -> None:
            self.failed_from_outside.add(request_id)
            self.store.fail(request_id, InternalError().response())

        actions: dict[str, Callable[[], Any]] = {
            "crash": crash,
            "stop": stop,
            "fail": fail,
            "cancel": lambda: self.store.cancel(request_id),
            "overtake": lambda: self.run_to_its_end(chosen),
            "none": lambda: None,
        }
        wire = Wire(at, actions[mishap])
        worker = self.worker(wire, mood)
        try:
            self.call(worker, wire, chosen)
        except Crashed:
            return
        self.engine.cancel_workflow(chosen.workflow_id)  # as good as a success to all that look at it here

    # -- how it happens ----------------------------------------------------------------------------------------

    def worker(self, wire: Wire, mood: str) -> Workflows:
        store, storage = Watched(self.store, wire), Watched(self.storage, wire)
        return Workflows(store, storage, Generator(wire, mood), self.settings)  # type: ignore[arg-type]

    def call(self, worker: Workflows, wire: Wire, workflow: WorkflowStatus) -> None:
        engine: DBOSClient = Watched(self.engine, wire)  # type: ignore[assignment]
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(DBOS, "enqueue_workflow_with_options", engine.enqueue)
            assert workflow.input is not None
            getattr(worker, workflow.name)(*workflow.input["args"])

    def run_to_its_end(self, workflow: WorkflowStatus) -> None:
        wire = Wire(0, lambda: None)
        self.call(self.worker(wire, "finishes"), wire, workflow)

    def waiting(self) -> list[WorkflowStatus]:
        return self.engine.list_workflows(status=["ENQUEUED", "PENDING"])

    def current(self) -> list[Job]:
        found = [self.store.get(request_id) for request_id in self.attempts]
        return [job for job in found if job is not None]

    # -- what holds --------------------------------------------------------------------------------------------

    @invariant()
    def one_end_and_it_stays(self) -> None:
        for job in self.current():
            assert job.attempt >= self.attempts[job.id]
            self.attempts[job.id] = job.attempt
            if job.status is Status.COMPLETED:
                end = (job.response_status, job.response_json, job.video_key, job.video_bytes, job.finished_at)
                assert self.ends.setdefault(job.id, end) == end
                assert job.error_type != InternalError.error_type or job.id in self.failed_from_outside, job.error

    @invariant()
    def no_result_without_its_file(self) -> None:
        for job in self.current():
            if job.response_status == 200:
                path = self.storage.find(job.video_key or "")
                assert path is not None
                assert path.read_bytes() == b"video of " + job.id.encode()
                assert job.video_bytes == path.stat().st_size

    @invariant()
    def positions_are_a_permutation(self) -> None:
        line = [job for job in self.current() if job.status is Status.IN_QUEUE]
        positions = [self.store.queue_position(job) for job in sorted(line, key=lambda job: job.order)]
        assert positions == list(range(len(line)))

    def teardown(self) -> None:
        try:
            self.let_everything_end()
        finally:
            self.engine.destroy()
            self.database.dispose()
            shutil.rmtree(self.folder)

    def let_everything_end(self) -> None:
        """Without further mishaps every job ends, and no file is left that no job names."""
        while waiting := self.waiting():
            for workflow in waiting:
                self.run_to_its_end(workflow)
                self.engine.cancel_workflow(workflow.workflow_id)
        assert all(job.status is Status.COMPLETED for job in self.current()), "a job was lost"
        self.one_end_and_it_stays()
        self.no_result_without_its_file()
        videos = set(self.storage.stored("files", older_than_s=-1))
        results = {job.video_key for job in self.current() if job.response_status == 200}
        assert videos == results or (self.crashes and videos > results), "a file without a result"
        for path in self.folder.rglob("*"):
            os.utime(path, (0, 0))
        Leftovers(self.database, self.storage, RetentionSettings()).sweep()
        assert set(self.storage.stored("files", older_than_s=-1)) == results
        images = {key for job in self.current() for key in (job.source_key, job.image_key) if key is not None}
        assert set(self.storage.stored("inputs", older_than_s=-1)) == images
        assert self.storage.checkpoints() == []


TEMPLATE: list[Path] = []


def test_no_result_without_a_file_and_no_file_without_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    TEMPLATE[:] = [tmp_path / "template.sqlite"]
    migrate(f"sqlite:///{TEMPLATE[0]}", tmp_path / "lock")
    # Decoding costs a process per image and has tests of its own.
    monkeypatch.setattr(
        "server.image_decoder.ImageDecoder.decode", lambda _, source, target: shutil.copy(source, target)
    )
    case = LivesWithFiles.TestCase()
    case.settings = settings(
        max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
    )
    case.runTest()
