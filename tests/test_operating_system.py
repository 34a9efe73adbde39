"""Test which modules know the operating system, the portable ways, and what a run tells of them."""

import ast
import json
import multiprocessing.connection
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import yaml

import convbench
from convbench.implementations.numpy.shared import threads
from convbench.implementations.registry import REGISTRY
from convbench.machine import (
    affinity,
    cache_file,
    calibration,
    cautions,
    events,
    pages,
    processes,
    usage,
)
from convbench.machine.description import fingerprint
from convbench.machine.system import PORTABLE, VARIABLE, is_linux
from convbench.measure import memory
from convbench.measure.probes import probe
from convbench.measure.process import _accepted, how_it_ended
from convbench.problem import operands
from convbench.problem.layer import Layer, Pass
from convbench.profile import experiments
from convbench.profile.counters import counted
from tests.cli import ROOT, TINY, cells, started
from tests.systems import linux

PACKAGE = Path(convbench.__file__).parent

# Who knows the operating system

KNOWERS = ("machine/", "measure/process.py")
"""Files and folders of the package that may know the operating system."""

MODULES = {
    *("signal", "resource", "fcntl", "termios", "tty", "pty", "pwd", "grp", "syslog"),
    *("msvcrt", "winreg", "winsound", "platform", "psutil", "posix", "nt"),
}
FUNCTIONS = re.compile(
    r"sched_.+|posix_.+|kill|killpg|(fork|spawn).*|setsid|[gs]et(pgid|pgrp|sid|priority|resuid|euid)"
    r"|nice|getloadavg|register_at_fork|wait.+|uname|sysconf|name"
)
"""Attributes of `os` that not every system has, or that tell systems apart."""

PLATFORM = {"platform", "getwindowsversion"}
"""Attributes of `sys` that tell systems apart."""

KEYWORDS = {"preexec_fn", "pass_fds", "start_new_session", "creationflags", "process_group"}
"""Arguments of subprocess.Popen that only some systems take."""

FOLDERS = re.compile(r"/(proc|sys)(/|$)")


def knowledge(source):
    """Return the line and the words of each place where a source uses the operating system."""
    return [(node.lineno, known) for node in ast.walk(ast.parse(source)) for known in _known(node)]


def _known(node):
    match node:
        case ast.Import():
            for alias in node.names:
                if alias.name.partition(".")[0] in MODULES:
                    yield alias.name
        case ast.ImportFrom(module="os" | "sys" as module):
            for alias in node.names:
                if _tells(module, alias.name):
                    yield f"{module}.{alias.name}"
        case ast.ImportFrom(module=str() as module) if module.partition(".")[0] in MODULES:
            yield module
        case ast.ImportFrom(module="convbench.machine.system" as module):
            yield module
        case ast.Attribute(value=ast.Name(id="os" | "sys" as module)) if _tells(module, node.attr):
            yield f"{module}.{node.attr}"
        case ast.Call(func=ast.Attribute(attr="CDLL") | ast.Name(id="CDLL")) if (
            node.args and isinstance(node.args[0], ast.Constant) and node.args[0].value is None
        ):
            yield "CDLL(None)"
        case ast.keyword(arg=str() as name) if name in KEYWORDS:
            yield name
        case ast.Constant(value=str() as text) if FOLDERS.match(text):
            yield text


def _tells(module, name):
    return bool(FUNCTIONS.fullmatch(name)) if module == "os" else name in PLATFORM


def test_only_two_places_know_the_operating_system():
    found = {
        file.relative_to(PACKAGE).as_posix(): known
        for file in sorted(PACKAGE.rglob("*.py"))
        if (known := knowledge(file.read_text(encoding="utf-8")))
    }
    assert {name for name in found if not name.startswith(KNOWERS)} == set()
    assert found, "the places that may know the system use it"


