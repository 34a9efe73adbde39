"""Make intervals and tests from rounds, with nothing but the standard library.

A round is the replicate (docs/measuring.md). Each round gives one figure, the logarithm of a ratio
or of a time. The estimate is the mean over rounds, and its interval is Student's t.
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
"""Largest difference, of logs, that is never called one: 1 %."""

NORMAL_FROM = 1e7
"""Degrees of freedom above which Student's t equals the normal distribution to within 1e-7."""

MOST_TERMS = 1000
"""Most terms of the incomplete beta function's continued fraction. Doubles need far fewer."""


@dataclass(frozen=True)
class Estimate:
    """A positive quantity from rounds: its geometric mean, as the mean and error of the logs.

    `error` is the standard error of the mean of the logs, 0 with one round. `degrees` are its
    degrees of freedom, usually rounds - 1.
    """

    log: float
    error: float
    rounds: int
    degrees: float

    @property
    def value(self) -> float:
        return math.exp(self.log)

    def interval(self, confidence: float = 0.99) -> tuple[float, float] | None:
        """Return the two-sided interval of the quantity, or None with fewer than five rounds."""
        if self.rounds < MIN_ROUNDS:
            return None
        alpha = (1 - confidence) / 2
        return self.lower(alpha), self.upper(alpha)

    def half_width(self, confidence: float = 0.99) -> float | None:
        """Return half of the interval as a fraction: 0.03 where the quantity is known to 3 %."""
        bounds = self.interval(confidence)
        return None if bounds is None else math.sqrt(bounds[1] / bounds[0]) - 1

    def lower(self, alpha: float) -> float:
        """Return the lower bound, which the quantity is below with a probability of `alpha`."""
        return math.exp(self.log - t_quantile(1 - alpha, self.degrees) * self.error)

    def upper(self, alpha: float) -> float:
        """Return the upper bound, which the quantity is above with a probability of `alpha`."""
        return math.exp(self.log + t_quantile(1 - alpha, self.degrees) * self.error)

    def p_above(self, margin: float) -> float:
        """Return the one-sided p-value of the hypothesis that the log is at most `margin`.

        It is 1 with fewer than five rounds.
        """
        if self.rounds < MIN_ROUNDS:
            return 1.0
        excess = self.log - margin
        if self.error == 0:
            return float(excess <= 0)
        return 1 - t_cdf(excess / self.error, self.degrees)

    def p_beyond(self, margin: float = MARGIN) -> float:
        """Return the two-sided p-value of the hypothesis that the log is within `margin` of 0.

        It is small where the interval lies wholly beyond the margin, and 1 with fewer than five
        rounds.
        """
        excess = abs(self.log) - margin
        if self.rounds < MIN_ROUNDS or excess <= 0:
            return 1.0
        if self.error == 0:
            return 0.0
        return 2 * (1 - t_cdf(excess / self.error, self.degrees))


def estimate(logs: Sequence[float], first: int | None = None) -> Estimate:
    """Estimate a quantity from one figure per round, its logarithm. Raises ValueError without any.

    `first` is the number of rounds in the first stage of a run that went on until its intervals
    were narrow. The interval is then Stein's (Annals of Mathematical Statistics 16:243, 1945): the
    deviation and its degrees of freedom are those of the first stage, and the mean is that of all
    rounds. The number of rounds depends on deviations alone, never on a mean, so that the interval
    is valid for any number of them. Where the deviation of all rounds gives a wider interval, that
    one is returned.
    """
    if not logs:
        raise ValueError("an estimate needs at least one round")
    whole = _deviation_of(logs, logs)
    if first is None or not 1 < first < len(logs):
        return whole
    stage = _deviation_of(logs, logs[:first])
    return max(stage, whole, key=_half_of_99)


def _deviation_of(logs: Sequence[float], stage: Sequence[float]) -> Estimate:
    """Estimate the mean of all rounds, with the deviation of those in `stage`."""
    error = _standard_deviation(stage) / math.sqrt(len(logs))
    return Estimate(statistics.fmean(logs), error, len(logs), len(stage) - 1)


def _standard_deviation(logs: Sequence[float]) -> float:
    """Return the sample's standard deviation, 0 for equal values.

    `statistics.stdev` computes with fractions, which takes 20 times as long.
    """
    if min(logs) == max(logs):
        return 0.0
    mean = statistics.fmean(logs)
    return math.sqrt(math.fsum((log - mean) ** 2 for log in logs) / (len(logs) - 1))


def in_the_long_run(found: Estimate, deviation: float, degrees: float) -> Estimate:
    """Turn the figure of one run into an estimate of what the machine gives in the long run.

    Runs differ by `deviation`, a standard deviation of logs with `degrees` degrees of freedom,
    beyond what the rounds of one run show. The variances add up. The degrees of freedom are Welch's
    and Satterthwaite's (Biometrika 34:28, 1947), rounded down to two digits: a quantile takes 10 ms
    to compute and is cached by its degrees. Where the run's own interval is wider, because few
    rounds have few degrees of freedom, the figure is returned as it is.
    """
    widened = quotient(found, Estimate(0.0, 0.0, found.rounds, math.inf), deviation, degrees)
    widened = replace(widened, degrees=_two_digits(widened.degrees))
    return max(found, widened, key=_half_of_99)


