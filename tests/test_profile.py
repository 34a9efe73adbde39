"""Test profiles: what a trace sees, how a gap is taken apart, and what the report says about it.

CONVBENCH_REWRITE_GOLDEN=1 pytest tests/test_profile.py writes the golden files. Read the diff.
"""

import io
import itertools
import json
import math
import mmap
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided, sliding_window_view
from rich.console import Console

from convbench.agreement.check.case import Case
from convbench.agreement.check.checker import check
from convbench.implementations.registry import REGISTRY
from convbench.machine import events
from convbench.problem.layer import Layer, Pass
from convbench.problem.operands import floats
from convbench.profile import counters, experiments, ladder_tables, products
from convbench.profile import tables as profile_tables
from convbench.profile.advising import CHANGES, MOST, advice
from convbench.profile.bounds import bounds
from convbench.profile.document import CAUSES, SCHEMA, Headline, Overhead, Point, Profile, Sweeps
from convbench.profile.document import Counter as Counted
from convbench.profile.findings import Examination, Line, Products, StageTime, Work
from convbench.profile.ladder import RUNGS, file_of
from convbench.profile.stages import OTHER, declared_stages, timed_stages
from convbench.profile.tracing import Traced, give_traced, trace
from convbench.profile.waterfall import Given, over_rounds, waterfall
from convbench.report import format_of, render
from convbench.report.formats.terminal import print_report
from convbench.results.model import Cell, ResultFile, Time
from convbench.results.stats import fit_line
from convbench.suites.suite import Suite
from tests.cli import ROOT, TINY, USERS, convbench
from tests.report_fixture import MACHINE, SOFTWARE
from tests.systems import linux

GOLDEN = Path(__file__).parent / "golden" / "profile"
LAYER = Layer("conv", (12, 11, 4), 6, (3, 3), batch_size=3)


# Traces


def traced(function, *arrays):
    held = [array.view(Traced) for array in arrays]
    return trace(lambda: function(*held), lambda file: file == __file__)


def kinds(found):
    return [
        (found.operations[call.operation].name, found.operations[call.operation].kind)
        for call in found.calls
    ]


X = np.arange(24, dtype=np.float32).reshape(4, 6)


def in_place(x):
    x += 1
    x[1:] *= 2
    return x


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x @ x.T, [("matmul", "product")]),
        (lambda x: np.dot(x, x.T), [("dot", "product")]),
        (lambda x: x.sum(axis=1), [("add.reduce", "arithmetic")]),
        (lambda x: np.sum(x * x), [("multiply", "arithmetic"), ("add.reduce", "arithmetic")]),
        (lambda x: x[1:, ::2], [("getitem", "view")]),
        (lambda x: x[[0, 2]], [("getitem", "copy")]),
        (lambda x: x.reshape(3, 8), [("reshape", "view")]),
        (lambda x: x.T.reshape(3, 8), [("reshape", "copy")]),
        (lambda x: np.pad(x, 1), [("pad", "copy")]),
        (lambda x: x.astype(np.float64), [("astype", "copy")]),
        (lambda x: np.einsum("ij,kj->ik", x, x), [("einsum", "arithmetic")]),
        (lambda x: np.zeros(3) + x[:, :3], "zeros getitem add"),
        (lambda x: np.ascontiguousarray(x.T), [("ascontiguousarray", "copy")]),
        (lambda x: np.asarray(x), [("asarray", "view")]),
        (in_place, "add getitem multiply setitem"),
        (lambda x: np.tensordot(x, x, ((1,), (1,))), [("tensordot", "product")]),
        (lambda x: as_strided(x, (2, 2), (4, 4)) + 1, "add"),
        (lambda x: sliding_window_view(x, (2, 2)).sum(), "add.reduce"),
    ],
)
def test_a_trace_sees_each_operation(function, expected):
    found = traced(function, X.copy())
    if isinstance(expected, str):
        names = [name for name, _ in kinds(found)]
        left = iter(names)
        assert all(name in left for name in expected.split()), names
    else:
        assert kinds(found) == expected
    want = function(X.copy())
    np.testing.assert_array_equal(np.asarray(found.result), want)


