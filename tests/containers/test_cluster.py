"""`docker compose up api worker`: two API processes, three workers, PostgreSQL, a store; one of each is killed."""

from collections import Counter
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from server.bench.sample_request import example, grey_uri
from server.bench.waiting import until
from tests.containers.engine import Project
from tests.containers.fal_calls import FalCalls, first_key

JOBS = 100
CLUSTER = {
    "POSTGRES_PASSWORD": "for-the-test",
    "S3_ACCESS_KEY_ID": "id",
    "S3_SECRET_ACCESS_KEY": "secret",
    "S3_PORT": "18333",
    "S3_PUBLIC_ENDPOINT": "http://127.0.0.1:18333",
    "PORT": "",  # any free one, for each API process
    "WORKER_ID": "{hostname}",
}


@pytest.mark.usefixtures("stand_ins")
def test_nothing_is_lost_or_twice_when_a_worker_and_an_api_are_killed(
    project: Callable[..., Project], connect: Callable[[str, str], FalCalls]
) -> None:
    cluster = project("tests/containers/compose.stand-ins.yml", **CLUSTER)
    services = ("postgres", "store", "weights", "migrate", "api", "worker")
    cluster.up("cluster", *services, scale={"api": 2, "worker": 3})
    apis = cluster.all("api")
    key = first_key(apis)
    first, second = (connect(container.port(8000), key) for container in apis)
    until(lambda: first.is_ready() and second.is_ready())
    until(lambda: len(first.http.get("/health/ready").json()["workers"]) == 3)

    jobs = [(first, second)[number % 2].submit(example(image_url=grey_uri())) for number in range(JOBS)]
    until(lambda: sum(second.is_in(job, "COMPLETED") for job in jobs[:20]) >= 5)
    cluster.all("worker")[0].kill()
    apis[0].kill()
    done: set[str] = set()

    def all_done() -> bool:
        done.update(job for job in jobs if job not in done and second.is_in(job, "COMPLETED"))
        return len(done) == JOBS

    until(all_done, every_s=1)
    results = [second.result(job) for job in jobs]
    assert Counter(answer.status_code for answer in results) == {200: JOBS}
    # Without a proxy before them each API process has an address of its own, and gives it to its callers.
    videos = [urlsplit(answer.json()["video"]["url"]).path for answer in results]
    contents = Counter(second.http.get(path, follow_redirects=True).content.strip() for path in videos)
    assert contents == Counter(job.encode() for job in jobs), "every job has its own video, once"
    taken_over = [job for job in jobs if "The worker was lost" in str(second.status(job))]
    assert len(taken_over) == 1, "what the killed worker was doing"
