"""The queue model: its formula, its simulation, and the real queue say the same."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import sqlalchemy as sa

from server.bench.fake_workers import FakeWorkers
from server.bench.line_plot import Line, line_plot
from server.bench.queue_model import InOrder, Load, percentile, simulate, steady_mean
from server.db.migrations import migrate


def test_one_server_waits_as_pollaczek_and_khinchine_say() -> None:
    load = Load(workers=1, render_s=100, utilisation=0.8)
    assert load.expected_wait_s() == pytest.approx(0.8 * 100 / (2 * 0.2))


@pytest.mark.parametrize(("workers", "utilisation"), [(1, 0.7), (4, 0.8), (32, 0.9)])
def test_the_simulation_agrees_with_the_formula(workers: int, utilisation: float) -> None:
    load = Load(workers, 450, utilisation)
    found = steady_mean(simulate(load, InOrder(), jobs=20_000, seed=3))
    assert found == pytest.approx(load.expected_wait_s(), rel=0.15)


def test_there_is_no_queue_where_a_gpu_is_free() -> None:
    assert not any(simulate(Load(50, 1, 0.01), InOrder(), jobs=200, seed=1))


def test_the_real_queue_hands_out_the_same_jobs(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'x.sqlite'}"
    migrate(url, tmp_path / "lock")
    load = Load(workers=2, render_s=450, utilisation=0.9)
    with FakeWorkers(url) as fakes:
        fakes.register(load.workers)
        assert simulate(load, fakes, jobs=12, seed=1) == simulate(load, InOrder(), jobs=12, seed=1)
        fakes.beat(0)
        fakes.poll(0)
    counts = {what: len(seconds) for what, seconds in fakes.took.items()}
    assert {what: counts[what] for what in ("submit", "claim", "complete")} == dict.fromkeys(
        ("submit", "claim", "complete"), 12
    )
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        done = sa.text("SELECT count(*) FROM request WHERE status = 'COMPLETED' AND response_status = 200")
        assert connection.execute(done).scalar_one() == 12
    engine.dispose()


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.5) == 2.0
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.99) == 4.0


def test_a_plot_places_what_it_is_given() -> None:
    drawn = line_plot(
        [Line("a < b", [(0, 1), (10, 100), (10, 1e6)], dots=[(5, 10)])],
        x_label="x",
        y_label="y",
        x_ticks=[0, 5, 10],
        y=(1, 100),
    )
    root = ElementTree.fromstring(drawn)  # noqa: S314 - it is our own
    (dot,) = root.iter("{http://www.w3.org/2000/svg}circle")
    path = [element.get("d", "") for element in root if element.get("stroke-width")]
    (first, last) = [tuple(map(float, found)) for found in re.findall(r"([\d.]+) ([\d.]+)", path[0])]
    assert (float(dot.get("cx", "")), float(dot.get("cy", ""))) == pytest.approx(
        ((first[0] + last[0]) / 2, (first[1] + last[1]) / 2), abs=0.1
    ), "in the middle of both axes"
    assert "a < b" in "".join(root.itertext())
