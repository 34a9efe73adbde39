"""Make intervals and tests from rounds, with nothing but the standard library.

A round is the replicate (docs/measuring.md): one figure a round, the logarithm of a ratio
or of a time; the estimate is the mean over rounds and its interval Student's t.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean

MIN_ROUNDS = 5
"""Fewest rounds for which an interval is claimed. With fewer, Student's t is too wide to say
anything."""

MARGIN = math.log1p(0.01)
"""Differences within 1 % are never called differences."""


NORMAL_FROM = 1e7
"""Degrees of freedom from which Student's t is the normal distribution, to 1e-7."""


@dataclass(frozen=True)
class Estimate:
    """A positive quantity from rounds: geometric mean, and the mean and error of the logs.

    `error` is the standard error of the mean of the logs, 0 with one round; `degrees` its degrees
    of freedom, rounds - 1 where nothing else is said.
    """

    log: float
    error: float
    rounds: int
    degrees: float

    @property
    def value(self) -> float:
        return math.exp(self.log)

    def interval(self, confidence: float = 0.99) -> tuple[float, float] | None:
        """The two-sided interval of the quantity, or None with fewer than five rounds."""
        if self.rounds < MIN_ROUNDS:
            return None
        alpha = (1 - confidence) / 2
        return self.lower(alpha), self.upper(alpha)

    def half_width(self, confidence: float = 0.99) -> float | None:
        """Half of the interval as a part: 0.03 where the quantity is known to 3 %."""
        bounds = self.interval(confidence)
        return None if bounds is None else math.sqrt(bounds[1] / bounds[0]) - 1

    def lower(self, alpha: float) -> float:
        """The bound that the quantity is above, but for a probability of `alpha`."""
        return math.exp(self.log - t_quantile(1 - alpha, self.degrees) * self.error)

    def upper(self, alpha: float) -> float:
        """The bound that the quantity is below, but for a probability of `alpha`."""
        return math.exp(self.log + t_quantile(1 - alpha, self.degrees) * self.error)

    def p_above(self, margin: float) -> float:
        """p value of "the log is at most `margin`", one-sided; 1 with fewer than five rounds."""
        if self.rounds < MIN_ROUNDS:
            return 1.0
        excess = self.log - margin
        if self.error == 0:
            return float(excess <= 0)
        return 1 - t_cdf(excess / self.error, self.degrees)

    def p_beyond(self, margin: float = MARGIN) -> float:
        """p value of "the quantity is within `margin` (of logs) of 1", two-sided.

        1 with fewer than five rounds. Small when the interval lies wholly beyond the margin.
        """
        excess = abs(self.log) - margin
        if self.rounds < MIN_ROUNDS or excess <= 0:
            return 1.0
        if self.error == 0:
            return 0.0
        return 2 * (1 - t_cdf(excess / self.error, self.degrees))


def estimate(logs: Sequence[float], first: int | None = None) -> Estimate:
    """Mean over rounds of one figure a round. Raises ValueError without rounds.

    `first` rounds were the first stage of a run that went on until its intervals were narrow. Then
    the interval is Stein's (Annals of Mathematical Statistics 16:243, 1945): the deviation and its
    degrees of freedom are those of the first stage, and the mean is that of all rounds. The number
    of rounds depends on deviations alone, never on a mean, so that the interval is valid however
    many there were. Where the deviation of all rounds gives a wider interval, it is that one.
    """
    if not logs:
        raise ValueError("an estimate needs at least one round")
    whole = _deviation_of(logs, logs)
    if first is None or not 1 < first < len(logs):
        return whole
    stage = _deviation_of(logs, logs[:first])
    return max(stage, whole, key=_half_of_99)


def _deviation_of(logs: Sequence[float], stage: Sequence[float]) -> Estimate:
    """The mean of all rounds, with the deviation of some."""
    error = statistics.stdev(stage) / math.sqrt(len(logs)) if len(stage) > 1 else 0.0
    return Estimate(statistics.fmean(logs), error, len(logs), len(stage) - 1)


def in_the_long_run(found: Estimate, deviation: float, degrees: float) -> Estimate:
    """The same figure of one run as an estimate of what the machine gives in the long run.

    Runs differ by `deviation` (a standard deviation of logs, known with so many degrees of freedom)
    beyond what the rounds of one run show. The variances add up; the degrees of freedom are Welch's
    and Satterthwaite's (Biometrika 34:28, 1947), rounded down to two digits, since a quantile takes
    10 ms and is kept by its degrees. Where the run's own interval is wider, because few rounds have
    few degrees of freedom, it is that one.
    """
    widened = quotient(found, Estimate(0.0, 0.0, found.rounds, math.inf), deviation, degrees)
    widened = replace(widened, degrees=_two_digits(widened.degrees))
    return max(found, widened, key=_half_of_99)


