"""Spoil right convolutions at random: an effect on the result, wherever some condition holds.

The number of a mutant decides everything about it. Conditions are on sizes, on pairs of parameters,
on values, or on what was called before. A variant has such conditions too, and is right: where one
holds, it computes in another way. `tests/mutants/spoilt.py` has both by name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.mutants import right
from tests.mutants.right import NO_PADS

PASSES = ("forward", "input-gradient", "kernel-gradient")

SIZES = (
    "images",
    "channels",
    "filters",
    "rows",
    "columns",
    "output rows",
    "output columns",
    "kernel rows",
    "kernel columns",
)
SMALL = ("kernel rows", "kernel columns")
PARAMETERS = (
    "strides",
    "unequal strides",
    "pads",
    "uneven pads",
    "dilation",
    "groups",
    "bias",
    "float64",
    "several images",
    "a rest",
    "an even kernel",
    "a kernel that is not square",
    "a 1x1 kernel",
    "images that are not square",
)


@dataclass(frozen=True)
class Asked:
    """What a pass is asked to compute: its operands, first and second, and its parameters."""

    first: Any
    second: Any
    bias: Any
    strides: Any
    padding: Any
    dilation_rate: Any
    groups: int
    size: tuple[int, int]  # rows and columns of the input
    kernel_size: tuple[int, int]
    channels: int
    filters: int

    def count(self, what: str) -> int:
        rows, columns = right.output_size(
            self.size, self.kernel_size, self.strides, self.padding, self.dilation_rate
        )
        return {
            "images": len(self.first),
            "channels": self.channels // self.groups,
            "filters": self.filters // self.groups,
            "rows": self.size[0],
            "columns": self.size[1],
            "output rows": rows,
            "output columns": columns,
            "kernel rows": self.kernel_size[0],
            "kernel columns": self.kernel_size[1],
        }[what]

    def has(self, what: str) -> bool:
        (kh, kw), (h, w) = self.kernel_size, self.size
        pads = self.padding
        rest = any(
            (n + sum(p) - (k - 1) * d - 1) % s
            for n, p, k, d, s in zip(
                self.size, pads, self.kernel_size, self.dilation_rate, self.strides, strict=True
            )
        )
        return {
            "strides": tuple(self.strides) != (1, 1),
            "unequal strides": self.strides[0] != self.strides[1],
            "pads": any(map(any, pads)),
            "uneven pads": any(one != other for one, other in pads),
            "dilation": tuple(self.dilation_rate) != (1, 1),
            "groups": self.groups > 1,
            "bias": self.bias is not None,
            "float64": self.first.dtype == np.float64,
            "several images": len(self.first) > 1,
            "a rest": rest,
            "an even kernel": kh % 2 == 0 or kw % 2 == 0,
            "a kernel that is not square": kh != kw,
            "a 1x1 kernel": kh == kw == 1,
            "images that are not square": h != w,
        }[what]


VALUES: dict[str, Callable[[Any], bool]] = {
    "an element is 0": lambda a: bool((a == 0).any()),
    "half of the elements are 0": lambda a: bool((a == 0).mean() > 0.4),
    "no element is negative": lambda a: bool((a >= 0).all()),
    "no element is positive": lambda a: bool((a <= 0).all()),
    "an element is beyond 1,000": lambda a: bool(np.abs(a).max() > 1000),
    "an element is tiny": lambda a: bool(((np.abs(a) < 1e-10) & (a != 0)).any()),
    "all elements are equal": lambda a: a.size > 1 and bool(np.ptp(a) == 0),
    "all but one element are 0": lambda a: a.size > 1 and np.count_nonzero(a) == 1,
    "the first element is 0": lambda a: bool(a.flat[0] == 0),
    "no element is a whole number": lambda a: bool((a != np.rint(a)).all()),
    "all elements are whole numbers": lambda a: bool((a == np.rint(a)).all()),
    "the sum is beyond 10,000": lambda a: bool(np.abs(a.sum(dtype=np.float64)) > 10_000),
}


@dataclass(frozen=True)
class Spoiler:
    """A mutant: the pass that is spoilt, when, and how."""

    number: int
    pass_: str
    kind: str  # of the condition
    when: str
    condition: Callable[[Asked, Counters], bool]
    how: str
    effect: Callable[[Any, Any, Callable[..., Any], Asked], Any]


class Counters:
    """What was called before, by one object and by the whole module."""

    calls = 0
    largest = 0
    thread: int | None = None
    last: dict[Any, Any]

    def __init__(self) -> None:
        self.own_calls = 0


def spoiler(number: int) -> Spoiler:
    """Return the mutant of a number."""
    rng = np.random.default_rng([number, 19])
    pass_ = str(rng.choice(PASSES))
    kind = str(rng.choice(["size", "block", "two sizes", "pair", "triple", "values", "state"]))
    when, condition = _conditions(kind, pass_, rng)
    how, effect = _effects(pass_, rng)
    return Spoiler(number, pass_, kind, when, condition, how, effect)


def _conditions(kind: str, pass_: str, rng: Any) -> tuple[str, Callable[[Asked, Counters], bool]]:
    if kind == "size":
        what = str(rng.choice(SIZES))
        least = int(rng.integers(2, 8 if what in SMALL else 66))
        return f"{least} or more {what}", lambda asked, _: asked.count(what) >= least
    if kind == "block":
        what = str(rng.choice([size for size in SIZES if size not in SMALL]))
        block = int(rng.choice([4, 8, 16, 32]))
        return (
            f"more than {block} {what}, and no multiple of {block}",
            lambda asked, _: asked.count(what) > block and asked.count(what) % block > 0,
        )
    if kind == "two sizes":
        one, other = map(str, rng.choice(SIZES, 2, replace=False))
        least = [int(rng.integers(2, 5 if what in SMALL else 17)) for what in (one, other)]
        return (
            f"{least[0]} or more {one} and {least[1]} or more {other}",
            lambda asked, _: asked.count(one) >= least[0] and asked.count(other) >= least[1],
        )
    if kind in ("pair", "triple"):
        names = [name for name in PARAMETERS if name != "bias" or pass_ == "forward"]
        chosen = [
            str(name) for name in rng.choice(names, 2 if kind == "pair" else 3, replace=False)
        ]
        return " and ".join(chosen), lambda asked, _: all(map(asked.has, chosen))
    if kind == "values":
        what = str(rng.choice([*VALUES]))
        which = int(rng.integers(2))
        return (
            f"{what} in the {('first', 'second')[which]} operand",
            lambda asked, _: VALUES[what]((asked.first, asked.second)[which]),
        )
    return _states(rng)


def _states(rng: Any) -> tuple[str, Callable[[Asked, Counters], bool]]:
    number = int(rng.integers(2, 51))
    chance = int(rng.choice([2, 5, 20, 50]))
    dice = np.random.default_rng(number)

    def elsewhere(asked: Asked, counters: Counters) -> bool:
        now = threading.get_ident()
        Counters.thread = Counters.thread or now
        return now != Counters.thread

    def after_larger(asked: Asked, counters: Counters) -> bool:
        before, Counters.largest = Counters.largest, max(Counters.largest, asked.first.size)
        return before > 2 * asked.first.size

    choices: list[tuple[str, Callable[[Asked, Counters], bool]]] = [
        (f"from call {number} of an object on", lambda _, counters: counters.own_calls >= number),
        (f"from call {number} of the module on", lambda _, counters: Counters.calls >= number),
        ("on another thread", elsewhere),
        ("after a layer of more than twice the size", after_larger),
        (f"by chance, once in {chance}", lambda _, counters: dice.integers(chance) == 0),
    ]
    return choices[int(rng.integers(len(choices)))]


def _effects(pass_: str, rng: Any) -> tuple[str, Callable[..., Any]]:
    axis = int(rng.integers(4))
    axes = (
        ("filter", "channel", "row", "column")
        if pass_ == PASSES[2]
        else (
            "image",
            "filter" if pass_ == PASSES[0] else "channel",
            "row",
            "column",
        )
    )

    def at(place: int) -> tuple[Any, ...]:
        return (slice(None),) * axis + (place,)

    def zero(out: Any, *_: Any) -> Any:
        out[at(-1)] = 0
        return out

    def first_for_last(out: Any, *_: Any) -> Any:
        out[at(-1)] = out[at(0)]
        return out

    def one_wrong(out: Any, *_: Any) -> Any:
        out[-1, -1, -1, -1] += 1 + abs(out[-1, -1, -1, -1])
        return out

    def flipped(out: Any, compute: Any, asked: Asked) -> Any:
        return compute(asked.first, asked.second[..., ::-1, ::-1])

    def without_last(out: Any, compute: Any, asked: Asked) -> Any:
        less = asked.first.copy()
        less[:, -1] = 0
        return compute(less, asked.second)

    def rounded(out: Any, compute: Any, asked: Asked) -> Any:
        bits = [
            a.astype(np.float32).view(np.uint32) & 0xFFFF0000 for a in (asked.first, asked.second)
        ]
        return compute(*(a.view(np.float32).astype(out.dtype) for a in bits))

    factor = float(rng.choice([2, 0.5, -1, 1.01, 0]))
    choices: list[tuple[str, Callable[..., Any]]] = [
        (f"the last {axes[axis]} is zero", zero),
        (f"the last {axes[axis]} is the first", first_for_last),
        ("the last element is wrong", one_wrong),
        (f"everything is {factor:g} times what it should be", lambda out, *_: out * factor),
        (f"{axes[axis]}s are shifted by one", lambda out, *_: np.roll(out, 1, axis)),
        (f"{axes[axis]}s are in reverse order", lambda out, *_: np.flip(out, axis)),
        ("the second operand is flipped", flipped),
        ("the last channel of the first operand is zero", without_last),
        ("operands are truncated to bfloat16", rounded),
        ("0.1 is added", lambda out, *_: out + out.dtype.type(0.1)),
    ]
    how, effect = choices[int(rng.integers(len(choices)))]
    return how, lambda out, compute, asked: effect(out, compute, asked)


def variant(number: int) -> Spoiler:
    """Return the right variant of a number."""
    rng = np.random.default_rng([number, 500])
    pass_ = str(rng.choice(PASSES))
    kind = str(rng.choice(["size", "block", "two sizes", "pair", "triple", "values", "state"]))
    when, condition = _conditions(kind, pass_, rng)
    how, effect = _right_effects(pass_, rng)
    return Spoiler(number, pass_, kind, when, condition, how, effect)


def _right_effects(pass_: str, rng: Any) -> tuple[str, Callable[..., Any]]:
    def in_float64(out: Any, compute: Any, asked: Asked) -> Any:
        return compute(asked.first.astype(np.float64), asked.second.astype(np.float64))

    def rounded_at_the_end(out: Any, compute: Any, asked: Asked) -> Any:
        return in_float64(out, compute, asked).astype(out.dtype)

    def in_parts(out: Any, compute: Any, asked: Asked) -> Any:
        if asked.bias is not None:  # it would be added twice
            return out
        first = asked.first.copy()
        first[:, ::2] = 0
        return compute(first, asked.second) + compute(asked.first - first, asked.second)

    def images_apart(out: Any, compute: Any, asked: Asked) -> Any:
        if pass_ == "kernel-gradient":
            each = range(len(asked.first))
            parts = [compute(asked.first[n : n + 1], asked.second[n : n + 1]) for n in each]
            return sum(parts[1:], parts[0])
        return np.concatenate([compute(image[None], asked.second) for image in asked.first])

    def backwards(out: Any, *_: Any) -> Any:
        return out[::-1, ::-1].copy()[::-1, ::-1]

    def of_a_larger_array(out: Any, *_: Any) -> Any:
        return np.pad(out, 1)[1:-1, 1:-1, 1:-1, 1:-1]

    def locked(out: Any, *_: Any) -> Any:
        out.setflags(write=False)
        return out

    scale = float(2.0 ** rng.integers(-6, 7))
    choices: list[tuple[str, Callable[..., Any]]] = [
        ("it computes and returns float64", in_float64),
        ("it computes in float64 and rounds", rounded_at_the_end),
        ("it sums even and odd channels apart", in_parts),
        ("it takes one image at a time", images_apart),
        ("it returns a view with negative strides", backwards),
        ("it returns a part of a larger array", of_a_larger_array),
        ("its result is read-only", locked),
        ("its result is in Fortran order", lambda out, *_: np.asfortranarray(out)),
        ("its result is complex", lambda out, *_: out.astype(np.result_type(out, np.complex64))),
        (f"it scales by {scale:g} and back", lambda out, *_: out * scale * (1 / scale)),
    ]
    return choices[int(rng.integers(len(choices)))]


def spoilt(chosen: Spoiler | None) -> type:
    """Return a class with all three passes, one of which is spoilt, unless `chosen` is None."""

    class Convolution:
        def __init__(self) -> None:
            self.counters = Counters()

        def forward(
            self,
            x,
            kernel,
            bias=None,
            strides=(1, 1),
            padding=NO_PADS,
            dilation_rate=(1, 1),
            groups=1,
        ):
            rest = (bias, strides, padding, dilation_rate, groups)
            asked = Asked(x, kernel, *rest, x.shape[2:], kernel.shape[2:], x.shape[1], len(kernel))
            return self._maybe(
                "forward", asked, lambda one, other: right.forward(one, other, *rest)
            )

        def input_gradient(
            self,
            output_gradient,
            kernel,
            input_shape,
            strides=(1, 1),
            padding=NO_PADS,
            dilation_rate=(1, 1),
            groups=1,
        ):
            rest = (strides, padding, dilation_rate, groups)
            asked = Asked(
                *(output_gradient, kernel, None, *rest, input_shape[2:], kernel.shape[2:]),
                *(input_shape[1], len(kernel)),
            )
            return self._maybe(
                "input-gradient",
                asked,
                lambda one, other: right.input_gradient(
                    one, other, (len(one), *input_shape[1:]), *rest
                ),
            )

        def kernel_gradient(
            self,
            x,
            output_gradient,
            kernel_size,
            strides=(1, 1),
            padding=NO_PADS,
            dilation_rate=(1, 1),
            groups=1,
        ):
            rest = (strides, padding, dilation_rate, groups)
            asked = Asked(
                *(x, output_gradient, None, *rest, x.shape[2:], kernel_size),
                *(x.shape[1], output_gradient.shape[1]),
            )
            return self._maybe(
                "kernel-gradient",
                asked,
                lambda one, other: right.kernel_gradient(one, other, kernel_size, *rest),
            )

        def _maybe(self, pass_, asked, compute):
            out = compute(asked.first, asked.second)
            self.counters.own_calls += 1
            Counters.calls += 1
            if chosen and pass_ == chosen.pass_ and chosen.condition(asked, self.counters):
                return chosen.effect(np.array(out), compute, asked)
            return out

    return Convolution
