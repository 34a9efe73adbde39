"""Test trials and their cache: the fastest is found in bounded time, and no file does harm."""

import json
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from convbench.machine import cache_file, tuning
from convbench.machine.tuning import convolution, fastest, recall, remember
from convbench.problem.layer import Layer, Pass
from tests.cli import ROOT
from tests.systems import linux

FORWARD = Pass.FORWARD
LAYER = Layer("any", (8, 8, 3), 4, (3, 3), padding="same", count=3)


class Clock:
    """A clock that only candidates move."""

    def __init__(self):
        self.now = 0.0
        self.calls = []

    def __call__(self):
        return self.now

    def candidate(self, name, *seconds):
        """Make a candidate whose calls take these times in turn, and then always the last one."""
        left = list(seconds)

        def run():
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


def race(seconds=0.2, **candidates):
    clock = Clock()
    runs = {name: clock.candidate(name, *calls) for name, calls in candidates.items()}
    return fastest(runs, seconds, clock), clock


# Trials


def test_the_fastest_candidate_comes_first():
    times, _ = race(a=(0.003,), b=(0.001,), c=(0.002,))
    assert list(times) == ["b", "c", "a"]
    assert times == {"b": pytest.approx(0.001), "c": pytest.approx(0.002), "a": pytest.approx(3e-3)}


def test_start_up_does_not_count():
    times, _ = race(a=(0.009, 0.001), b=(0.002,))
    assert list(times) == ["a", "b"]


def test_hopeless_candidates_are_not_called_again():
    times, clock = race(a=(0.020,), b=(0.100,))
    assert clock.calls.count("b") == 1
    assert clock.calls.count("a") == 1  # b is out, so that a has nobody to race with
    assert times["b"] == pytest.approx(0.1)


def test_candidates_take_turns():
    _, clock = race(a=(0.03,), b=(0.032,), seconds=0.5)
    assert clock.calls == ["a", "b"] * (1 + tuning.SAMPLES)


def test_threads_that_slept_are_woken_before_a_sample():
    """The first call after another candidate's call takes longer, as on a virtual machine."""
    clock = Clock()

    def candidate(name, first, later):
        def run():
            is_first = not clock.calls or clock.calls[-1] != name
            clock.calls.append(name)
            clock.now += first if is_first else later

        return run

    runs = {"a": candidate("a", 0.011, 0.005), "b": candidate("b", 0.010, 0.009)}
    times = fastest(runs, 0.3, clock)
    assert list(times) == ["a", "b"]
    assert times["a"] == pytest.approx(0.005)


def test_the_time_of_a_trial_is_bounded():
    _, clock = race(0.5, a=(0.05,), b=(0.06,))
    assert clock.now <= 0.5
    _, clock = race(0.2, a=(3.0,), b=(2.0,))
    assert clock.calls == ["a", "b"]  # each candidate is called once, however long that takes


def test_fresh_pages_of_a_long_first_call_do_not_count():
    times, clock = race(0.1, a=(0.08, 0.03), b=(0.05,))
    assert list(times) == ["a", "b"]
    assert clock.calls == ["a", "b"] * (1 + tuning.AT_LEAST)


def test_short_calls_are_made_often_enough():
    _, clock = race(a=(1e-6,), b=(2e-6,))
    unclocked = tuning.RESUME_S / 1e-6
    assert clock.calls.count("a") == pytest.approx(tuning.SAMPLES * (1000 + unclocked), rel=0.01)


def test_a_disturbed_sample_does_not_count():
    times, _ = race(a=(0.01, 0.05, 0.01), b=(0.012,))
    assert next(iter(times)) == "a"


def test_a_candidate_alone_is_timed():
    assert race(a=(0.001,))[0] == {"a": pytest.approx(0.001)}


# The keys of trials


def test_a_convolution_has_one_key_whatever_its_name():
    other = replace(LAYER, name="other", count=1, padding=((1, 1), (1, 1)))
    assert convolution(LAYER, FORWARD, 2) == convolution(other, FORWARD, 2)


