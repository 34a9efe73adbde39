"""Find out why a result is wrong: compute what each mistake would give, until one gives the result.

The search uses a probe: a small copy of the layer on which the code is still wrong, and which is
rich enough to tell mistakes apart. An explanation must give the very result on two draws of
integers and one of floats. If none does, the explanation only says what the result looks like.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, combinations, permutations
from typing import Any

import numpy as np

from convbench.agreement.check.bound import cut
from convbench.agreement.check.case import Case
from convbench.agreement.check.checker import is_wrong
from convbench.agreement.check.systematic import trend
from convbench.agreement.check.trial import Array, Seen
from convbench.agreement.diagnosis.behaviour import behaviour
from convbench.agreement.diagnosis.computation import Computation, Float64, Sizes
from convbench.agreement.diagnosis.mistakes import Letters, Mistake, mistakes
from convbench.agreement.diagnosis.patterns import pattern
from convbench.errors import LayerError
from convbench.problem.layer import Layer, Pass
from convbench.problem.operands import Operands
from convbench.problem.rounding import UNIT_ROUNDOFF
from convbench.results.model import Agreement, Explanation, MistakeKind

CLOSE = 1e-5
"""Largest difference between results that count as the same, as a part of their largest element."""

EXPLAIN_S = 4.0
"""Seconds for which explanations are looked for, in all layers of a pass together. After that, only
those that are known are tried on further layers."""

PAIRS_S = 2.0
"""Seconds for which pairs of mistakes are tried, in all layers of a pass together."""

MORE_PAIRS_S = 0.5
"""Seconds for which pairs are tried after one has fitted, since another may explain more layers;
also the least that any layer gets."""

RICH = (3, 4, 5)
"""Images, channels of a group and filters of a group that a probe has, if code takes as many. All
differ, so that a number of one is no number of another, and two images do not repeat in pairs."""

AND = "; and "
"""Words between the sentences of several mistakes."""

ROUNDOFF = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24}
"""Unit roundoff of formats that code may compute in: 2^-p, where p is the significand's bits."""


@dataclass(frozen=True)
class Diagnosis:
    """All explanations that hold on the probe, the likeliest first."""

    probe: Layer
    explanations: tuple[Explanation, ...]


@dataclass
class Search:
    """What earlier layers told of a pass of an implementation.

    `known` are the explanations that held, `special` the one for values of a special kind.
    `left_s` are the seconds that are left, `pairs_s` those for pairs of mistakes.
    """

    known: list[Explanation] = field(default_factory=list)
    special: Explanation | None = None
    left_s: float = EXPLAIN_S
    pairs_s: float = PAIRS_S


@dataclass(frozen=True)
class _Draw:
    """What the code computed from one draw, and the right computation on it."""

    seen: Array
    right: Computation

    def fits(self, computation: Computation) -> bool:
        """Tell whether a computation gives what was seen. Elements that are not finite are left
        out."""
        try:
            result = computation.result()
        except (ValueError, IndexError):  # the mistake cannot be made on these sizes
            return False
        if result.shape != self.seen.shape:
            return False
        known = np.isfinite(self.seen)
        scale = float(np.abs(result).max(initial=0))
        with np.errstate(invalid="ignore"):
            error = np.abs(self.seen - result)[known]
        return bool(error.size) and float(error.max()) <= CLOSE * scale

    @cached_property
    def expected(self) -> Float64:
        return self.right.result()

    @property
    def is_right(self) -> bool:
        return self.fits(self.right)


def diagnose(case: Case, search: Search) -> Diagnosis:
    """Explain a wrong cell. `search` holds what earlier layers told, and learns from this one."""
    case = case.on(_probe(case))
    probe, pass_ = case.layer, case.pass_
    found = behaviour(case)
    if found is not None:
        return Diagnosis(probe, (found,))
    trial, given = case.trial(), _given(case)
    seen = [trial.call(values) for values in given]
    readings = list(_readings(seen, probe, pass_, trial.letters))
    explanations: list[Explanation] = []
    for reading in readings:
        draws = _draws(reading, probe, pass_, given)
        explanations += _explain(reading, draws, probe, trial.letters, search)
    if not explanations and readings and readings[0].explanation is None:
        draws = _draws(readings[0], probe, pass_, given)
        explanations.append(pattern([(d.seen, d.right) for d in draws], probe, pass_))
    search.known += explanations
    return Diagnosis(probe, tuple(explanations))


