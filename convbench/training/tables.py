"""Report a training: times of a step and an epoch, where they go, losses, accuracies."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import fmean

from convbench.report.views import scale
from convbench.report.views.agreement_notes import agreement_notes
from convbench.report.views.ci_checks import checks, points
from convbench.report.views.resolution_notes import phases_notes, resolution_notes
from convbench.report.views.run_flat import flat_table
from convbench.report.views.run_notes import caution_note, facts
from convbench.report.views.run_tables import TONE_OF_STATUS, speedup_value
from convbench.report.views.scale import figures
from convbench.report.views.table import (
    MISSING,
    Column,
    Fact,
    Kind,
    Note,
    Report,
    Row,
    Section,
    Table,
    Value,
    text,
)
from convbench.report.views.time_notes import time_notes
from convbench.results import file as result_file
from convbench.results.model import ArmTraining, Cell, ResultFile, Speedup, Training
from convbench.suites.suite import FASTEST_KERAS, KERAS_WAYS, LOOP

BARS = "▁▂▃▄▅▆▇█"
"""Characters of a curve of losses, from the lowest to the highest."""

CURVE_WIDTH = 40
"""Width of a curve of losses, in characters."""

WAYS = {"keras": "Keras fit", "keras-xla": "Keras fit, jit_compile"}
"""Names of the ways to run Keras, as reports show them."""


def show(path: Path) -> Report:
    """Return the report of a saved training. Raises ResultError if the file cannot be read."""
    return report(result_file.load(path).result)


def report(result: ResultFile) -> Report:
    """Return the report of a training: its facts, tables and notes."""
    training = result.training
    assert training is not None
    tables = [_arms(result, training), *_phases(training), *_losses(training)]
    return Report(
        title=f"convbench train: {result.suite.name}",
        facts=(*facts(result), *_facts(training)),
        tables=tuple(tables),
        notes=tuple(_notes(result, training)),
        flat=partial(flat_table, result),
        document=result,
        checks=checks(result),
        points=points(result),
    )


def _facts(training: Training) -> Iterator[Fact]:
    network = training.network
    layers = ", ".join(_layer(layer) for layer in network["layers"])
    size = "x".join(map(str, network["input_shape"]))
    yield Fact("network", f"{size}: {layers}")
    optimizer = dict(network["optimizer"])
    name = optimizer.pop("name")
    settings = " ".join(f"{key} {value:g}" for key, value in optimizer.items())
    batch = f"batch {network['batch_size']}, {network['dtype']}"
    yield Fact("training", f"{name} ({settings}), {batch}")
    yield Fact("data", training.note or training.data)


def _layer(layer: dict[str, dict[str, object]]) -> str:
    """Return a layer's name and sizes, such as `conv2d 8 3x3`."""
    ((name, values),) = layer.items()
    size = values.get("kernel_size") or values.get("pool_size")
    words = [name, values.get("filters") or values.get("units")]
    if isinstance(size, list):
        words.append("x".join(map(str, size)))
    return " ".join(str(word) for word in words if word)


# Times


def _arms(result: ResultFile, training: Training) -> Table:
    versus = {LOOP: "× loop", FASTEST_KERAS: "× fastest Keras"}
    columns = (
        Column("implementation", "implementation", short="", fit="shorten"),
        Column("check", "check"),
        figures("step", Kind.TIME_S, "step", optional=0),
        Column("epoch", "epoch", "s", "decimal"),
        *(figures(name, Kind.RATIO, heading) for name, heading in versus.items()),
        Column("accuracy", "accuracy", "%", "decimal", optional=1),
        Column("from", "trained for", fit="shorten", optional=2),
    )
    arms = {arm.implementation: arm for arm in training.arms}
    speedups = {(s.implementation, s.versus): s for s in result.speedups}
    chosen = {s.chosen for s in result.speedups if s.versus == FASTEST_KERAS}
    rows = [
        _row(
            cell,
            arms.get(cell.implementation),
            training,
            [speedups.get((cell.implementation, v)) for v in versus],
            cell.implementation in chosen,
        )
        for cell in result.cells
    ]
    return Table("Training", columns, (Section(tuple(rows)),)).without_empty_columns()


def _row(
    cell: Cell,
    arm: ArmTraining | None,
    training: Training,
    speedups: list[Speedup | None],
    is_fastest: bool,
) -> Row:
    name = text(WAYS.get(cell.implementation, cell.implementation))
    if cell.status not in ("ok", "wrong"):
        why = f"{cell.status}: {cell.reason}" if cell.reason else cell.status
        return Row((name,), remark=text(why, TONE_OF_STATUS[cell.status]))
    step = epoch = MISSING
    if cell.time is not None:
        step = Value(Kind.TIME_S, cell.time.time_s, cell.time.ci99_s)
        steps = training.steps_an_epoch
        extrapolated = "" if arm and arm.steps >= steps else "~"
        epoch = Value(Kind.NUMBER, cell.time.time_s * steps, before=extrapolated)
    ratios = [MISSING if s is None else speedup_value(s) for s in speedups]
    if is_fastest:
        ratios[-1] = text("fastest", "dim")
    accuracy = MISSING
    if arm and arm.accuracies:
        per_cent = [accuracy * 100 for accuracy in arm.accuracies]
        accuracy = Value(Kind.NUMBER, fmean(per_cent), (min(per_cent), max(per_cent)))
    trained = f"{arm.steps} steps" if arm and arm.steps else None
    values = (name, _check(cell, arm), step, epoch, *ratios, accuracy)
    return Row((*values, text(trained) if trained else MISSING))


def _check(cell: Cell, arm: ArmTraining | None) -> Value:
    if cell.status == "wrong":
        return text("wrong", "bad")
    if cell.implementation in KERAS_WAYS:
        return text("yardstick", "dim")
    if arm is None or not arm.followed:
        return text("not compared", "dim")
    return text(f"{arm.followed} steps")


