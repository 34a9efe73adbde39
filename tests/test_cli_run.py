"""Test `convbench run` as a user runs it: what it measures, saves, prints and returns."""

import json
import signal
import subprocess
import sys
import time

import pytest

from convbench.results import file as result_file
from tests.cli import TINY, USERS, cells, convbench, launched, run_tiny
from tests.systems import linux, posix


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """One finished run, shared by the tests that only look at it."""
    output = tmp_path_factory.mktemp("tiny") / "tiny.json"
    done, document = run_tiny(output)
    return done, document, output


def test_a_ci_checks_meters_times_and_saves(tiny):
    done, document, _ = tiny
    assert done.returncode == 0, done.stderr
    assert "saved" in done.stderr
    assert "im2col is" in done.stdout
    found = cells(document)
    assert len(found) == 8
    for cell in found.values():
        assert cell["status"] == "ok"
        assert cell["agreement"]["exact"] is True
        assert 0 <= cell["agreement"]["error_over_bound"] <= 1
        assert cell["time"]["time_s"] > 0
        assert cell["time"]["ci99_s"] is None, "one round claims no interval"
        assert cell["memory"]["exact"] is True
        memory = cell["memory"]
        assert memory["peak_bytes"] == memory["held_bytes"] + memory["call_peak_bytes"]
        assert cell["work"]["gflops_per_s"] > 0
        assert 0 < cell["work"]["fraction_of_peak"] < 1
        assert cell["ledger"]["inside"]
    part = document["convbench"]
    assert part["machine"]["calibration"]["sgemm"]["1"] > 1e9
    assert {row["versus"] for row in part["speedups"]} == {"loop"}
    assert len(part["duplicates"]) == 4


def test_every_sample_is_saved_with_its_round_and_order(tiny):
    _, document, _ = tiny
    names = {b["metadata"]["name"] for b in document["benchmarks"]}
    assert "a/forward/im2col" in names
    assert sum(name.endswith("#twin") for name in names) == 4
    for benchmark in document["benchmarks"]:
        for run in benchmark["runs"]:
            metadata = run["metadata"]
            assert metadata["round"] == 1
            visits = [int(count) for count in metadata["visits"].split()]
            assert sum(visits) == len(run["values"])
            assert len(visits) == len(metadata["order"].split()) == 1
            assert set(visits) == {8}  # a visit of 20 ms has samples of 2.5 ms
            for when in ("before", "after"):
                probes = metadata[f"probes_{when}"].split()
                assert len(probes) == len(visits)
                assert all(float(us) > 0 for probe in probes for us in probe.split("/"))
            assert metadata["loops"] >= 1
            assert run["warmups"]


def test_every_cell_has_two_times(tiny):
    """One time is the median; the other is the quickest eighth, which is no slower."""
    for cell in cells(tiny[1]).values():
        assert 0 < cell["time"]["undisturbed_s"] <= cell["time"]["time_s"]
    for speedup in tiny[1]["convbench"]["speedups"]:
        assert speedup["undisturbed_ratio"] > 0
    assert tiny[1]["convbench"]["phases"]["visits"] >= 12
    assert tiny[1]["convbench"]["resolution"] is None, "one round tells nothing apart"


