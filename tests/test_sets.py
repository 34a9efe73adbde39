"""Test large sets and whole networks: shards and their merging, totals, and how often to save."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convbench import runtimes
from convbench.compare.joining import join, missing_shards
from convbench.errors import ConvbenchError, ExitCode, ResultError
from convbench.machine import description as machine
from convbench.problem.layer import Layer, Pass
from convbench.report.views import scale
from convbench.results import file as result_file
from convbench.results import stats
from convbench.results.file import Saved
from convbench.results.model import Cell, NetworkRow, RoundSamples, Time, benchmark_name
from convbench.results.network import network
from convbench.results.rounds import by_round, fastest_by_round
from convbench.results.summary import summarise
from convbench.schedule import Session
from convbench.schedule.checking import LANE_CELLS, _parts
from convbench.suites.file.writing import write_suite
from convbench.suites.suite import BEST_PER_LAYER, FASTEST_KERAS, Suite, shard
from tests.cli import cells, convbench

FORWARD, KERNEL = Pass.FORWARD, Pass.KERNEL_GRADIENT


def suite_of(count: int, *implementations: str) -> Suite:
    layers = tuple(
        Layer(f"layer {i}", (6 + i % 3, 5, 2), 3, (3, 3), batch_size=1) for i in range(count)
    )
    return Suite("set", layers, implementations or ("loop", "im2col"), (FORWARD,))


# Shards


@given(st.integers(1, 60), st.integers(1, 8))
def test_every_layer_falls_into_exactly_one_shard(layers: int, count: int) -> None:
    suite = suite_of(layers)
    found = []
    for index in range(1, count + 1):
        try:
            part = shard(suite, index, count)
        except ConvbenchError as error:
            assert error.message == f"no layer of set falls into shard {index}/{count}"  # noqa: PT017
            continue
        found += part.layers
    assert sorted(layer.name for layer in found) == sorted(layer.name for layer in suite.layers)


def test_a_layer_keeps_its_shard_whatever_else_the_suite_has() -> None:
    whole = suite_of(40)
    part = {layer.name for layer in shard(whole, 2, 3).layers}
    fewer = replace(whole, layers=whole.layers[::2])
    assert {layer.name for layer in shard(fewer, 2, 3).layers} == part & {
        layer.name for layer in fewer.layers
    }
    # The shard of a layer is the same on every machine.
    assert "layer 0" in {layer.name for layer in shard(whole, 1, 3).layers}


@pytest.mark.slow
def test_shards_are_run_and_merged(tmp_path: Path) -> None:
    suite = tmp_path / "set.yaml"
    suite.write_text(write_suite(suite_of(4)))
    for index in (1, 2):
        options = ("--effort", "smoke", "--quiet", "-o", tmp_path / f"{index}.json")
        done = convbench("run", suite, "--shard", f"{index}/2", *options)
        assert done.returncode == 0, done.stderr
    files = (tmp_path / "1.json", tmp_path / "2.json")
    done = convbench("merge", *files, "-o", tmp_path / "all.json")
    assert done.returncode == 0, done.stderr
    assert "The whole network" in done.stdout
    merged = json.loads((tmp_path / "all.json").read_text())
    found = cells(merged)
    assert len(found) == 8
    parts = [json.loads(file.read_text()) for file in files]
    assert parts[0]["convbench"]["shard"] == [1, 2]
    for part in parts:
        for key, cell in cells(part).items():
            assert found[key]["time"] == cell["time"]
    assert "missing" not in json.dumps(merged["convbench"]["warnings"])

    done = convbench("merge", files[0], "-o", tmp_path / "half.json")
    assert "warning: shards are missing: 2/2" in done.stdout
    done = convbench("merge", files[0], files[0], "-o", tmp_path / "twice.json")
    assert done.returncode == ExitCode.USAGE
    assert "both have the layer" in done.stderr
    done = convbench("run", suite, "--shard", "3/2")
    assert done.returncode == ExitCode.USAGE
    assert "--shard: found '3/2', expected I/N" in done.stderr


def saved(layers: slice, **changes: object) -> Saved:
    suite = suite_of(6)
    suite = replace(suite, layers=suite.layers[layers])
    session = Session(
        suite,
        machine.fingerprint(),
        machine.software(runtimes.versions()),
        {},
        1,
        "quick",
        0,
        Path("x.json"),
    )
    return Saved(replace(session.result(), **changes), {}, {})  # type: ignore[arg-type]


def test_files_that_are_not_parts_of_one_suite_are_refused() -> None:
    first = ("a", saved(slice(0, 3)))
    other = saved(slice(3, 6))
    assert len(join([first, ("b", other)]).result.cells) == 12
    renamed = replace(other.result, suite=replace(other.result.suite, passes=(KERNEL,)))
    with pytest.raises(ResultError, match="b is not a part of the same suite as a: passes is"):
        join([first, ("b", replace(other, result=renamed))])
    elsewhere = replace(other.result, machine=replace(other.result.machine, cpu="another"))
    with pytest.raises(
        ResultError, match=r"b does not belong with a: CPU: .* another now"
    ) as error:
        join([first, ("b", replace(other, result=elsewhere))])
    assert error.value.exit_code == ExitCode.INCOMPARABLE
    both = join([first, ("b", replace(other, result=elsewhere))], different_machines=True)
    assert len(both.result.cells) == 12


def test_missing_shards_are_named() -> None:
    results = [saved(slice(0, 1), shard=part).result for part in ((1, 3), (3, 3))]
    assert missing_shards(results) == ["2/3"]
    assert missing_shards([saved(slice(0, 1)).result]) == []


# Saving, lanes


def test_a_session_saves_less_often_the_longer_saving_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("convbench.schedule.session.time.monotonic", lambda: now[0])

    def slow(path: Path, _: Saved) -> Path:
        now[0] += 3.0
        return path

    monkeypatch.setattr(result_file, "save", slow)
    session = Session(
        suite_of(2),
        machine.fingerprint(),
        machine.software(runtimes.versions()),
        {},
        1,
        "quick",
        0,
        tmp_path / "x",
    )
    assert session.keep() is not None  # the first save is immediate
    kept = []
    for _ in range(200):
        now[0] += 1.0
        kept.append(session.keep() is not None)
    assert 2 <= sum(kept) <= 4  # saving takes 3 s, and happens every 60 s
    session.save()
    assert session.keep() is None


def test_a_runtime_has_several_workers_where_their_start_pays() -> None:
    keys = [(f"layer {i}", FORWARD, "im2col") for i in range(3 * LANE_CELLS)]
    assert [len(part) for part in _parts(keys, 2)] == [150, 150]
    assert [len(part) for part in _parts(keys, 8)] == [100, 100, 100]
    assert [len(part) for part in _parts(keys[:100], 8)] == [100]
    assert sorted(key for part in _parts(keys, 8) for key in part) == sorted(keys)


# Totals

MS = {
    ("a", FORWARD): {"im2col": 2.0, "keras": 1.0, "keras-graph": 4.0},
    ("b", FORWARD): {"im2col": 1.0, "keras": 5.0, "keras-graph": 3.0},
    ("a", KERNEL): {"im2col": 2.0, "keras": 8.0, "keras-graph": 4.0},
    ("b", KERNEL): {"im2col": 7.0, "keras": 5.0, "keras-graph": 6.0},
}
"""Milliseconds of every cell. Layer b counts three times."""


class Wider:
    """Deviations by which runs differ in NumPy's times and speedups beyond their own errors."""

    def time(self, found: stats.Estimate, names: set[str]) -> stats.Estimate:
        return stats.in_the_long_run(found, 0.1, 9) if "im2col" in names else found

    def ratio(self, found: stats.Estimate, pairs: set[tuple[str, str]]) -> stats.Estimate:
        assert all(versus in ("keras", "keras-graph") for _, versus in pairs)
        return stats.in_the_long_run(found, 0.05, 9)


