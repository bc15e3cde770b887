"""The workflows as a state machine over real rows, real engine entries and real files, crashed between any two steps.

The machine is the engine: it runs what is enqueued, again after a crash, and by two workers at once where one is
thought dead. What a step is: a call of the store, the storage, the engine or the generator.
"""

import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from dbos._sys_db import WorkflowStatus
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from server.db.connection import create_engine
from server.db.migrations import migrate
from server.errors import INTERNAL_ERROR
from server.fal.submit_headers import Priority
from server.generator.faults import GenerationCancelled, GenerationError, GeneratorDied
from server.generator.messages import Finished, Generate, Log
from server.jobs.dbos_queues import dbos_client
from server.jobs.job import Job, Status
from server.jobs.job_store import JobStore
from server.jobs.progress import ProgressTable
from server.settings import RetentionSettings
from server.settings_loader import load_settings
from server.storage.local import LocalStorage
from server.storage.scratch import Scratch
from server.worker import claims
from server.worker.expiry.orphan_files import OrphanFiles
from server.worker.prepare import PrepareWorkflow
from server.worker.publish import PublishWorkflow
from server.worker.render import RenderWorkflow
from tests.harness.new_job import new_job
from tests.harness.queue_positions import QueuePositions

MISHAPS = ["crash", "stop", "cancel", "fail", "overtake"]


class Crashed(BaseException):
    """The process is gone: nothing in it may catch this."""


class Wire:
    """Counts the steps of a process and does something before one of them."""

    def __init__(self, at: int, action: Callable[[], None]) -> None:
        self.left = at
        self._action = action
        self._dead = False

    def step(self) -> None:
        if self._dead:
            raise Crashed
        self.left -= 1
        if self.left == 0:
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
        if isinstance(attribute, Scratch):
            return Watched(attribute, self._wire)
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

    @contextmanager
    def reserved(self) -> Iterator[bool]:
        yield True

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
        Path(job.thumbnail or "").write_bytes(b"picture of " + job.request_id.encode())
        self._wire.step()
        return Finished(seconds=1.0)