@pytest.mark.parametrize(
    ("source", "known"),
    [
        ("import signal", "signal"),
        ("from resource import getrusage", "resource"),
        ("import psutil", "psutil"),
        ("import platform", "platform"),
        ("from convbench.machine.system import is_linux", "convbench.machine.system"),
        ("from os import kill", "os.kill"),
        ("from sys import platform", "sys.platform"),
        ("os.sched_getaffinity(0)", "os.sched_getaffinity"),
        ("os.killpg(1, 9)", "os.killpg"),
        ("os.fork()", "os.fork"),
        ("os.getloadavg()[0]", "os.getloadavg"),
        ("os.setsid()", "os.setsid"),
        ("os.posix_fallocate(1, 0, 1)", "os.posix_fallocate"),
        ("sys.platform == 'win32'", "sys.platform"),
        ("ctypes.CDLL(None, use_errno=True)", "CDLL(None)"),
        ("Popen([], pass_fds=[1])", "pass_fds"),
        ("Path('/proc/self/status')", "/proc/self/status"),
        ("open(f'/sys/devices/{name}')", "/sys/devices/"),
    ],
)
def test_knowledge_of_a_system_is_found(source, known):
    assert [words for _, words in knowledge(source)] == [known]


@pytest.mark.parametrize(
    "source",
    [
        "import os, sys",
        "os.path.join('processes', 'x')",
        "ctypes.CDLL(path)",
        "os.getpid()",
        "x.kill()",
    ],
)
def test_use_of_what_every_system_has_is_not_found(source):
    assert knowledge(source) == []


# The portable ways, on whatever system this is


@pytest.fixture
def portable(monkeypatch):
    """Use the portable ways, in this process and in those that it starts."""
    with monkeypatch.context() as patch:
        patch.setenv(VARIABLE, PORTABLE)
        is_linux.cache_clear()
        assert not is_linux()
        yield
    is_linux.cache_clear()


against_linux = pytest.mark.skipif(
    not is_linux(), reason="the test compares the portable ways with Linux's own"
)


@against_linux
def test_usable_cpus_are_those_of_linux(request):
    expected = affinity.usable_cpus()
    request.getfixturevalue("portable")
    assert affinity.usable_cpus() == expected


def test_a_process_is_kept_to_cpus(portable):
    """Try it in a process of its own, so that the tests' process stays on its CPUs."""
    code = (
        "from convbench.machine import affinity\n"
        "first = affinity.usable_cpus()[:1]\n"
        "affinity.keep_process(first)\n"
        "assert affinity.usable_cpus() == first, 'not kept'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    if not hasattr(psutil.Process, "cpu_affinity"):
        pytest.skip("this system keeps no process to CPUs, and raises nothing")
    assert done.returncode == 0, done.stderr


def test_threads_run_without_being_kept_to_cpus(portable):
    seen = []
    threads.in_threads(seen.append, 2)
    assert sorted(seen) == [0, 1]
    assert affinity.current_cpu() is None
    assert not affinity.keeps_threads()


def test_probes_look_at_one_cpu(portable):
    found = probe()
    assert 0 < found.quickest_loop_s == found.slowest_loop_s < 1


def test_a_process_that_is_gone_does_not_run():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert processes.is_running(os.getpid())
    assert not processes.is_running(gone.pid)


def test_a_process_ends_with_its_pipe():
    code = (
        "import time\n"
        "from convbench.machine import processes\n"
        "processes.end_with(0)\n"
        "print('waits', flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout.readline().strip() == b"waits"
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(10) == 1


def test_a_system_without_forks_needs_no_call(monkeypatch):
    monkeypatch.delattr(os, "register_at_fork", raising=False)
    called = []
    processes.call_in_forks(lambda: called.append("now"))
    assert called == []


def test_the_load_is_in_range():
    assert 0 <= usage.load() < 10_000


@against_linux
def test_peak_memory_is_not_below_that_of_linux(request):
    expected = usage.peak_resident_bytes()
    request.getfixturevalue("portable")
    # getrusage also counts what the parent held before the fork, so its figure may be higher.
    assert expected * 0.9 <= usage.peak_resident_bytes()
    assert usage.peak_resident_bytes() >= psutil.Process().memory_info().rss * 0.9


def test_calls_are_taken_to_touch_new_pages_if_nobody_counts_them(portable):
    counts = usage.page_faults()
    assert counts is None or counts > 0
    if counts is None:
        assert experiments._has_new_pages(lambda: None)


@against_linux
def test_cpu_times_are_those_of_linux():
    busy, total = calibration._ticks(Path("/"))
    portable_busy, portable_total = calibration._portable_cpu_times()
    second = os.sysconf("SC_CLK_TCK")
    assert portable_total == pytest.approx(total / second, rel=1e-3)
    assert portable_busy == pytest.approx(busy / second, rel=1e-3)


def test_the_load_of_neighbours_is_a_share(portable):
    assert 0 <= calibration.neighbour_load(0.1).share <= 1


@against_linux
def test_the_machine_is_the_same(request):
    expected = fingerprint()
    request.getfixturevalue("portable")
    found = fingerprint()
    assert found.logical_cpus == expected.logical_cpus
    assert found.memory_bytes == expected.memory_bytes
    assert 1 <= found.cores <= found.logical_cpus


def test_a_document_is_changed_by_one_writer_at_a_time(portable, tmp_path):
    path, counted = tmp_path / "x.json", []

    def count(document):
        before = document.get("count", 0)
        time.sleep(0.01)
        counted.append(before)
        return {"count": before + 1}

    writers = [
        threading.Thread(target=lambda: cache_file.update(path, "x/1", count)) for _ in range(5)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert cache_file.read(path, "x/1")["count"] == 5
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_a_lock_that_a_killed_process_left_costs_one_wait(portable, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_file, "LOCK_S", 0.05)
    path = tmp_path / "x.json"
    (tmp_path / "x.json.held").touch()
    assert cache_file.update(path, "x/1", lambda document: {"a": 1})
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


# Workers (tests/test_process.py tests their portable ways too)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        pytest.param(
            -9, "was killed by SIGKILL (memory ran out, or somebody killed it)", marks=linux
        ),
        pytest.param(-11, "was killed by SIGSEGV", marks=linux),
        (3, "ended with exit code 3"),
        (0xC0000005, "ended with exit code 0xC0000005"),  # Windows: access violation
    ],
)
def test_an_exit_code_tells_how_a_worker_ended(code, words):
    assert how_it_ended(code) == f"the worker {words}"


