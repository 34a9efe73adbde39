"""Define the result file: its schema as dataclasses, one for each part.

The file is pyperf's JSON (`benchmarks` with every raw sample) with one more top-level key,
`convbench`. All times are in seconds and all sizes in bytes; `report` scales them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

from convbench.machine.description import Caution, Machine, Software
from convbench.problem.layer import Layer, Pass
from convbench.problem.unsupported import Unsupported
from convbench.suites.suite import FILE_NAMES, REPETITIONS, Suite

SCHEMA = "convbench-result/1"


class Step(StrEnum):
    """The part that cells of a training compute instead of a pass: one update of the network."""

    TRAINING = "training-step"


Part = Pass | Step
"""Part of the work that a cell computes: a pass of a layer, or a step of a network's training."""

Status = Literal["ok", "wrong", "unsupported", "failed", "skipped", "pending"]
Interval = tuple[float, float]

State = Literal["warm", "cold-threads"]
"""State that is timed: a call in a tight loop, or the first call after a pause."""

PAUSE_S = 0.15
"""Seconds without a call before each sample of the state `cold-threads`. OpenBLAS's threads spin
for 0.11 s after a product (measured) before they sleep, and others for less."""


@dataclass(frozen=True)
class Example:
    """The smallest layer found on which code is wrong, and one place there.

    `picture` shows the slice of the result that `of` names, one line for each row: `#` stands for
    a wrong value, `.` for a right one.
    """

    layer: Layer
    place: str
    found: float | None
    expected: float
    of: str
    picture: tuple[str, ...]


@dataclass(frozen=True)
class MistakeKind:
    """The kind of a mistake, without the figures of the layer on which it was found.

    `cause` names the mistake; it is empty where nothing explains a result. `variant` tells mistakes
    with the same cause apart, such as a kernel flipped in height from one flipped in width.
    """

    cause: str
    variant: str = ""


@dataclass(frozen=True)
class Explanation:
    """An explanation of a wrong result.

    `causes` name the mistakes (agreement/diagnosis/mistakes.py); there are none where nothing
    explains the result. `sentence` explains it to people, with the figures of the layer.
    `reproduces` is True where computing with these mistakes gives the very same wrong result, on
    several draws. It is False where the mistakes were inferred from what the result looks like, or
    from how calls differ. Two explanations with equal `kinds` are one, found on different layers.
    """

    causes: tuple[str, ...]
    sentence: str
    reproduces: bool
    example: Example | None = None
    kinds: tuple[MistakeKind, ...] = ()

    @classmethod
    def of(cls, kinds: Iterable[MistakeKind], sentence: str, reproduces: bool) -> Explanation:
        """Make an explanation from kinds of mistakes. Its causes are theirs, each once."""
        kinds = tuple(kinds)
        causes = dict.fromkeys(kind.cause for kind in kinds if kind.cause)
        return cls(tuple(causes), sentence, reproduces, kinds=kinds)


class RemarkKind(StrEnum):
    """Subjects of the remarks on code that agrees."""

    LIKE_A_TRANSFORM = "like-a-transform"
    """The code's floats are further off than those of direct sums, but not than a transform's."""

    SHARED_WORKSPACE = "shared-workspace"
    """The code's results are wrong when two threads call it at once."""

    HIDES_NOT_FINITE = "hides-not-finite"
    """NaN or infinity in an operand does not reach all results that depend on it."""

    UNWRITTEN_TIMES_ZERO = "unwritten-times-zero"
    """The code multiplies memory that nobody wrote to by zero, where NaN would stay NaN."""


@dataclass(frozen=True)
class Agreement:
    """The findings of the check of one cell.

    `exact` says whether integers came out equal; None where they prove nothing, because the
    arithmetic is not exact. `error_over_bound` is the largest ratio of a float's error to its
    a-priori bound, and `max_abs_error` the largest error, both on the layer as the check cut it;
    None where no float was compared. `remarks` tell the author of the code about things that are
    no mistakes, and `remark_kinds` has the subject of each, in the same order.
    """

    exact: bool | None
    error_over_bound: float | None
    max_abs_error: float | None
    verdict: Literal["agrees", "wrong", "mistrusted"]
    diagnosis: str | None = None
    explanation: Explanation | None = None
    remarks: tuple[str, ...] = ()
    remark_kinds: tuple[RemarkKind, ...] = ()

    def __post_init__(self) -> None:
        if len(self.remarks) != len(self.remark_kinds):
            raise ValueError(f"{len(self.remarks)} remarks of {len(self.remark_kinds)} kinds")

    def remarked(self, kind: RemarkKind, remark: str) -> Agreement:
        """Return a copy with one more remark."""
        return replace(
            self, remarks=(*self.remarks, remark), remark_kinds=(*self.remark_kinds, kind)
        )


