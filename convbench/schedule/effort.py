"""How much is measured: rounds, blocks and the length of a sample, by name."""

from __future__ import annotations

from dataclasses import dataclass, replace

MIN_ROUNDS = 3
"""A budget never brings the rounds under this; then the slowest arms are skipped instead."""

ARM_SHARE = 3

SHORTER = 4
"""By how much samples are shorter where the quickest of a round is what counts."""


@dataclass(frozen=True)
class Effort:
    """`rounds` of fresh processes, `blocks` in each, one sample of `sample_s` an arm and block.

    An arm takes part in as many blocks as fit ARM_SHARE times the samples' time of a fast one, and
    in `slow_blocks` at least: a slow arm's time is known well enough from few calls, and the width
    of a speedup comes from the fast arm.
    """

    name: str
    rounds: int
    blocks: int
    slow_blocks: int
    sample_s: float
    rss_s: float
    calibration_s: float

    @property
    def in_short_samples(self) -> Effort:
        """The same time in more and shorter samples, for what rests on each round's quickest."""
        return replace(
            self,
            blocks=self.blocks * SHORTER,
            slow_blocks=self.slow_blocks * 2,
            sample_s=self.sample_s / SHORTER,
        )


EFFORTS = {
    effort.name: effort
    for effort in (
        Effort("smoke", 1, 3, 1, 0.005, 0.05, 0.6),
        Effort("quick", 5, 4, 1, 0.005, 0.2, 1.5),
        Effort("standard", 8, 8, 2, 0.010, 0.2, 1.5),
        Effort("rigorous", 16, 12, 3, 0.020, 1.0, 3.0),
    )
}
