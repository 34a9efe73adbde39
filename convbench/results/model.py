"""Define the result file: its schema as dataclasses, one for each part.

The file is pyperf's JSON (`benchmarks` with every raw sample) with one more top-level key,
`convbench`. Here are seconds and bytes only; `report` scales them.
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
    """What cells of a training are of, where others have a pass: all of one update."""

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

    `picture` shows the slice `of` the result, a line a row: `#` is wrong, `.` right.
    """

    layer: Layer
    place: str
    found: float | None
    expected: float
    of: str
    picture: tuple[str, ...]


@dataclass(frozen=True)
class MistakeKind:
    """Which mistake it is, without the figures of the layer on which it was found.

    `cause` names the mistake; it is empty where nothing explains a result. `variant` tells mistakes
    of the same cause apart: a kernel flipped in height from one flipped in width.
    """

    cause: str
    variant: str = ""


@dataclass(frozen=True)
class Explanation:
    """Why a result is wrong.

    `causes` name the mistakes (agreement/diagnosis/mistakes.py); there are none where nothing
    explains the result. `sentence` says it to people, with the figures of the layer. `reproduces`:
    computing with these mistakes gives the wrong result itself, on several draws; else they were
    told from what the result looks like, or from how calls differ. Explanations of the same `kinds`
    are the same explanation of different layers.
    """

    causes: tuple[str, ...]
    sentence: str
    reproduces: bool
    example: Example | None = None
    kinds: tuple[MistakeKind, ...] = ()

    @classmethod
    def of(cls, kinds: Iterable[MistakeKind], sentence: str, reproduces: bool) -> Explanation:
        """An explanation by these kinds of mistakes. Its causes are theirs, each once."""
        kinds = tuple(kinds)
        causes = dict.fromkeys(kind.cause for kind in kinds if kind.cause)
        return cls(tuple(causes), sentence, reproduces, kinds=kinds)


class RemarkKind(StrEnum):
    """What a remark on code that agrees is about."""

    LIKE_A_TRANSFORM = "like-a-transform"
    """Its floats are further off than direct sums are, and not further than transforms."""

    SHARED_WORKSPACE = "shared-workspace"
    """Its results are wrong where two threads call it at once."""


@dataclass(frozen=True)
class Agreement:
    """What the checker found. `exact` is None where integers prove nothing (not exact arithmetic).

    `error_over_bound` is the largest ratio of a float's error to its a-priori bound, and
    `max_abs_error` the largest error, both on the cut layer; None where no float was compared.
    `remarks` are for the author of the code, and no mistakes; `remark_kinds` says of each in turn
    what it is about.
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
        """The same with one more remark."""
        return replace(
            self, remarks=(*self.remarks, remark), remark_kinds=(*self.remark_kinds, kind)
        )


@dataclass(frozen=True)
class TimeState:
    """One of the two speeds that a cell has: seconds a call there, and the share of its samples."""

    time_s: float
    share: float


@dataclass(frozen=True)
class Time:
    """Seconds a call: the typical one, `time_s`, and the undisturbed one.

    Both are exp(mean over rounds of a logarithm): of a round's median visit, and of the quickest
    eighth of the round's samples. An interval is None with fewer than 5 rounds. `ci99_s` is that of
    the figure which the machine gives in the long run, as far as `ResultFile.deviations` tells;
    `run_ci99_s` covers what varies within this run alone. `states` has two entries where the
    samples fall into two groups, the quicker one first. `confirmed_s` is what a plain loop in a
    process of its own took, where one was run (`--confirm`).
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
        """The typical time over the plain loop's; None where no plain loop was run."""
        return None if self.confirmed_s is None else self.time_s / self.confirmed_s