@dataclass(frozen=True)
class TimeState:
    """One of two speeds of a cell: seconds per call at that speed, and its share of the samples."""

    time_s: float
    share: float


@dataclass(frozen=True)
class Time:
    """Seconds per call: the typical time, `time_s`, and the undisturbed one.

    Both are exp(mean over rounds of a logarithm): the typical time takes a round's median visit,
    the undisturbed one the quickest eighth of the round's samples. An interval is None with fewer
    than 5 rounds. `ci99_s` covers what the machine gives in the long run, as far as
    `ResultFile.deviations` tells; `run_ci99_s` covers only what varies within this run. `states`
    has two entries where the samples fall into two groups, the quicker one first. `confirmed_s` is
    the time of a plain loop in a process of its own, where one was run (`--confirm`).
    """

    time_s: float
    ci99_s: Interval | None
    rounds: int
    samples: int
    benchmark: str
    run_ci99_s: Interval | None = None
    undisturbed_s: float | None = None
    undisturbed_ci99_s: Interval | None = None
    states: tuple[TimeState, ...] = ()
    confirmed_s: float | None = None

    @property
    def over_plain(self) -> float | None:
        """Ratio of the typical time to the plain loop's; None where no plain loop was run."""
        return None if self.confirmed_s is None else self.time_s / self.confirmed_s


@dataclass(frozen=True)
class Memory:
    """Memory that a cell takes, operands excluded.

    `peak_bytes` is the sum of `held_bytes`, allocated from `prepare` on and still held, and
    `call_peak_bytes`, the peak during one call with its result. `rss_timeline` has the resident
    memory, in whole pages, while the call is looped: pairs of seconds and bytes. `grows_bytes` is
    what each call leaves behind for good, and `garbage_bytes` what it leaves to Python's garbage
    collector; neither is part of `call_peak_bytes`.
    """

    peak_bytes: int
    held_bytes: int
    call_peak_bytes: int
    method: str
    exact: bool
    predicted_bytes: int
    naive_im2col_bytes: int
    rss_peak_bytes: int | None
    rss_timeline: tuple[tuple[float, int], ...] = ()
    grows_bytes: int = 0
    garbage_bytes: int = 0


@dataclass(frozen=True)
class Work:
    """Floating-point operations of a cell, and their rate.

    `flops_in_bounds` leaves out products with padding; the rate counts these operations alone.
    """

    flops: int
    flops_in_bounds: int
    gflops_per_s: float | None = None
    fraction_of_peak: float | None = None


@dataclass(frozen=True)
class CellLedger:
    """Work that an implementation does inside the clock and outside of it.

    `took` is the choice of an implementation that chooses among others.
    """

    inside: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    took: str | None = None


@dataclass(frozen=True)
class Raised:
    """An exception that failed a cell: its type, and the place in the user's own code, if any.

    Cells that failed for the same cause have equal ones, whatever figures their messages have.
    """

    exception: str
    place: str = ""


@dataclass(frozen=True)
class Cell:
    """One (layer, pass, implementation) and all that is known of it.

    `reason` tells people why there is no figure. As data, `unsupported` tells that the
    implementation cannot compute the layer, and `raised` which exception failed the cell. `said`
    has the lines that own code printed, warned of or raised while it was checked, except for
    `said_left_out` more.
    """

    layer: str
    pass_: Part
    implementation: str
    status: Status
    reason: str | None = None
    agreement: Agreement | None = None
    time: Time | None = None
    memory: Memory | None = None
    work: Work | None = None
    ledger: CellLedger | None = None
    said: tuple[str, ...] = ()
    said_left_out: int = 0
    unsupported: Unsupported | None = None
    raised: Raised | None = None

    __pydantic_config__ = FILE_NAMES


@dataclass(frozen=True)
class Speedup:
    """Time of `versus` over time of `implementation`.

    `chosen` names the implementation that `versus` stands for, which is a Keras way where `versus`
    is `fastest-keras`. `ratio` is that of the typical times, `undisturbed_ratio` that of the
    undisturbed ones. The intervals are as in Time.
    """

    layer: str
    pass_: Part
    implementation: str
    versus: str
    chosen: str
    ratio: float
    ci99: Interval | None
    rounds: int
    reliable: bool
    run_ci99: Interval | None = None
    undisturbed_ratio: float | None = None
    undisturbed_ci99: Interval | None = None

    __pydantic_config__ = FILE_NAMES