def test_a_trace_knows_lines_bytes_and_flops():
    def product(x):
        y = x * 2
        return y @ y.T

    found = traced(product, X.copy())
    first, second = (found.operations[call.operation] for call in found.calls)
    start = product.__code__.co_firstlineno
    assert (first.line, second.line) == ((__file__, start + 1), (__file__, start + 2))
    assert (first.read, first.written, first.fresh) == (X.nbytes, X.nbytes, X.nbytes)
    assert second.flops == 2 * 4 * 4 * 6
    assert all(call.seconds > 0 for call in found.calls)


def test_a_trace_leaves_numpy_as_it_was():
    before = {name: getattr(np, name) for name in ("zeros", "empty", "array", "asarray")}
    with pytest.raises(ZeroDivisionError):
        traced(lambda x: x / (1 // 0), X)
    assert {name: getattr(np, name) for name in before} == before
    assert type(np.zeros(3)) is np.ndarray


class Planned:
    layout, kernel_layout = "NHWC", "HWIO"

    def __init__(self, layer):
        self.columns = np.empty((2, 2), np.float32)


def test_calls_of_several_threads_are_seen_and_share_the_time():
    x = np.ones((4, 300, 300), np.float32)

    def work(part):
        for _ in range(20):
            part @ part
        return part + 1

    def in_threads(x):
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(work, x))

    start = time.perf_counter()
    found = traced(in_threads, x)
    passed = time.perf_counter() - start
    assert Counter(name for name, _ in kinds(found))["matmul"] == 80
    assert Counter(name for name, _ in kinds(found))["add"] == 4
    assert found.names == sorted(found.names)
    assert sum(call.seconds for call in found.calls) <= passed


def test_the_arrays_of_an_object_are_traced_too():
    class Prepared:
        def __init__(self):
            self._layer = LAYER
            self._x = X.copy()
            self._function = Object().run

    class Object:
        def __init__(self):
            self.buffer = X.copy()

        def run(self):
            return self.buffer

    prepared = Prepared()
    give_traced(prepared)
    assert type(prepared._x) is Traced
    assert type(prepared._function()) is Traced
    assert prepared._layer is LAYER


# Experiments


@pytest.fixture
def in_a_hurry(monkeypatch):
    """Time each thing for a hundredth of a second, in tests that need no exact times."""
    monkeypatch.setattr(experiments, "CLOCKED_S", 0.01)
    monkeypatch.setattr(experiments, "WAKE_S", 0.01)


@pytest.mark.usefixtures("in_a_hurry")
@pytest.mark.parametrize(
    "pass_", [Pass.FORWARD, *(pytest.param(p, marks=pytest.mark.slow) for p in list(Pass)[1:])]
)
@pytest.mark.parametrize("name", ["loop", "naive-im2col", "im2col", "mec", "auto"])
def test_built_in_implementations_can_be_examined(name, pass_):
    code = REGISTRY.get(name)
    found = experiments.examine(code, LAYER, pass_, 1, 0, lambda file: "implementations" in file)
    assert 0 < found.small_s <= found.call_s
    assert found.work
    assert all(one.seconds >= 0 for one in found.work)
    assert all(one.rest >= -1e-12 for one in found.work)
    assert found.dtype == "float32"
    ready = code.prepare(LAYER, pass_, 1)
    ready.load(floats(LAYER, pass_, 0))
    declared = {each.name: each.kind for each in declared_stages(ready)}
    assert bool(declared) == (name not in ("loop", "naive-im2col"))
    if declared:
        assert [one.name for one in found.stages] == [one.name for one in timed_stages(ready, 1)]
        are_the_stages_of_a_call(found, declared)
    else:
        assert found.stages == ()
    if name == "loop":
        assert found.calls > math.prod(LAYER.kernel_size)
        assert {line.file.rpartition("/")[2] for line in found.lines} == {"loop.py"}


def are_the_stages_of_a_call(found, declared):
    """Assert that the stages are the declared ones, in their order, and make up a call.

    The work from which the waterfall is made has the same stages, each with its share of the call.
    """
    *shown, rest = (stage.name for stage in found.stages)
    assert rest == OTHER
    assert shown == [name for name in declared if name in shown]
    assert "product" in [declared[name] for name in shown]
    assert all(stage.seconds > 0 and stage.calls >= 1 for stage in found.stages)
    whole = sum(stage.seconds for stage in found.stages)
    # The timers cost about as much as this small call, and other processes disturb it.
    assert 0.2 < whole / found.call_s < 10
    assert [(one.name, one.kind) for one in found.work] == [(n, declared[n]) for n in shown]
    shares = [stage.seconds / whole for stage in found.stages[:-1]]
    on_elements = found.call_s - found.fresh_pages_s - found.small_s
    expected = [share * on_elements for share in shares]
    assert [one.seconds for one in found.work] == pytest.approx(expected, abs=1e-12)
    assert sum(one.flops for one in found.work) == pytest.approx(LAYER.flops, abs=len(shown))
    are_shown(found.stages, profile_tables.report(profile(stages=found.stages)))


def are_shown(stages, report):
    """Assert that the table has each stage with its time and share, and that shares add up to 1."""
    (table,) = (each for each in report.tables if each.title.startswith("Stages"))
    (section,) = table.sections
    rows = [tuple(value.raw for value in row.values) for row in section.rows]
    whole = math.fsum(stage.seconds for stage in stages)
    expected = [(one.name, one.seconds, one.seconds / whole, str(one.calls)) for one in stages]
    for row, exact in zip(rows, expected, strict=True):
        assert (row[0], row[3]) == (exact[0], exact[3])
        assert row[1:3] == pytest.approx(exact[1:3], rel=1e-9)
    assert math.fsum(row[2] for row in rows) == pytest.approx(1)
    printed = render(report, "table")
    heading, units, *lines = re.search(r"^Stages.+\n((?:.+\n)+)", printed, re.M)[1].splitlines()
    assert (heading.split(), units.split()) == (["stage", "time", "share", "calls"], ["ms", "%"])
    for line, (name, seconds, share, calls) in zip(lines, expected, strict=True):
        told, time, per_cent, count = line.split()
        assert (told, count) == (name, calls)
        assert float(time) == pytest.approx(seconds * 1e3, rel=0.01)
        assert float(per_cent) == pytest.approx(share * 100, rel=0.06, abs=6e-3)


@pytest.mark.usefixtures("in_a_hurry")
def test_a_long_call_is_examined_on_a_part_of_the_layer(monkeypatch):
    monkeypatch.setattr(experiments, "LONGEST_S", 0.0)
    found = experiments.examine(REGISTRY.get("loop"), LAYER, Pass.FORWARD, 1, 0, lambda file: True)
    assert found.layer.batch_size == 1
    assert found.note.startswith("Examined on ")


@pytest.mark.usefixtures("in_a_hurry")
def test_loops_make_the_same_calls_on_a_layer_of_few_elements():
    loop = REGISTRY.get("loop")
    found = experiments.examine(loop, LAYER, Pass.FORWARD, 1, 0, lambda file: True)
    small = found.small_layer
    assert small.output_size == LAYER.output_size  # the code loops over positions
    assert (small.batch_size, small.channels, small.filters) == (1, 1, 1)
    gradient = experiments.examine(loop, LAYER, Pass.KERNEL_GRADIENT, 1, 0, lambda file: True)
    assert gradient.small_layer.output_size == (1, 1)  # the code loops over kernel positions
    assert gradient.small_layer.kernel_size == LAYER.kernel_size


@pytest.mark.parametrize("pass_", Pass)
def test_the_product_has_the_flops_of_the_pass(pass_):
    for groups in (1, 2):
        layer = replace(LAYER, groups=groups)
        m, n, k = products.sizes(layer, pass_)
        assert 2 * m * n * k * groups == layer.flops
        found = products.products(layer, pass_, 2, ["float32", "float64"])
        assert set(found.seconds) == {(d, t) for d in ("float32", "float64") for t in (1, 2)}
        assert all(seconds > 0 for seconds in found.seconds.values())


@linux
def test_a_process_that_keeps_memory_touches_no_fresh_pages():
    """The test runs in a process of its own, since malloc does not get all of its settings back."""
    code = """
import numpy as np
from convbench.machine.pages import memory_kept
from convbench.machine.usage import page_faults

def faults():
    for _ in range(3):
        np.ones(16 * 1024**2, np.uint8)
    before = page_faults()
    np.ones(16 * 1024**2, np.uint8)
    np.ones(50 * 1024**2, np.uint8)
    return page_faults() - before

with memory_kept() as is_kept:
    assert is_kept
    np.ones(50 * 1024**2, np.uint8)
    kept = faults()
print(kept, faults())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kept, given_back = map(int, done.stdout.split())
    assert kept <= 2
    assert given_back >= 16  # there are so few faults if the pages are huge


def test_each_event_is_counted_or_told_as_missing():
    """The kernel itself counts page faults, so virtual machines have this event too."""

    def fresh():
        with mmap.mmap(-1, 64 * mmap.PAGESIZE) as memory:
            for page in range(64):
                memory[page * mmap.PAGESIZE] = 1

    found = counters.counted(fresh, call_s=1e-3)
    assert {*found.counts, *found.missing} == {*events.EVENTS}
    if "page faults" in found.missing:
        assert "not permitted" in found.missing["page faults"]
    else:
        assert 1 <= found.counts["page faults"] < 70
    if "instructions" in found.counts:
        assert found.counts["instructions"] > 64


@linux
@pytest.mark.parametrize("error", events.REASONS)
def test_the_reason_is_told_if_nothing_is_counted(monkeypatch, error):
    def refused(*_):
        raise OSError(error, events.REASONS[error])

    monkeypatch.setattr(events, "_perf_event_open", refused)
    found = counters.counted(lambda: None, 1.0)
    assert found.counts == {}
    assert set(found.missing.values()) == {events.REASONS[error]}


# The waterfall

TIMES = st.floats(1e-6, 1e-1)


@st.composite
def findings(draw):
    work = tuple(
        Work(
            "multiply",
            draw(st.sampled_from(["arithmetic", "product", "copy", "view"])),
            ("mine.py", 3),
            "float32",
            calls=draw(st.integers(1, 1000)),
            bytes=1000,
            flops=draw(st.integers(0, 10**6)),
            seconds=(seconds := draw(TIMES | st.just(0.0))),
            traffic=seconds * draw(st.floats(0, 0.4)),
            layout=seconds * draw(st.floats(0, 0.4)),
            dtype_factor=draw(st.floats(1, 4)),
            threads_factor=draw(st.floats(1, 2)),
        )
        for _ in range(draw(st.integers(0, 4)))
    )
    seconds = {("float32", 1): draw(TIMES), ("float32", 2): draw(TIMES)}
    return Examination(
        layer=LAYER,
        call_s=draw(TIMES),
        traced_s=1.0,
        small_layer=LAYER,
        small_s=draw(TIMES),
        calls=7,
        work=work,
        products=Products(2, seconds),
        dtype="float32",
        fresh_pages_s=draw(st.floats(0, 1e-2)),
    )


@settings(deadline=None)
@given(found=findings(), time_s=TIMES, versus_s=TIMES, floor_s=TIMES)
def test_the_factors_and_the_unexplained_one_make_the_gap(found, time_s, versus_s, floor_s):
    steps, unexplained = waterfall(Given(time_s, versus_s, floor_s, LAYER, found))
    assert tuple(step.cause for step in steps) == CAUSES
    whole = math.prod(step.factor for step in steps) * unexplained
    assert whole == pytest.approx(time_s / versus_s, rel=1e-6)
    assert steps[-1].left_s == pytest.approx(versus_s)
    assert steps[-1].factor <= 1
    counsel = advice(Given(time_s, versus_s, floor_s, LAYER, found), steps, found.lines)
    assert len(counsel) <= MOST
    middles = [math.sqrt(math.prod(one.predicted_s)) for one in counsel]
    assert middles == sorted(middles)
    assert all(middle < time_s for middle in middles)


@settings(deadline=None)
@given(
    found=findings(),
    floor_s=TIMES,
    times=st.lists(st.tuples(TIMES, TIMES), min_size=1, max_size=6),
)
def test_the_factors_over_rounds_multiply_to_the_mean_gap(found, floor_s, times):
    each = [waterfall(Given(*pair, floor_s, LAYER, found)) for pair in times]
    steps, unexplained = over_rounds(each)
    whole = math.prod(step.factor for step in steps) * unexplained
    mean = math.exp(np.mean([math.log(mine / other) for mine, other in times]))
    assert whole == pytest.approx(mean, rel=1e-6)
    for step in steps:
        assert (step.ci99 is not None) == (len(times) >= 5)
        if step.ci99:
            assert step.ci99[0] <= step.factor * (1 + 1e-9) <= step.ci99[1] * (1 + 2e-9)


def examined(**changes):
    work = (
        Work("multiply", "arithmetic", ("mine.py", 7), "float32", 100, 10**8, 0, 0.04, 0.005),
        Work("add.reduce", "arithmetic", ("mine.py", 7), "float32", 100, 10**6, 0, 0.01),
        Work("reshape", "copy", ("mine.py", 4), "float32", 1, 10**7, 0, 0.004, 0.001, 0.003),
    )
    found = Examination(
        layer=LAYER,
        call_s=0.062,
        traced_s=0.09,
        small_layer=replace(LAYER, batch_size=1, filters=1),
        small_s=0.005,
        calls=300,
        work=work,
        products=Products(2, {("float32", 1): 2e-4, ("float32", 2): 1.2e-4}),
        dtype="float32",
        lines=(
            Line("mine.py", 4, "    columns = windows.reshape(n, -1)", 0.004, 0.004, 1, 1, 10**7),
            Line("mine.py", 7, "        y[i] = np.sum(w * k)", 0.058, 0.05, 100, 200, 10**8),
        ),
        lines_s=0.07,
        allocated=10**8,
        fresh_pages_s=0.002,
    )
    return replace(found, **changes)


def test_the_waterfall_of_a_loop_blames_element_wise_arithmetic():
    given_ = Given(0.062, 4e-4, 1e-4, LAYER, examined())
    steps, unexplained = waterfall(given_)
    left = {step.cause: step for step in steps}
    assert unexplained == pytest.approx(0.062 / 0.061)
    assert left["python calls"].factor == pytest.approx(0.061 / 0.056)
    assert left["element-wise arithmetic"].factor > 10
    assert left["threads"].factor == pytest.approx(2 / 1.2)
    first = advice(given_, steps, given_.found.lines)[0]
    assert first.cause == "element-wise arithmetic"
    assert (first.file, first.number, first.line) == ("mine.py", 7, "y[i] = np.sum(w * k)")


def test_stages_are_named_without_a_line():
    gather = Work("gather", "copy", ("", 0), "float32", 4, 0, 0, 0.01, layout=0.01)
    steps, _ = waterfall(Given(0.062, 4e-4, 1e-4, LAYER, examined(work=(gather,))))
    assert next(step.why for step in steps if step.cause == "layout") == "gather"


def test_the_waterfall_of_products_blames_dtype_and_blas_kernels():
    product = Work(
        "matmul",
        "product",
        ("mine.py", 5),
        "float64",
        1,
        10**6,
        LAYER.flops,
        0.02,
        dtype_factor=2.0,
    )
    slow = Products(1, {("float32", 1): 0.01, ("float64", 1): 0.02})
    found = examined(
        call_s=0.021,
        small_s=1e-3,
        fresh_pages_s=0.0,
        work=(product,),
        products=slow,
        dtype="float64",
    )
    native = Products(1, {("float32", 1): 0.005, ("float64", 1): 0.01})
    steps, _ = waterfall(Given(0.021, 0.005, 0.0, LAYER, found, native))
    left = {step.cause: step for step in steps}
    assert left["dtype"].factor == pytest.approx(2)
    assert left["BLAS kernels"].factor == pytest.approx(2)
    assert left["algorithm"].factor == pytest.approx(1)
    causes = [one.cause for one in advice(Given(0.021, 0.005, 0, LAYER, found, native), steps, ())]
    assert causes[:2] == ["dtype", "BLAS kernels"]


def test_products_without_time_of_their_own_explain_nothing():
    """The call takes as long as one on the small layer, which leaves no time for its stages."""
    product = Work("product", "product", ("", 0), "float32", 4, 0, LAYER.flops, 0.0)
    found = examined(call_s=0.005, small_s=0.005, fresh_pages_s=0.0, work=(product,))
    steps, unexplained = waterfall(Given(0.005, 4e-4, 1e-4, LAYER, found))
    left = {step.cause: step for step in steps}
    assert unexplained == 1
    assert left["dtype"].factor == left["threads"].factor == 1


def test_a_straight_line_is_fitted():
    assert fit_line([1, 2, 4], [3, 5, 9]) == pytest.approx((1, 2))
    assert fit_line([3], [7]) == (7, 0)


# The ladder


@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.name)
def test_a_step_is_short_and_right(rung):
    assert len(rung.path.read_text().splitlines()) <= 40
    registry = REGISTRY.knowing(rung.own_code)
    for layer in (LAYER, replace(LAYER, input_shape=(9, 14, 5), filters=3, batch_size=2)):
        code = registry.get(rung.name)
        assert code.unsupported(layer, Pass.FORWARD) is None
        assert check(Case(code, layer, Pass.FORWARD, 2, seed=1)).verdict == "agrees"


def test_every_cause_of_the_ladder_is_one_of_the_waterfall():
    assert {rung.cause for rung in RUNGS} - {""} <= set(CHANGES) <= set(CAUSES)
    assert file_of("layout") == "profile/ladder/channels_last.py"
    assert file_of("framework floor") == ""


# What is printed


def profile(name="mine.py:convolve", **changes):
    found = examined()
    headline = Headline(
        "conv2",
        "forward",
        name,
        "fastest-keras",
        "keras-graph",
        0.062,
        (0.061, 0.063),
        4e-4,
        (3.9e-4, 4.2e-4),
        155.0,
        (148.0, 161.0),
        5,
        True,
        "ok",
    )
    given_ = Given(0.062, 4e-4, 1e-4, LAYER, found)
    steps, unexplained = waterfall(given_)
    made = Profile(
        schema=SCHEMA,
        headline=headline,
        layer=LAYER,
        stages=(),
        lines=found.lines,
        waterfall=steps,
        unexplained=unexplained,
        bounds=bounds(LAYER, Pass.FORWARD, headline, found, MACHINE, 2),
        sweeps=Sweeps(
            batch=(Point(1, 0.003, 2e-4), Point(2, 0.005, None), Point(3, 0.0071, 4e-4)),
            threads=(Point(1, 0.062, 6e-4), Point(2, 0.062, 4e-4)),
            floor_s=0.001,
            slope_s=0.002,
            one_element_s=0.001,
            versus_one_element_s=1e-4,
        ),
        advice=advice(given_, steps, found.lines),
        overhead=Overhead(0.45, 0.13),
        threads=2,
        effort="standard",
        machine=MACHINE,
        software=SOFTWARE,
        environment={},
        counters=(
            Counted("cycles", 2.1e8, 1.2e6),
            Counted("instructions", 4.9e8, 2.5e6),
            Counted("last-level cache misses", 51_000.0, None),
        ),
    )
    return replace(made, **changes)


def staged():
    made = profile("im2col")
    stage = StageTime
    return replace(
        made,
        stages=(stage("gather", 0.02, 4), stage("product", 0.04, 4), stage("other", 0.001, 1)),
        headline=replace(made.headline, ci99=None, ci99_s=None, versus_ci99_s=None, rounds=1,
                         verdict="wrong", reliable=False),
        advice=(replace(made.advice[0], measured_s=0.012, tried="without the variables"),),
        notes=("Examined on 12x11x4, since a call on the whole layer takes too long.",),
    )  # fmt: skip


def climbed():
    seconds = (0.37, 0.26, 0.008, 0.014, 0.012, None, 0.005, 0.003, 0.002)
    cells = [
        Cell("conv", Pass.FORWARD, rung.name, "ok" if time else "failed", None if time else "no",
             time=Time(time, (time * 0.98, time * 1.02), 5, 40, "b") if time else None)
        for rung, time in zip(RUNGS, seconds, strict=True)
    ]  # fmt: skip
    keras = Time(0.0023, (0.0022, 0.0024), 5, 40, "b")
    cells.append(Cell("conv", Pass.FORWARD, "keras-graph", "ok", time=keras))
    cells.append(Cell("conv", Pass.FORWARD, "keras-xla", "pending"))
    suite = Suite("ladder", (replace(LAYER, name="conv"),), passes=(Pass.FORWARD,))
    return ResultFile(
        schema_="convbench-result/1", suite=suite, machine=MACHINE, software=SOFTWARE,
        environment={}, warnings=(), threads=2, effort="standard", seed=0, rounds=5,
        cells=tuple(cells),
    )  # fmt: skip


REPORTS = {
    "profile": lambda: profile_tables.report(profile()),
    "stages": lambda: profile_tables.report(staged()),
    "ladder": lambda: ladder_tables.report(climbed()),
}
VIEWS = ("txt", "md", "html", "svg", "csv", "80")


def view(report, how):
    if not how.isdigit():
        return render(report, format_of(f"report.{how}"))
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=int(how), color_system=None)
    print_report(report, console)
    return stream.getvalue()


@pytest.mark.parametrize("how", VIEWS)
@pytest.mark.parametrize("name", REPORTS)
def test_reports_are_as_in_the_golden_files(name, how):
    path = GOLDEN / (f"{name}.at{how}.txt" if how.isdigit() else f"{name}.{how}")
    found = view(REPORTS[name](), how)
    if os.environ.get("CONVBENCH_REWRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(found)
    assert found == path.read_text()
    if how == "80":
        assert max(map(len, found.splitlines())) <= 80


def test_the_table_of_stages_has_the_profiles_figures():
    are_shown(staged().stages, REPORTS["stages"]())


def test_the_table_of_causes_has_the_profiles_figures():
    """From row to row the time is divided by the factor, down to the time of the other code."""
    made = profile()
    headline = made.headline
    table = profile_tables.report(made).tables[0]
    (section,) = table.sections
    rows = [tuple(value.raw for value in row.values)[:3] for row in section.rows]
    names = [headline.implementation, "unexplained", *CAUSES, headline.chosen]
    assert [name for name, _, _ in rows] == names
    assert rows[0][2] == headline.time_s
    for (_, _, before), (_, factor, left) in itertools.pairwise(rows[:-1]):
        assert left == pytest.approx(before / factor)
    assert rows[-1][1:] == (headline.ratio, headline.versus_s)
    assert rows[-2][2] == pytest.approx(headline.versus_s)
    left = [row[2] for row in rows[:-1]]
    drawn = [row.values[3].raw.count("█") for row in section.rows[1:-1]]
    for length, before, after in zip(drawn, left, left[1:], strict=False):
        share = abs(math.log(before / after)) / math.log(max(left) / min(left))
        assert length == pytest.approx(share * profile_tables.BAR_WIDTH, abs=1)
    assert math.prod(factor for _, factor, _ in rows[1:-1]) == pytest.approx(headline.ratio)


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.links = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]


@pytest.mark.parametrize("name", REPORTS)
def test_the_page_needs_neither_script_nor_network(name):
    page = Page()
    page.feed(view(REPORTS[name](), "html"))
    assert "script" not in page.tags
    assert page.links == []
    assert {"svg", "table", "style"} <= set(page.tags)


@pytest.mark.parametrize("name", REPORTS)
def test_charts_are_xml_and_their_bars_lie_inside(name):
    picture = ET.fromstring(view(REPORTS[name](), "svg"))
    width = float(picture.attrib["viewBox"].split()[2])
    bars = [
        each
        for each in picture.iter("{http://www.w3.org/2000/svg}rect")
        if each.attrib.get("class") != "page"
    ]
    assert len(bars) >= 4
    for bar in bars:
        left, length = float(bar.attrib["x"]), float(bar.attrib["width"])
        assert left >= 0
        assert left + length <= width


def test_names_cannot_break_a_page():
    report = profile_tables.report(profile("<script>alert(1)</script>"))
    assert "<script" not in view(report, "html")
    ET.fromstring(view(report, "svg"))


# The command


@pytest.mark.slow
def test_the_command_saves_the_profile_that_it_prints(tmp_path):
    path = tmp_path / "profile.json"
    options = ("--effort", "smoke", "--threads", "1", "--layer", "a", "-o", path)
    done = convbench("profile", TINY, "--impl", f"{USERS}:right", *options)
    assert done.returncode == 0, done.stderr
    assert "Where the gap comes from" in done.stdout
    document = json.loads(path.read_text())
    assert document["schema"] == SCHEMA
    assert [step["cause"] for step in document["waterfall"]] == list(CAUSES)
    for key in ("headline", "stages", "lines", "unexplained", "bounds", "sweeps", "advice"):
        assert key in document
    whole = math.prod(step["factor"] for step in document["waterfall"]) * document["unexplained"]
    headline = document["headline"]
    assert whole == pytest.approx(headline["time_s"] / headline["versus_s"], rel=1e-6)
    assert headline["chosen"].startswith("keras")
    assert any(line["file"] == str(USERS) and line["calls"] for line in document["lines"])


@pytest.mark.slow
def test_wrong_code_is_profiled_on_request_only():
    options = ("--effort", "smoke", "--threads", "1", "--layer", "a", "--versus", "im2col")
    done = convbench("profile", TINY, "--impl", f"{USERS}:flipped", *options)
    assert done.returncode == 5
    assert "the kernel is flipped" in done.stderr
    assert "Traceback" not in done.stderr
    anyway = convbench("profile", TINY, "--impl", f"{USERS}:flipped", *options, "--anyway")
    assert anyway.returncode == 0, anyway.stderr
    assert "is wrong, and was profiled as it is." in anyway.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "name a suite"),
        (("mnist", "--impl", "keras"), "cannot be compared with itself"),
        (("mnist", "--layer", "conv*"), "expected one"),
        (("mnist", "--layer", "nothing"), "nothing"),
        (("mnist", "--pass", "sideways"), "there is no pass"),
        (("mnist", "-o", "x.pdf"), "not the suffix"),
        (("--ladder", "--impl", "loop"), "--ladder has its own steps"),
        (("mnist", "--impl", "missing.py:f"), "missing.py"),
    ],
)
def test_bad_requests_are_refused(arguments, told):
    done = convbench("profile", *arguments, "--effort", "smoke", "-q")
    assert done.returncode == 2, done.stdout + done.stderr
    assert told in done.stderr
    assert not re.search("Traceback", done.stderr)


@pytest.mark.slow
def test_the_ladder_command_times_every_step(tmp_path):
    suite = tmp_path / "small.yaml"
    suite.write_text(
        "layers:\n  - {name: a, input_shape: [8, 8, 4], filters: 4, kernel_size: 3, "
        "batch_size: 2}\n"
    )
    page = tmp_path / "ladder.html"
    done = convbench("profile", "--ladder", suite, "--effort", "smoke", "-o", page, timeout=240)
    assert done.returncode == 0, done.stderr
    for rung in RUNGS:
        assert rung.name in done.stdout
    assert "failed" not in done.stdout
    assert "wrong" not in done.stdout
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_the_page_of_the_ladder_has_the_figures_of_the_saved_run():
    done = subprocess.run(
        [sys.executable, "benchmarks/why.py"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (ROOT / "docs" / "why-is-my-convolution-slow.md").read_text()
    for rung in RUNGS:
        assert f"`{rung.name}`" in done.stdout
