"""Describe a suite: the layers, implementations and passes of one YAML file."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal

from convbench.errors import ConvbenchError
from convbench.own_code.description import OwnCode
from convbench.problem.layer import Layer, Pass

DEFAULT_IMPLEMENTATIONS = ("loop", "im2col", "keras", "keras-graph")
"""Implementations of a suite that names none."""

KERAS_WAYS = ("keras", "keras-graph", "keras-xla")
"""Implementations that run Keras Conv2D: eagerly, as a graph, and compiled by XLA."""

LOOP = "loop"
"""Name of the reference loop. If a suite has it, everything is compared with it."""

FASTEST_KERAS = "fastest-keras"
"""Value of `versus` that stands for the fastest of the Keras ways that a suite has."""

BEST_PER_LAYER = "best per layer"
"""Name in a network's totals that stands for the fastest implementation of each layer."""

COMPOSITES = (FASTEST_KERAS, BEST_PER_LAYER)
"""Names that may stand for a different implementation on each layer. No implementation has them."""

REPETITIONS = ("#twin", "#plain")
"""Suffixes of benchmarks that repeat an implementation's: its twin, and the plain loop of
`--confirm`. No implementation's name may have such a suffix."""


# A field whose name is a keyword of Python ends with an underscore. Files do not have it.
FILE_NAMES = {"alias_generator": lambda name: name.rstrip("_"), "populate_by_name": True}

EffortName = Literal["smoke", "quick", "standard", "rigorous"]


Quantity = Literal["speedup", "fraction_of_peak", "peak_bytes"]
"""Quantities that a rule can limit: a ratio of times, a rate over the measured peak, or memory in
bytes."""


@dataclass(frozen=True)
class Said:
    """How people read of a quantity, wherever a rule, a verdict or a point is of it.

    `rule` says a limit. `written` is the kind of number that a figure is, which decides its unit
    (`report.views.scale`). A chart where smaller is better has the figure in `point`, which is one
    over it where `larger_is_better`.
    """

    rule: str
    written: Literal["ratio", "fraction", "bytes"]
    point: str
    larger_is_better: bool = True


QUANTITIES: dict[Quantity, Said] = {
    "speedup": Said("at least {limit:g} times as fast as {versus}", "ratio", "time of {versus}"),
    "fraction_of_peak": Said("at least {limit:g} % of peak", "fraction", "time of the peak rate"),
    "peak_bytes": Said("at most {limit} bytes", "bytes", "bytes", larger_is_better=False),
}


@dataclass(frozen=True)
class Rule:
    """A floor of a gate: exactly one of `at_least`, `at_most_bytes` and `per_cent_of_peak`.

    `at_least` is a speedup over `versus`, of each matching cell or of their geometric mean.
    `at_most_bytes` is a peak memory, `per_cent_of_peak` a rate over the machine's measured peak.
    `pass_` None is every pass. `layer` is a pattern, as in a shell.
    """

    implementation: str
    versus: str | None = None
    pass_: Pass | None = None
    layer: str = "*"
    of: Literal["each", "geometric_mean"] = "each"
    at_least: float | None = None
    at_most_bytes: int | None = None
    per_cent_of_peak: float | None = None

    __pydantic_config__ = FILE_NAMES

    def __post_init__(self) -> None:
        """Raise ValueError for figures that no checked file can have."""
        given = self._given
        if len(given) != 1 or not 0 < given[0] < math.inf:
            raise ValueError(
                "a rule has one positive at_least, at_most_bytes or per_cent_of_peak, "
                f"found {given or 'none'}"
            )
        if (self.at_least is None) != (self.versus is None):
            raise ValueError("a rule has versus beside at_least, and only there")

    @property
    def _given(self) -> list[float]:
        figures = [self.at_least, self.at_most_bytes, self.per_cent_of_peak]
        return [figure for figure in figures if figure is not None]

    @property
    def limit(self) -> float:
        """The one figure, as it was written: a speedup, bytes, or per cent."""
        return self._given[0]

    @property
    def quantity(self) -> Quantity:
        """The quantity that the rule limits."""
        if self.at_most_bytes is not None:
            return "peak_bytes"
        return "speedup" if self.per_cent_of_peak is None else "fraction_of_peak"


@dataclass(frozen=True)
class Provenance:
    """Where the layers of an imported suite come from.

    `read` convolutions were found in `source`. `merged` of them equal an earlier one, whose `count`
    includes them. `left_out` names the entries that cannot be layers, with the place and the
    reason; `notes` say what was changed or not followed. `tools` are the versions that read it.
    """

    source: str
    format: str
    read: int
    merged: int
    tools: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Suite:
    """What one YAML file asks for. Options of the command line override `effort` and `threads`.

    `environment` maps variables to values; None unsets a variable.

    `gate` has the floors that `convbench gate` holds a run to.

    `own` says how the user's own code is called. Code that is spelled FILE.py:NAME and called by
    our conventions need not be there.

    `source` is the file as the user named it, for messages. `provenance` says where
    `convbench import` found the layers.
    """

    name: str
    layers: tuple[Layer, ...]
    implementations: tuple[str, ...] = DEFAULT_IMPLEMENTATIONS
    passes: tuple[Pass, ...] = tuple(Pass)
    threads: int | Literal["all"] = "all"
    effort: EffortName = "standard"
    environment: dict[str, str | None] = field(default_factory=dict)
    description: str = ""
    source: str = ""
    gate: tuple[Rule, ...] = ()
    own: tuple[OwnCode, ...] = ()
    provenance: Provenance | None = None

    @property
    def subjects(self) -> tuple[str, ...]:
        """Names of what is measured: the layers or, for the training of a network, the suite."""
        return tuple(layer.name for layer in self.layers) or (self.name,)

    def is_own(self, implementation: str) -> bool:
        """Tell whether an implementation is the user's own code."""
        return OwnCode.is_spelled(implementation) or any(
            own.name == implementation for own in self.own
        )


def shard(suite: Suite, index: int, count: int) -> Suite:
    """Return the suite with only those layers that fall into part `index` (from 1) of `count`.

    A hash of its name decides for each layer, so that its part is the same on every machine and
    does not depend on other layers. Raises ConvbenchError if no layer falls into the part.
    """
    layers = tuple(layer for layer in suite.layers if _hash(layer.name) % count == index - 1)
    if not layers:
        raise ConvbenchError(
            f"no layer of {suite.name} falls into shard {index}/{count}",
            hint=f"it has {len(suite.layers)} layers: use fewer shards",
        )
    return replace(suite, layers=layers)


def _hash(name: str) -> int:
    return int.from_bytes(sha256(name.encode()).digest()[:8])


def shipped_suites() -> dict[str, Path]:
    """Return the shipped suites by name. They are in the package, or in configs/ of a checkout."""
    return shipped("suite")


def shipped(kind: str) -> dict[str, Path]:
    """Return by name the shipped files whose first line names the schema of that kind."""
    package = Path(__file__).parents[1]
    folder = next(
        (f for f in (package / "configs", package.parent / "configs") if f.is_dir()), None
    )
    paths = [] if folder is None else sorted(folder.glob("*.yaml"))
    return {
        path.stem: path for path in paths if _schema_line(path).endswith(f"={kind}.schema.json")
    }


def _schema_line(path: Path) -> str:
    with path.open(encoding="utf-8") as stream:
        return stream.readline().rstrip()