def test_different_convolutions_have_different_keys():
    changes = (
        {"batch_size": 8},
        {"filters": 6},
        {"kernel_size": (3, 1)},
        {"strides": (1, 2)},
        {"padding": "valid"},
        {"dilation_rate": (2, 1)},
        {"input_shape": (8, 9, 3)},
        {"groups": 3, "filters": 3},
        {"use_bias": True},
        {"dtype": "float64"},
    )
    keys = {convolution(replace(LAYER, **change), FORWARD, 2) for change in changes}
    keys |= {convolution(LAYER, FORWARD, 1), convolution(LAYER, FORWARD, 2)}
    keys |= {convolution(LAYER, Pass.INPUT_GRADIENT, 2)}
    assert len(keys) == len(changes) + 3


def test_a_fingerprint_names_cpu_blas_and_versions():
    import numpy as np

    found = tuning.fingerprint()
    assert tuning.read_cpu()[0] in found
    assert f"numpy {np.__version__}" in found
    assert "openblas" in found or "mkl" in found or "blis" in found


def test_a_fingerprint_knows_the_source_of_the_algorithms(tmp_path):
    """If it did not, times from before a change to an algorithm would be believed afterwards."""
    assert f"convbench {tuning._algorithms():08x}" in tuning.fingerprint()
    (tmp_path / "mec.py").write_text("a")
    before = tuning._algorithms(tmp_path)
    (tmp_path / "mec.py").write_text("b")
    assert tuning._algorithms(tmp_path) != before


# The cache on disk


@pytest.fixture
def cache(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "tuning.json"
    monkeypatch.setenv(tuning.CACHE_VARIABLE, str(path))
    return path


def test_times_that_are_kept_come_back_sorted(cache):
    assert recall("m", "k") is None
    assert remember("m", "k", {"a": 2.0, "b": 1.0}) == {"b": 1.0, "a": 2.0}
    assert list(recall("m", "k").items()) == [("b", 1.0), ("a", 2.0)]
    assert recall("other machine", "k") is None
    assert recall("m", "other") is None


def test_the_first_trial_of_the_same_candidates_is_kept(cache):
    remember("m", "k", {"a": 2.0, "b": 1.0})
    assert list(remember("m", "k", {"a": 1.0, "b": 2.0})) == ["b", "a"]
    assert list(remember("m", "k", {"a": 1.0, "c": 2.0})) == ["a", "c"]
    assert recall("m", "k") == {"a": 1.0, "c": 2.0}


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        '{"schema": "convbench-tuning/1", "trials": {"m"',
        '{"schema": "convbench-tuning/1"}',
        '{"schema": "convbench-tuning/1", "trials": []}',
        '{"schema": "convbench-tuning/1", "trials": {"m": 1, "n": {"k": 1, "l": {"a": "b"}}}}',
        '{"schema": "convbench-tuning/1", "trials": {"m": {"k": {"a": NaN}}}}',
        '{"schema": "convbench-tuning/1", "trials": {"m": {"k": {"a": -1, "b": 1}}}}',
        '{"schema": "convbench-tuning/1", "trials": {"m": {"k": {}}}}',
        '{"schema": "convbench-tuning/0", "trials": {"m": {"k": {"a": 1.0}}}}',
    ],
)
def test_a_damaged_file_is_made_anew(cache, damaged):
    cache.parent.mkdir()
    cache.write_text(damaged)
    assert recall("m", "k") is None
    assert remember("m", "k", {"a": 1.0}) == {"a": 1.0}
    assert recall("m", "k") == {"a": 1.0}


@pytest.mark.parametrize("theirs", [b"my thesis", b'{"a": 1}', b"\xff\xfe\x00", b"[1]"])
def test_a_file_that_is_no_cache_is_left_alone(cache, theirs):
    cache.parent.mkdir()
    cache.write_bytes(theirs)
    assert remember("m", "k", {"a": 1.0}) == {"a": 1.0}
    assert recall("m", "k") is None
    assert cache.read_bytes() == theirs


def test_a_place_that_cannot_be_written_does_no_harm(cache, tmp_path):
    (tmp_path / "folder").write_text("a file where the folder should be")
    assert remember("m", "k", {"a": 1.0}) == {"a": 1.0}
    assert recall("m", "k") is None


