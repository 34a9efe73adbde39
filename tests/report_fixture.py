"""Make result files for the reports by hand, with every status, mark and awkward name."""

from __future__ import annotations

from dataclasses import replace

from convbench.machine.description import BlasLibrary, Caution, Machine, Software
from convbench.problem.layer import Layer, Pass
from convbench.results.model import (
    SCHEMA,
    Agreement,
    Cell,
    CellLedger,
    Duplicate,
    Imprecise,
    Memory,
    NetworkLayer,
    NetworkRow,
    Phases,
    Precision,
    ResultFile,
    Speedup,
    SummaryRow,
    Time,
    TimeState,
    Work,
)
from convbench.results.resolution import resolution_of
from convbench.suites.suite import Provenance, Suite

CONV1 = Layer("conv1", (28, 28, 1), 8, (3, 3))
CONV2 = Layer("conv2", (26, 26, 8), 16, (3, 3), padding="same", count=3)
AWKWARD = Layer(
    "stem [bold] | 3×3, größer", (224, 224, 3), 64, (7, 7), (2, 2), ((2, 3), (2, 3)), use_bias=True
)
DEPTHWISE = Layer("畳み込み", (112, 112, 32), 32, (3, 3), padding="same", groups=32, batch_size=1)

FORWARD, INPUT, KERNEL = Pass.FORWARD, Pass.INPUT_GRADIENT, Pass.KERNEL_GRADIENT
MINE = "examples/my_convolution.py:forward_fast"
OTHER = "examples/my_convolution.py:forward"

EXACT = Agreement(True, 0.004, 1.2e-7, "agrees")
FLOAT = Agreement(None, 0.0412, 3.1e-6, "agrees")
TINY = Agreement(None, 0.0021, 2.2e-7, "agrees")
WRONG = Agreement(
    False, 41288.0, 3.75, "wrong", "the kernel is flipped: that is a convolution, not a correlation"
)

MACHINE = Machine(
    hostname="bench",
    cpu="AMD EPYC 7763 64-Core Processor",
    cores=4,
    logical_cpus=8,
    isa=("avx2", "fma"),
    governor=None,
    caches={"L1d": 32768, "L2": 524288, "L3": 33554432},
    memory_bytes=16 * 2**30,
    cpu_quota=4.0,
    platform="Linux-6.8.0-x86_64",
)
SOFTWARE = Software(
    "0.1.0",
    "3.12.3",
    {"numpy": "2.4.6", "tensorflow": "2.20.0", "keras": "3.15.1"},
    (BlasLibrary("openblas", "0.3.30", "Haswell", 4, "numpy"),),
)


def _time(seconds: float, error: float | None, rounds: int = 8) -> Time:
    """Make a time. `error` is its interval's half width, 0.012 for 1.2 %; None: no interval."""
    ci99, quiet = _ci(seconds, error), seconds / 1.02
    return Time(
        seconds,
        ci99,
        rounds,
        rounds * 40,
        "b",
        run_ci99_s=ci99,
        undisturbed_s=quiet,
        undisturbed_ci99_s=_ci(quiet, error),
    )


def _ci(ratio: float, error: float | None) -> tuple[float, float] | None:
    return None if error is None else (ratio / (1 + error), ratio * (1 + error))


