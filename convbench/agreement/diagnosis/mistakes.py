"""List the mistakes: what each is called, a sentence about it, and what it changes.

A mistake turns the right computation into a wrong one, so that computing tells whether it explains
a result. To add one, yield it from the function of its family; `CAUSES` of tests/mutants/causes.py
has the names of causes. The variant tells a mistake from others of the same cause. It has no figure
of a layer, so that the same mistake has the same variant on every layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convbench.agreement.diagnosis.computation import Computation, Float64, Sizes
from convbench.problem.layer import Pass
from convbench.results.model import MistakeKind

Change = Callable[[Computation], Computation]
Letters = dict[str, str]
"""Axes that the code's own arrays have, by name: input, kernel, output_gradient and result."""


@dataclass(frozen=True)
class Mistake:
    """One mistake on one layer: its kind (`cause` and `variant`), a sentence, and what it changes.

    The sentence is for people and may have figures of the layer. No code decides by it.
    """

    cause: str
    variant: str
    sentence: str
    change: Change

    @property
    def kind(self) -> MistakeKind:
        """Kind of the mistake, the same on every layer."""
        return MistakeKind(self.cause, self.variant)


def mistakes(right: Computation, letters: Letters) -> Iterator[Mistake]:
    """Yield what can be wrong with a computation, the likely first. Some mistakes may change
    nothing on its layer."""
    yield from _flips(right)
    yield from _swaps(right)
    yield from _reversals(right)
    yield from _padding(right)
    yield from _strides_and_dilation(right)
    yield from _off_by_one()
    yield from _bias(right)
    yield from _groups(right)
    yield from _scales(right)
    yield from _left_out(right)
    yield from _never_written(right)
    yield from _overlaps(right)
    yield from _tiles(right)
    yield from _not_reset(right, letters)
    yield from _activations(right)
    yield from _layouts(right, letters)


def _on(name: str, function: Callable[[Float64], Float64]) -> Change:
    """Return a change of one operand."""

    def change(computation: Computation) -> Computation:
        changed: dict[str, Any] = {name: function(getattr(computation, name))}
        return replace(computation, **changed)

    return change


def _after(function: Callable[[Float64], Float64]) -> Change:
    return lambda computation: computation.then(function)


# Flips and swaps

_FLIPS = {
    "height and width": (0, 1),
    "height": (0,),
    "width": (1,),
}


def _flips(right: Computation) -> Iterator[Mistake]:
    first = {"kernel": 0, "error": 1, "x": 1}
    for name, axis in first.items():
        if getattr(right, name) is None:
            continue
        for where, axes in _FLIPS.items():
            flip = _flipped(tuple(axis + a for a in axes))
            sentence = _flip_sentence(name, where, right)
            yield Mistake(_FLIP_CAUSES[name], where, sentence, _on(name, flip))
    axis = 0 if right.pass_ is Pass.KERNEL_GRADIENT else 1
    for where, axes in _FLIPS.items():
        flip = _flipped(tuple(axis + a for a in axes))
        yield Mistake("result-flipped", where, f"the result is flipped in {where}", _after(flip))


_FLIP_CAUSES = {
    "kernel": "kernel-flipped",
    "error": "output-gradient-flipped",
    "x": "input-flipped",
}


def _flipped(axes: tuple[int, ...]) -> Callable[[Float64], Float64]:
    return lambda array: np.flip(array, axes)


def _flip_sentence(name: str, where: str, right: Computation) -> str:
    if name == "error":
        return f"the output gradient is flipped in {where}; this pass needs it as it is"
    if name == "x":
        return f"the input is flipped in {where}"
    if right.pass_ is Pass.INPUT_GRADIENT:
        return (
            f"the kernel is the wrong way round in {where}: written as a convolution of the padded "
            "output gradient, this pass needs it flipped exactly once"
        )
    return (
        f"the kernel is flipped in {where}, as in the convolution of mathematics; a layer computes "
        "cross-correlation"
    )


