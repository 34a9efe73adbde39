"""Design the layers that `check` asks: together they have every pair of what Conv2D can vary.

Code that is right for each parameter alone may be wrong where two of them meet, as strides and an
uneven pad do, or from some size on, as a block of 16 channels has a rest. The suite is a *covering
array* (Cohen, Dalal, Fredman and Patton, "The AETG system", IEEE Trans. Software Eng. 23, 1997): a
few layers in which each pair of levels of all FACTORS occurs together, and each triple of levels of
TRIPLES. Sizes have an array of their own, since large ones would make every layer slow.

    python -m convbench.suites.coverage > configs/coverage.yaml

writes the suite. `levels_of` tells the levels of any layer, without knowing how it was made: the
tests prove the coverage with it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import combinations, product

from convbench.errors import LayerError
from convbench.problem.layer import Dtype, Layer, Padding, Pair, Pass
from convbench.suites.suite import Suite

Row = Mapping[str, str]
"""Level of each factor, by factor."""

Levels = tuple[tuple[str, str], ...]
"""Levels of a few factors that occur together, as pairs of a factor and its level."""

FACTORS = {
    "strides": ("1", "2", "3", "larger in height", "larger in width"),
    "pads": ("none", "same", "even", "uneven", "larger than the kernel"),
    "rest": ("nothing left over", "rows or columns left over"),
    "dilation": ("1", "2", "unequal"),
    "groups": ("1", "some", "depthwise", "multiplier"),
    "kernel": ("1x1", "1xN", "Nx1", "even", "3x3", "5x5", "7x7"),
    "image": ("square", "not square"),
    "bias": ("no bias", "bias"),
    "dtype": ("float32", "float64"),
    "batch": ("1", "2", "several"),
}
"""What a layer can vary, and the levels that the suite has of each."""

TRIPLES = ("strides", "pads", "rest", "dilation", "groups")
"""Factors of which each triple of levels occurs together: they decide which elements meet."""

PLAIN = {
    "strides": "1",
    "pads": "none",
    "rest": "nothing left over",
    "dilation": "1",
    "groups": "1",
    "bias": "no bias",
}
"""Levels of a layer that leaves out all parameters that code may not have."""

PARAMETERS = (
    frozenset[str](),
    frozenset({"strides", "rest", "pads"}),
    frozenset({"strides", "rest", "pads", "dilation"}),
    frozenset(PLAIN),
)
"""Factors of PLAIN that code can vary, for signatures that are common: from f(x, kernel) to all. Of
the layers that each can compute, all pairs and triples are covered that it can vary."""

BLOCKS = (8, 16, 32, 64)
"""Sizes of blocks in which people and libraries compute: code may fail below, at or above each."""

BETWEEN_BLOCKS = (18, 20, 24, 48)
"""Sizes that are multiples of one block and not of the next, to tell which one code computes in."""

BYTE = 257
"""Smallest size whose last index and whose length are not a byte."""

CANDIDATES = 40
"""Number of rows among which the one that covers most is taken."""

TRIES = 20_000
"""Number of random layers among which one with the levels of a row is looked for."""


def coverage() -> Suite:
    """Return the suite. It is the same at every call."""
    layers = (*_covering_layers(), *_sizes(), *_edges())
    return Suite(
        name="coverage",
        description="Small layers with every pair of what Conv2D can vary: for agreement only.",
        layers=layers,
        implementations=("loop", "im2col", "keras", "keras-graph", "keras-xla"),
        passes=tuple(Pass),
        threads="all",
    )


# The levels of a layer


def levels_of(layer: Layer) -> dict[str, str]:
    """Return the level that a layer has of each factor."""
    return {
        "strides": _strides_level(layer.strides),
        "pads": _pads_level(layer),
        "rest": FACTORS["rest"][any(left_over(layer))],
        "dilation": _equal_level(layer.dilation_rate),
        "groups": _groups_level(layer),
        "kernel": _kernel_level(layer.kernel_size),
        "image": FACTORS["image"][layer.input_size[0] != layer.input_size[1]],
        "bias": FACTORS["bias"][layer.use_bias],
        "dtype": layer.dtype,
        "batch": str(layer.batch_size) if layer.batch_size < 3 else "several",
    }


def left_over(layer: Layer) -> Pair:
    """Return how many rows and columns of the padded input no window reaches."""
    rows, columns = (
        (padded - span) % stride
        for padded, span, stride in zip(
            layer.padded_size, layer.effective_kernel_size, layer.strides, strict=True
        )
    )
    return rows, columns


def _strides_level(strides: Pair) -> str:
    high, wide = strides
    if high != wide:
        return "larger in height" if high > wide else "larger in width"
    return str(high)


def _pads_level(layer: Layer) -> str:
    if layer.padding == "same":
        return "same"
    pads = layer.pads
    if pads == ((0, 0), (0, 0)):
        return "none"
    if any(max(p) > span for p, span in zip(pads, layer.effective_kernel_size, strict=True)):
        return "larger than the kernel"
    return "even" if all(before == after for before, after in pads) else "uneven"


def _equal_level(dilation: Pair) -> str:
    return str(dilation[0]) if dilation[0] == dilation[1] else "unequal"


def _groups_level(layer: Layer) -> str:
    if layer.groups == 1:
        return "1"
    if layer.groups < layer.channels:
        return "some"
    return "depthwise" if layer.filters == layer.channels else "multiplier"


def _kernel_level(kernel: Pair) -> str:
    high, wide = kernel
    if high == 1 or wide == 1:
        return f"{'1' if high == 1 else 'N'}x{'1' if wide == 1 else 'N'}"
    return "even" if high % 2 == 0 or wide % 2 == 0 else f"{high}x{wide}"


# The covering array


def impossible(levels: Row | Levels) -> str | None:
    """Return why no layer has these levels together, or None if there are such layers."""
    row = dict(levels)
    if row.get("rest") == "rows or columns left over":
        if row.get("strides") == "1":
            return "steps of 1 leave nothing over"
        if row.get("pads") == "same":
            return "`same` pads until nothing is left over (kernels are larger than strides here)"
    return None


def wanted(parameters: frozenset[str] = PARAMETERS[-1]) -> set[Levels]:
    """Return the pairs, and the triples of TRIPLES, that code with these parameters can have."""
    groups = [*combinations(FACTORS, 2), *combinations(TRIPLES, 3)]
    levels_of_factor = _levels(parameters)
    found = (
        tuple(zip(names, levels, strict=True))
        for names in groups
        for levels in product(*(levels_of_factor[name] for name in names))
    )
    return {levels for levels in found if impossible(levels) is None}


def can_compute(parameters: frozenset[str], row: Row) -> bool:
    """Tell whether code with these parameters can compute a layer with these levels."""
    return all(row[name] == level for name, level in PLAIN.items() if name not in parameters)


def _levels(parameters: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """Return the levels of each factor that code with these parameters can have."""
    fixed = {name: (level,) for name, level in PLAIN.items() if name not in parameters}
    return {**FACTORS, **fixed}


def covered(row: Row) -> Iterator[Levels]:
    """Yield the pairs, and the triples of TRIPLES, that a row has."""
    for names in (*combinations(FACTORS, 2), *combinations(TRIPLES, 3)):
        yield tuple((name, row[name]) for name in names)


def covering_rows(seed: int = 0) -> list[dict[str, str]]:
    """Return rows that have everything wanted, chosen greedily and from the seed alone.

    Rows for code with few parameters come first, and count for code with more.
    """
    rng = random.Random(seed)
    rows: list[dict[str, str]] = []
    for parameters in PARAMETERS:
        missing = wanted(parameters)
        for row in rows:
            if can_compute(parameters, row):
                missing.difference_update(covered(row))
        while missing:
            ordered = sorted(missing)
            candidates = [
                _candidate(rng, _levels(parameters), ordered, missing) for _ in range(CANDIDATES)
            ]
            best = max(candidates, key=lambda row: len(missing.intersection(covered(row))))
            missing.difference_update(covered(best))
            rows.append(best)
    return rows


def _candidate(
    rng: random.Random,
    levels: Mapping[str, tuple[str, ...]],
    ordered: list[Levels],
    missing: set[Levels],
) -> dict[str, str]:
    """Return a row that has one missing combination, and of each other factor the best level."""
    row = dict(rng.choice(ordered))
    rest = [name for name in FACTORS if name not in row]
    rng.shuffle(rest)
    for name in rest:
        possible = [level for level in levels[name] if not impossible({**row, name: level})]
        rng.shuffle(possible)
        row[name] = max(possible, key=lambda level: _gain({**row, name: level}, name, missing))
    return row


def _gain(row: Row, name: str, missing: set[Levels]) -> int:
    """Return how many missing combinations of the factors chosen so far the level of one adds."""
    others = [each for each in FACTORS if each in row and each != name]
    triples = combinations([each for each in others if each in TRIPLES], 2)
    groups = [(each,) for each in others] + (list(triples) if name in TRIPLES else [])
    return sum(
        tuple((each, row[each]) for each in FACTORS if each in (*group, name)) in missing
        for group in groups
    )


# Layers with given levels

STRIDES: dict[str, tuple[Pair, ...]] = {
    "1": ((1, 1),),
    "2": ((2, 2),),
    "3": ((3, 3),),
    "larger in height": ((2, 1), (3, 2), (3, 1)),
    "larger in width": ((1, 2), (2, 3), (1, 3)),
}
DILATIONS: dict[str, tuple[Pair, ...]] = {
    "1": ((1, 1),),
    "2": ((2, 2),),
    "unequal": ((1, 2), (2, 1), (3, 2), (2, 3), (1, 4), (4, 1)),
}
KERNELS: dict[str, tuple[Pair, ...]] = {
    "1x1": ((1, 1),),
    "1xN": ((1, 3), (1, 4), (1, 5)),
    "Nx1": ((3, 1), (4, 1), (5, 1)),
    "even": ((2, 2), (4, 4), (2, 3), (4, 2), (3, 4)),
    "3x3": ((3, 3),),
    "5x5": ((5, 5),),
    "7x7": ((7, 7),),
}
CHANNELS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "1": ((3, 4, 1), (2, 5, 1), (5, 3, 1), (4, 2, 1)),
    "some": ((4, 6, 2), (6, 4, 2), (6, 9, 3), (4, 2, 2), (9, 6, 3)),
    "depthwise": ((3, 3, 3), (5, 5, 5), (4, 4, 4)),
    "multiplier": ((3, 6, 3), (2, 6, 2), (4, 8, 4)),
}
"""Numbers of channels, filters and groups, by level of the groups."""
BATCHES = {"1": (1,), "2": (2,), "several": (3, 4, 5)}


def _covering_layers() -> Iterator[Layer]:
    """Yield the covering array: first what code with few parameters can compute, and 3x3 first."""
    rng = random.Random(0)
    names: Counter[str] = Counter()
    rows = sorted(
        covering_rows(), key=lambda row: (_parameters_of(row), _USUAL.index(row["kernel"]))
    )
    for row in rows:
        layer = layer_of(row, rng)
        name = _words(layer)
        names[name] += 1
        yield _named(layer, name if names[name] == 1 else f"{name}-{names[name]}")


_USUAL = ("3x3", "5x5", "even", "7x7", "Nx1", "1xN", "1x1")
"""Levels of the kernel, those first on which a mistake shows best."""


def _parameters_of(row: Row) -> int:
    """Return the number of the first of PARAMETERS with which code can compute a layer."""
    return next(i for i, parameters in enumerate(PARAMETERS) if can_compute(parameters, row))


def layer_of(row: Row, rng: random.Random) -> Layer:
    """Return a small random layer with these levels, and with two output rows and columns or more.

    Raises ValueError if none is found: the levels exclude each other.
    """
    for _ in range(TRIES):
        kernel, dilation = (
            rng.choice(KERNELS[row["kernel"]]),
            rng.choice(DILATIONS[row["dilation"]]),
        )
        span = _span(kernel, dilation)
        strides = rng.choice(STRIDES[row["strides"]])
        padding = _padding(row["pads"], span, rng)
        height, width = (
            rng.randint(1, s + 4 * step) for s, step in zip(span, strides, strict=True)
        )
        if row["image"] == "square":
            height = width = max(height, width)
        channels, filters, groups = rng.choice(CHANNELS[row["groups"]])
        try:
            layer = Layer(
                name="drawn",
                input_shape=(height, width, channels),
                filters=filters,
                kernel_size=kernel,
                strides=strides,
                padding=padding,
                dilation_rate=dilation,
                groups=groups,
                use_bias=row["bias"] == "bias",
                batch_size=rng.choice(BATCHES[row["batch"]]),
                dtype=_dtype(row["dtype"]),
            )
        except LayerError:
            continue
        if min(layer.output_size) > 1 and levels_of(layer) == dict(row):
            return layer
    raise ValueError(f"found no layer with {dict(row)}")


def _span(kernel: Pair, dilation: Pair) -> Pair:
    return (kernel[0] - 1) * dilation[0] + 1, (kernel[1] - 1) * dilation[1] + 1


def _padding(level: str, span: Pair, rng: random.Random) -> Padding:
    if level == "same":
        return "same"
    if level == "none":
        return "valid"
    if level == "even":
        high, wide = rng.randint(0, span[0]), rng.randint(0, span[1])
        return (high, high), (wide, wide)
    most = [size + (level == "larger than the kernel") for size in span]
    top, bottom = rng.randint(0, most[0]), rng.randint(0, most[0])
    left, right = rng.randint(0, most[1]), rng.randint(0, most[1])
    return (top, bottom), (left, right)


def _dtype(level: str) -> Dtype:
    return "float64" if level == "float64" else "float32"


def random_layers(seed: int) -> Iterator[Layer]:
    """Yield layers with random levels for ever, the same for the same seed.

    Some of them can be computed by code with few parameters, of each kind in PARAMETERS.
    """
    rng = random.Random(seed)
    number = 0
    while True:
        parameters = rng.choice(PARAMETERS)
        row = {name: rng.choice(levels) for name, levels in _levels(parameters).items()}
        if impossible(row) is None:
            number += 1
            layer = layer_of(row, rng)
            yield _named(layer, f"random-{seed}-{number}-{_words(layer)}")


# Sizes


def _sizes() -> Iterator[Layer]:
    """Yield layers whose channels, filters, batch, rows and columns pass each size of a block.

    Pairs of sizes come without any other parameter, so that all code is asked them, and those that
    cross blocks once more with strides and pads.
    """
    for number, (one, other) in enumerate(_pairs_of_sizes()):
        yield from _of_sizes(number, one, other, strides=1, padding="valid")
    for number, (one, other) in enumerate(_across_blocks()):
        yield from _of_sizes(number, one, other, strides=1 + number % 2, padding="same")
    for columns in _sizes_of_blocks():
        for rows in (4, columns):
            yield Layer(
                name=f"columns-{columns}-rows-{rows}",
                input_shape=(rows, columns, 2),
                filters=3,
                kernel_size=(3, 1) if rows == 4 else (3, 3),
                batch_size=1,
            )
    yield from _beyond_a_byte()


def _of_sizes(number: int, one: int, other: int, strides: int, padding: Padding) -> Iterator[Layer]:
    """Yield a layer of two numbers of channels and filters, and one of two of images and rows."""
    kernels: tuple[Pair, ...] = ((3, 3), (1, 1), (3, 1), (2, 2))
    more = f"-{padding}-strides-{strides}" if padding == "same" else ""
    common = Layer(
        name="",
        input_shape=(5, 4, one),
        filters=other,
        kernel_size=kernels[number % len(kernels)],
        strides=(strides, strides),
        padding=padding,
        batch_size=2,
        dtype="float64" if number % 5 == 0 else "float32",
    )
    yield replace(common, name=f"channels-{one}-filters-{other}{more}")
    yield replace(
        common,
        name=f"batch-{one}-rows-{other}{more}",
        input_shape=(other, 4, 2),
        filters=3,
        batch_size=one,
    )


def _sizes_of_blocks() -> list[int]:
    """Return each size of a block, one less and one more."""
    return sorted({block + more for block in BLOCKS for more in (-1, 0, 1)})


def _pairs_of_sizes() -> list[Pair]:
    """Return pairs of sizes: all near one block, and below, at and above those of different ones.

    Of the sizes 7, 64 and 65, the first fills no block of any size, the second fills all that it
    has, and the third leaves a rest of one, whatever the size of the blocks.
    """
    near = [
        (block + one, block + other)
        for block in BLOCKS
        for one in (-1, 0, 1)
        for other in (-1, 0, 1)
    ]
    return sorted({*near, *_across_blocks(), *((size, size) for size in BETWEEN_BLOCKS)})


def _across_blocks() -> list[Pair]:
    return [(one, other) for one in (7, 64, 65) for other in (7, 64, 65)]


def _beyond_a_byte() -> Iterator[Layer]:
    for what in ("channels", "filters", "batch", "rows", "columns"):
        size = {"channels": 2, "filters": 3, "batch": 1, "rows": 4, "columns": 5, what: BYTE}
        yield Layer(
            name=f"{what}-{BYTE}",
            input_shape=(size["rows"], size["columns"], size["channels"]),
            filters=size["filters"],
            kernel_size=(3, 3),
            batch_size=size["batch"],
        )


# Edges


def _edges() -> Iterator[Layer]:
    """Yield layers in which something is as small as it can be, or as large as its image."""
    shapes: dict[str, tuple[tuple[int, int, int], int, Pair]] = {
        "kernel-as-large-as-the-image": ((5, 4, 3), 4, (5, 4)),
        "one-output-row": ((3, 7, 3), 4, (3, 3)),
        "one-output-column": ((8, 3, 3), 4, (3, 3)),
        "one-row": ((1, 9, 3), 4, (1, 3)),
        "one-column": ((9, 1, 3), 4, (3, 1)),
        "one-pixel": ((1, 1, 3), 4, (1, 1)),
        "one-channel": ((9, 7, 1), 4, (3, 3)),
        "one-filter": ((9, 7, 3), 1, (3, 3)),
        "one-channel-and-filter": ((9, 7, 1), 1, (3, 3)),
    }
    for name, (input_shape, filters, kernel_size) in shapes.items():
        for batch in (1, 3):
            yield Layer(
                name=f"{name}-batch-{batch}",
                input_shape=input_shape,
                filters=filters,
                kernel_size=kernel_size,
                batch_size=batch,
            )
    for axis, kernel in (("row", (3, 3)), ("column", (3, 3)), ("pixel", (3, 3))):
        yield Layer(
            name=f"one-{axis}-padded",
            input_shape=(1 if axis != "column" else 9, 1 if axis != "row" else 9, 3),
            filters=4,
            kernel_size=kernel,
            padding="same",
            batch_size=3,
        )


def _named(layer: Layer, name: str) -> Layer:
    return replace(layer, name=name)


def _words(layer: Layer) -> str:
    """Name what is not usual in a layer, for its name."""
    levels = levels_of(layer)
    words = ["x".join(map(str, layer.kernel_size))]
    if layer.strides != (1, 1):
        words.append("strides-" + "x".join(map(str, layer.strides)))
    if levels["pads"] != "none":
        pads = "large" if levels["pads"].startswith("larger") else levels["pads"]
        words.append(pads if pads == "same" else f"pads-{pads}")
    if any(left_over(layer)):
        words.append("rest")
    if layer.dilation_rate != (1, 1):
        words.append("dilation-" + "x".join(map(str, layer.dilation_rate)))
    if levels["groups"] != "1":
        words.append(f"groups-{layer.groups}" if levels["groups"] == "some" else levels["groups"])
    if layer.use_bias:
        words.append("bias")
    if layer.dtype == "float64":
        words.append("float64")
    return "-".join(words)


def main() -> None:
    """Print the suite as YAML."""
    from convbench.suites.file.writing import write_suite

    head = "Made by `python -m convbench.suites.coverage`, which explains what is covered."
    print(write_suite(coverage(), head), end="")


if __name__ == "__main__":
    main()