def _pyperf(verb, file):
    done = subprocess.run(
        [sys.executable, "-m", "pyperf", verb, str(file)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pyperf_reads_the_file(tiny):
    """All of pyperf's readers take the file, and see every benchmark."""
    _, document, output = tiny
    names = [b["metadata"]["name"] for b in document["benchmarks"]]
    shown, stats, check, dump = (
        _pyperf(verb, output) for verb in ("show", "stats", "check", "dump")
    )
    assert f"Number of benchmarks: {len(names)}" in stats
    for name in names:
        assert all(name in text for text in (shown, stats, dump))
    assert shown.count("Mean +- std dev:") == len(names)
    assert stats.count("Total number of values: ") == len(names)
    assert dump.count("Run 1: ") == len(names)
    # pyperf rightly finds most benchmarks unstable, since each has the samples of one visit only.
    assert "benchmark" in check
    assert "ERROR" not in check


def test_options_select_implementations_passes_and_layers(tmp_path):
    done, document = run_tiny(
        tmp_path / "r.json", "--impl", "im2col", "--pass", "forward", "--layer", "b*"
    )
    assert done.returncode == 0, done.stderr
    assert list(cells(document)) == [("b", "forward", "im2col")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--impl", "im2cool"], "there is no implementation 'im2cool'"),
        (["--pass", "forwards"], "did you mean 'forward'?"),
        (["--layer", "zzz"], "no layer of tiny matches zzz"),
        (["--threads", "999"], "expected 'all' or a number from 1 to"),
        (["--impl", "nowhere.py:f"], "there is no file nowhere.py"),
        (["--impl", f"{USERS}:1f"], "'1f' is not the name of a function"),
        (["-o", "x.txt"], "a result file ends in .json"),
    ],
)
def test_bad_options_are_usage_errors(arguments, message):
    done = convbench("run", TINY, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_bad_yaml_is_a_usage_error_with_its_places(tmp_path):
    suite = tmp_path / "broken.yaml"
    suite.write_text("layers:\n  - {input_shape: [8, 8, 2], filters: 4.5, kernelsize: 3}\n")
    done = convbench("run", suite)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{suite}:2:39: layers.0.filters:")
    assert "did you mean kernel_size?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_traceback_is_shown_on_request(tmp_path):
    assert "Traceback" in convbench("--traceback", "run", tmp_path / "none.yaml").stderr


def test_a_wrong_function_is_not_timed(tmp_path):
    name = f"{USERS}:flipped"
    done, document = run_tiny(tmp_path / "r.json", "--impl", name)
    assert done.returncode == 5
    cell = cells(document)["a", "forward", name]
    assert cell["status"] == "wrong"
    assert cell["time"] is None
    assert "elements differ" in cell["reason"]
    # The function takes no pads and gives no gradient.
    assert cells(document)["b", "forward", name]["status"] == "unsupported"
    assert cells(document)["a", "kernel-gradient", name]["status"] == "unsupported"


def test_time_wrong_times_a_wrong_function_without_ranking_it(tmp_path):
    name = f"{USERS}:flipped"
    done, document = run_tiny(
        tmp_path / "r.json", "--impl", name, "--time-wrong", "--layer", "a", "--pass", "forward"
    )
    assert done.returncode == 5
    assert cells(document)["a", "forward", name]["time"]["time_s"] > 0
    ranked = {row["implementation"] for row in document["convbench"]["speedups"]}
    assert ranked == {"im2col"}


def test_a_right_function_is_ranked(tmp_path):
    name = f"{USERS}:right"
    done, document = run_tiny(tmp_path / "r.json", "--impl", name, "--layer", "a")
    assert done.returncode == 0, done.stderr
    ranked = {row["implementation"] for row in document["convbench"]["speedups"]}
    assert name in ranked


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        pytest.param("killed", "killed by SIGKILL", marks=[pytest.mark.slow, posix]),
        pytest.param(
            "segfault", "killed by SIGSEGV (convolutions.py:63, in segfault)", marks=posix
        ),
        pytest.param("hangs", "no answer for 3 s", marks=pytest.mark.slow),
        pytest.param("out_of_memory", "out of memory", marks=pytest.mark.slow),
        ("raises", "RuntimeError: out of luck (convolutions.py:51, in raises)"),
        pytest.param("crashes_when_timed", "killed by SIGSEGV", marks=[pytest.mark.slow, posix]),
    ],
)
def test_a_fault_costs_its_cell_only(tmp_path, function, reason):
    name = f"{USERS}:{function}"
    options = ["--impl", name, "--timeout", 3, "--pass", "forward"]
    done, document = run_tiny(tmp_path / "r.json", *options)
    assert done.returncode == 5, done.stderr
    found = cells(document)
    assert found["a", "forward", name]["status"] == "failed"
    assert reason in found["a", "forward", name]["reason"]
    for layer in ("a", "b"):
        for other in ("loop", "im2col"):
            assert found[layer, "forward", other]["time"]["time_s"] > 0
    assert "Traceback" not in done.stderr


def _wait_for_round(process, output, number):
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        if output.exists() and _rounds(output) >= number:
            return
        time.sleep(0.05)
    raise AssertionError(f"no round {number}: {process.communicate()}")


def _rounds(output):
    runs = json.loads(output.read_text()).get("benchmarks", [])
    return max((len(b["runs"]) for b in runs), default=0)


