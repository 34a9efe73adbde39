"""Ask a worker to train a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convbench.measure.messages import Request

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from convbench.measure.bench import Bench
    from convbench.training.arms import Arm, Connected, Setup, Summary, Trained
    from convbench.training.trainer import State

_ARM = "training"
"""Key under which a bench keeps the training that was connected last."""


def _arm(bench: Bench) -> Arm:
    arm: Arm = bench.kept[_ARM]
    return arm


@dataclass(frozen=True)
class Connect(Request["Connected"]):
    """Connect a network for training. The other requests are about the last one connected.

    With `warm`, the worker also pays what only the first steps cost: allocation, trials and
    compilation.
    """

    setup: Setup
    implementation: str
    warm: bool = False

    def answer(self, bench: Bench) -> Connected:
        from convbench.training import arms

        arm = bench.kept[_ARM] = arms.connect(
            self.setup, self.implementation, bench.threads, bench.registry
        )
        if self.warm:
            arm.warm_up()
            arm.restart()
        return arm.connected


@dataclass(frozen=True)
class Follow(Request["tuple[float, dict[str, NDArray[np.floating[Any]]]]"]):
    """Take one step, from `state` if it is given. Answer with its loss and the weights after it."""

    state: State | None = None

    def answer(self, bench: Bench) -> tuple[float, dict[str, NDArray[np.floating[Any]]]]:
        return _arm(bench).follow(self.state)


@dataclass(frozen=True)
class Train(Request["Trained"]):
    """Take this many steps, or as many as `seconds` allow."""

    steps: int
    seconds: float

    def answer(self, bench: Bench) -> Trained:
        return _arm(bench).train(self.steps, self.seconds)


@dataclass(frozen=True)
class GoOn(Request[None]):
    """Go on with a training from a saved state."""

    state: State

    def answer(self, bench: Bench) -> None:
        _arm(bench).resume(self.state)


@dataclass(frozen=True)
class Restart(Request[None]):
    """Go back to the initial weights. Compiled functions and allocated memory stay."""

    def answer(self, bench: Bench) -> None:
        _arm(bench).restart()


@dataclass(frozen=True)
class Accuracy(Request[float]):
    """Tell which fraction of the held-out images is classified right."""

    def answer(self, bench: Bench) -> float:
        return _arm(bench).accuracy()


@dataclass(frozen=True)
class Summarise(Request["Summary"]):
    """Tell where the time of all steps went, and which implementations `auto` chose."""

    def answer(self, bench: Bench) -> Summary:
        return _arm(bench).summary()


@dataclass(frozen=True)
class GetState(Request["State | None"]):
    """Tell where the training stands. The answer is None for Keras, which keeps its own state."""

    def answer(self, bench: Bench) -> State | None:
        return _arm(bench).state()