@dataclass(frozen=True)
class Memory:
    """`peak_bytes` = `held_bytes` (since before prepare) + `call_peak_bytes` (with the result).

    Operands are excluded. `rss_timeline` is (seconds, bytes) of a looped call, page-level.
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


@dataclass(frozen=True)
class Work:
    flops: int
    flops_in_bounds: int
    gflops_per_s: float | None = None
    fraction_of_peak: float | None = None


@dataclass(frozen=True)
class CellLedger:
    """`took` is what an implementation that chooses among others took."""

    inside: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    took: str | None = None


@dataclass(frozen=True)
class Raised:
    """An exception that failed a cell: its type, and the place in the user's own code, if any.

    Cells that failed for the same cause have it in common, whatever figures the message has.
    """

    exception: str
    place: str = ""


@dataclass(frozen=True)
class Cell:
    """One (layer, pass, implementation) and all that is known of it.

    `reason` says in words why there is no figure. As data say it `unsupported`, where the
    implementation cannot compute the layer, and `raised`, where an exception failed the cell.
    `said` is what own code printed, warned of and raised while it was checked, line by line, but
    for `said_left_out` lines.
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
    """Time of `versus` over time of `implementation`; `chosen` names the Keras way.

    `ratio` is that of the typical times, `undisturbed_ratio` that of the undisturbed ones; for
    `ci99` and `run_ci99` see Time.
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

    `claimed` is what the run claims to tell apart in that (layer, pass), as a part: half of the
    widest 99 % interval of its speedups, within this run. Not `reliable`: the deviation is larger,
    by more than chance explains with as many twins as the run has.
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
        """How much the two differ, as a part and without a sign: 0.05 for 1.05 and for 1/1.05."""
        return math.exp(abs(math.log(self.ratio))) - 1

    __pydantic_config__ = FILE_NAMES


@dataclass(frozen=True)
class SummaryRow:
    """Geometric mean of a pass's speedups over the layers; pass None: over all passes."""

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
    """What the run can tell apart, as a part: 0.04 where two times must differ by 4 %.

    `typical` is the median over so many `layer_passes`, and `worst` the largest, which is that of
    `layer` and `pass_`. Each counts with half of the widest 99 % interval of its speedups, or with
    its twin's deviation where that is more.
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
    """How much runs on this machine differ beyond what the rounds of each show.

    `value` is a standard deviation of logs, known with `degrees` degrees of freedom from so many
    `runs`. `between` are the kinds of the two sides of a speedup, "numpy/keras" say, or the kind of
    the implementation that a time is of.
    """

    of: Figure
    between: str
    value: float
    degrees: float
    runs: int


@dataclass(frozen=True)
class Precision:
    """What `--precision` asked for: half widths of at most `target` (0.03: 3 %), by the procedure
    that stats.at_precision has, whose first stage was `first_rounds` rounds."""

    target: float
    first_rounds: int


@dataclass(frozen=True)
class Imprecise:
    """A speedup that did not get as narrow as `--precision` asked for.

    `half_width` is that of its 99 % interval within the run, None without an interval. `versus` is
    the `implementation` itself where nothing was compared and its time counts instead.
    """

    layer: str
    pass_: Part
    implementation: str
    versus: str
    half_width: float | None

    __pydantic_config__ = FILE_NAMES


@dataclass(frozen=True)
class Phases:
    """How calm the machine was, told by probes beside the visits and not by the arms' own times.

    `disturbed` of the `visits` had a neighbour, before or after. `set_aside` of these are not in
    the figures, since the same arm had a calm visit in the same round. `load` is the median over
    the rounds of the load average, None where the system has none.
    """

    visits: int
    disturbed: int
    set_aside: int
    load: float | None = None


@dataclass(frozen=True)
class NetworkLayer:
    """A layer's share of a total; `implementation` is the one that stands for it there."""

    layer: str
    count: int
    share: float
    implementation: str | None = None


@dataclass(frozen=True)
class NetworkRow:
    """Time of a whole network: layers weighted by how often it has them.

    `implementation` may be `fastest-keras` or `best per layer`, which take another one for each
    layer. pass None: all passes of the suite together. `over_fastest_keras` is the total of the
    fastest Keras way of each layer and pass over this total. For the intervals see Time.
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
    """Seconds that small fixed pieces of work took beside a visit (measure/probes.py): a loop of
    the interpreter on the slowest and on the quickest CPU, a product on one thread, a copy, and
    waking a thread that slept."""

    slowest_loop_s: float
    quickest_loop_s: float
    product_s: float
    copy_s: float
    wake_s: float


@dataclass(frozen=True)
class RoundSamples:
    """One benchmark's samples of one round: a pyperf run.

    `values` are seconds a call, of one visit after the other: `visits` says how many each visit
    gave, `order` the arm's place in each sweep of visits, and `probes` how calm the machine was
    before and after each. Files of earlier versions have one sample a visit, and no `visits`.
    `calm` are the visits that the round's time is made of, empty for all of them; it is found anew
    from the probes (phases.py) and not in the file.
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
        """The samples of each visit."""
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
"""Suffixes of benchmarks. A twin is the same implementation in a second process; the plain loop is
the same call in a process of its own, for `--confirm`."""

SEEN_DELAY = "seen_delay"
"""Metadata of a round: the part of its own time by which a slowed arm was slowed in fact."""

LOAD = "load_avg_1min"
"""Metadata of a round: the system's load average over the minute before its end."""


def benchmark_name(layer: str, pass_: Part, implementation: str) -> str:
    """`layer/pass/implementation`; the duplicate arm's has `#twin` behind it."""
    return f"{layer}/{pass_}/{implementation}"


@dataclass(frozen=True)
class ArmTraining:
    """What a training came to beside its time: one entry a cell, by `implementation`.

    `steps` is how many each round took, of an `epoch_s` of `steps_an_epoch`. `followed` steps were
    compared with Keras's in `followed_in` (a dtype); `over_bound` is the largest ratio of a
    parameter's error to what it may be. `phases` are seconds a step, and None for Keras. `losses`
    are of the last round, thinned to at most MOST_LOSSES means. `accuracies` are those on the
    held-out images, one a round that trained to the end.
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
    """The network that was trained, as its YAML has it, and on what.

    A round trained for `epochs` epochs of `steps_an_epoch`, or for fewer steps.
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

    `rounds` is how many rounds were finished, `threads` the threads that each arm was given.
    `shard` (2, 3) is the second of three parts of a suite that are run each on its own.
    Not `tune`: what chooses among others did so without trials.
    With `training` the cells are of its steps, their `layer` is the network, and the suite has no
    layers. `state` says whether calls follow each other, or come after a pause. `resolution` is
    what the run can tell apart, `phases` how calm the machine was, and `deviations` what earlier
    runs on it showed. So many `earlier_runs` were remembered; None where nobody looked. `imprecise`
    are the speedups that missed the `precision` asked for.
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
