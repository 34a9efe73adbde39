"""Hold what the experiments on one cell found, as plain values that a worker can send."""

from __future__ import annotations

from dataclasses import dataclass

from convbench.problem.layer import Layer


@dataclass(frozen=True)
class Line:
    """A line of the code. `seconds` are of the profiled call, `numpy_s` of it inside of NumPy.

    `hits` is how often it ran, `calls` its calls of NumPy on arrays, `allocated` the bytes of the
    arrays that those returned anew.
    """

    file: str
    number: int
    text: str
    seconds: float
    numpy_s: float
    hits: int
    calls: int
    allocated: int


@dataclass(frozen=True)
class StageTime:
    """A named part of an implementation: seconds of a call, summed over its threads."""

    name: str
    seconds: float
    calls: int


@dataclass(frozen=True)
class Work:
    """What calls that are alike spend on their elements, in seconds a call of the code.

    `seconds` is all of it but for new pages. Its parts: `traffic` (bytes at the bandwidth of
    copies), `layout` (what contiguous arrays would save), `cast` (copies into another dtype).
    `rest` is what remains. Of a product `dtype_factor` and `threads_factor` say how much less
    float32, and all threads, would take.
    """

    name: str
    kind: str
    line: tuple[str, int]
    dtype: str
    calls: int
    bytes: int
    flops: int
    seconds: float
    traffic: float = 0.0
    layout: float = 0.0
    cast: float = 0.0
    dtype_factor: float = 1.0
    threads_factor: float = 1.0

    @property
    def rest(self) -> float:
        return self.seconds - self.traffic - self.layout - self.cast


@dataclass(frozen=True)
class Products:
    """Seconds of np.matmul of the sizes of a pass, contiguous and into an array that is there, by
    dtype and threads. `single` and `many` are float32, of one thread and of all."""

    threads: int
    seconds: dict[tuple[str, int], float]

    @property
    def single(self) -> float:
        return self.seconds["float32", 1]

    @property
    def many(self) -> float:
        return self.seconds["float32", self.threads]


@dataclass(frozen=True)
class Counted:
    """Counts of a call, by event; `missing` says why there is none."""

    counts: dict[str, float]
    missing: dict[str, str]


@dataclass(frozen=True)
class Examination:
    """One implementation on one layer, taken apart.

    `call_s` is a call as the worker timed it, `fresh_pages_s` what it takes less where the process
    keeps its memory, `traced_s` one that was traced, `lines_s` one whose lines were timed. `layer`
    is what was examined, cut where the whole takes too long; `small_layer` makes as many calls of
    NumPy on as few elements as can be, in `small_s`. `gather_s` is what it takes to write the
    windows into the rows of a matrix, from operands as the code has them; `own_threads` is how many
    threads called NumPy.
    """

    layer: Layer
    call_s: float
    traced_s: float
    small_layer: Layer
    small_s: float
    calls: int
    work: tuple[Work, ...]
    products: Products
    dtype: str
    lines: tuple[Line, ...] = ()
    lines_s: float | None = None
    stages: tuple[StageTime, ...] = ()
    gather_s: float = 0.0
    allocated: int = 0
    fresh_pages_s: float = 0.0
    is_memory_kept: bool = True
    own_threads: int = 1
    note: str = ""