def known_explanations(case: Case, search: Search) -> tuple[Explanation, ...]:
    """Return the explanations of earlier layers that hold on this one, without any search."""
    if not any(explanation.reproduces for explanation in search.known):
        return ()
    layer, pass_ = case.layer, case.pass_
    trial, given = case.trial(), _given(case)
    seen = [trial.call(values) for values in given]
    reading = next(_readings(seen, layer, pass_, trial.letters), None)
    if reading is None or reading.explanation is not None:
        return ()
    draws = _draws(reading, layer, pass_, given)
    catalogue = [*mistakes(draws[0].right, trial.letters), *_clipped(draws[:2])]
    if reading.sizes != Sizes.of(layer):
        catalogue = [*_other_pads(layer), *catalogue]
    return tuple(_known_before(catalogue, draws, search))


def _given(case: Case) -> list[Operands]:
    """Draw integers twice, and floats."""
    return [case.integers(0), case.integers(1), case.floats(0)]


# The probe


def _probe(case: Case) -> Layer:
    """Return the first small copy on which the code is wrong, or else the layer itself."""
    for layer in _candidates(case.layer, case.pass_):
        if case.on(layer).is_supported and is_wrong(case.on(layer)):
            return layer
    return case.layer


def _candidates(layer: Layer, pass_: Pass) -> Iterator[Layer]:
    channels, filters = layer.channels // layer.groups, layer.filters // layer.groups
    seen: set[Layer] = set()
    images, many, more = RICH
    for batch, c, f in (
        RICH,
        (images, min(channels, many), min(filters, more)),
        (min(layer.batch_size, images), min(channels, many), min(filters, more)),
    ):
        for size in (small_size(layer), layer.input_size):
            try:
                candidate = replace(
                    layer,
                    batch_size=batch,
                    input_shape=(*size, c * layer.groups),
                    filters=f * layer.groups,
                )
            except LayerError:
                continue
            if candidate not in seen and candidate.flops <= max(layer.flops, 2**22):
                seen.add(candidate)
                yield candidate
    yield cut(layer, pass_)


