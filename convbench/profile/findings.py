"""Hold what the experiments on one cell found, as plain values that a worker can send."""

from __future__ import annotations

from dataclasses import dataclass

from convbench.problem.layer import Layer


@dataclass(frozen=True)
class Line:
    """A line of the code, in one call.

    `seconds` come from a call whose lines were timed; `numpy_s` from a traced one, inside NumPy.
    `hits` is how often the line ran, `calls` how many calls of NumPy on arrays it made, and
    `allocated` the bytes of the new arrays that those calls returned.
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
    """A named part of an implementation, with its seconds in one call, summed over the threads."""

    name: str
    seconds: float
    calls: int


@dataclass(frozen=True)
class Work:
    """Time that calls of one operation spend on their elements, in one call of the code.

    `seconds` is all of this time but that of new pages. Its parts are `traffic` (bytes at the
    bandwidth of copies), `layout` (what contiguous arrays would save) and `cast` (copies into
    another dtype); `rest` is what remains. `dtype_factor` says how many times as fast the calls
    would be in float32, and `threads_factor` how many times as fast a product on all threads.
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
    """Seconds of np.matmul of a pass's own sizes, on contiguous arrays and into an existing one.

    `seconds` has them by dtype and number of threads. `single` and `many` are those of float32, on
    one thread and on all.
    """

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
    """Counts of events in a call. `missing` says for every other event why it has no count."""

    counts: dict[str, float]
    missing: dict[str, str]


@dataclass(frozen=True)
class Examination:
    """One implementation on one layer, taken apart.

    All times are seconds of one call: `call_s` as the worker timed it, `traced_s` when traced, and
    `lines_s` when its lines were timed. `fresh_pages_s` is what a call saves if the process keeps
    its memory. `layer` is the layer that was examined, cut if a call on the whole takes too long.
    On `small_layer` the code makes the same calls of NumPy on as few elements as possible, and
    they take `small_s`. `gather_s` is the time to write the windows into the rows of a matrix, from
    operands in the code's own layout. `own_threads` is the number of threads that called NumPy.
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