def _memory(mib: float, exact: bool = True) -> Memory:
    peak = int(mib * 2**20)
    return Memory(peak, peak // 2, peak - peak // 2, "tracemalloc", exact, peak, 5305600, None)


def _ok(
    layer: Layer,
    pass_: Pass,
    name: str,
    ms: float,
    error: float | None,
    mib: float,
    agreement: Agreement = EXACT,
    exact_memory: bool = True,
    peak: float | None = 332e9,
    rounds: int = 8,
) -> Cell:
    rate = layer.flops_in_bounds / (ms / 1e3)
    return Cell(
        layer.name,
        pass_,
        name,
        "ok",
        agreement=agreement,
        time=_time(ms / 1e3, error, rounds),
        memory=_memory(mib, exact_memory),
        work=Work(layer.flops, layer.flops_in_bounds, rate / 1e9, peak and rate / peak),
        ledger=CellLedger(("pad", "matrix product"), ("layout",)),
    )


def _over(
    layer: Layer,
    pass_: Pass,
    name: str,
    versus: str,
    ratio: float,
    error: float | None,
    chosen: str = "",
    reliable: bool = True,
    rounds: int = 8,
) -> Speedup:
    return Speedup(
        layer.name,
        pass_,
        name,
        versus,
        chosen or versus,
        ratio,
        _ci(ratio, error),
        rounds,
        reliable,
        run_ci99=_ci(ratio, error),
        undisturbed_ratio=1.003 * ratio,
        undisturbed_ci99=_ci(1.003 * ratio, error),
    )


def _mean(
    name: str, versus: str, pass_: Pass | None, mean: float, error: float | None
) -> SummaryRow:
    quiet = 1.003 * mean
    ci99 = _ci(mean, error)
    return SummaryRow(name, versus, pass_, mean, ci99, ci99, quiet, _ci(quiet, error))


def _resolved(result: ResultFile) -> ResultFile:
    """Return the result with its resolution, as summary.py derives it."""
    return replace(result, resolution=resolution_of(result.speedups, result.duplicates))


def full_run() -> ResultFile:
    """Make a run with every status, and every mark that a cell can carry."""
    keras = "fastest-keras"
    cells = (
        _ok(CONV1, FORWARD, "loop", 62.13, 0.0118, 0.661),
        _ok(CONV1, FORWARD, "im2col", 0.3391, 0.0209, 6.19, FLOAT),
        _ok(CONV1, FORWARD, "keras", 0.4518, 0.0312, 0.661, TINY, exact_memory=False),
        _ok(CONV1, FORWARD, "keras-graph", 0.3120, 0.0151, 0.661, FLOAT, exact_memory=False),
        Cell(CONV1.name, FORWARD, "keras-xla", "unsupported", "XLA is not built into TensorFlow"),
        _ok(CONV1, FORWARD, MINE, 1834.6, 0.124, 1234.5),
        Cell(
            CONV1.name,
            FORWARD,
            OTHER,
            "wrong",
            "the kernel is flipped",
            agreement=WRONG,
            time=_time(0.0123, 0.02),
            memory=_memory(2.5),
        ),
        _ok(CONV2, INPUT, "loop", 10.0, 0.0004, 3.0),
        replace(
            _ok(CONV2, INPUT, "im2col", 9.996, 0.02, 3.0),
            memory=None,
            reason="memory not metered: the meter took longer than 60 s",
        ),
        _ok(CONV2, INPUT, "keras-graph", 0.0614, 0.05, 3.0, FLOAT, exact_memory=False),
        Cell(
            AWKWARD.name,
            FORWARD,
            "loop",
            "skipped",
            "needs about 3.1 GiB (7 times 0.4 GiB of operands and result while checked, 0.3 GiB "
            "of workspace), 2.0 GiB are free",
        ),
        Cell(
            AWKWARD.name, FORWARD, "im2col", "failed", "killed by signal 9,\n\x1b[31mout of memory"
        ),
        Cell(AWKWARD.name, FORWARD, MINE, "wrong", "wrong", agreement=WRONG),
        Cell(AWKWARD.name, FORWARD, "keras", "pending"),
        Cell(DEPTHWISE.name, KERNEL, "im2col", "unsupported", "groups | [dim]not[/dim] yet"),
        Cell(
            DEPTHWISE.name,
            KERNEL,
            "keras",
            "skipped",
            "81% of the right result is zero, so that agreeing proves nothing",
            agreement=Agreement(None, 0.01, 1e-7, "mistrusted", "81% of the right result is zero"),
        ),
    )
    speedups = (
        _over(CONV1, FORWARD, "loop", keras, 0.005021, 0.0192, "keras-graph"),
        _over(CONV1, FORWARD, "im2col", "loop", 183.2, 0.0204),
        _over(CONV1, FORWARD, "im2col", keras, 0.9201, 0.0241, "keras-graph"),
        _over(CONV1, FORWARD, "keras", "loop", 137.5, 0.0311),
        _over(CONV1, FORWARD, "keras", keras, 0.6906, 0.0333, "keras-graph"),
        _over(CONV1, FORWARD, "keras-graph", "loop", 199.1, 0.0187),
        _over(CONV1, FORWARD, MINE, "loop", 0.03387, 0.125),
        _over(CONV1, FORWARD, MINE, keras, 0.0001701, 0.125, "keras-graph"),
        _over(CONV2, INPUT, "loop", keras, 0.00614, 0.05, "keras-graph", reliable=False),
        _over(CONV2, INPUT, "im2col", "loop", 1.0004, 0.02, reliable=False),
        _over(CONV2, INPUT, "im2col", keras, 0.006142, 0.05, "keras-graph", reliable=False),
        _over(CONV2, INPUT, "keras-graph", "loop", 162.9, 0.05, reliable=False),
    )
    result = ResultFile(
        SCHEMA,
        Suite(
            "every status",
            (CONV1, CONV2, AWKWARD, DEPTHWISE),
            ("loop", "im2col", "keras", "keras-graph", "keras-xla", MINE, OTHER),
            source="configs/every.yaml",
        ),
        MACHINE,
        SOFTWARE,
        {"OMP_NUM_THREADS": "4"},
        (
            Caution(
                "OPENBLAS_CORETYPE=Haswell pins OpenBLAS to Haswell kernels",
                "unset OPENBLAS_CORETYPE, or set environment: {OPENBLAS_CORETYPE: null} in the "
                "suite",
                1.84,
            ),
            Caution("the CPU frequency governor is powersave", "cpupower frequency-set -g ..."),
        ),
        threads=4,
        effort="standard",
        seed=1,
        rounds=8,
        cells=cells,
        speedups=speedups,
        duplicates=(
            Duplicate(CONV1.name, FORWARD, "im2col", 1.0121, (0.99, 1.035), claimed=0.125),
            Duplicate(CONV2.name, INPUT, "im2col", 0.9317, (0.921, 0.943), False, claimed=0.05),
        ),
        summary=(
            _mean("im2col", "loop", FORWARD, 183.2, 0.0204),
            _mean("im2col", "loop", INPUT, 1.0004, 0.02),
            _mean("im2col", "loop", None, 13.54, 0.021),
            _mean("im2col", keras, FORWARD, 0.9201, 0.0241),
            _mean("im2col", keras, INPUT, 0.006142, 0.05),
            _mean("im2col", keras, None, 0.07517, 0.036),
            _mean("keras", "loop", FORWARD, 137.5, 0.0311),
            _mean("keras", "loop", None, 137.5, 0.0311),
            _mean(MINE, "loop", FORWARD, 0.03387, 0.125),
            _mean(MINE, "loop", None, 0.03387, 0.125),
            _mean(MINE, keras, FORWARD, 0.0001701, 0.125),
            _mean(MINE, keras, None, 0.0001701, 0.125),
        ),
        network=(
            NetworkRow(
                "im2col",
                FORWARD,
                0.03033,
                (
                    NetworkLayer(CONV1.name, 1, 0.012),
                    NetworkLayer(CONV2.name, 3, 0.983),
                    NetworkLayer(AWKWARD.name, 1, 0.0049),
                    NetworkLayer(DEPTHWISE.name, 1, 0.00001),
                ),
            ),
            NetworkRow(
                MINE,
                FORWARD,
                12.3456,
                (NetworkLayer(CONV1.name, 1, 0.8), NetworkLayer(AWKWARD.name, 1, 0.2)),
            ),
        ),
    )
    return _resolved(result)


def typical_run() -> ResultFile:
    """Make a run as most people will see: two layers, all fine, with values of a real machine."""
    keras = "fastest-keras"
    names = ("loop", "im2col", "keras", "keras-graph")
    ms = {
        (CONV1, FORWARD): (62.13, 0.3391, 0.4518, 0.3120),
        (CONV1, KERNEL): (183.2, 0.4412, 0.7377, 0.6291),
        (CONV2, FORWARD): (1210.4, 6.613, 4.126, 3.882),
        (CONV2, KERNEL): (2034.9, 12.38, 9.481, 9.527),
    }
    at, both = list(enumerate(names)), (CONV1, CONV2)
    cells, speedups = [], []
    for (layer, pass_), times in ms.items():
        fastest = min((t, n) for t, n in zip(times, names, strict=True) if "keras" in n)
        for t, name in zip(times, names, strict=True):
            is_keras = "keras" in name
            agreement = FLOAT if is_keras else EXACT
            mib = 6.19 if name == "im2col" else 0.661
            cells.append(_ok(layer, pass_, name, t, 0.0117, mib, agreement, not is_keras))
            if name != "loop":
                speedups.append(_over(layer, pass_, name, "loop", times[0] / t, 0.0213))
            if name != fastest[1]:
                ratio = fastest[0] / t
                speedups.append(_over(layer, pass_, name, keras, ratio, 0.0241, fastest[1]))
    means = {
        ("im2col", "loop"): (183.2, 248.1, 213.2),
        ("im2col", keras): (0.7349, 1.045, 0.8763),
        ("keras", "loop"): (200.8, 230.9, 215.3),
        ("keras-graph", "loop"): (249.2, 249.4, 249.3),
        ("loop", keras): (0.004012, 0.00399, 0.004001),
    }
    result = replace(
        full_run(),
        suite=Suite("mnist", (CONV1, CONV2), names),
        warnings=(),
        cells=tuple(cells),
        speedups=tuple(speedups),
        duplicates=tuple(
            Duplicate(layer.name, pass_, "im2col", 1.0043, (0.995, 1.014), claimed=0.0241)
            for layer, pass_ in ms
        ),
        summary=tuple(
            _mean(*pair, pass_, mean, 0.0213)
            for pair, row in means.items()
            for pass_, mean in zip((FORWARD, KERNEL, None), row, strict=True)
        ),
        network=(
            *_network(FORWARD, {n: (ms[CONV1, FORWARD][i], ms[CONV2, FORWARD][i]) for i, n in at}),
            *_network(KERNEL, {n: (ms[CONV1, KERNEL][i], ms[CONV2, KERNEL][i]) for i, n in at}),
            *_network(
                None,
                {
                    n: tuple(ms[layer, FORWARD][i] + ms[layer, KERNEL][i] for layer in both)
                    for i, n in at
                },
            ),
        ),
        phases=Phases(visits=160, disturbed=5, set_aside=2, load=1.9),
    )
    return _resolved(result)


def _network(pass_: Pass | None, ms: dict[str, tuple[float, ...]]) -> list[NetworkRow]:
    """Make rows as network.py does, from the times of conv1, and of conv2, which counts thrice."""
    keras = {name: times for name, times in ms.items() if "keras" in name}
    every = {
        **ms,
        "fastest-keras": tuple(map(min, *keras.values())),
        "best per layer": tuple(map(min, *ms.values())),
    }
    total = {name: times[0] + 3 * times[1] for name, times in every.items()}

    def chosen(name: str, i: int) -> str | None:
        if pass_ is None:
            return None
        among = {"fastest-keras": keras, "best per layer": ms}.get(name, {name: every[name]})
        return min(among, key=lambda n: among[n][i])

    rows = []
    for name, times in every.items():
        ratio = None if "keras" in name else total["fastest-keras"] / total[name]
        parts = (("conv1", 1, times[0]), ("conv2", 3, 3 * times[1]))
        layers = tuple(
            NetworkLayer(layer, count, part / total[name], chosen(name, i))
            for i, (layer, count, part) in enumerate(parts)
        )
        ci99 = _ci(total[name] / 1e3, 0.0117)
        over = (ratio, ratio and _ci(ratio, 0.0241))
        rows.append(NetworkRow(name, pass_, total[name] / 1e3, layers, ci99, *over))
    return rows


def large_run() -> ResultFile:
    """Make a run of 120 layers from a published list; one of 240 cells is wrong, one skipped."""
    small = small_run()
    layers = tuple(
        Layer(f"set:{i}", (8 + i % 20, 9, 1 + i % 5), 4 + i % 7, (3, 3), count=1 + i % 3)
        for i in range(120)
    )
    cells, speedups = [], []
    for i, layer in enumerate(layers):
        ratio = 0.5 + i / 60
        for name, t in (("im2col", 0.2 + i / 100), ("keras-graph", (0.2 + i / 100) * ratio)):
            cells.append(_ok(layer, FORWARD, name, t, 0.0117, mib=0.1))
        over = _over(layer, FORWARD, "im2col", "fastest-keras", ratio, 0.02, "keras-graph")
        speedups.append(over)
    cells[4] = Cell("set:2", FORWARD, "im2col", "wrong", WRONG.diagnosis, agreement=WRONG)
    cells[7] = Cell("set:3", FORWARD, "keras-graph", "skipped", "the budget of 9 s")
    provenance = Provenance(
        "conv_problems.csv",
        "deepbench",
        read=217,
        merged=97,
        tools=("convbench 0.1.0",),
        notes=("batch_size set to 1, from 2, 4, 8",),
        left_out=("conv_problems.csv:7: 3,3: found 2 values, expected 12",),
    )
    suite = Suite("deepbench", layers, ("im2col", "keras-graph"), (FORWARD,), provenance=provenance)
    result = replace(
        small,
        suite=suite,
        effort="quick",
        rounds=5,
        cells=tuple(cells),
        speedups=tuple(s for s in speedups if s.layer not in ("set:2", "set:3")),
        duplicates=(Duplicate("set:0", FORWARD, "im2col", 1.0121, (0.99, 1.03), claimed=0.02),),
        summary=(
            _mean("im2col", "fastest-keras", FORWARD, 1.38, 0.01),
            _mean("im2col", "fastest-keras", None, 1.38, 0.01),
        ),
    )
    return _resolved(result)


def small_run() -> ResultFile:
    """Make a run of three rounds, without intervals; one layer makes no network table; one pass."""
    keras = "fastest-keras"
    shape = {"error": None, "peak": None, "rounds": 3}
    return ResultFile(
        SCHEMA,
        Suite("small", (CONV1,), ("loop", "im2col", "keras-graph"), (FORWARD,)),
        MACHINE,
        SOFTWARE,
        {},
        (),
        threads=1,
        effort="smoke",
        seed=7,
        rounds=3,
        cells=(
            _ok(CONV1, FORWARD, "loop", 62.13, mib=0.661, **shape),
            _ok(CONV1, FORWARD, "im2col", 0.3291, mib=6.19, **shape),
            _ok(CONV1, FORWARD, "keras-graph", 0.3028, mib=0.661, agreement=FLOAT, **shape),
        ),
        speedups=(
            _over(CONV1, FORWARD, "loop", keras, 0.004874, None, "keras-graph", rounds=3),
            _over(CONV1, FORWARD, "im2col", "loop", 188.8, None, rounds=3),
            _over(CONV1, FORWARD, "im2col", keras, 0.9201, None, "keras-graph", rounds=3),
            _over(CONV1, FORWARD, "keras-graph", "loop", 205.2, None, rounds=3),
        ),
        duplicates=(Duplicate(CONV1.name, FORWARD, "im2col", 1.0121, None),),
        summary=(
            _mean("im2col", "loop", FORWARD, 188.8, None),
            _mean("im2col", "loop", None, 188.8, None),
            _mean("im2col", keras, FORWARD, 0.9201, None),
            _mean("im2col", keras, None, 0.9201, None),
        ),
    )


def empty_run() -> ResultFile:
    """Make a run that an early Ctrl-C ended: nothing was finished."""
    small = small_run()
    return replace(
        small,
        rounds=0,
        cells=tuple(Cell(c.layer, c.pass_, c.implementation, "pending") for c in small.cells),
        speedups=(),
        duplicates=(),
        summary=(),
    )


def checked_run() -> ResultFile:
    """Make a result with agreement only, as `check` does."""
    small = small_run()
    return replace(
        small,
        rounds=0,
        cells=tuple(replace(c, time=None, memory=None, work=None) for c in small.cells),
        speedups=(),
        duplicates=(),
        summary=(),
    )


Undisturbed = dict[tuple[str, Pass | None, str, str], tuple[float, float]]
"""Ratio and half width by layer (empty for a mean), pass, implementation and versus."""


def _undisturbed(result: ResultFile, told: Undisturbed) -> ResultFile:
    """Return the result with other undisturbed figures."""

    def quiet(key: tuple[str, Pass | None, str, str]) -> dict[str, object]:
        ratio, error = told[key]
        return {"undisturbed_ci99": _ci(ratio, error)}

    speedups, means = [], []
    for s in result.speedups:
        key = (s.layer, s.pass_, s.implementation, s.versus)
        found = replace(s, undisturbed_ratio=told[key][0], **quiet(key)) if key in told else s
        speedups.append(found)
    for m in result.summary:
        key = ("", m.pass_, m.implementation, m.versus)
        found = replace(m, undisturbed_mean=told[key][0], **quiet(key)) if key in told else m
        means.append(found)
    return replace(result, speedups=tuple(speedups), summary=tuple(means))


def _with_states(result: ResultFile, *of: int) -> ResultFile:
    """Return the result with two speeds in some of its cells."""
    cells = list(result.cells)
    for index in of:
        time = cells[index].time
        assert time is not None
        states = (TimeState(0.8 * time.time_s, 0.624), TimeState(1.2 * time.time_s, 0.376))
        cells[index] = replace(cells[index], time=replace(time, states=states))
    return replace(result, cells=tuple(cells))


def undisturbed_run() -> ResultFile:
    """Make a run whose undisturbed figures turn two cells, a mean and the answer."""
    keras = "fastest-keras"
    told = {
        ("conv1", FORWARD, "im2col", keras): (1.034, 0.02),
        ("conv1", KERNEL, "im2col", keras): (1.011, 0.03),
        ("conv2", FORWARD, "keras", "loop"): (341.0, 0.01),
        ("", None, "im2col", keras): (1.017, 0.012),
    }
    return _with_states(_undisturbed(typical_run(), told), 2, 7)


def crowded_run() -> ResultFile:
    """Make a run with all faults of a busy machine, and with more of each than a report names."""
    keras = "fastest-keras"
    typical = typical_run()
    told: Undisturbed = {
        (s.layer, s.pass_, s.implementation, s.versus): (1.0 if s.ratio > 1.01 else 1.1, 0.02)
        for s in typical.speedups
        if s.versus == keras and s.implementation != "loop"
    }
    told["", FORWARD, "im2col", keras] = 1.05, 0.02
    result = _with_states(_undisturbed(typical, told), *range(8))
    twins = tuple(
        Duplicate(layer.name, pass_, name, 1.02, _ci(1.02, error), claimed=0.16)
        for name, error in (("im2col", 0.14), ("keras", 0.11))
        for layer in (CONV1, CONV2)
        for pass_ in (FORWARD, KERNEL)
    )
    missed = tuple(
        Imprecise(s.layer, s.pass_, s.implementation, s.versus, 0.09 - index / 100)
        for index, s in enumerate(typical.speedups[:8])
    )
    return _resolved(
        replace(
            result,
            duplicates=twins,
            phases=Phases(visits=160, disturbed=66, set_aside=12, load=2.1),
            precision=Precision(0.02, 8),
            imprecise=(replace(missed[0], half_width=None), *missed[1:]),
        )
    )


def busy_run() -> ResultFile:
    """Make a run beside other processes, with a budget that ended early, and twins that differ."""
    typical = typical_run()
    ways = {CONV1.name: 1.31, CONV2.name: 1.02}
    return _resolved(
        replace(
            typical,
            rounds=5,
            speedups=tuple(
                replace(s, reliable=(s.layer, s.pass_) != (CONV1.name, FORWARD))
                for s in typical.speedups
            ),
            warnings=(
                Caution(
                    "other processes keep 48% of the CPUs busy: cc1plus",
                    "stop them, or wait until they are done",
                    1.92,
                    "other-processes",
                ),
                Caution("the budget allowed 5 of 8 rounds", "give a larger one", kind="budget"),
            ),
            duplicates=tuple(
                Duplicate(
                    layer.name,
                    FORWARD,
                    "im2col",
                    ways[layer.name],
                    _ci(ways[layer.name], 0.12),
                    layer is CONV2,
                    claimed=0.0241,
                )
                for layer in (CONV1, CONV2)
            ),
            phases=Phases(visits=100, disturbed=1, set_aside=0, load=6.2),
        )
    )


def confirmed_run() -> ResultFile:
    """Make a run of calls after a pause, confirmed by plain loops, as precise as was asked for."""
    over = {"loop": 1.003, "im2col": 0.992, "keras": 1.018}
    typical = typical_run()
    cells = []
    for index, cell in enumerate(typical.cells):
        if cell.time is not None and cell.implementation in over:
            plain_s = cell.time.time_s / over[cell.implementation] / (1 + index / 400)
            cell = replace(cell, time=replace(cell.time, confirmed_s=plain_s))
        cells.append(cell)
    return replace(typical, cells=tuple(cells), state="cold-threads", precision=Precision(0.025, 8))


def pair_run() -> ResultFile:
    """Make a run of two own files, the second over the first, without loop and Keras."""
    cells = (
        _ok(CONV1, FORWARD, OTHER, 0.3391, 0.14, 0.661, rounds=5),
        _ok(CONV1, FORWARD, MINE, 0.3312, 0.15, 0.661, rounds=5),
    )
    return _resolved(
        replace(
            small_run(),
            suite=Suite("pair", (CONV1,), (OTHER, MINE), (FORWARD,)),
            effort="quick",
            rounds=5,
            cells=cells,
            speedups=(_over(CONV1, FORWARD, MINE, OTHER, 1.024, 0.16, rounds=5),),
            duplicates=(
                Duplicate(CONV1.name, FORWARD, OTHER, 0.982, _ci(0.982, 0.17), claimed=0.16),
            ),
            summary=(
                _mean(MINE, OTHER, FORWARD, 1.024, 0.16),
                _mean(MINE, OTHER, None, 1.024, 0.16),
            ),
            phases=Phases(visits=15, disturbed=0, set_aside=0, load=0.7),
        )
    )


RUNS = {
    "typical": typical_run,
    "full": full_run,
    "large": large_run,
    "small": small_run,
    "empty": empty_run,
    "checked": checked_run,
    "undisturbed": undisturbed_run,
    "crowded": crowded_run,
    "busy": busy_run,
    "confirmed": confirmed_run,
    "pair": pair_run,
}
