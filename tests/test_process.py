"""Test workers: faults cost one answer, a stopped worker stands still, none outlives its parent."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from convbench.implementations.registry import REGISTRY
from convbench.machine.system import PORTABLE, VARIABLE, is_linux
from convbench.measure.clock import Plan
from convbench.measure.messages import CellFailedError, Check, Release, Start, Visit
from convbench.measure.process import Worker, WorkerLostError, kill_all
from convbench.problem.layer import Layer, Pass
from convbench.runtimes.numpy import NumPy
from convbench.runtimes.own_code import OwnCodeRuntime
from tests.systems import linux, posix

USERS = Path(__file__).parent / "users" / "convolutions.py"
PLAN = Plan(wake_s=0.01, sample_s=0.0025, visit_s=0.02)
LAYER = Layer("plain", (9, 8, 3), 4, (3, 2), batch_size=2)


@pytest.fixture(params=[pytest.param("linux", marks=linux), PORTABLE], autouse=True)
def way(request, monkeypatch):
    """Hold workers in Linux's own way, and in the portable one."""
    with monkeypatch.context() as patch:
        patch.setenv(VARIABLE, request.param)
        is_linux.cache_clear()
        yield request.param
    is_linux.cache_clear()


@pytest.fixture
def worker():
    def start(name):
        return Worker(Start(OwnCodeRuntime(name), 1, 0, REGISTRY), os.environ)

    yield start
    kill_all()


def _check(name):
    return Check(LAYER, Pass.FORWARD, f"{USERS}:{name}")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("raises", "RuntimeError: out of luck (convolutions.py:51, in raises)"),
        ("out_of_memory", "out of memory"),
        ("missing", "has no missing"),
    ],
)
def test_an_exception_costs_only_its_cell(worker, name, reason):
    it = worker(name)
    it.wait_ready()
    with pytest.raises(CellFailedError) as failed:
        it.ask(_check(name), 60)
    assert reason in str(failed.value)
    assert it.ask(_check("right"), 60).agreement.verdict == "agrees"


@posix
@pytest.mark.parametrize(
    ("name", "reason"), [("killed", "killed by SIGKILL"), ("segfault", "killed by SIGSEGV")]
)
def test_a_crash_is_told_with_its_signal(worker, name, reason):
    it = worker(name)
    it.wait_ready()
    with pytest.raises(WorkerLostError, match=reason) as lost:
        it.ask(_check(name), 60)
    if name == "segfault":  # here faulthandler writes the line
        assert "(convolutions.py:63, in segfault)" in str(lost.value)


def test_a_hung_worker_is_killed(worker):
    it = worker("hangs")
    it.wait_ready()
    message = r"no answer for 1 s, so the worker was killed \(see --timeout\)"
    with pytest.raises(WorkerLostError, match=message):
        it.ask(_check("hangs"), 1)
    assert it._child.process.poll() is not None


def test_a_worker_without_the_token_stands_still(worker, way):
    it = worker("right")
    it.wait_ready()
    it.stop()
    with it.token():
        sampled = it.ask(Visit(LAYER, Pass.FORWARD, f"{USERS}:right", PLAN), 60)
    assert len(sampled.visited.values) == 8
    assert all(0 < value < 1 for value in sampled.visited.values)
    before, after = sampled.probes
    assert 0 < before.quickest_loop_s <= before.slowest_loop_s < 1
    assert 0 < after.wake_s < 1
    process = psutil.Process(it._child.process.pid)
    deadline = time.monotonic() + 5
    while process.status() != psutil.STATUS_STOPPED and time.monotonic() < deadline:
        time.sleep(0.01)
    before = process.cpu_times()
    time.sleep(0.2)
    assert process.cpu_times() == before
    with it.token():
        peak = it.ask(Release(), 60).max_rss
    assert peak > 10 * 2**20
    if way == "linux":  # the portable figure also counts what this process held before the fork
        assert peak < 400 * 2**20


def test_idle_blas_threads_do_not_spin_beside_the_next_arm(worker):
    """Workers are stopped for this reason: OpenBLAS's threads wait busily after a call."""
    it = Worker(Start(NumPy(), 2, 0, REGISTRY), os.environ)
    it.wait_ready()
    layer = Layer("gemm", (56, 56, 64), 64, (3, 3), batch_size=2)
    with it.token():
        it.ask(Visit(layer, Pass.FORWARD, "im2col", PLAN), 60)
    used = sum(psutil.Process(it._child.process.pid).cpu_times()[:2])
    time.sleep(0.1)
    assert sum(psutil.Process(it._child.process.pid).cpu_times()[:2]) - used <= 0.01


def test_a_process_that_a_worker_starts_stands_still_and_ends_with_the_worker(worker, tmp_path):
    (tmp_path / "starts.py").write_text(
        "import subprocess\nimport sys\n\n"
        "BUSY = subprocess.Popen([sys.executable, '-c', 'while True: pass'])\n\n\n"
        "def conv(x, kernel):\n    raise ValueError(BUSY.pid)\n"
    )
    it = worker("starts")
    it.wait_ready()
    with it.token(), pytest.raises(CellFailedError) as failed:
        it.ask(Check(LAYER, Pass.FORWARD, f"{tmp_path}/starts.py:conv"), 60)
    busy = psutil.Process(int(re.search(r"ValueError: (\d+)", str(failed.value))[1]))
    time.sleep(0.05)
    before = busy.cpu_times()
    time.sleep(0.2)
    assert busy.cpu_times() == before
    it.kill()
    deadline = time.monotonic() + 5
    while busy.is_running() and time.monotonic() < deadline:
        if busy.status() == psutil.STATUS_ZOMBIE:  # dead; nobody reaps orphans in a container
            return
        time.sleep(0.01)
    assert not busy.is_running()


def test_no_worker_outlives_a_killed_parent(way):
    """On Linux, not even a worker that stands still outlives its parent."""
    stopped = "w.stop(); " if way == "linux" else ""
    program = (
        "import os, sys\n"
        "from convbench.implementations.registry import REGISTRY\n"
        "from convbench.measure.process import Worker\n"
        "from convbench.measure.messages import Start\n"
        "from convbench.runtimes.numpy import NumPy\n"
        "w = Worker(Start(NumPy(), 1, 0, REGISTRY), os.environ)\n"
        "w.wait_ready()\n"
        f"{stopped}print(w._child.process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    pid = int(done.stdout)
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        # A zombie is dead; nobody reaps orphans in a container.
        if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    assert not psutil.pid_exists(pid)
