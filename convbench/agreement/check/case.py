"""What is checked: one pass of one layer by one implementation, with the seed of its draws."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from convbench.agreement.check.deviation import Right
from convbench.agreement.check.trial import Trial
from convbench.implementations.contract import Implementation
from convbench.problem import operands
from convbench.problem.layer import Layer, Pass
from convbench.problem.operands import Operands

Subject = tuple[str, Pass]
"""Name of an implementation, and a pass: what all layers of a suite have in common."""


@dataclass(frozen=True)
class Case:
    """A cell as it is checked: with a number of threads, and the seed that fixes its draws."""

    implementation: Implementation
    layer: Layer
    pass_: Pass
    threads: int
    seed: int

    @property
    def subject(self) -> Subject:
        return self.implementation.name, self.pass_

    @property
    def is_supported(self) -> bool:
        return self.implementation.unsupported(self.layer, self.pass_) is None

    def on(self, layer: Layer) -> Case:
        """Return the same case on another layer."""
        return replace(self, layer=layer)

    def by(self, implementation: Implementation) -> Case:
        """Return the same case for another implementation."""
        return replace(self, implementation=implementation)

    def fresh(self) -> Case:
        """Return the same case for a copy of the code's module, without state of earlier calls."""
        return self.by(self.implementation.fresh())

    def integers(self, number: int) -> Operands:
        """Draw integers, others for each number from 0 on."""
        return operands.exact_integers(self.layer, self.pass_, 2 * self.seed + number)

    def floats(self, number: int) -> Operands:
        """Draw floats, others for each number from 0 on."""
        return operands.floats(self.layer, self.pass_, 2 * self.seed + number)

    def trial(self, unwritten: float = np.nan) -> Trial:
        """Prepare the implementation. Memory that nobody wrote to will hold `unwritten`."""
        return Trial(self.implementation, self.layer, self.pass_, self.threads, unwritten)

    def right(self, drawn: Operands, products: int | None = None) -> Right:
        """Return the right result. `products` is the most in a sum that are not zero, if known."""
        return Right(self.layer, self.pass_, drawn, products=products)