def rows(without: tuple[str, Pass, str] | None = None, rounds: int = 6) -> dict[tuple, NetworkRow]:
    layers = (
        Layer("a", (8, 8, 1), 2, (3, 3)),
        Layer("b", (8, 8, 1), 2, (2, 2), count=3),
    )
    found, benchmarks = [], {}
    for (layer, pass_), times in MS.items():
        for name, ms in times.items():
            key = benchmark_name(layer, pass_, name)
            if (layer, pass_, name) != without:
                found.append(Cell(layer, pass_, name, "ok", time=Time(1.0, None, 6, 6, key)))
            benchmarks[key] = tuple(
                RoundSamples(r, (0,), 1, (ms * (1 + r / 100),), (), {})
                for r in range(1, rounds + 1)
            )
    made = network(found, layers, (FORWARD, KERNEL), by_round(benchmarks), Wider())
    return {(row.implementation, row.pass_): row for row in made}


def test_totals_count_layers_as_often_as_the_network_has_them() -> None:
    found = rows()
    drift = math.exp(sum(math.log(1 + r / 100) for r in range(1, 7)) / 6)
    totals = {key: row.total_s / drift for key, row in found.items()}
    assert totals == pytest.approx(
        {
            ("im2col", FORWARD): 5,
            ("im2col", KERNEL): 23,
            ("im2col", None): 28,
            ("keras", FORWARD): 16,
            ("keras", KERNEL): 23,
            ("keras", None): 39,
            ("keras-graph", FORWARD): 13,
            ("keras-graph", KERNEL): 22,
            ("keras-graph", None): 35,
            (FASTEST_KERAS, FORWARD): 10,
            (FASTEST_KERAS, KERNEL): 19,
            (FASTEST_KERAS, None): 29,
            (BEST_PER_LAYER, FORWARD): 4,
            (BEST_PER_LAYER, KERNEL): 17,
            (BEST_PER_LAYER, None): 21,
        }
    )
    best = found[BEST_PER_LAYER, FORWARD]
    assert [(layer.layer, layer.count, layer.implementation) for layer in best.layers] == [
        ("a", 1, "keras"),
        ("b", 3, "im2col"),
    ]
    assert [layer.share for layer in best.layers] == pytest.approx([0.25, 0.75])
    assert best.ci99_s is not None
    assert best.over_fastest_keras == pytest.approx(2.5)
    assert found["im2col", None].over_fastest_keras == pytest.approx(29 / 28)
    low, high = found["im2col", None].over_fastest_keras_ci99
    assert low < 29 / 28 < high  # from the runs only, because both shared the drift
    low, high = found["im2col", None].over_fastest_keras_run_ci99
    assert low == pytest.approx(high)
    low, high = found["im2col", None].ci99_s
    inner = found["im2col", None].run_ci99_s
    assert low < inner[0] < inner[1] < high
    assert found["keras", None].ci99_s == found["keras", None].run_ci99_s
    assert found["keras", None].over_fastest_keras is None