@pytest.mark.parametrize(
    ("number", "code"),
    [("SIGINT", 130), pytest.param("SIGKILL", -9, marks=pytest.mark.slow)],
)
def test_an_interrupted_run_goes_on_when_it_is_resumed(tmp_path, number, code):
    output = tmp_path / "r.json"
    few = ["--layer", "a", "--pass", "forward"]
    arguments = ["run", TINY, *few, "--effort", "quick", "-o", output]
    process = launched(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    _wait_for_round(process, output, 2)
    process.send_signal(getattr(signal, number))
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == code, stderr
    if number == "SIGINT":
        assert f"convbench run --resume {output}" in stderr
        assert "im2col is" in stdout, "the rounds so far are shown"
    before = result_file.load(output)
    rounds = before.result.rounds
    assert rounds < 5
    if number == "SIGINT":
        assert f"interrupted after {rounds} round{'s' * (rounds != 1)}:" in stderr
    first = before.benchmarks["a/forward/im2col"][0]

    done = convbench("run", "--resume", output)
    assert done.returncode in (0, 3), done.stderr
    after = result_file.load(output)
    assert after.result.rounds == 5
    assert after.benchmarks["a/forward/im2col"][0] == first, "what was measured is kept"
    for runs in after.benchmarks.values():
        assert [run.round for run in runs] == [1, 2, 3, 4, 5]
    assert all(cell.time.ci99_s for cell in after.result.cells)


def test_resume_refuses_another_machine(tiny, tmp_path):
    document = json.loads(tiny[2].read_text())
    document["convbench"]["machine"]["cpu"] = "Another CPU"
    moved = tmp_path / "moved.json"
    moved.write_text(json.dumps(document))
    done = convbench("run", "--resume", moved)
    assert done.returncode == 4
    assert "CPU: Another CPU then" in done.stderr


def test_resume_refuses_another_environment(tiny):
    done = convbench("run", "--resume", tiny[2], OPENBLAS_OF_A_TEST="1")
    assert done.returncode == 4
    assert "'OPENBLAS_OF_A_TEST': '1'" in done.stderr


def test_resume_takes_no_other_selection(tiny):
    done = convbench("run", "--resume", tiny[2], "--layer", "a", "--seed", 3)
    assert done.returncode == 2
    assert "--layer, --seed cannot be changed" in done.stderr


def test_resume_with_more_to_time_keeps_one_run_for_each_round(tmp_path):
    """--time-wrong adds an arm to a finished (layer, pass), which is measured anew as a whole."""
    output = tmp_path / "r.json"
    name = f"{USERS}:flipped"
    run_tiny(output, "--impl", name, "--layer", "a", "--pass", "forward")
    done = convbench("run", "--resume", output, "--time-wrong")
    assert done.returncode == 5
    after = result_file.load(output)
    assert len(after.benchmarks) == 4
    for runs in after.benchmarks.values():
        assert [run.round for run in runs] == [1]


def test_a_python_that_cannot_start_is_reported_without_a_traceback(tmp_path):
    suite = tmp_path / "broken.yaml"
    suite.write_text(TINY.read_text() + "environment: {PYTHONHOME: /nonexistent}\n")
    done = convbench("run", suite, "--effort", "smoke", "-o", tmp_path / "r.json")
    assert done.returncode == 2
    assert "no worker can calibrate this machine" in done.stderr
    assert "Traceback" not in done.stderr


def test_resume_takes_no_suite_beside_it(tiny):
    assert convbench("run", TINY, "--resume", tiny[2]).returncode == 2
    assert convbench("run").returncode == 2


def test_nothing_is_overwritten_without_force(tiny):
    before = tiny[2].read_text()
    done = convbench("run", TINY, "-o", tiny[2])
    assert done.returncode == 2
    assert "exists already" in done.stderr
    assert "--force" in done.stderr
    assert tiny[2].read_text() == before


@linux
@pytest.mark.parametrize("folder", ["/proc/convbench", "/dev/null/results"])
def test_a_folder_that_cannot_be_written_is_noticed_before_measuring(folder):
    started = time.monotonic()
    done = convbench("run", TINY, "-o", f"{folder}/r.json")
    assert done.returncode == 2
    assert f"results cannot be saved in {folder}" in done.stderr
    assert "calibr" not in done.stderr
    assert time.monotonic() - started < 10


@pytest.fixture
def full_folder(tmp_path):
    folder = tmp_path / "full"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_noticed_before_measuring(full_folder):
    done = convbench("run", TINY, "-o", full_folder / "r.json")
    assert done.returncode == 2
    assert "No space left on device" in done.stderr


def test_a_disk_that_fills_up_loses_nothing(tiny, full_folder):
    saved = result_file.load(tiny[2])
    (full_folder / "ballast").write_bytes(b"x" * (2**20 - 4096))
    where = result_file.save(full_folder / "convbench-test-full.json", saved)
    try:
        assert where.parent != full_folder
        assert result_file.load(where) == saved
    finally:
        where.unlink()


def test_a_layer_that_does_not_fit_is_skipped_with_the_figures(tmp_path):
    suite = tmp_path / "huge.yaml"
    suite.write_text(
        "layers:\n"
        "  - {name: huge, input_shape: [100000, 100000, 64], filters: 64, kernel_size: 3}\n"
        "  - {name: small, input_shape: [8, 8, 1], filters: 2, kernel_size: 3}\n"
        "implementations: [im2col]\npasses: [forward]\nthreads: 1\n"
    )
    output = tmp_path / "r.json"
    done = convbench("run", suite, "--effort", "smoke", "-o", output)
    assert done.returncode == 0, done.stderr
    found = cells(json.loads(output.read_text()))
    assert found["huge", "forward", "im2col"]["status"] == "skipped"
    assert "GiB are free" in found["huge", "forward", "im2col"]["reason"]
    assert found["small", "forward", "im2col"]["status"] == "ok"


@pytest.mark.slow
def test_a_small_budget_gives_fewer_rounds_then_fewer_arms(tmp_path):
    """`slow` sleeps 0.15 s in each call, more than a budget of a few seconds can pay for."""
    name = f"{USERS}:slow"
    options = ["--impl", name, "--layer", "a", "--pass", "forward", "--effort", "standard"]
    output = tmp_path / "r.json"
    done = convbench("run", TINY, *options, "--budget", 7, "-o", output)
    assert done.returncode in (0, 3), done.stderr
    part = json.loads(output.read_text())["convbench"]
    assert 3 <= part["rounds"] < 8
    assert any("the budget allowed" in w["what"] for w in part["warnings"])

    tight = tmp_path / "tight.json"
    done = convbench("run", TINY, *options, "--budget", 1, "-o", tight)
    found = cells(json.loads(tight.read_text()))
    assert found["a", "forward", name]["status"] == "skipped"
    assert (
        "the budget of 1 s does not allow at least 3 rounds"
        in found["a", "forward", name]["reason"]
    )
    assert any(cell["time"] for cell in found.values())


def test_the_suites_environment_reaches_the_workers_and_is_recorded(tmp_path):
    suite = tmp_path / "pinned.yaml"
    suite.write_text(
        TINY.read_text()
        .replace("name: tiny", "name: pinned")
        .replace("threads: 1", "threads: 1\nenvironment: {OPENBLAS_CORETYPE: Nehalem, OMP_X: null}")
    )
    output = tmp_path / "r.json"
    few = ("--layer", "a", "--pass", "forward")
    done = convbench("run", suite, *few, "--effort", "smoke", "-o", output, OMP_X="1")
    assert done.returncode == 0, done.stderr
    part = json.loads(output.read_text())["convbench"]
    assert part["environment"]["OPENBLAS_CORETYPE"] == "Nehalem"
    assert "OMP_X" not in part["environment"]
    assert [blas["kernels"] for blas in part["software"]["blas"]] == ["Nehalem"]
    warning = next(w for w in part["warnings"] if "OPENBLAS_CORETYPE" in w["what"])
    assert warning["factor"] > 1
    assert "OPENBLAS_CORETYPE=Nehalem" in done.stdout


@pytest.mark.slow
def test_two_runs_of_one_seed_take_the_same_order(tiny, tmp_path):
    _, again = run_tiny(tmp_path / "r.json")
    assert _orders(again) == _orders(tiny[1])
    _, other = run_tiny(tmp_path / "other.json", "--seed", 7)
    assert _orders(other) != _orders(tiny[1])


def _orders(document):
    return {
        b["metadata"]["name"].removesuffix("#twin"): b["runs"][0]["metadata"]["order"]
        for b in document["benchmarks"]
        if not b["metadata"]["name"].endswith("#twin")
    }


def test_a_plain_loop_confirms_each_timed_cell(tmp_path):
    """The loop runs in a process of its own, and its time is kept when the run is resumed."""
    output = tmp_path / "r.json"
    options = ("--impl", "im2col", "--impl", "loop", "--pass", "forward", "--layer", "a")
    done, document = run_tiny(output, *options, "--confirm")
    assert done.returncode == 0, done.stderr
    for name, cell in cells(document).items():
        # Other tests share the CPUs, so that only the order of magnitude is certain.
        assert 0.1 < cell["time"]["confirmed_s"] / cell["time"]["time_s"] < 10, name
    plain = [b for b in document["benchmarks"] if b["metadata"]["name"].endswith("#plain")]
    assert len(plain) == 2
    before = output.read_text()
    assert convbench("run", "--resume", output, "--confirm").returncode == 0
    after = json.loads(output.read_text())
    assert after["benchmarks"] == json.loads(before)["benchmarks"]


@pytest.mark.slow
def test_a_finished_run_is_confirmed_when_it_is_resumed(tmp_path):
    output = tmp_path / "r.json"
    options = ("--impl", "im2col", "--impl", "loop", "--pass", "forward", "--layer", "a")
    _, before = run_tiny(output, *options)
    assert all(cell["time"]["confirmed_s"] is None for cell in cells(before).values())
    done = convbench("run", "--resume", output, "--confirm")
    assert done.returncode == 0, done.stderr
    after = json.loads(output.read_text())
    assert all(cell["time"]["confirmed_s"] > 0 for cell in cells(after).values())
    assert "plain loop" in done.stdout
    names = {one["metadata"]["name"] for one in after["benchmarks"]}
    timed = [one for one in after["benchmarks"] if not one["metadata"]["name"].endswith("#plain")]
    assert timed == before["benchmarks"]
    assert {"a/forward/im2col#plain", "a/forward/loop#plain"} <= names


def test_a_run_with_cold_threads_times_single_calls_and_keeps_its_state(tmp_path):
    output = tmp_path / "r.json"
    options = ("--impl", "im2col", "--pass", "forward", "--layer", "a")
    done, document = run_tiny(output, *options, "--state", "cold-threads")
    assert done.returncode == 0, done.stderr
    assert document["convbench"]["state"] == "cold-threads"
    (run,) = document["benchmarks"][0]["runs"]
    assert run["metadata"]["loops"] == 1
    again = convbench("run", "--resume", output, "--state", "warm")
    assert again.returncode == 2
    assert "--state cannot be changed" in again.stderr


@pytest.mark.slow
def test_a_run_goes_on_until_it_is_precise(tmp_path):
    """The run adds rounds to those of its effort, and stops once every interval is narrow."""
    output = tmp_path / "r.json"
    options = ("--impl", "im2col", "--impl", "loop", "--pass", "forward", "--layer", "a")
    done, document = run_tiny(output, *options, "--precision", "200%", "--budget", "60")
    assert done.returncode in (0, 3), done.stderr
    part = document["convbench"]
    assert part["precision"] == {"target": 2.0, "first_rounds": 5}
    assert part["rounds"] >= 5
    (speedup,) = part["speedups"]
    low, high = speedup["run_ci99"]
    assert (high / low) ** 0.5 - 1 <= 2.0
    more, narrower = run_tiny(output, *options, "--precision", "0.01%", "--budget", "6", "--force")
    assert more.returncode in (0, 3), more.stderr
    assert narrower["convbench"]["rounds"] >= 3


@pytest.mark.parametrize("asked", ["3", "0%", "-2%", "many"])
def test_precision_is_a_percentage(asked):
    done = convbench("run", TINY, "--precision", asked)
    assert done.returncode == 2
    assert f"--precision: found '{asked}'" in done.stderr


def test_without_loop_and_keras_the_others_are_compared_with_the_first_implementation(tmp_path):
    options = ("--impl", "im2col", "--impl", "mec", "--pass", "forward", "--layer", "a")
    _, document = run_tiny(tmp_path / "r.json", *options)
    assert [(s["implementation"], s["versus"]) for s in document["convbench"]["speedups"]] == [
        ("mec", "im2col")
    ]
