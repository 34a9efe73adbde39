"""Write numbers as people read them: one unit for a kind, three digits, intervals in per cent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from convbench.report.views.table import Column, Interval, Kind, Value

SIGNIFICANT_DIGITS = 3

# Outside of this range a plain decimal is too long to read.
_PLAIN_FROM, _PLAIN_TO = 1e-5, 1e9


class _Unit(NamedTuple):
    name: str
    factor: float


_UNITS: dict[Kind, _Unit] = {
    Kind.TIME_S: _Unit("ms", 1e3),
    Kind.BYTES: _Unit("MiB", 2.0**-20),
    Kind.RATE: _Unit("GFLOP/s", 1e-9),
    Kind.FRACTION: _Unit("%", 1e2),
}


class Figure(NamedTuple):
    """A value for a narrow column: `~5.06` and `±1.2%?`."""

    number: str
    tail: str


def unit(kind: Kind) -> str:
    """Return the unit of a column of this kind, or an empty text if the kind has no unit."""
    return _UNITS[kind].name if kind in _UNITS else ""


def figures(
    key: str, kind: Kind, heading: str, short: str | None = None, optional: int = 0
) -> Column:
    """Return a column for numbers in the unit of their kind."""
    return Column(key, heading, unit(kind), "decimal", short, optional=optional)


def significant(number: float, digits: int = SIGNIFICANT_DIGITS) -> str:
    """Write `number` to three significant digits (or `digits`): 62.1, 183, 0.920, 1230."""
    if number == 0 or not math.isfinite(number):
        return "0" if number == 0 else str(number)
    if not _PLAIN_FROM <= abs(number) < _PLAIN_TO:
        return f"{number:.{digits - 1}e}"
    # The exponent is that of the rounded number, so that 9.996 becomes 10.0 and not 10.00.
    exponent = int(f"{number:.{digits - 1}e}".partition("e")[2])
    decimals = digits - 1 - exponent
    return f"{round(number, decimals):.{max(decimals, 0)}f}"


def percent(fraction: float) -> str:
    """Write a fraction in per cent, without `%`, to two digits: 54, 4.5, 0.12, <0.01."""
    hundredths = abs(fraction) * 100
    if 0 < hundredths < 0.005:
        return "<0.01"
    decimals = 0 if hundredths >= 9.95 else 1 if hundredths >= 0.995 else 2
    return f"{fraction * 100:.{decimals}f}"


def half_width(interval: Interval) -> str:
    """Write half the width of an interval in log terms, rounded up to claim no more: `±1.2%`."""
    low, high = interval
    if not (0 < low <= high < math.inf):
        return "±?"
    return _plus_minus((math.sqrt(high / low) - 1) * 100)


def change(ratio: float, interval: Interval | None = None) -> str:
    """Write new over old: `+12% ±3.1%`, `-3.4%`; from a factor of 10 on, `×25.0 ±1.2%`, `×0.0400`.

    After a change in per cent, ± gives the half of its interval towards 0, in per cent of old. That
    half is smaller than the change exactly if the interval excludes 1.
    """
    if not 0.1 < ratio < 10:
        return f"×{significant(ratio)}" + (f" {half_width(interval)}" if interval else "")
    shown = f"{'-' if ratio < 1 else '+'}{percent(abs(ratio - 1))}%"
    if interval is None:
        return shown
    nearer = interval[0] if ratio > 1 else interval[1]
    return f"{shown} {_plus_minus(abs(ratio - nearer) * 100)}"


def width(fraction: float) -> str:
    """Write half of an interval, given as a fraction, rounded up as it is after a ±: `2.5 %`."""
    return f"{_rounded_up(fraction * 100)} %"


def _plus_minus(width: float) -> str:
    return f"±{_rounded_up(width)}%"


def _rounded_up(width: float) -> str:
    # A width of exactly 1.2 must not become 1.3 because of its last bit.
    if width > 9.9:
        return f"{math.ceil(width - 1e-9)}"
    return f"{max(math.ceil(width * 10 - 1e-9), 1) / 10:.1f}"


def scaled(kind: Kind, number: float) -> str:
    """Write the number in the unit of its kind, without the unit's name."""
    if kind is Kind.FRACTION:
        return percent(number)
    return significant(number * _UNITS[kind].factor if kind in _UNITS else number)


def compact(value: Value) -> Figure:
    """Write a number for a terminal, with its interval as a half width. The value must be a number.

    A word after the number (`62.1 wrong`) takes the interval's place; a mark follows the interval.
    """
    tail = half_width(value.interval) if value.interval and not value.after.isalpha() else ""
    return Figure(value.before + _number(value), tail + value.after)


def bounded(value: Value) -> str:
    """Write a number with its bounds: `62.1 [61.4, 62.9]`. The value must be a number."""
    parts = [value.before + _number(value)]
    if value.interval:
        parts.append(bounds(value.interval, value.kind))
    if value.after:
        parts.append(value.after)
    return " ".join(parts)


def bounds(interval: Interval, kind: Kind = Kind.RATIO) -> str:
    """Write an interval in the unit of its kind: `[61.4, 62.9]`."""
    low, high = (scaled(kind, bound) for bound in interval)
    return f"[{low}, {high}]"


def amount_of_flops(flops: float) -> str:
    """Write FLOPs for running text, where no column gives the unit: `10.6 MFLOP`."""
    for prefix, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if flops >= factor:
            return f"{significant(flops / factor)} {prefix}FLOP"
    return f"{flops:.0f} FLOP"


def amount(kind: Kind, number: float) -> str:
    """For running text, with the unit: `0.661 MiB`, `2.7 %`, and `181x` of a ratio."""
    return scaled(kind, number) + ("x" if kind is Kind.RATIO else f" {unit(kind)}")


def mebibytes(size: float) -> str:
    return amount(Kind.BYTES, size)


def counted(number: int, noun: str) -> str:
    """Write a number with its noun: `1 round`, `8 rounds`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listed(words: Sequence[str], conjunction: str = "and") -> str:
    """Join words as prose does: `forward`, `forward and kernel-gradient`, `a, b and c`."""
    return f" {conjunction} ".join([*filter(None, [", ".join(words[:-1])]), *words[-1:]])


def _number(value: Value) -> str:
    assert isinstance(value.raw, (int, float))
    return scaled(value.kind, value.raw)