def _half_of_99(found: Estimate) -> float:
    """Return half of the 99 % interval of the log."""
    return found.error * t_quantile(0.995, found.degrees) if found.error else 0.0


def _two_digits(number: float) -> float:
    """Round down to two significant digits."""
    if not 0 < number < math.inf:
        return number
    step = 10.0 ** (math.floor(math.log10(number)) - 1)
    return math.floor(number / step) * step


def quotient(
    above: Estimate, below: Estimate, deviation: float, deviation_degrees: float = math.inf
) -> Estimate:
    """Estimate `above` / `below`, figures of two sessions that differ by `deviation` (of logs).

    The squared error is the sum of the three variances. The degrees of freedom are Welch's and
    Satterthwaite's (Biometrika 34:28, 1947); `deviation_degrees` are those of the deviation itself.
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
    """Estimate the mean over cells from each cell's logs by round.

    The cells of a round share its processes. The mean over cells is therefore taken within each
    round first, so that the rounds stay the replicates.
    """
    rounds = list(zip(*per_round, strict=True))
    return estimate([statistics.fmean(cells) for cells in rounds], first)


def fit_line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Return intercept and slope by least squares. One point gives its value and a slope of 0."""
    mean_x, mean_y = fmean(x), fmean(y)
    spread = sum((each - mean_x) ** 2 for each in x)
    if not spread:
        return mean_y, 0.0
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
    return mean_y - slope * mean_x, slope


def holm_levels(p_values: Sequence[float], alpha: float) -> list[float]:
    """Return the level at which Holm's procedure tests each hypothesis, at family-wise `alpha`.

    A hypothesis is rejected if its p-value is at most its level. In the order of the p-values, the
    levels grow until one hypothesis is not rejected; those after it are not rejected either.
    Source: Holm (1979), Scandinavian Journal of Statistics 6:65.
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
    """Return Student's t distribution function, computed from the incomplete beta function.

    Above NORMAL_FROM degrees of freedom it is the normal distribution function.
    """
    if degrees > NORMAL_FROM:
        return 0.5 * math.erfc(-t / math.sqrt(2))
    tail = 0.5 * _incomplete_beta(degrees / 2, 0.5, degrees / (degrees + t * t))
    return 1 - tail if t > 0 else tail


@cache
def t_quantile(p: float, degrees: float) -> float:
    """Invert `t_cdf` to within 1e-12, by Newton's method.

    A step that would leave the interval known to hold the result is replaced by a bisection.
    """
    if p < 0.5:
        return -t_quantile(1 - p, degrees)
    low, high = 0.0, 1.0
    while t_cdf(high, degrees) < p:
        low, high = high, high * 2
    found, moved = high, math.inf
    while abs(moved) > 1e-12 * max(found, 1.0):
        error = t_cdf(found, degrees) - p
        low, high = (found, high) if error < 0 else (low, found)
        step = found - error / _t_density(found, degrees)
        step = step if low < step < high else (low + high) / 2
        found, moved = step, step - found
    return found


def _t_density(t: float, degrees: float) -> float:
    """Return the derivative of `t_cdf` by t."""
    if degrees > NORMAL_FROM:
        return math.exp(-t * t / 2) / math.sqrt(2 * math.pi)
    half = degrees / 2
    log_norm = math.lgamma(half + 0.5) - math.lgamma(half) - math.log(math.pi * degrees) / 2
    return math.exp(log_norm - (half + 0.5) * math.log1p(t * t / degrees))


def proportion_upper(hits: int, trials: int, confidence: float = 0.95) -> float:
    """Return the one-sided upper bound of a rate that was seen `hits` times in `trials`.

    Source: Clopper and Pearson (1934). Raises ValueError without trials.
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
    """Compute the regularised incomplete beta function I_x(a, b).

    The method is the continued fraction of DLMF 8.17.22.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast only below this
        return 1 - _incomplete_beta(b, a, 1 - x)
    log_front = (
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    # Lentz's method evaluates the fraction from the outside in, until a term changes nothing.
    numerator, denominator, fraction = 1.0, 0.0, 1.0
    for term in range(1, MOST_TERMS):
        m, odd = divmod(term, 2)
        if odd:
            coefficient = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            coefficient = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        denominator = 1 / (1 + coefficient * denominator)
        numerator = 1 + coefficient / numerator
        fraction *= numerator * denominator
        if abs(numerator * denominator - 1) < 4e-16:
            break
    return math.exp(log_front) / (a * fraction)