def test_a_folder_in_place_of_the_file_does_no_harm(cache):
    cache.mkdir(parents=True)
    assert remember("m", "k", {"a": 1.0}) == {"a": 1.0}
    assert recall("m", "k") is None
    assert list(cache.iterdir()) == []


def test_a_full_disk_leaves_the_old_file(cache, monkeypatch):
    remember("m", "k", {"a": 1.0})

    def full(*arguments):
        raise OSError("no space left on device")

    monkeypatch.setattr(json, "dump", full)
    assert remember("m", "l", {"a": 1.0}) == {"a": 1.0}
    monkeypatch.undo()
    assert sorted(path.name for path in cache.parent.iterdir()) == [
        cache.name,
        f"{cache.name}.lock",
    ]
    assert '"k": {"a": 1.0}' in cache.read_text()


def test_without_a_path_nothing_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv(tuning.CACHE_VARIABLE, "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert remember("m", "k", {"a": 1.0}) == {"a": 1.0}
    assert recall("m", "k") is None
    assert list(tmp_path.iterdir()) == []


def test_the_cache_is_in_the_users_cache_folder_by_default(monkeypatch, tmp_path):
    monkeypatch.delenv(tuning.CACHE_VARIABLE)
    monkeypatch.setenv("HOME", str(tmp_path))
    for unset in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert tuning.cache_path() == tmp_path / ".cache" / "convbench" / "tuning.json"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert tuning.cache_path() == tmp_path / "xdg" / "convbench" / "tuning.json"


def test_the_size_of_the_cache_is_bounded(cache, monkeypatch):
    monkeypatch.setattr(tuning, "MAX_TRIALS", 3)
    monkeypatch.setattr(tuning, "MAX_MACHINES", 2)
    for machine in "xyz":
        for key in "abcd":
            remember(machine, key, {"n": 1.0})
    assert [recall(machine, "d") for machine in "xyz"] == [None, {"n": 1.0}, {"n": 1.0}]
    assert [recall("z", key) for key in "abcd"] == [None, *[{"n": 1.0}] * 3]


@linux
def test_a_lock_that_is_held_for_good_costs_a_moment(cache, monkeypatch):
    import fcntl

    monkeypatch.setattr(cache_file, "LOCK_S", 0.05)
    cache.parent.mkdir()
    with cache.with_name("tuning.json.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert remember("m", "k", {"a": 1.0}) == {"a": 1.0}
    assert recall("m", "k") == {"a": 1.0}


def test_processes_that_write_at_once_lose_nothing(cache):
    script = (
        "import sys\n"
        "from convbench.machine.tuning import remember\n"
        "for i in range(40):\n"
        "    remember('m', f'{sys.argv[1]} {i}', {'a': 1.0})\n"
        "    remember('m', f'shared {i}', {'a': float(sys.argv[1]), 'b': 1.5})\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", script, number], cwd=ROOT) for number in ("1", "2")
    ]
    assert [process.wait(60) for process in running] == [0, 0]
    for i in range(40):
        assert recall("m", f"1 {i}") == recall("m", f"2 {i}") == {"a": 1.0}
        assert recall("m", f"shared {i}") is not None


def test_trials_can_be_switched_off():
    assert tuning.trials_allowed()
    try:
        tuning.allow_trials(False)
        assert not tuning.trials_allowed()
    finally:
        tuning.allow_trials(True)


def test_settling_waits_for_threads_that_compute_but_not_for_ever(monkeypatch):
    # On a busy machine a spinning thread may not run at all within a short glance.
    monkeypatch.setattr(tuning, "GLANCE_S", 0.2)
    assert tuning.settle()
    stop = threading.Event()
    spinning = threading.Thread(target=lambda: [None for _ in iter(stop.is_set, True)])
    spinning.start()
    try:
        start = time.perf_counter()
        assert not tuning.settle()
        assert time.perf_counter() - start < 10 * tuning.SETTLE_S
    finally:
        stop.set()
        spinning.join()
    assert tuning.settle()


def test_a_trial_waits_once_for_threads_that_never_stop(monkeypatch):
    asked = []
    monkeypatch.setattr(tuning, "settle", lambda: bool(asked.append(None)))
    race(a=(0.01,), b=(0.012,))
    assert len(asked) == 1