def _half_of_99(found: Estimate) -> float:
    """Half of the 99 % interval of the log."""
    return found.error * t_quantile(0.995, found.degrees) if found.error else 0.0


def _two_digits(number: float) -> float:
    """Rounded down."""
    if not 0 < number < math.inf:
        return number
    step = 10.0 ** (math.floor(math.log10(number)) - 1)
    return math.floor(number / step) * step


def quotient(
    above: Estimate, below: Estimate, deviation: float, deviation_degrees: float = math.inf
) -> Estimate:
    """`above` / `below` of two sessions that differ by `deviation` (of logs) between themselves.

    SE^2 is the sum of the three variances; the degrees of freedom are Welch's and Satterthwaite's
    (Biometrika 34:28, 1947). `deviation_degrees` says how well the deviation itself is known.
    """
    parts = [
        (above.error**2, above.degrees),
        (below.error**2, below.degrees),
        (deviation**2, deviation_degrees),
    ]
    variance = sum(part for part, _ in parts)
    spread = sum(part**2 / degrees for part, degrees in parts if part)
    return Estimate(
        log=above.log - below.log,
        error=math.sqrt(variance),
        rounds=min(above.rounds, below.rounds),
        degrees=variance**2 / spread if spread else math.inf,
    )


def geometric_mean(per_round: Sequence[Sequence[float]], first: int | None = None) -> Estimate:
    """Estimate of the mean over cells, from each cell's logs by round.

    The cells of a round share its processes, so that the mean over cells is taken within each
    round first and the rounds stay the replicates.
    """
    rounds = list(zip(*per_round, strict=True))
    return estimate([statistics.fmean(cells) for cells in rounds], first)


def fit_line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Intercept and slope by least squares; of one point its value and 0."""
    mean_x, mean_y = fmean(x), fmean(y)
    spread = sum((each - mean_x) ** 2 for each in x)
    if not spread:
        return mean_y, 0.0
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
    return mean_y - slope * mean_x, slope


def holm_levels(p_values: Sequence[float], alpha: float) -> list[float]:
    """The level at which Holm's procedure tests each hypothesis, at family-wise error `alpha`.

    A hypothesis falls where its p-value is at most its level. Levels are ever less strict, in order
    of the p-values, until one hypothesis stands; all that come after it stand as well. Source: Holm
    (1979), Scandinavian Journal of Statistics 6:65.
    """
    levels = [alpha] * len(p_values)
    level, stopped = alpha, False
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if not stopped:
            level = alpha / (len(p_values) - rank)
            stopped = p_values[index] > level
        levels[index] = level
    return levels


def t_cdf(t: float, degrees: float) -> float:
    """Student's t distribution function, from the incomplete beta function; the normal one for
    infinite degrees of freedom."""
    if degrees > NORMAL_FROM:
        return 0.5 * math.erfc(-t / math.sqrt(2))
    tail = 0.5 * _incomplete_beta(degrees / 2, 0.5, degrees / (degrees + t * t))
    return 1 - tail if t > 0 else tail


@cache
def t_quantile(p: float, degrees: float) -> float:
    """The inverse of `t_cdf`, by bisection; to 1e-12."""
    if p < 0.5:
        return -t_quantile(1 - p, degrees)
    low, high = 0.0, 1.0
    while t_cdf(high, degrees) < p:
        high *= 2
    while high - low > 1e-12 * max(high, 1.0):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, degrees) < p else (low, middle)
    return (low + high) / 2


def proportion_upper(hits: int, trials: int, confidence: float = 0.95) -> float:
    """The one-sided upper bound of a rate seen `hits` times: Clopper and Pearson (1934).

    Raises ValueError without trials.
    """
    if trials < 1:
        raise ValueError("a rate needs at least one trial")
    if hits >= trials:
        return 1.0
    low, high = hits / trials, 1.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        # P(X <= hits) falls as the rate grows.
        at_most = 1 - _incomplete_beta(hits + 1, trials - hits, middle)
        low, high = (middle, high) if at_most > 1 - confidence else (low, middle)
    return (low + high) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function I_x(a, b), by the continued fraction of DLMF 8.17.22."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges fast
        return 1 - _incomplete_beta(b, a, 1 - x)
    log_front = (
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    # Evaluated from the inside out; 200 terms are far more than doubles need.
    fraction = 1.0
    for m in range(200, 0, -1):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        fraction = 1 + even / (1 + odd / fraction)
    first = 1 - (a + b) * x / (a + 1) / fraction
    return math.exp(log_front) / (a * first)