class World:
    """A database, a directory, an engine that is this class, and workers that live for one workflow."""

    def __init__(self, template: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lives-"))
        shutil.copy(template, self.folder / "x.sqlite")
        self.database = create_engine(f"sqlite:///{self.folder / 'x.sqlite'}")
        sa.event.listen(self.database, "connect", lambda made, _: made.execute("PRAGMA synchronous=OFF"))
        self.settings = load_settings(None, {"data_dir": self.folder, "jobs": {"min_free_bytes": 0}})
        self.engine = dbos_client(self.database)
        self.store, self.storage = JobStore(self.database, self.engine), LocalStorage(self.folder)
        self.positions = QueuePositions(self.database)
        self.ends: dict[str, tuple[Any, ...]] = {}
        self.attempts: dict[str, int] = {}
        self.failed_from_outside: set[str] = set()
        self.crashed: set[str] = set()

    # -- what happens ------------------------------------------------------------------------------------------

    def submit(self, priority: Priority = Priority.NORMAL) -> str:
        job = new_job(priority)
        key = self.storage.new_key("inputs", job.id)
        self.storage.put_bytes(b"image", key)
        self.store.add(replace(job, source_key=key))
        self.attempts[job.id] = 0
        return job.id

    def run(self, workflow: WorkflowStatus, mishap: str = "none", *, at: int = 0, mood: str = "finishes") -> int:
        """Run a workflow with a mishap before its step `at`; returns how many steps are left until then."""
        request_id = workflow.workflow_id.partition(":")[0]

        def crash() -> None:
            self.crashed.add(request_id)
            raise Crashed

        def stop() -> None:
            render.claims.release()
            crash()

        def fail() -> None:
            self.failed_from_outside.add(request_id)
            self.store.fail(request_id, INTERNAL_ERROR)

        actions: dict[str, Callable[[], Any]] = {
            "none": lambda: None,
            "crash": crash,
            "stop": stop,
            "fail": fail,
            "cancel": lambda: self.store.cancel(request_id),
            "overtake": lambda: self.run(workflow),
        }
        wire = Wire(at, actions[mishap])
        store: Any = Watched(self.store, wire)
        storage: Any = Watched(self.storage, wire)
        generator: Any = Generator(wire, mood)
        progress = ProgressTable(self.database)  # written by a thread of its own, at no step of ours
        engine = self.engine  # called in the transactions of the store, which happen or do not
        render = RenderWorkflow(store, storage, generator, engine, progress=progress, settings=self.settings)
        workflows: dict[str, Callable[..., None]] = {
            "prepare": PrepareWorkflow(store, storage, self.settings).run,
            "render": render.run,
            "publish": PublishWorkflow(store, storage, self.settings).run,
        }
        given_back = False

        def give_back(*_: object) -> None:
            nonlocal given_back
            wire.step()
            given_back = True

        try:
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(claims, "running_workflow", lambda: workflow.workflow_id)
                patched.setattr(claims, "give_back_render", give_back)
                patched.setattr(claims, "_CLAIM_S", 0.0)  # a stop finds this very thread in the middle of a claim
                assert workflow.input is not None
                workflows[workflow.name](*workflow.input["args"])
        except Crashed:
            return wire.left
        if not given_back:
            self.engine.cancel_workflow(workflow.workflow_id)  # as good as a success to all that look at it here
        return wire.left

    def waiting(self) -> list[WorkflowStatus]:
        return self.engine.list_workflows(status=["ENQUEUED", "PENDING"])

    def let_everything_end(self) -> None:
        while waiting := self.waiting():
            for workflow in waiting:
                self.run(workflow)

    # -- what holds --------------------------------------------------------------------------------------------

    def current(self) -> list[Job]:
        found = [self.store.get(request_id) for request_id in self.attempts]
        return [job for job in found if job is not None]

    def check(self) -> None:
        """At any moment."""
        for job in self.current():
            assert job.attempt >= self.attempts[job.id]
            self.attempts[job.id] = job.attempt
            if job.status is Status.COMPLETED:
                end = (job.response_status, job.response_json, job.video_key, job.video_bytes, job.finished_at)
                assert self.ends.setdefault(job.id, end) == end, "one end, and it stays"
                assert job.error_type != INTERNAL_ERROR.error_type or job.id in self.failed_from_outside, job.error
            if job.response_status == 200:
                path = self.storage.find(job.video_key or "")
                assert path is not None, "a result without its file"
                assert path.read_bytes() == b"video of " + job.id.encode()
                assert job.video_bytes == path.stat().st_size
                thumbnail = self.storage.find(job.thumbnail_key or "")
                assert thumbnail is not None, "a result without its thumbnail"
                assert thumbnail.read_bytes() == b"picture of " + job.id.encode()
        line = [job for job in self.current() if job.status is Status.IN_QUEUE]
        positions = [self.positions.position(job.id) for job in sorted(line, key=lambda job: job.dbos_priority)]
        assert positions == list(range(len(line)))

    def check_the_end(self) -> None:
        """When nothing waits any more."""
        self.check()
        assert all(job.status is Status.COMPLETED for job in self.current()), "a job was lost"
        ended = [job for job in self.current() if job.response_status == 200]
        results = {key for job in ended for key in (job.video_key, job.thumbnail_key)}
        orphans = set(self.storage.stored("files", older_than_s=-1)) - results
        assert {Path(key).stem for key in orphans} <= self.crashed, "a file without a result, and nobody died"
        assert not list((self.folder / "tmp").glob("*.webp")) or self.crashed, "a thumbnail left over, and nobody died"
        for path in self.folder.rglob("*"):
            os.utime(path, (0, 0))
        OrphanFiles(self.database, self.storage, RetentionSettings()).sweep()
        assert set(self.storage.stored("files", older_than_s=-1)) == results
        images = {key for job in self.current() for key in (job.source_key, job.image_key) if key is not None}
        assert set(self.storage.stored("inputs", older_than_s=-1)) == images
        assert self.storage.scratch.checkpoints() == []

    def forget(self) -> None:
        """The jobs of before are of no interest any more."""
        self.attempts.clear()
        for area in ("files", "inputs"):
            shutil.rmtree(self.folder / area, ignore_errors=True)

    def close(self) -> None:
        self.positions.close()
        self.engine.destroy()
        self.database.dispose()
        shutil.rmtree(self.folder)


@pytest.fixture
def template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database to copy. Images are not decoded: that costs a process each and has tests of its own."""
    monkeypatch.setattr(
        "server.untrusted.image_decoder.ImageDecoder.decode", lambda _, source, target: shutil.copy(source, target)
    )
    migrate(f"sqlite:///{tmp_path / 'template.sqlite'}", tmp_path / "lock")
    return tmp_path / "template.sqlite"


@pytest.mark.parametrize("mishap", MISHAPS)
def test_a_mishap_before_every_single_step(template: Path, mishap: str) -> None:
    """One job after the other, each with the mishap one step later, until one has come through without."""
    world = World(template)
    steps = 0
    try:
        left = 0
        while left <= 0:
            steps += 1
            left = steps
            world.submit()
            while waiting := world.waiting():
                happened = left <= 0
                left = world.run(waiting[0], "none" if happened else mishap, at=left)
                world.check()
            world.check_the_end()
            world.forget()
    finally:
        world.close()
    assert steps > 20


class LivesWithFiles(RuleBasedStateMachine):
    """Several jobs, several mishaps each."""

    template: Path
    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.template)

    @initialize(target=jobs)
    def first(self) -> str:
        return self.world.submit()

    @rule(target=jobs, priority=st.sampled_from(Priority))
    def submit(self, priority: Priority) -> str:
        return self.world.submit(priority)

    @rule(job=jobs)
    def cancel(self, job: str) -> None:
        self.world.store.cancel(job)

    @rule(which=st.integers(0, 9), mood=st.sampled_from(["finishes", "finishes", "dies", "raises"]))
    def run(self, which: int, mood: str) -> None:
        if waiting := self.world.waiting():
            self.world.run(waiting[which % len(waiting)], mood=mood)

    @rule(which=st.integers(0, 9), mishap=st.sampled_from(MISHAPS), at=st.integers(1, 16))
    def run_into_a_mishap(self, which: int, mishap: str, at: int) -> None:
        if waiting := self.world.waiting():
            self.world.run(waiting[which % len(waiting)], mishap, at=at)

    @invariant()
    def check(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        try:
            self.world.let_everything_end()
            self.world.check_the_end()
        finally:
            self.world.close()


def test_several_jobs_with_several_mishaps_keep_results_and_files_one_to_one(template: Path) -> None:
    LivesWithFiles.template = template
    case = LivesWithFiles.TestCase()
    case.settings = settings(
        max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
    )
    case.runTest()