# Where a step goes


def _phases(training: Training) -> Iterator[Table]:
    arms = [arm for arm in training.arms if arm.phases]
    if not arms:
        return
    names = [name for name in arms[0].phases or {} if any((a.phases or {})[name] for a in arms)]
    columns = (
        Column("phase", "phase"),
        *(figures(arm.implementation, Kind.TIME_S, arm.implementation) for arm in arms),
        *(
            figures(f"{arm.implementation} share", Kind.FRACTION, "share", optional=1)
            for arm in arms
        ),
    )
    rows = []
    for name in names:
        seconds = [(arm.phases or {})[name] for arm in arms]
        whole = [sum((arm.phases or {}).values()) for arm in arms]
        shares = [part / all_ for part, all_ in zip(seconds, whole, strict=True)]
        times = tuple(Value(Kind.TIME_S, part) for part in seconds)
        rows.append(Row((text(name), *times, *(Value(Kind.FRACTION, s) for s in shares))))
    yield Table("Where a step goes", columns, (Section(tuple(rows)),))


# Losses


def _losses(training: Training) -> Iterator[Table]:
    arms = [arm for arm in training.arms if len(arm.losses) > 1]
    if not arms:
        return
    columns = (
        Column("implementation", "implementation", short="", fit="shorten"),
        Column("curve", "loss, from the first step to the last"),
        figures("first", Kind.NUMBER, "first", optional=0),
        figures("last", Kind.NUMBER, "last", optional=0),
    )
    rows = tuple(
        Row(
            (
                text(arm.implementation),
                text(curve(arm.losses)),
                Value(Kind.NUMBER, arm.losses[0]),
                Value(Kind.NUMBER, arm.losses[-1]),
            )
        )
        for arm in arms
    )
    yield Table("Loss", columns, (Section(rows),))


def curve(losses: tuple[float, ...], width: int = CURVE_WIDTH) -> str:
    """Draw losses as a line of at most `width` bars, each for the mean of an equal part of them.

    Heights begin at 0, and the largest mean has the highest bar.
    """
    count = min(width, len(losses))
    edges = [len(losses) * i // count for i in range(count + 1)]
    means = [fmean(losses[a:b]) for a, b in itertools.pairwise(edges)]
    largest = max(means) or 1.0
    return "".join(BARS[min(int(mean / largest * len(BARS)), len(BARS) - 1)] for mean in means)


# Notes


def _notes(result: ResultFile, training: Training) -> Iterator[Note]:
    yield Note(
        "check: number of steps in which every parameter follows Keras's; ×: times as fast as; "
        "accuracy: on held-out images, ± from the smallest to the largest of the rounds",
        "dim",
    )
    for arm in training.arms:
        if 0 < arm.steps < training.steps_an_epoch:
            name = WAYS.get(arm.implementation, arm.implementation)
            steps = scale.counted(arm.steps, "step")
            yield Note(f"~: the epoch of {name} is extrapolated from {steps}")
    inexact = [a for a in training.arms if a.followed and a.followed_in != _dtype(training)]
    for arm in inexact:
        yield Note(
            f"{arm.implementation} is not exact: its algorithm rounds more than Keras does in "
            f"float32, so it was compared with Keras in {arm.followed_in}"
        )
    for arm in training.arms:
        if arm.took:
            words = ", ".join(f"{name} for {where}" for where, name in arm.took.items())
            yield Note(f"{arm.implementation} chose {words}")
    yield from resolution_notes(result, can_go_on=False)
    yield from phases_notes(result)
    yield from map(caution_note, result.warnings)
    yield from time_notes(result)
    yield from agreement_notes(result, beside_rows=False)
    yield Note(_answer(result, training), "strong")


def _dtype(training: Training) -> str:
    return str(training.network["dtype"])


def _answer(result: ResultFile, training: Training) -> str:
    over_keras = [
        s
        for s in result.speedups
        if s.versus == FASTEST_KERAS and s.implementation not in KERAS_WAYS
    ]
    own = [s for s in over_keras if result.suite.is_own(s.implementation)]
    speedup = max(own or over_keras, key=lambda s: s.ratio, default=None)
    times = {cell.implementation: cell.time for cell in result.cells if cell.time}
    steps = training.steps_an_epoch
    if speedup is None:
        each = [
            f"{_duration(time.time_s * steps)} with {WAYS.get(arm, arm)}"
            for arm, time in times.items()
        ]
        if each:
            return f"An epoch takes {' and '.join(each)}."
        trained = [_trained(arm) for arm in training.arms if arm.steps]
        return " ".join(trained) or "Nothing was trained."
    ours, theirs = times[speedup.implementation], times[speedup.chosen]
    interval = f", 99 % interval {scale.bounds(speedup.ci99)}" if speedup.ci99 else ""
    return (
        f"An epoch of {scale.counted(steps, 'step')} takes {_duration(ours.time_s * steps)} with "
        f"{speedup.implementation} and {_duration(theirs.time_s * steps)} with "
        f"{WAYS.get(speedup.chosen, speedup.chosen)}, the fastest Keras: "
        f"{scale.significant(speedup.ratio)} times as fast{interval}."
    )


def _trained(arm: ArmTraining) -> str:
    accuracy = ""
    if arm.accuracies:
        per_cent = scale.significant(arm.accuracies[-1] * 100)
        accuracy = f", and {per_cent} % of the held-out images are classified right"
    loss = f"; its last loss is {scale.significant(arm.losses[-1])}" if arm.losses else ""
    return f"{arm.implementation} took {scale.counted(arm.steps, 'step')}{loss}{accuracy}."


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{scale.significant(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"