def _swaps(right: Computation) -> Iterator[Mistake]:
    kernel = right.kernel
    cause = "channels-and-filters-swapped"
    is_kernel = right.pass_ is Pass.KERNEL_GRADIENT
    if kernel is not None and kernel.shape[2] == kernel.shape[3]:
        sentence = "the kernel's channels and filters are swapped"
        exchange = _on("kernel", lambda a: a.transpose(0, 1, 3, 2))
        yield Mistake(cause, "kernel", sentence, exchange)
    if is_kernel and len(right.sees[0]) == right.layer.filters:
        sentence = "the result's channels and filters are swapped"
        yield Mistake(cause, "result", sentence, _after(lambda a: a.transpose(0, 1, 3, 2)))

    cause = "height-and-width-swapped"
    for name, axes, what in (
        ("kernel", (1, 0, 2, 3), "the kernel's"),
        ("x", (0, 2, 1, 3), "the input's"),
        ("error", (0, 2, 1, 3), "the output gradient's"),
    ):
        array = getattr(right, name)
        if array is not None and array.transpose(axes).shape == array.shape:
            sentence = f"{what} height and width are swapped"
            yield Mistake(cause, name, sentence, _on(name, _transposed(axes)))
    axes = (1, 0, 2, 3) if is_kernel else (0, 2, 1, 3)
    height, width = right.sizes.kernel if is_kernel else _result_size(right)
    if height == width:
        sentence = "the result's height and width are swapped"
        yield Mistake(cause, "result", sentence, _after(_transposed(axes)))
    for key, what in (("strides", "strides"), ("dilation", "dilation_rate"), ("origin", "padding")):
        sentence = (
            f"{what} are taken as (width, height)"
            if key == "strides"
            else (f"{what} is taken as (width, height)")
        )
        yield Mistake(cause, key, sentence, _swapped(key))


def _reversals(right: Computation) -> Iterator[Mistake]:
    """Yield images, channels or filters that are taken in reverse order."""
    cause = "order-reversed"
    if right.pass_ is Pass.KERNEL_GRADIENT:
        axes = (("channels", 2), ("filters", 3))
    else:
        last = "filters" if right.pass_ is Pass.FORWARD else "channels"
        axes = (("images", 0), (last, 3))
    for what, axis in axes:
        sentence = f"the {what} of the result are in reverse order"
        yield Mistake(cause, f"result: {what}", sentence, _after(_flipped((axis,))))
    if right.pass_ is Pass.KERNEL_GRADIENT:
        sentence = "the images of the input meet those of the output gradient in reverse order"
        yield Mistake(cause, "images", sentence, _on("error", _flipped((0,))))
    elif right.pass_ is Pass.FORWARD:
        sentence = "the channels of the kernel are in reverse order"
        yield Mistake(cause, "kernel: channels", sentence, _on("kernel", _flipped((2,))))
        if right.layer.groups > 1:
            sentence = "the channels of the input are in reverse order"
            yield Mistake(cause, "input: channels", sentence, _on("x", _flipped((3,))))
    else:
        sentence = "the filters of the output gradient are in reverse order"
        yield Mistake(cause, "filters", sentence, _on("error", _flipped((3,))))


def _result_size(right: Computation) -> tuple[int, int]:
    return right.sizes.output if right.pass_ is Pass.FORWARD else right.sizes.input


def _transposed(axes: tuple[int, ...]) -> Callable[[Float64], Float64]:
    return lambda array: array.transpose(axes)


def _swapped(key: str) -> Change:
    return lambda c: c.at(**{key: getattr(c.geometry, key)[::-1]})


# Windows: padding, strides, dilation


def _padding(right: Computation) -> Iterator[Mistake]:
    (top, bottom), (left, right_) = right.layer.pads

    def origin(rows: int, columns: int) -> Change:
        return lambda c: c.at(origin=(rows, columns))

    if top != bottom or left != right_:
        yield from (
            Mistake("padding-on-the-wrong-side", variant, sentence, origin(-rows, -columns))
            for variant, sentence, rows, columns in (
                (
                    "all exchanged",
                    "the top and bottom pads are swapped, and so are the left and right pads",
                    bottom,
                    right_,
                ),
                (
                    "top and bottom exchanged",
                    "the top and bottom pads are swapped",
                    bottom,
                    left,
                ),
                (
                    "left and right exchanged",
                    "the left and right pads are swapped",
                    top,
                    right_,
                ),
            )
        )
    if right.layer.pads != ((0, 0), (0, 0)):
        if right.pass_ is Pass.FORWARD and right.sizes == Sizes.of(right.layer):
            yield Mistake(
                "padding-on-the-wrong-side",
                "all at bottom and right",
                "all pads are at the bottom and on the right",
                origin(0, 0),
            )
        else:
            yield Mistake("padding-ignored", "", "the padding is ignored", origin(0, 0))
        yield from (
            Mistake("padding-on-the-wrong-side", variant, sentence, origin(-rows, -columns))
            for variant, sentence, rows, columns in (
                (
                    "all on top and left",
                    "all pads are at the top and on the left",
                    top + bottom,
                    left + right_,
                ),
                ("all on top", "all rows of padding are at the top", top + bottom, left),
                ("all on the left", "all columns of padding are on the left", top, left + right_),
                ("none on top", "no row of padding is at the top", 0, left),
                ("none on the left", "no column of padding is on the left", top, 0),
            )
        )
        for outside, what in (
            ("wrap", "values from the other side of the input"),
            ("edge", "the values at the edge of the input"),
            ("reflect", "the input reflected at its edge, without the edge"),
            ("symmetric", "the input reflected at its edge, with the edge"),
            ("ones", "ones"),
        ):
            sentence = f"the pads hold {what} instead of zeros"
            yield Mistake("padding-not-zeros", outside, sentence, _outside(outside))