def test_a_total_needs_every_layer() -> None:
    found = rows(without=("b", KERNEL, "im2col"))
    assert ("im2col", FORWARD) in found
    assert ("im2col", KERNEL) not in found
    assert ("im2col", None) not in found
    assert found[BEST_PER_LAYER, KERNEL].layers[1].implementation == "keras"


def test_a_total_of_few_rounds_has_no_interval() -> None:
    assert rows(rounds=3)["im2col", None].ci99_s is None
    assert rows(rounds=1)["im2col", None].over_fastest_keras_ci99 is None


def test_the_fastest_is_picked_by_the_other_half_of_the_rounds() -> None:
    """In each half another way is faster, which shows that no round is judged by its own half."""

    def way(*ms: float) -> dict[int, RoundSamples]:
        return {r: RoundSamples(r, (0,), 1, (t,), (), {}) for r, t in enumerate(ms, 1)}

    ways = {"keras": way(1, 9, 1, 9), "keras-graph": way(2, 3, 2, 3)}
    assert fastest_by_round(ways) == {
        1: "keras-graph",
        2: "keras",
        3: "keras-graph",
        4: "keras",
    }
    assert fastest_by_round({"keras": way(1), "keras-graph": way(2)}) == {1: "keras"}


# Showing some of a result


def test_show_narrows_a_result_and_makes_its_means_anew(tmp_path: Path) -> None:
    done = convbench("show", "results/mnist.json", "--layer", "conv1", "--pass", "forward")
    assert done.returncode == 0
    assert "conv2" not in done.stdout
    assert "1 layer pass" in done.stdout
    whole = result_file.load(Path("results/mnist.json"))
    (one,) = (
        s
        for s in whole.result.speedups
        if (s.layer, s.pass_, s.implementation, s.versus) == ("conv1", FORWARD, "im2col", "loop")
    )
    assert f"{scale.significant(one.ratio)} times as fast as loop" in done.stdout
    again = summarise(whole.result, whole.benchmarks)
    assert [(s.ratio, *s.ci99) for s in again.speedups] == [
        pytest.approx((s.ratio, *s.ci99), rel=1e-9) for s in whole.result.speedups
    ]


def test_show_names_more_layers_of_a_network() -> None:
    short = convbench("show", "results/mnist.json", "--top", 1)
    assert "1 of 3 layers take " in short.stdout
    assert "Most time lost to the fastest Keras" in short.stdout