def test_a_stranger_who_calls_is_turned_away():
    """A caller without the key is refused, and the worker that calls next gets the connection."""

    class Running:
        def poll(self):
            return None

    key = b"k" * 32
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        refused = []

        def call():
            try:
                multiprocessing.connection.Client(address, authkey=b"another")
            except (multiprocessing.AuthenticationError, EOFError, OSError) as error:
                refused.append(error)
            with multiprocessing.connection.Client(address, authkey=key) as connection:
                connection.send("hello")

        caller = threading.Thread(target=call)
        caller.start()
        with _accepted(server, key, Running()) as connection:
            assert connection.poll(10)
            assert connection.recv() == "hello"
        caller.join()
    assert len(refused) == 1


@against_linux
def test_a_worker_imports_little():
    """A worker imports neither psutil nor anything else heavy that its kernels do not need."""
    code = (
        "import sys\n"
        "import convbench.measure.worker\n"
        "assert 'numpy' not in sys.modules\n"
        "from convbench.measure import bench, probes\n"
        "probes.probe()\n"
        "bench.peak_resident_bytes()\n"
        "heavy = {'psutil', 'yaml', 'pydantic', 'typer', 'rich', 'pyperf'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# What a run tells if the system cannot do something


def _only(words):
    machine = fingerprint()
    found = cautions.cautions(machine, {}, 1, None)
    return [caution for caution in found if words in caution.what]


@against_linux
def test_threads_that_cannot_be_kept_are_a_caution(request):
    words = "threads cannot be kept to CPUs"
    assert _only(words) == []
    request.getfixturevalue("portable")
    assert len(_only(words)) == 1


def test_memray_that_is_missing_is_a_caution(monkeypatch):
    monkeypatch.setattr(cautions, "installed_version", lambda name: None)
    (caution,) = _only("memray is not installed")
    assert "Windows" in caution.hint


def test_memory_whose_pages_are_not_seen_is_not_exact(portable):
    layer = Layer("small", (8, 8, 2), 4, (3, 3))
    given = operands.floats(layer, Pass.FORWARD, seed=1)
    found = memory.meter(REGISTRY.get("im2col"), layer, Pass.FORWARD, 1, given, 0.02)
    assert found.peak_bytes > 0
    if memory._emptied_buffers(1)[0] is None:
        assert not found.exact
        assert found.method.endswith(f"(without BLAS's buffers: {pages.UNSEEN})")


def test_memory_is_not_kept_where_malloc_cannot_be_told(portable):
    with pages.memory_kept() as is_kept:
        assert not is_kept
    for ask in (
        pages.mapped_bytes,
        lambda: pages.give_back(0, 0),
        lambda: pages.resident_bytes(0, 0),
    ):
        with pytest.raises(OSError, match="does not tell"):
            ask()


def test_events_that_cannot_be_counted_are_told(portable):
    found = counted(lambda: None, 1.0)
    assert found.counts == {}
    assert dict.fromkeys(events.EVENTS, "only Linux has perf_event_open") == found.missing


def test_a_run_goes_the_portable_way(tmp_path):
    """In a real run, parent and workers go the portable way: every figure is there, and the run
    warns of what is missing."""
    log, output = tmp_path / "log", tmp_path / "r.json"
    code = (
        "import sys\n\nimport numpy as np\n"
        "from numpy.lib.stride_tricks import sliding_window_view\n\n"
        "from convbench.machine.system import is_linux\n\n"
        f"with open({str(log)!r}, 'a') as file:\n"
        "    print(sys.argv[1], is_linux(), file=file)\n\n\n"
        "def conv(x, kernel):\n"
        "    windows = sliding_window_view(x, kernel.shape[2:], (2, 3))\n"
        "    return np.einsum('bcijpq,fcpq->bfij', windows, kernel)\n"
    )
    (tmp_path / "mine.py").write_text(code)
    done = started(
        *("run", TINY, "--impl", "mine.py:conv", "--layer", "a", "--pass", "forward"),
        *("--effort", "smoke", "-o", output),
        cwd=tmp_path,
        **{VARIABLE: PORTABLE},
    )
    assert done.returncode in (0, 3), done.stderr
    document = json.loads(output.read_text())
    told = [caution["what"] for caution in document["convbench"]["warnings"]]
    assert any("threads cannot be kept to CPUs" in what for what in told)
    assert document["convbench"]["environment"][VARIABLE] == PORTABLE
    assert set(log.read_text().splitlines()) == {"calls False"}
    found = cells(document)
    for implementation in ("loop", "im2col", "mine.py:conv"):
        cell = found["a", "forward", implementation]
        assert cell["status"] == "ok"
        assert cell["time"]["time_s"] > 0
        assert cell["memory"]["peak_bytes"] > 0


# The workflow (it was never run here, so these tests only compare it with other files)

WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
(TESTS,) = WORKFLOW["jobs"].values()


def _runs():
    return {step["name"]: step for step in TESTS["steps"] if "run" in step}


def test_the_workflow_has_the_versions_of_the_package():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    matrix = TESTS["strategy"]["matrix"]
    assert matrix["python"] == named
    assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    newest = max(int(version.partition(".")[2]) for version in named)
    assert project["requires-python"] == f">={named[0]},<3.{newest + 1}"


def test_the_workflow_runs_the_tests_as_the_readme_says():
    (command,) = re.findall(r"^python3 -m venv .+ pytest$", README, re.MULTILINE)
    runs = _runs()
    assert runs["the README's test command"]["run"].strip() == command
    on_windows = command.replace("python3", "python").replace(".venv/bin/", ".venv/Scripts/")
    assert runs["the README's test command, on Windows"]["run"].strip() == on_windows
    assert {step["if"] for name, step in runs.items() if "README" in name} == {
        "runner.os != 'Windows'",
        "runner.os == 'Windows'",
    }


def test_the_workflow_lints_as_a_submission_is_linted():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    block = script.partition('step "ruff')[2].partition("\nstep")[0]
    lines = [line.replace('"$venv/bin/', "").replace('"', "") for line in block.splitlines()[1:]]
    step = _runs()["ruff, mypy --strict, import-linter"]
    given = [line.replace(".venv/bin/", "") for line in step["run"].splitlines()]
    assert given == [line for line in lines if line]
    assert step["if"] == "runner.os == 'Linux'"