@dataclass(frozen=True)
class Duplicate:
    """The time of an implementation's twin over its own: 1 on a machine that can be trusted.

    `claimed` is the difference that the run claims to tell in that (layer, pass), as a fraction:
    half of the widest 99 % interval of its speedups within this run. `reliable` is False where the
    twin deviates by more than that, and chance does not explain it with so many twins in the run.
    """

    layer: str
    pass_: Part
    implementation: str
    ratio: float
    ci99: Interval | None
    reliable: bool = True
    claimed: float | None = None

    @property
    def deviation(self) -> float:
        """Difference of the two, as a fraction without a sign: 0.05 for 1.05 and for 1/1.05."""
        return math.exp(abs(math.log(self.ratio))) - 1

    __pydantic_config__ = FILE_NAMES


@dataclass(frozen=True)
class SummaryRow:
    """Geometric mean over the layers of a pass's speedups, or of all passes' (`pass_` None)."""

    implementation: str
    versus: str
    pass_: Part | None
    geometric_mean: float
    ci99: Interval | None
    run_ci99: Interval | None = None
    undisturbed_mean: float | None = None
    undisturbed_ci99: Interval | None = None

    __pydantic_config__ = FILE_NAMES


@dataclass(frozen=True)
class Resolution:
    """The difference that a run can tell, as a fraction: 0.04 where two times must differ by 4 %.

    `typical` is the median over the `layer_passes` pairs of a layer and a pass. `worst` is the
    largest, found in `layer` and `pass_`. Each pair counts with half of the widest 99 % interval of
    its speedups, or with its twin's deviation if that is more.
    """

    typical: float
    worst: float
    layer: str
    pass_: Part
    layer_passes: int = 1

    __pydantic_config__ = FILE_NAMES


Figure = Literal["time", "undisturbed-time", "speedup", "undisturbed-speedup"]


@dataclass(frozen=True)
class Deviation:
    """The difference between runs on this machine, beyond what the rounds of each run show.

    `value` is a standard deviation of logs. It has `degrees` degrees of freedom and comes from
    `runs` runs. `between` names the kinds of a speedup's two sides, such as "keras/numpy", or the
    kind of the implementation whose time it is.
    """

    of: Figure
    between: str
    value: float
    degrees: float
    runs: int


@dataclass(frozen=True)
class Precision:
    """The precision that `--precision` asked for: half widths of at most `target` (0.03 is 3 %).

    The procedure is that of stats.estimate. Its first stage had `first_rounds` rounds.
    """

    target: float
    first_rounds: int


@dataclass(frozen=True)
class Imprecise:
    """A speedup that did not get as narrow as `--precision` asked for.

    `half_width` is that of its 99 % interval within the run, None without an interval. Where
    nothing was compared, the time counts instead and `versus` is the `implementation` itself.
    """

    layer: str
    pass_: Part
    implementation: str
    versus: str
    half_width: float | None

    __pydantic_config__ = FILE_NAMES


@dataclass(frozen=True)
class Phases:
    """Calm of the machine during a run, by probes beside the visits and not by the arms' times.

    Of the `visits`, `disturbed` had a neighbour before or after them. Of these, `set_aside` are
    left out of the figures, because the same arm had a calm visit in the same round. `load` is the
    median over the rounds of the load average, None where the system has none.
    """

    visits: int
    disturbed: int
    set_aside: int
    load: float | None = None


@dataclass(frozen=True)
class NetworkLayer:
    """A layer's share of a network's total; `implementation` stands for the layer in that total."""

    layer: str
    count: int
    share: float
    implementation: str | None = None


@dataclass(frozen=True)
class NetworkRow:
    """Time of a whole network: each layer as often as the network has it.

    `implementation` may be `fastest-keras` or `best per layer`, which choose an implementation for
    each layer. `pass_` None stands for all passes of the suite together. `over_fastest_keras` is
    the total of the fastest Keras way of each layer and pass, over this total. The intervals are as
    in Time.
    """

    implementation: str
    pass_: Pass | None
    total_s: float
    layers: tuple[NetworkLayer, ...]
    ci99_s: Interval | None = None
    over_fastest_keras: float | None = None
    over_fastest_keras_ci99: Interval | None = None
    run_ci99_s: Interval | None = None
    over_fastest_keras_run_ci99: Interval | None = None

    __pydantic_config__ = FILE_NAMES


@dataclass(frozen=True)
class Probe:
    """Seconds that small fixed pieces of work took beside a visit (measure/probes.py).

    They are a loop of the interpreter on the slowest and on the quickest CPU, a product on one
    thread, a copy, and waking a thread that slept.
    """

    slowest_loop_s: float
    quickest_loop_s: float
    product_s: float
    copy_s: float
    wake_s: float