def _off_by_one() -> Iterator[Mistake]:
    for rows in (-1, 0, 1):
        for columns in (-1, 0, 1):
            if rows or columns:
                places = [
                    f"a {what} too {'early' if shift < 0 else 'late'}"
                    for shift, what in ((rows, "row"), (columns, "column"))
                    if shift
                ]
                where = " and ".join(places)
                sentence = f"windows start {where}"
                yield Mistake("padding-off-by-one", where, sentence, _shifted(rows, columns))


def _outside(outside: str) -> Change:
    return lambda c: c.at(outside=outside)


def _shifted(rows: int, columns: int) -> Change:
    return lambda c: c.at(origin=(c.geometry.origin[0] + rows, c.geometry.origin[1] + columns))


def _strides_and_dilation(right: Computation) -> Iterator[Mistake]:
    for key, name, are, ignored, wrong in (
        ("strides", "strides", "are", "strides-ignored", "strides-wrong"),
        ("dilation", "dilation_rate", "is", "dilation-ignored", "dilation-wrong"),
    ):
        high, wide = getattr(right.geometry, key)
        yield from (
            Mistake(ignored, where, f"{name} {are} ignored{where and f' in {where}'}", change)
            for where, change in (
                ("", _with(key, (1, 1))),
                ("height", _with(key, (1, wide))),
                ("width", _with(key, (high, 1))),
            )
        )
        for of, other, size in (("height", "width", high), ("width", "height", wide)):
            sentence = f"the value of {name} for the {of} is used for the {other} too"
            yield Mistake(wrong, f"{of} for both", sentence, _with(key, (size, size)))
        for more, too, word in ((1, "large", "larger"), (-1, "small", "smaller")):
            value = (
                high + more if high > 1 or (more > 0 and wide > 1) else high,
                wide + more if wide > 1 or (more > 0 and high > 1) else wide,
            )
            if max(high, wide) > 1:
                sentence = f"{name} {are} too {too} by 1"
                yield Mistake(wrong, word, sentence, _with(key, value))
                both = (high + more, wide + more)
                if min(both) > 0:
                    yield Mistake(wrong, word, sentence, _with(key, both))
    high, wide = right.geometry.strides
    for rows, columns in (
        (high - 1, wide - 1),
        (high - 1, 0),
        (0, wide - 1),
        (high // 2, wide // 2),
    ):
        if rows or columns:
            sentence = f"the first window starts too late (rows: {rows}, columns: {columns})"
            yield Mistake("strides-wrong", "first window", sentence, _shifted(rows, columns))


def _with(key: str, value: tuple[int, int]) -> Change:
    return lambda c: c.at(**{key: value})


# Bias, groups, factors


def _bias(right: Computation) -> Iterator[Mistake]:
    if right.bias is None:
        return
    channels = len(right.sees[0])
    taps = math.prod(right.sizes.kernel)
    yield Mistake("bias-missing", "", "the bias is not added", lambda c: replace(c, bias_times=0.0))
    for times, variant, often in (
        (2, "twice", "twice"),
        (channels, "once a channel", "once for each channel"),
        (right.layer.channels, "once a channel", "once for each channel"),
        (taps, "once a kernel position", "once for each kernel position"),
        (taps * channels, "once a product", "once for each product"),
        (right.layer.batch_size, "once an image", "once for each image"),
        (right.layer.groups, "once a group", "once for each group"),
    ):
        if times > 1:
            sentence = f"the bias is added {often}"
            yield Mistake("bias-repeated", variant, sentence, _bias_times(times))
    yield Mistake("wrong-scale", "bias subtracted", "the bias is subtracted", _bias_times(-1))
    yield from _bias_of_other_filters(right.layer.groups)
    for axis, what in ((2, "column"), (1, "row"), (0, "image")):
        sentence = f"the bias is added per {what} instead of per filter"
        yield Mistake("bias-on-the-wrong-axis", what, sentence, _bias_along(axis))


def _bias_of_other_filters(groups: int) -> Iterator[Mistake]:
    def of_first_group(bias: Float64) -> Float64:
        return np.tile(bias[: len(bias) // groups], groups)

    def only_first_group(bias: Float64) -> Float64:
        return np.where(np.arange(len(bias)) < len(bias) // groups, bias, 0)

    def first(bias: Float64) -> Float64:
        return np.full_like(bias, bias[0])

    for variant, sentence, function in (
        ("first for all", "the first filter's bias is added to all filters", first),
        (
            "first group for all",
            "the bias of the first group is added to all groups",
            of_first_group,
        ),
        ("first group only", "the bias is added to the first group only", only_first_group),
        ("reversed", "the bias is taken in reverse order of the filters", np.flip),
    ):
        yield Mistake("bias-of-another-filter", variant, sentence, _on("bias", function))


def _bias_times(times: float) -> Change:
    return lambda c: replace(c, bias_times=float(times))


def _bias_along(axis: int) -> Change:
    def change(c: Computation) -> Computation:
        bias = c.bias
        assert bias is not None

        def add(result: Float64) -> Float64:
            shape = [1] * 4
            shape[axis] = result.shape[axis]
            return result + np.resize(bias, result.shape[axis]).reshape(shape)

        return replace(c, bias_times=0.0).then(add)

    return change


def _groups(right: Computation) -> Iterator[Mistake]:
    groups, layer = right.layer.groups, right.layer
    if groups == 1:
        return
    channels, filters = layer.channels // groups, layer.filters // groups
    yield Mistake(
        "groups-ignored",
        "first group",
        "groups are ignored: every filter sees the first group's channels",
        _sees([[*range(channels)]] * layer.filters),
    )
    yield Mistake(
        "groups-ignored",
        "last group",
        "groups are ignored: every filter sees the last group's channels",
        _sees([[*range(layer.channels - channels, layer.channels)]] * layer.filters),
    )
    if right.kernel is not None:
        yield Mistake(
            "groups-ignored",
            "all channels",
            "groups are ignored: every filter sees all channels, with the kernel repeated",
            _with_repeated_kernel(groups, layer.channels),
        )
    for variant, sentence, table in (
        (
            "filters in turn",
            "filters are dealt to the groups in turn instead of in blocks",
            [[*range(f % groups * channels, (f % groups + 1) * channels)] for f in _filters(layer)],
        ),
        (
            "channels in turn",
            "channels are dealt to the groups in turn instead of in blocks",
            [[f // filters + groups * j for j in range(channels)] for f in _filters(layer)],
        ),
        (
            "filters and channels in turn",
            "filters and channels are dealt to the groups in turn instead of in blocks",
            [[f % groups + groups * j for j in range(channels)] for f in _filters(layer)],
        ),
        (
            "reversed",
            "the groups are in reverse order",
            [
                [*range((groups - 1 - f // filters) * channels, (groups - f // filters) * channels)]
                for f in _filters(layer)
            ],
        ),
        (
            "next group",
            "each filter sees the channels of the next group",
            [
                [(f // filters + 1) % groups * channels + j for j in range(channels)]
                for f in _filters(layer)
            ],
        ),
    ):
        yield Mistake("groups-mixed", variant, sentence, _sees(table))
    axis = 3

    def regrouped(array: Float64) -> Float64:
        """Deal the filters of the result to the groups in turn."""
        parts = array.reshape(*array.shape[:axis], groups, filters)
        return parts.swapaxes(3, 4).reshape(array.shape)

    if right.pass_ is not Pass.INPUT_GRADIENT:
        sentence = "the filters of the result are dealt to the groups in turn"
        yield Mistake("groups-mixed", "result in turn", sentence, _after(regrouped))


def _with_repeated_kernel(groups: int, channels: int) -> Change:
    def change(c: Computation) -> Computation:
        assert c.kernel is not None
        kernel = np.tile(c.kernel, (1, 1, groups, 1))
        return replace(c, kernel=kernel, sees=(tuple(range(channels)),) * len(c.sees))

    return change


def _filters(layer: Any) -> range:
    return range(layer.filters)


def _sees(table: list[list[int]]) -> Change:
    return lambda c: replace(c, sees=tuple(map(tuple, table)))


def _scales(right: Computation) -> Iterator[Mistake]:
    layer, sizes = right.layer, right.sizes
    images, taps = layer.batch_size, math.prod(sizes.kernel)
    positions, channels = math.prod(sizes.output), layer.channels // layer.groups
    filters = layer.filters // layer.groups
    for count, what in (
        (images, "images"),
        (taps, "kernel positions"),
        (positions, "output positions"),
        (images * positions, "images and output positions"),
        (channels, "channels"),
        (layer.channels, "channels"),
        (filters, "filters"),
        (layer.filters, "filters"),
        (taps * channels, "products"),
        (taps * filters, "products"),
        (math.prod(sizes.input), "input positions"),
        (layer.groups, "groups"),
        (sizes.kernel[0], "kernel rows"),
        (sizes.kernel[1], "kernel columns"),
    ):
        if count > 1:
            sentence = f"the sum is divided by the number of {what} ({count}), as in a mean"
            yield Mistake("mean-instead-of-sum", what, sentence, _scaled(1 / count))
    yield Mistake("wrong-scale", "sign", "the sign is wrong", _scaled(-1))
    yield Mistake("wrong-scale", "twice", "every element is twice what it should be", _scaled(2))
    yield Mistake("wrong-scale", "half", "every element is half what it should be", _scaled(0.5))
    for times, variant, what in (
        (images, "once an image", "image"),
        (channels, "once a channel", "channel"),
        (filters, "once a filter", "filter"),
        (layer.groups, "once a group", "group"),
        (taps, "once a kernel position", "kernel position"),
    ):
        if times != 1:
            sentence = (
                f"every element is {times} times what it should be, as if added once for each "
                f"{what}"
            )
            yield Mistake("wrong-scale", variant, sentence, _scaled(times))


def _scaled(factor: float) -> Change:
    return lambda c: replace(c, scale=c.scale * factor)


# What is left out


def _left_out(right: Computation) -> Iterator[Mistake]:
    yield from _channels_left_out(right)
    yield from _filters_left_out(right)
    yield from _images_left_out(right)
    yield from _taps_left_out(right)
    if right.pass_ is not Pass.FORWARD:
        yield from _weights(right.sizes.output, "positions", "positions-missing", "output")


def _channels_left_out(right: Computation) -> Iterator[Mistake]:
    """Yield channels that are left out or used for all.

    Only the forward pass sums over channels, so that only this pass can leave one out.
    """
    cause, channels = "one-channel-only", len(right.sees[0])
    if channels > 1 and right.pass_ is Pass.FORWARD:
        for kept, what in _subsets(channels, "channel"):
            sentence = (
                f"{what} of each group counts" if right.layer.groups > 1 else f"{what} counts"
            )
            variant = f"{what} of each group" if right.layer.groups > 1 else what
            yield Mistake(cause, variant, sentence, _on("kernel", _masked(2, kept)))
        sentence = "the kernel's first channel is used for all"
        yield Mistake(cause, "kernel: first for all", sentence, _on("kernel", _repeated(2, 0)))
    if right.x is not None and right.layer.channels > 1:
        for which, place in (("first", 0), ("last", -1)):
            sentence = f"the {which} channel of the input is used for all"
            variant = f"input: {which} for all"
            yield Mistake(cause, variant, sentence, _on("x", _repeated(3, place)))


def _filters_left_out(right: Computation) -> Iterator[Mistake]:
    """Yield filters that are left out or used for all.

    Only the gradient to the input sums over filters, so that only this pass can leave one out.
    """
    cause, filters = "one-filter-only", right.layer.filters
    if right.pass_ is Pass.INPUT_GRADIENT and filters > 1:
        for kept, what in _subsets(filters, "filter"):
            yield Mistake(cause, what, f"{what} counts", _on("error", _masked(3, kept)))
    for name, axis, what in (("kernel", 3, "kernel"), ("error", 3, "output gradient")):
        if getattr(right, name) is not None and filters > 1:
            for which, place in (("first", 0), ("last", -1)):
                sentence = f"the {which} filter of the {what} is used for all"
                variant = f"{what}: {which} for all"
                yield Mistake(cause, variant, sentence, _on(name, _repeated(axis, place)))


def _images_left_out(right: Computation) -> Iterator[Mistake]:
    cause, images = "one-image-only", right.layer.batch_size
    if images < 2:
        return
    if right.pass_ is Pass.KERNEL_GRADIENT:
        for kept, what in _subsets(images, "image"):
            sentence = f"{what} of the batch counts"
            yield Mistake(cause, what, sentence, _on("error", _masked(0, kept)))
    for name, what in (("x", "input"), ("error", "output gradient")):
        if getattr(right, name) is not None:
            for which, place in (("first", 0), ("last", -1)):
                sentence = f"the {which} image of the {what} is used for the whole batch"
                variant = f"{what}: {which} for all"
                yield Mistake(cause, variant, sentence, _on(name, _repeated(0, place)))
            if images > 2:
                sentence = f"every second image of the {what} is that before it"
                yield Mistake(cause, f"{what}: in pairs", sentence, _on(name, _in_pairs))


def _taps_left_out(right: Computation) -> Iterator[Mistake]:
    yield from _weights(right.sizes.kernel, "taps", "tap-missing", "kernel")
    height, width = right.sizes.kernel
    for p in range(height):
        for q in range(width):
            weights = np.ones((height, width))
            weights[p, q] = 0
            sentence = f"the kernel position in row {p}, column {q} is left out"
            yield Mistake("tap-missing", "one position", sentence, _weighted("taps", weights))
            sentence = f"the kernel position in row {p}, column {q} counts twice"
            yield Mistake("tap-twice", "one position", sentence, _weighted("taps", 2 - weights))
    for axis, what in ((0, "row"), (1, "column")):
        for at, which in ((0, "first"), (-1, "last")):
            weights = np.ones((height, width))
            np.moveaxis(weights, axis, 0)[at] = 2
            sentence = f"the {which} kernel {what} counts twice"
            yield Mistake("tap-twice", f"{which} {what}", sentence, _weighted("taps", weights))


def _weights(size: tuple[int, int], name: str, cause: str, what: str) -> Iterator[Mistake]:
    """Yield rows and columns of the kernel or the output that are left out, or alone count."""
    height, width = size
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    both = np.ones((height, width), bool)
    choices: list[tuple[str, str, NDArray[np.bool_]]] = [
        ("all but the last row", f"the last {what} row is left out", (rows < height - 1) & both),
        (
            "all but the last column",
            f"the last {what} column is left out",
            (columns < width - 1) & both,
        ),
        (
            "all but the last row and column",
            f"the last {what} row and column are left out",
            (rows < height - 1) & (columns < width - 1),
        ),
        ("all but the first row", f"the first {what} row is left out", (rows > 0) & both),
        ("all but the first column", f"the first {what} column is left out", (columns > 0) & both),
        (
            "all but the first row and column",
            f"the first {what} row and column are left out",
            (rows > 0) & (columns > 0),
        ),
        (
            "last position",
            f"only the last {what} position counts",
            (rows == height - 1) & (columns == width - 1),
        ),
        (
            "first position",
            f"only the first {what} position counts",
            (rows == 0) & (columns == 0),
        ),
        ("last row", f"only the last {what} row counts", (rows == height - 1) & both),
        ("first row", f"only the first {what} row counts", (rows == 0) & both),
        ("last column", f"only the last {what} column counts", (columns == width - 1) & both),
        ("first column", f"only the first {what} column counts", (columns == 0) & both),
        (
            "all but the last position",
            f"the last {what} position is left out",
            (rows < height - 1) | (columns < width - 1),
        ),
        ("every second row", f"every second {what} row is left out", (rows % 2 == 0) & both),
        (
            "every second column",
            f"every second {what} column is left out",
            (columns % 2 == 0) & both,
        ),
    ]
    choices += [
        ("all but one row", f"{what} row {row} is left out", (rows != row) & both)
        for row in range(1, height - 1)
    ]
    choices += [
        ("all but one column", f"{what} column {column} is left out", (columns != column) & both)
        for column in range(1, width - 1)
    ]
    for variant, sentence, kept in choices:
        yield Mistake(cause, variant, sentence, _weighted(name, kept.astype(np.float64)))


def _weighted(name: str, weights: Float64) -> Change:
    return lambda c: replace(c, **{name: getattr(c, name) * weights})


def _subsets(count: int, what: str) -> Iterator[tuple[list[int], str]]:
    everything = list(range(count))
    yield [0], f"only the first {what}"
    if count > 2:
        yield everything[:-1], f"every {what} but the last"
        yield everything[1:], f"every {what} but the first"
    yield [count - 1], f"only the last {what}"
    if count > 2:
        yield everything[::2], f"only every second {what}"


def _masked(axis: int, kept: list[int]) -> Callable[[Float64], Float64]:
    def mask(array: Float64) -> Float64:
        weights = np.zeros(array.shape[axis])
        weights[kept] = 1
        return array * weights.reshape([-1 if a == axis else 1 for a in range(array.ndim)])

    return mask


def _repeated(axis: int, place: int) -> Callable[[Float64], Float64]:
    def repeat(array: Float64) -> Float64:
        return np.repeat(np.take(array, [place], axis), array.shape[axis], axis)

    return repeat


def _in_pairs(array: Float64) -> Float64:
    images = np.arange(len(array))
    return np.take(array, images - images % 2, 0)


def _never_written(right: Computation) -> Iterator[Mistake]:
    """Yield elements of the result that stay zero."""
    is_kernel = right.pass_ is Pass.KERNEL_GRADIENT
    spatial = 0 if is_kernel else 1
    kinds = {
        Pass.FORWARD: (("image", 0, "one-image-only"), ("filter", 3, "one-filter-only")),
        Pass.INPUT_GRADIENT: (("image", 0, "one-image-only"), ("channel", 3, "one-channel-only")),
        Pass.KERNEL_GRADIENT: (
            ("channel", 2, "one-channel-only"),
            ("filter", 3, "one-filter-only"),
        ),
    }
    if not is_kernel:  # `_taps_left_out` has those of a kernel gradient
        for axes, at, what in (
            ((0,), -1, "the last row"),
            ((1,), -1, "the last column"),
            ((0, 1), -1, "the last row and column"),
            ((0,), 0, "the first row"),
            ((1,), 0, "the first column"),
            ((0, 1), 0, "the first row and column"),
        ):
            sentence = f"{what} of the result {'are' if len(axes) > 1 else 'is'} never written"
            zero = _zeroed(tuple(spatial + a for a in axes), at)
            yield Mistake("never-written", what, sentence, _after(zero))
        for at, what in ((0, "first"), (-1, "last")):
            sentence = f"the {what} corner of the result is never written"
            corner = _after(_corner(spatial, at))
            yield Mistake("never-written", f"{what} corner", sentence, corner)
    for what, axis, cause in kinds[right.pass_]:
        for kept, which in _subsets(_length(right, axis), what):
            sentence = f"{which} of the result is written"
            yield Mistake(cause, f"result: {which}", sentence, _after(_masked(axis, kept)))
        for which, at in (("first", 0), ("last", -1)):
            sentence = f"the {which} {what} of the result is used for all"
            variant = f"result: {which} for all"
            yield Mistake(cause, variant, sentence, _after(_repeated(axis, at)))


def _length(right: Computation, axis: int) -> int:
    return right.layer.result_shape(right.pass_)[axis]


def _zeroed(axes: tuple[int, ...], at: int) -> Callable[[Float64], Float64]:
    def zero(array: Float64) -> Float64:
        array = array.copy()
        for axis in axes:
            array[(slice(None),) * axis + (at,)] = 0
        return array

    return zero


def _corner(spatial: int, at: int) -> Callable[[Float64], Float64]:
    def zero(array: Float64) -> Float64:
        array = array.copy()
        array[(slice(None),) * spatial + (at, at)] = 0
        return array

    return zero


# Sums


def _overlaps(right: Computation) -> Iterator[Mistake]:
    if right.pass_ is not Pass.INPUT_GRADIENT:
        return
    sentence = "overlapping windows overwrite each other instead of being added"
    for by_window in (True, False):
        yield Mistake("overlaps-overwritten", "", sentence, _overwritten(by_window))


def _overwritten(by_window: bool) -> Change:
    def assigned(c: Computation) -> Float64:
        given, geometry = c.contributions(), c.geometry
        height, width = c.sizes.input
        result = np.zeros((given.shape[0], height, width, given.shape[5]))
        windows, taps = list(np.ndindex(c.sizes.output)), list(np.ndindex(c.sizes.kernel))
        order = (
            [(w, t) for w in windows for t in taps]
            if by_window
            else [(w, t) for t in taps for w in windows]
        )
        for (i, j), (p, q) in order:
            row = geometry.origin[0] + i * geometry.strides[0] + p * geometry.dilation[0]
            column = geometry.origin[1] + j * geometry.strides[1] + q * geometry.dilation[1]
            if 0 <= row < height and 0 <= column < width:
                result[:, row, column] = given[:, i, j, p, q]
        return result

    return lambda c: replace(c, whole=assigned)


TILES = (2, 4, 8, 16, 32)
"""Numbers of rows or columns that a tile of the output may have."""


def _tiles(right: Computation) -> Iterator[Mistake]:
    """Yield tiles of the output whose windows do not reach into the next tile of the input."""
    if right.pass_ is not Pass.FORWARD:
        return
    for axes, what in (((0,), "rows"), ((1,), "columns"), ((0, 1), "rows and columns")):
        for size in TILES:
            sentence = (
                f"tiles of {size} {what} are computed without what their windows need of the next "
                "tile"
            )
            yield Mistake("tile-seams", what, sentence, _without_halo(axes, size))


def _without_halo(axes: tuple[int, ...], size: int) -> Change:
    def tiled(c: Computation) -> Float64:
        assert c.x is not None
        plain = replace(c, whole=None, bias=None, scale=1.0, after=())
        result = plain.result()
        steps = [size if axis in axes else max(c.sizes.output[axis], 1) for axis in (0, 1)]
        for tile in np.ndindex(*(-(-c.sizes.output[axis] // steps[axis]) for axis in (0, 1))):
            kept = np.zeros(c.x.shape[1:3], bool)
            outputs, inputs = [slice(None)], []
            for axis in (0, 1):
                first = tile[axis] * steps[axis]
                outputs.append(slice(first, first + steps[axis]))
                start = c.geometry.origin[axis] + first * c.geometry.strides[axis]
                end = start + steps[axis] * c.geometry.strides[axis]
                inputs.append(slice(max(start, 0), max(end, 0)) if axis in axes else slice(None))
            kept[tuple(inputs)] = True
            alone = replace(plain, x=c.x * kept[None, :, :, None]).result()
            result[tuple(outputs)] = alone[tuple(outputs)]
        return result

    return lambda c: replace(c, whole=tiled)


_RUNS = {
    "W": "along a row",
    "HW": "from one position to the next",
    "N": "from image to image",
    "C": "from channel to channel",
    "O": "from filter to filter",
    "I": "from channel to channel",
    "CHW": "through an image",
    "NCHW": "through the whole result",
    "IHW": "through a filter",
    "OIHW": "through the whole result",
}


def _not_reset(right: Computation, letters: Letters) -> Iterator[Mistake]:
    ours = "HWIO" if right.pass_ is Pass.KERNEL_GRADIENT else "NHWC"
    own = "OIHW" if ours == "HWIO" else "NCHW"
    for axes, where in _RUNS.items():
        if set(axes) <= set(own) and not (axes == "C" and ours == "HWIO"):
            if axes == "C" and right.pass_ is Pass.FORWARD:
                where = "from filter to filter"
            sentence = f"a sum is not reset: it is carried over {where}"
            order = [ours.index(axis) for axis in own if axis in axes]
            yield Mistake("accumulator-not-reset", where, sentence, _running(order))


def _running(axes: list[int]) -> Change:
    """Return the change that adds to each element all elements before it, in C order of `axes`."""

    def accumulate(array: Float64) -> Float64:
        front = np.moveaxis(array, axes, range(len(axes)))
        flat = front.reshape(-1, *front.shape[len(axes) :])
        return np.moveaxis(np.cumsum(flat, 0).reshape(front.shape), range(len(axes)), axes)

    def change(c: Computation) -> Computation:
        if c.bias is None:
            return c.then(accumulate)
        bias, times = c.bias, c.bias_times
        return replace(c, bias_times=0.0).then(accumulate).then(lambda a: a + times * bias)

    return change


def _activations(right: Computation) -> Iterator[Mistake]:
    cause = "activation-applied"
    relu = _after(lambda a: np.maximum(a, 0))
    yield Mistake(cause, "relu", "negative results are set to zero, as by a ReLU", relu)
    yield Mistake(cause, "abs", "results are replaced by their absolute values", _after(np.abs))
    for name, function in (
        ("leaky ReLU", lambda a: np.maximum(a, 0.01 * a)),
        ("tanh", np.tanh),
        ("sigmoid", lambda a: 0.5 * (1 + np.tanh(a / 2))),
        ("softplus", lambda a: np.logaddexp(0, a)),
    ):
        sentence = f"an activation is applied to the results: {name}"
        yield Mistake(cause, name, sentence, _after(function))


# Memory


_OURS = {"x": "NHWC", "kernel": "HWIO", "error": "NHWC", "result": ""}


def _layouts(right: Computation, letters: Letters) -> Iterator[Mistake]:
    """Yield arrays read or written in another order of axes: a reshape instead of a transpose."""
    for name, key, what in (
        ("kernel", "kernel", "the kernel"),
        ("x", "input", "the input"),
        ("error", "output_gradient", "the output gradient"),
    ):
        array = getattr(right, name)
        if array is None:
            continue
        for read_as in _orders(letters[key]):
            sentence = (
                f"{what}'s memory is read as {read_as} although it is {letters[key]}: a reshape "
                "does not transpose"
            )
            change = _reread(letters[key], read_as, _OURS[name])
            variant = f"{key}: {read_as} for {letters[key]}"
            yield Mistake("wrong-layout", variant, sentence, _on(name, change))
    ours = "HWIO" if right.pass_ is Pass.KERNEL_GRADIENT else "NHWC"
    for written_as in _orders(letters["result"]):
        sentence = (
            f"the result's memory is in the order {written_as}, expected {letters['result']}: a "
            "reshape does not transpose"
        )
        variant = f"result: {written_as} for {letters['result']}"
        change = _rewritten(letters["result"], written_as, ours)
        yield Mistake("wrong-layout", variant, sentence, _after(change))


def _orders(letters: str) -> Iterator[str]:
    for order in permutations(letters):
        if "".join(order) != letters:
            yield "".join(order)


def _reread(letters: str, read_as: str, ours: str) -> Callable[[Float64], Float64]:
    """Return a function that reads memory of the order `letters` as if it were `read_as`.

    Its argument and its result have the axes `ours`.
    """

    def change(array: Float64) -> Float64:
        if len(letters) != array.ndim:
            return array
        sizes = dict(zip(ours, array.shape, strict=True))
        memory = np.ascontiguousarray(array.transpose([ours.index(axis) for axis in letters]))
        other = memory.reshape([sizes[axis] for axis in read_as])
        return other.transpose([read_as.index(axis) for axis in ours])

    return change


def _rewritten(letters: str, written_as: str, ours: str) -> Callable[[Float64], Float64]:
    """Return a function that takes memory of the order `written_as` for memory of `letters`."""
    return _reread(written_as, letters, ours)