def small_size(layer: Layer) -> tuple[int, int]:
    """Return a smaller (height, width), whose two sizes differ where the layer allows it.

    Only whole strides are taken away, so that windows leave over as many rows as before.
    """
    sizes = []
    for axis in (0, 1):
        size, stride = layer.input_size[axis], layer.strides[axis]
        least = layer.effective_kernel_size[axis] + (3 + axis) * stride
        sizes.append(size - max((size - least) // stride, 0) * stride)
    return sizes[0], sizes[1]


# What was seen


@dataclass(frozen=True)
class _Reading:
    """Results in our layout, and their sizes.

    `explanation` says what had to be undone to read them; it is None if nothing had to be.
    """

    results: list[Array]
    sizes: Sizes
    explanation: Explanation | None = None


def _readings(seen: list[Seen], layer: Layer, pass_: Pass, letters: Letters) -> Iterator[_Reading]:
    """Yield ways to read what the code returned: as it is, or with its axes in another order."""
    right = Sizes.of(layer)
    results = [s.result for s in seen]
    if all(result is not None for result in results):
        yield _Reading([r for r in results if r is not None], right)
        return
    raw = [s.raw for s in seen]
    axes = letters["result"]
    ours = "HWIO" if pass_ is Pass.KERNEL_GRADIENT else "NHWC"
    shape = dict(zip(ours, layer.result_shape(pass_), strict=True))
    if len(axes) != 4 or raw[0].dtype.kind not in "fiu":
        return
    if raw[0].ndim == 5 and pass_ is Pass.KERNEL_GRADIENT:
        told = Explanation.of(
            [MistakeKind("batch-sum-missing")],
            "the sum over the batch is missing: the result has an axis for the images",
            reproduces=True,
        )
        for axis in range(5):
            if raw[0].shape[axis] == layer.batch_size:
                yield _Reading(_to_ours([r.sum(axis) for r in raw], axes, ours), right, told)
    if raw[0].size == np.prod(list(shape.values())) and raw[0].ndim < 4:
        told = Explanation.of(
            [MistakeKind("wrong-layout", f"result: {raw[0].ndim} axes for {axes}")],
            f"the result has {raw[0].ndim} axes, expected {axes}",
            reproduces=True,
        )
        full = [r.reshape([shape[axis] for axis in axes]) for r in raw]
        yield _Reading(_to_ours(full, axes, ours), right, told)
    if raw[0].ndim != 4:
        return
    for order in permutations(axes):
        found_axes = "".join(order)
        if raw[0].shape == tuple(shape[axis] for axis in order):
            told = Explanation.of(
                [MistakeKind(_cause_of_order(found_axes, axes), f"{found_axes} for {axes}")],
                f"the result's axes are in the order {found_axes}, expected {axes}",
                reproduces=True,
            )
            yield _Reading(_to_ours(raw, found_axes, ours), right, told)
    as_they_are = _to_ours(raw, axes, ours)
    found = as_they_are[0].shape
    if pass_ is Pass.KERNEL_GRADIENT:
        if found[2:] == layer.kernel_shape[2:]:
            yield _Reading(as_they_are, replace(right, kernel=found[:2]))
    elif found[0] == layer.batch_size and found[3] == shape["C"]:
        key = "output" if pass_ is Pass.FORWARD else "input"
        yield _Reading(as_they_are, replace(right, **{key: found[1:3]}))


def _cause_of_order(found: str, expected: str) -> str:
    """Return the cause that names a swap of two axes. Any other order is a wrong layout."""
    moved = {a for a, b in zip(found, expected, strict=True) if a != b}
    names = {"HW": "height-and-width-swapped", "IO": "channels-and-filters-swapped"}
    return names.get("".join(sorted(moved)), "wrong-layout")


def _to_ours(arrays: list[Array], letters: str, ours: str) -> list[Array]:
    return [array.transpose([letters.index(axis) for axis in ours]) for array in arrays]


# The search


def _draws(reading: _Reading, layer: Layer, pass_: Pass, given: list[Operands]) -> list[_Draw]:
    return [
        _Draw(seen, Computation.of(layer, pass_, values, reading.sizes))
        for values, seen in zip(given, reading.results, strict=True)
    ]


def _explain(
    reading: _Reading, draws: list[_Draw], layer: Layer, letters: Letters, search: Search
) -> list[Explanation]:
    """Return the explanations that hold for one way to read the results."""
    before = reading.explanation
    is_cut_off = reading.sizes != Sizes.of(layer)
    hits: list[Explanation] = []
    if all(draw.is_right for draw in draws):  # the way to read them is all that is wrong
        if before is not None:
            return [before]
        if is_cut_off:
            hits.append(_cut_off(layer, reading.sizes))
    integers_are_right = all(draw.is_right for draw in draws[:2])
    is_whole = before is None and not is_cut_off
    if is_whole and integers_are_right and (found := _precision(draws[2:])):
        return [found]
    catalogue = [*mistakes(draws[0].right, letters), *_clipped(draws[:2])]
    if is_cut_off:
        catalogue = [*_other_pads(layer), *catalogue]
    if before is None and (again := _known_before(catalogue, draws, search)):
        return again
    singles = [m for m in catalogue if any(_has_effect(m, draw) for draw in draws)]
    for mistake in singles:
        if explanation := _verified([mistake], draws, before):
            hits.append(explanation)
    if hits or before is not None:
        return hits
    if is_whole and (found := _precision(draws)):
        return [found]
    return _verified_pairs(singles, draws, search)


def _known_before(
    catalogue: list[Mistake], draws: list[_Draw], search: Search
) -> list[Explanation]:
    """Return the explanations of other layers that hold here too, so that others can be skipped."""
    known = {explanation.kinds for explanation in search.known}
    kinds = {kind for together in known for kind in together}
    used = [m for m in catalogue if m.kind in kinds and _has_effect(m, draws[0])]
    together = [
        (one, other) for one, other in combinations(used, 2) if (one.kind, other.kind) in known
    ]
    return [
        explanation
        for chosen in (*([mistake] for mistake in used), *together)
        if (explanation := _verified(chosen, draws, None))
    ]


def _verified_pairs(
    singles: list[Mistake], draws: list[_Draw], search: Search
) -> list[Explanation]:
    """Return the pairs of mistakes that fit. Mistakes that explained another layer come first."""
    started = time.monotonic()
    causes = {cause for explanation in search.known for cause in explanation.causes}
    often = [m for m in singles if m.cause in causes]
    hits: list[Explanation] = []
    deadline = started + search.pairs_s
    for pair in _pairs(singles, often):
        if time.monotonic() > deadline:
            break
        if explanation := _verified(pair, draws, None):
            if not hits:
                deadline = min(deadline, time.monotonic() + MORE_PAIRS_S)
            hits.append(explanation)
    search.pairs_s = max(search.pairs_s - (time.monotonic() - started), MORE_PAIRS_S)
    return hits


def _clipped(draws: Sequence[_Draw]) -> Iterator[Mistake]:
    """Yield the mistake of clipping results to the smallest and the largest that were seen."""
    seen = [draw.seen[np.isfinite(draw.seen)] for draw in draws]
    if not all(found.size for found in seen):
        return
    low, high = min(float(s.min()) for s in seen), max(float(s.max()) for s in seen)

    def change(computation: Computation) -> Computation:
        return computation.then(lambda result: np.clip(result, low, high))

    sentence = f"results are clipped to [{low:g}, {high:g}]"
    yield Mistake("activation-applied", "clipped", sentence, change)


def _has_effect(mistake: Mistake, draw: _Draw) -> bool:
    try:
        spoilt = mistake.change(draw.right).result()
    except (ValueError, IndexError):
        return False
    if spoilt.shape != draw.expected.shape:
        return True
    scale = float(np.abs(draw.expected).max(initial=0))
    return float(np.abs(spoilt - draw.expected).max(initial=0)) > CLOSE * scale


def _verified(
    chosen: Sequence[Mistake], draws: Sequence[_Draw], before: Explanation | None
) -> Explanation | None:
    """Return the explanation by these mistakes if they give all that was seen, else None."""

    def spoilt(draw: _Draw) -> Computation:
        computation = draw.right
        for mistake in chosen:
            computation = mistake.change(computation)
        return computation

    if not all(draw.fits(spoilt(draw)) for draw in draws[:2]):
        return None
    if all(draw.is_right for draw in draws):  # errors are too small to be one of the mistakes
        return None
    kinds = [mistake.kind for mistake in chosen]
    sentences = [mistake.sentence for mistake in chosen]
    if not draws[2].fits(spoilt(draws[2])):
        rounding = _rounding(draws[2].seen, spoilt(draws[2]).result())
        if rounding is None:
            return None
        kinds.append(rounding.kind)
        sentences.append(rounding.sentence)
    is_told = any(kind.cause == "never-written" for kind in kinds)
    if not is_told and any(not np.isfinite(d.seen).all() for d in draws):
        kinds.append(MistakeKind("never-written", "some elements"))
        sentences.append("some elements of the result are never written")
    if before is not None:
        kinds = [*before.kinds, *kinds]
        sentences = [before.sentence, *sentences]
    return Explanation.of(kinds, AND.join(sentences), reproduces=True)


def _pairs(
    singles: Sequence[Mistake], often: Sequence[Mistake]
) -> Iterator[tuple[Mistake, Mistake]]:
    """Yield pairs of different causes. Wrong layouts come last, since there are many."""
    common = [m for m in singles if m.cause != "wrong-layout"]
    rest = [m for m in singles if m.cause == "wrong-layout"]
    for pair in chain(
        ((a, b) for a in often for b in singles),
        combinations(common, 2),
        ((a, b) for a in common for b in rest),
    ):
        if pair[0].cause != pair[1].cause:
            yield pair


def _other_pads(layer: Layer) -> Iterator[Mistake]:
    """Yield the mistake of pads that give another output size."""
    for name, divisor in (("full", 1), ("same", 2)):
        origin = tuple(-((span - 1) // divisor) for span in layer.effective_kernel_size)
        sentence = f"the result is that of padding `{name}`"

        def change(computation: Computation, origin: tuple[int, ...] = origin) -> Computation:
            return computation.at(origin=origin)

        yield Mistake("padding-ignored", f"{name} for it", sentence, change)


def _cut_off(layer: Layer, sizes: Sizes) -> Explanation:
    """Explain a result of another size, whose elements are right as far as they go."""
    without_pads = Sizes.of(replace(layer, padding="valid")) if _fits_unpadded(layer) else None
    if without_pads == sizes:
        kind = MistakeKind("padding-ignored")
        return Explanation.of([kind], "the padding is ignored", reproduces=True)
    if sizes.input > Sizes.of(layer).input:
        kind = MistakeKind("padding-ignored", "not cut off")
        return Explanation.of([kind], "the result still includes the pads", reproduces=True)
    found = [sizes.output, sizes.input, sizes.kernel]
    right = Sizes.of(layer)
    wanted = [right.output, right.input, right.kernel]
    (a, b) = next((f, w) for f, w in zip(found, wanted, strict=True) if f != w)
    return Explanation.of(
        [MistakeKind("never-written", "end missing")],
        f"the result has {a[0]}x{a[1]} rows and columns, expected {b[0]}x{b[1]}: the last ones are "
        "missing",
        reproduces=True,
    )


def _fits_unpadded(layer: Layer) -> bool:
    return all(
        size >= span
        for size, span in zip(layer.input_size, layer.effective_kernel_size, strict=True)
    )


# Rounding


def _precision(draws: Sequence[_Draw]) -> Explanation | None:
    """Explain results of which only the precision is wrong, or return None if more is wrong.

    The results must be numbers of a format of less precision, and in the mean their errors as small
    as those of rounding in it. Operands that are rounded are told elsewhere (special.py).
    """
    draw = draws[-1]
    right, dtype = draw.expected, draw.right.layer.dtype
    if trend(draw.seen, right) is not None:
        return None
    if len(draws) == 1 and (rounding := _rounding(draw.seen, right)):
        return Explanation.of([rounding.kind], rounding.sentence, reproduces=True)
    for name, roundoff in sorted(ROUNDOFF.items(), key=lambda item: item[1]):
        if roundoff <= UNIT_ROUNDOFF[dtype]:
            continue
        errors = [_rms(d.seen - d.expected) / _rms(_magnitude(d.right)) for d in draws]
        if max(errors) <= roundoff:
            if not _is(draw.seen, name):
                continue
            sentence = f"it computes in {name} where {dtype} is asked for"
            kind = MistakeKind("low-precision", name)
            return Explanation.of([kind], sentence, reproduces=False)
    return None


def _rms(array: Float64) -> float:
    return float(np.sqrt(np.mean(np.square(array))))


@dataclass(frozen=True)
class _Rounding:
    kind: MistakeKind
    sentence: str


def _rounding(seen: Array, right: Float64) -> _Rounding | None:
    for function, variant, what in (
        (np.trunc, "cut off at the point", "truncated"),
        (np.rint, "rounded", "rounded"),
        (np.floor, "rounded down", "rounded down"),
    ):
        if np.array_equal(seen, function(right)) or (
            np.array_equal(seen, np.rint(seen)) and np.abs(seen - function(right)).max() <= CLOSE
        ):
            kind = MistakeKind("rounded-to-integers", variant)
            return _Rounding(kind, f"floats are {what} to integers")
    return None


def _magnitude(right: Computation) -> Float64:
    """Return the sums of the products' absolute values."""
    parts: dict[str, Any] = {
        name: None if (array := getattr(right, name)) is None else np.abs(array)
        for name in ("x", "kernel", "error", "bias")
    }
    return replace(right, **parts).result()


def _is(seen: Array, name: str) -> bool:
    """Tell whether the format `name` holds every number exactly."""
    if name == "bfloat16":
        bits = seen.astype(np.float32).view(np.uint32)
        return bool(np.array_equal(seen, seen.astype(np.float32)) and not (bits & 0xFFFF).any())
    dtype = np.float16 if name == "float16" else np.float32
    with np.errstate(over="ignore"):
        return bool(np.array_equal(seen, seen.astype(dtype)))


def likeliest(diagnoses: Iterable[Sequence[Explanation]]) -> list[Explanation | None]:
    """Choose one explanation for each wrong layer of a pass, so that few explain all layers.

    None stands for a layer without any. One mistake is likelier than several that happen to give
    the same numbers, each on one layer.
    """
    options = [list(found) for found in diagnoses]
    chosen: list[Explanation | None] = [None] * len(options)
    while open_ := [i for i, found in enumerate(options) if found and chosen[i] is None]:
        counts: dict[tuple[MistakeKind, ...], int] = {}
        for i in open_:
            for kinds in dict.fromkeys(e.kinds for e in options[i]):
                counts[kinds] = counts.get(kinds, 0) + 1
        best = max(counts, key=lambda kinds: counts[kinds])
        for i in open_:
            chosen[i] = next((e for e in options[i] if e.kinds == best), None)
    return chosen


def with_explanation(agreement: Agreement, explanation: Explanation) -> Agreement:
    """Return the agreement with an explanation. Its sentence comes before where numbers differ."""
    diagnosis = f"{explanation.sentence} ({agreement.diagnosis})"
    if not explanation.causes or not agreement.diagnosis:
        diagnosis = agreement.diagnosis or explanation.sentence
    return replace(agreement, diagnosis=diagnosis, explanation=explanation)
