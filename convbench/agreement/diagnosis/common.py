"""Find what all wrong layers have in common and no right layer has: a size, a parameter, or two."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from convbench.problem.layer import Layer
from convbench.suites.coverage import left_over

FEWEST = 2
"""Fewest wrong layers, and fewest right ones, that have anything in common worth telling."""

MOST_CONDITIONS = 3
"""Most conditions that are told together. More of them would fit any layers by accident."""

BLOCKS = (2, 4, 8, 16, 32, 64)
"""Sizes of blocks of which a size may be a multiple."""


@dataclass(frozen=True)
class Condition:
    """Something that a layer has or has not, in words that follow "where".

    `size` is what is counted, of those in SIZES, or empty.
    """

    words: str
    holds: Callable[[Layer], bool]
    size: str = ""


SIZES: dict[str, Callable[[Layer], int]] = {
    "channels of a group": lambda layer: layer.channels // layer.groups,
    "filters of a group": lambda layer: layer.filters // layer.groups,
    "images": lambda layer: layer.batch_size,
    "rows": lambda layer: layer.input_size[0],
    "columns": lambda layer: layer.input_size[1],
    "output rows": lambda layer: layer.output_size[0],
    "output columns": lambda layer: layer.output_size[1],
    "kernel rows": lambda layer: layer.kernel_size[0],
    "kernel columns": lambda layer: layer.kernel_size[1],
    "groups": lambda layer: layer.groups,
    "products in a sum": lambda layer: (
        layer.kernel_size[0] * layer.kernel_size[1] * layer.channels // layer.groups
    ),
}
"""Sizes of a layer, by what is counted."""


def _has_rest(layer: Layer) -> bool:
    return any(left_over(layer))


PARAMETERS: dict[str, Callable[[Layer], bool]] = {
    "there are strides": lambda layer: layer.strides != (1, 1),
    "there are no strides": lambda layer: layer.strides == (1, 1),
    "the strides are unequal": lambda layer: layer.strides[0] != layer.strides[1],
    "there are pads": lambda layer: layer.pads != ((0, 0), (0, 0)),
    "there are no pads": lambda layer: layer.pads == ((0, 0), (0, 0)),
    "the pads are uneven": lambda layer: any(one != other for one, other in layer.pads),
    "there is no dilation": lambda layer: layer.dilation_rate == (1, 1),
    "there are no groups": lambda layer: layer.groups == 1,
    "there is no bias": lambda layer: not layer.use_bias,
    "there is dilation": lambda layer: layer.dilation_rate != (1, 1),
    "the dilation is unequal": lambda layer: layer.dilation_rate[0] != layer.dilation_rate[1],
    "there are groups": lambda layer: layer.groups > 1,
    "the layer is depthwise": lambda layer: layer.groups == layer.channels > 1,
    "rows or columns are left over": _has_rest,
    "no rows or columns are left over": lambda layer: not _has_rest(layer),
    "there is a bias": lambda layer: layer.use_bias,
    "the dtype is float64": lambda layer: layer.dtype == "float64",
    "the dtype is float32": lambda layer: layer.dtype == "float32",
    "the kernel is not square": lambda layer: layer.kernel_size[0] != layer.kernel_size[1],
    "the images are square": lambda layer: layer.input_size[0] == layer.input_size[1],
    "the images are not square": lambda layer: layer.input_size[0] != layer.input_size[1],
}
"""Parameters of a layer that have a special value, by the words for it."""


def common(wrong: Sequence[Layer], right: Sequence[Layer]) -> str | None:
    """Return where exactly the wrong layers are wrong, as words that follow "where".

    Return None if no few conditions hold on all wrong layers and together on no right one.
    """
    if min(len(wrong), len(right)) < FEWEST:
        return None
    shared = [
        condition
        for condition in _conditions(wrong)
        if all(condition.holds(layer) for layer in wrong)
    ]
    left, chosen = list(right), list[Condition]()
    while left and len(chosen) < MOST_CONDITIONS:
        sizes = {condition.size for condition in chosen}
        # Of two that are as good, the one on a size that is told already is simpler.
        best = min(
            shared, key=lambda c: (sum(map(c.holds, left)), c.size not in sizes), default=None
        )
        if best is None or all(map(best.holds, left)):
            return None
        chosen.append(best)
        left = [layer for layer in left if best.holds(layer)]
    return None if left else " and ".join(condition.words for condition in chosen)


def _conditions(wrong: Sequence[Layer]) -> Iterator[Condition]:
    """Yield conditions, the simplest first."""
    for words, holds in PARAMETERS.items():
        yield Condition(words, holds)
    for what, size in SIZES.items():
        least, most = min(map(size, wrong)), max(map(size, wrong))
        yield Condition(_from(what, least), _at_least(size, least), what)
        yield Condition(f"there are at most {most} {what}", _at_most(size, most), what)
        for block in sorted(BLOCKS, key=lambda block: block != least - 1):
            for is_one, article in ((False, "no"), (True, "a")):
                words = f"the number of {what} is {article} multiple of {block}"
                yield Condition(words, _multiple(size, block, is_one), what)


def _from(what: str, least: int) -> str:
    return f"there are {least} or more {what}"


def _at_least(size: Callable[[Layer], int], least: int) -> Callable[[Layer], bool]:
    return lambda layer: size(layer) >= least


def _at_most(size: Callable[[Layer], int], most: int) -> Callable[[Layer], bool]:
    return lambda layer: size(layer) <= most


def _multiple(size: Callable[[Layer], int], block: int, wanted: bool) -> Callable[[Layer], bool]:
    return lambda layer: (size(layer) % block == 0) is wanted