@dataclass(frozen=True)
class RoundSamples:
    """One benchmark's samples of one round: a pyperf run.

    `values` are seconds per call, one visit after the other. `visits` has the number of samples of
    each visit, `order` the arm's place in each sweep of visits, and `probes` the probes before and
    after each visit. Files of earlier versions have one sample per visit, and no `visits`. `calm`
    has the indices of the visits that the round's time is made of; it is empty where all of them
    count. It is not in the file, but derived from the probes (phases.py).
    """

    round: int
    order: tuple[int, ...]
    loops: int
    values: tuple[float, ...]
    warmups: tuple[tuple[int, float], ...]
    metadata: dict[str, str | int | float]
    visits: tuple[int, ...] = ()
    probes: tuple[tuple[Probe, Probe], ...] = ()
    calm: tuple[int, ...] = ()

    @property
    def by_visit(self) -> tuple[tuple[float, ...], ...]:
        """Samples of each visit."""
        if not self.visits:
            return tuple((value,) for value in self.values)
        found, start = [], 0
        for count in self.visits:
            found.append(self.values[start : start + count])
            start += count
        return tuple(found)


Benchmarks = dict[str, tuple[RoundSamples, ...]]
"""Every raw sample, by benchmark name (`benchmark_name`)."""

TWIN, PLAIN = REPETITIONS
"""Suffixes of benchmarks' names. A twin is the same implementation in a second process; the plain
loop is the same call in a process of its own, for `--confirm`."""

SEEN_DELAY = "seen_delay"
"""Name of a round's metadata: the fraction of its own time by which a slowed arm was slowed."""

LOAD = "load_avg_1min"
"""Name of a round's metadata: the system's load average over the minute before its end."""


def benchmark_name(layer: str, pass_: Part, implementation: str) -> str:
    """Return `layer/pass/implementation`. A twin's name has the suffix TWIN behind that."""
    return f"{layer}/{pass_}/{implementation}"


@dataclass(frozen=True)
class ArmTraining:
    """Results of a training with one implementation, beside its time.

    `steps` is the number of steps in each round. `followed` steps were compared with Keras's, in
    the dtype `followed_in`; `over_bound` is the largest ratio of a parameter's error to the error
    that is allowed. `phases` has seconds per step, by phase; None for Keras. `losses` are those of
    the last round, thinned to at most MOST_LOSSES means. `accuracies` are those on the held-out
    images, one for each round that trained to the end. `took` has the choices of an implementation
    that chooses among others, by layer and pass.
    """

    implementation: str
    steps: int
    followed: int
    followed_in: str
    over_bound: float | None
    phases: dict[str, float] | None
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    took: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Training:
    """The network that was trained, as its YAML has it, and the data that trained it.

    A round had `epochs` epochs of `steps_an_epoch` steps each, or fewer steps.
    """

    network: dict[str, Any]
    data: str
    note: str
    images: int
    held_out: int
    epochs: int
    steps_an_epoch: int
    arms: tuple[ArmTraining, ...] = ()


@dataclass(frozen=True)
class ResultFile:
    """The key `convbench` of a result file. `environment` holds the workers' variables that matter.

    `rounds` is the number of finished rounds, `threads` the number of threads that each arm was
    given. A `shard` of (2, 3) is the second of three parts of a suite, each of which is run on its
    own. `tune` is False where implementations that choose among others did so without trials. With
    `training`, the cells are steps of the training, their `layer` is the network, and the suite has
    no layers. `state` says whether calls follow each other, or come after a pause. `resolution` is
    the difference that the run can tell, `phases` says how calm the machine was, and `deviations`
    how much earlier runs on the machine differed. `earlier_runs` is the number of those, None where
    the memory of runs was not read. `imprecise` has the speedups that missed `precision`.
    """

    schema_: str
    suite: Suite
    machine: Machine
    software: Software
    environment: dict[str, str]
    warnings: tuple[Caution, ...]
    threads: int
    effort: str
    seed: int
    rounds: int
    cells: tuple[Cell, ...]
    speedups: tuple[Speedup, ...] = ()
    duplicates: tuple[Duplicate, ...] = ()
    summary: tuple[SummaryRow, ...] = ()
    network: tuple[NetworkRow, ...] = ()
    shard: tuple[int, int] | None = None
    tune: bool = True
    training: Training | None = None
    state: State = "warm"
    resolution: Resolution | None = None
    phases: Phases | None = None
    deviations: tuple[Deviation, ...] = ()
    earlier_runs: int | None = None
    precision: Precision | None = None
    imprecise: tuple[Imprecise, ...] = ()

    __pydantic_config__ = FILE_NAMES
