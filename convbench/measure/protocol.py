"""What the parent and a worker say to each other: frozen values through a pipe of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from convbench.implementations.contract import Ledger
from convbench.implementations.variants import Variant
from convbench.machine.description import BlasLibrary
from convbench.own_code.description import OwnCode
from convbench.problem.layer import Layer, Pass
from convbench.results.model import Agreement, Explanation, Probe

if TYPE_CHECKING:
    from convbench.measure.clock import Plan, Visited
    from convbench.training.arms import Setup
    from convbench.training.trainer import State


@dataclass(frozen=True)
class Start:
    """The first message. `names` are those that the registry does not know.

    `cpus` are those that the worker may use, empty for all that its parent may. Not `tune`: what
    chooses among others does so without trials.
    """

    runtime: str
    threads: int
    seed: int
    names: tuple[Variant | OwnCode, ...] = ()
    cpus: tuple[int, ...] = ()
    tune: bool = True


@dataclass(frozen=True)
class Ready:
    """The worker has imported its runtime and capped its threads."""

    blas: tuple[BlasLibrary, ...]


@dataclass(frozen=True)
class Check:
    """Answered by a Checked or a Refused. Not `timed`: no call at full size is clocked."""

    layer: Layer
    pass_: Pass
    implementation: str
    timed: bool = True


@dataclass(frozen=True)
class Checked:
    """`call_s` is the time of one warm call: rough, since several workers check at a time.

    `said` is what own code printed and warned of, `explanations` what explains a wrong result: each
    on its own, the likeliest first.
    """

    agreement: Agreement
    call_s: float
    ledger: Ledger
    said: tuple[str, ...] = ()
    explanations: tuple[Explanation, ...] = ()


@dataclass(frozen=True)
class Refused:
    """The answer to Check and Meter when own code turns out not to support the layer."""

    reason: str


@dataclass(frozen=True)
class Meter:
    """Answered by a results.Memory."""

    layer: Layer
    pass_: Pass
    implementation: str
    rss_seconds: float


@dataclass(frozen=True)
class Calibrate:
    """Answered by a machine.Calibration."""

    threads: tuple[int, ...]
    seconds: float


@dataclass(frozen=True)
class Visit:
    """Wake an arm up and sample it; one that is new is prepared first. Answered by a Sampled."""

    layer: Layer
    pass_: Pass
    implementation: str
    plan: Plan


@dataclass(frozen=True)
class Sampled:
    """What a visit gave, and the probes before and after it."""

    visited: Visited
    probes: tuple[Probe, Probe]


@dataclass(frozen=True)
class Release:
    """Forget what was prepared; answered by a Released."""


@dataclass(frozen=True)
class Released:
    """The worker's largest resident memory so far in bytes, and by implementation the delay that
    a slowed one came out with (see implementations.variants)."""

    max_rss: int
    delays: dict[str, float]


@dataclass(frozen=True)
class Failure:
    """The answer when a request raised: one sentence, with the place in the user's code.

    `said` is what the code printed before, and the user's frames of the exception. `is_usage`: no
    layer can be computed, since what was named is not there or cannot be called.
    """

    reason: str
    said: tuple[str, ...] = ()
    is_usage: bool = False
    hint: str | None = None


@dataclass(frozen=True)
class Connect:
    """Connect a network to train it; answered by an arms.Connected. `warm`: and warm up."""

    setup: Setup
    implementation: str
    warm: bool = False


@dataclass(frozen=True)
class Follow:
    """One step, from `state` if there is one; answered by its loss and the weights after it."""

    state: State | None = None


@dataclass(frozen=True)
class Train:
    """So many steps, or as many as `seconds` allow; answered by an arms.Trained."""

    steps: int
    seconds: float


@dataclass(frozen=True)
class Resume:
    """Go on from there; answered by None."""

    state: State


@dataclass(frozen=True)
class Ask:
    """Call a method of arms.Arm; answered by what it returns."""

    what: Literal["accuracy", "summary", "state", "restart"]


@dataclass(frozen=True)
class Examine:
    """Take a cell apart; answered by a profile.findings.Examination."""

    layer: Layer
    pass_: Pass
    implementation: str


@dataclass(frozen=True)
class TimeCall:
    """The time of a call on any layer, roughly; answered by seconds."""

    layer: Layer
    pass_: Pass
    implementation: str


@dataclass(frozen=True)
class Count:
    """Hardware and software counters of a call; answered by a profile.findings.Counted."""

    layer: Layer
    pass_: Pass
    implementation: str


@dataclass(frozen=True)
class TimeProducts:
    """The matrix product that a pass comes to; answered by a profile.findings.Products."""

    layer: Layer
    pass_: Pass
    dtypes: tuple[str, ...]


Request = (
    Start
    | Check
    | Meter
    | Calibrate
    | Visit
    | Release
    | Connect
    | Follow
    | Train
    | Resume
    | Ask
    | Examine
    | TimeCall
    | Count
    | TimeProducts
)
