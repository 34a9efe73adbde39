"""Run `convbench train`: train a small network on any implementation, beside Keras's `fit`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convbench.cli.console import Watcher, complain, guarded
from convbench.cli.measuring import (
    InterruptedRun,
    options_of,
    result_path,
    thread_count,
    watched,
    with_implementations,
)
from convbench.cli.options import (
    Conditions,
    EffortName,
    EffortOption,
    Layouts,
    ResultTarget,
    Shown,
    TimeWrong,
    grouped,
)
from convbench.cli.run import exit_code
from convbench.cli.show import print_report
from convbench.errors import ConvbenchError, ExitCode

if TYPE_CHECKING:
    from convbench.suites.suite import Suite
    from convbench.training.arms import Setup
    from convbench.training.network import Network
    from convbench.training.session import TrainingSession
    from convbench.training.trainer import Array, State

DEFAULT = "auto"
"""The implementation that is trained if none is named."""


class Versus(StrEnum):
    """What a training is compared with."""

    KERAS = "keras"
    NONE = "none"


@dataclass(frozen=True)
class Training:
    """The options that say what a training is: its length and its data."""

    epochs: Annotated[
        int | None, typer.Option(help="Number of epochs.  [default: the network's]", min=1)
    ] = None
    steps: Annotated[
        int | None, typer.Option(help="Number of steps, instead of whole epochs.", min=1)
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option(help="Number of images in a batch.  [default: the network's]", min=1),
    ] = None
    data: Annotated[
        str,
        typer.Option(
            help="Images to train on: mnist, digits, synthetic, or a file like mnist.npz.  "
            "[default: the first of these that needs no download]",
            show_default=False,
        ),
    ] = "auto"
    images: Annotated[
        int | None, typer.Option(help="Largest number of images to train on.", min=1)
    ] = None


@dataclass(frozen=True)
class WeightFiles:
    """The files that a training's weights come from and go to."""

    load: Annotated[
        Path | None,
        typer.Option(help="Start from these weights: .npz, or a .keras model of the same shape."),
    ] = None
    save: Annotated[
        Path | None, typer.Option(help="Save the weights after the last training, as .npz.")
    ] = None
    export_keras: Annotated[
        Path | None, typer.Option(help="Also save the weights as a .keras model.")
    ] = None
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on with the training that was saved here; implies --versus none."),
    ] = None


@guarded
@grouped
def train(
    *,
    target: Annotated[
        str,
        typer.Argument(
            help="The network: a YAML file, or the name of a shipped one (mnist_cnn).",
            metavar="NETWORK",
        ),
    ],
    impl: Annotated[
        list[str] | None,
        typer.Option(
            "--impl",
            help="Implementation of the convolutions; FILE.py:NAME is your own code. Repeatable.  "
            "[default: auto]",
        ),
    ] = None,
    layouts: Layouts,
    versus: Annotated[
        Versus, typer.Option(help="What to compare the training with, if anything.")
    ] = Versus.KERAS,
    training: Training,
    conditions: Conditions,
    effort: EffortOption = None,
    time_wrong: TimeWrong = False,
    weights: WeightFiles,
    result_file: ResultTarget,
    shown: Shown,
) -> None:
    """Train a network, and compare its steps and speed with Keras's.

    The result is saved. The exit code is 0 if all is well, 3 if the timings cannot be trusted, and
    5 if an implementation does not follow Keras, or crashed.
    """
    from convbench.training import tables, weights_file
    from convbench.training.arms import KERAS
    from convbench.training.schedule import train as train_in_rounds
    from convbench.training.schedule import train_once

    network = _network(target, training.batch_size)
    suite = _suite(network, impl, layouts)
    _refuse_weights(suite.implementations, weights)
    resumed = weights_file.load(weights.resume, network) if weights.resume else None
    alone = versus is Versus.NONE or resumed is not None
    if not alone:
        suite = replace(suite, implementations=(*suite.implementations, *KERAS))
    path = result_path(result_file, network.name)
    setup = _setup(network, training, weights, conditions, resumed)
    session = _session(setup, suite, path, training, conditions, effort)
    once = alone and (weights.save is not None or resumed is not None)
    options = options_of(session, conditions, time_wrong=time_wrong)
    events = train_once(session, options, resumed) if once else train_in_rounds(session, options)
    interrupted = False
    with Watcher(shown.quiet) as watcher:
        try:
            watched(session, events, watcher, save=not once)
        except InterruptedRun:
            interrupted = True
    result = session.result()
    print_report(tables.report(result), shown.format_, None)
    if not once:
        complain(f"saved {session.path}")
    saved_at = _keep(session, weights.save or weights.resume, weights.export_keras)
    if interrupted:
        if saved_at:
            complain(f"interrupted: go on with {_going_on(sys.argv[1:])}")
        raise SystemExit(ExitCode.INTERRUPTED)
    raise SystemExit(exit_code(result))


def _going_on(given: list[str]) -> str:
    """Return the command that goes on with a training: the one given, with --resume for --save."""
    resuming = ("--resume" + word.removeprefix("--save") for word in given)
    words = [
        new if word == "--save" or word.startswith("--save=") else word
        for word, new in zip(given, resuming, strict=True)
    ]
    return shlex.join(["convbench", *words])


def _network(target: str, batch_size: int | None) -> Network:
    from convbench.training.file import read_network

    network = read_network(target)
    return network if batch_size is None else replace(network, batch_size=batch_size)


def _suite(network: Network, impl: list[str] | None, layouts: Layouts) -> Suite:
    """Return a suite without layers, whose implementations train the network beside Keras.

    Raises ConvbenchError for a name that is not known.
    """
    from convbench.suites.suite import KERAS_WAYS, Suite

    suite = Suite(network.name, (), (DEFAULT,), (), source=network.source)
    suite = with_implementations(suite, impl, layouts, only_own=True)
    keras = [name for name in suite.implementations if name in KERAS_WAYS]
    if keras:
        raise ConvbenchError(
            f"--impl: {keras[0]} is what a training is compared with",
            hint="name an implementation in NumPy or your own; --versus keras runs Keras's `fit`",
        )
    return suite


def _refuse_weights(names: Sequence[str], weights: WeightFiles) -> None:
    """Raise ConvbenchError for files that do not fit together, or whose suffix is wrong."""
    if weights.resume and weights.load:
        raise ConvbenchError("--resume brings its own weights: --load cannot be given with it")
    if (weights.save or weights.resume) and len(names) > 1:
        raise ConvbenchError(
            f"--save and --resume are for one implementation, found {', '.join(names)}"
        )
    for option, path, suffixes in (
        ("--save", weights.save, (".npz",)),
        ("--export-keras", weights.export_keras, (".keras",)),
        ("--load", weights.load, (".npz", ".keras")),
    ):
        if path is not None and path.suffix not in suffixes:
            raise ConvbenchError(
                f"{option}: found {path}, expected a file that ends in {' or '.join(suffixes)}"
            )


def _setup(
    network: Network,
    training: Training,
    weights: WeightFiles,
    conditions: Conditions,
    resumed: State | None,
) -> Setup:
    from convbench.training.arms import Setup

    seed = resumed.seed if resumed else (conditions.seed or 0)
    return Setup(network, training.data, training.images, seed, _initial(weights.load, network))


def _initial(load: Path | None, network: Network) -> dict[str, Array] | None:
    from convbench.training import weights_file

    if load is None:
        return None
    if load.suffix == ".keras":
        from convbench.training import keras_model

        return keras_model.load(load, network)
    return weights_file.load(load, network).weights


def _session(
    setup: Setup,
    suite: Suite,
    path: Path,
    training: Training,
    conditions: Conditions,
    effort: EffortName | None,
) -> TrainingSession:
    from convbench import runtimes
    from convbench.machine import description as machine
    from convbench.measure.environment import Environment
    from convbench.results import file as result_file
    from convbench.training.session import TrainingSession

    count = thread_count("all" if conditions.threads is None else conditions.threads)
    return TrainingSession(
        suite=suite,
        machine=machine.fingerprint(),
        software=machine.software(runtimes.versions()),
        environment=Environment(os.environ, {}).recorded(count),
        threads=count,
        effort=effort.value if effort is not None else "standard",
        seed=setup.seed,
        path=path,
        metadata=result_file.pyperf_metadata(),
        tune=not conditions.no_tune,
        setup=setup,
        epochs=training.epochs or setup.network.epochs,
        steps=training.steps,
    )


def _keep(session: TrainingSession, save: Path | None, export_keras: Path | None) -> Path | None:
    """Write the weights of the last training to the files that were asked for.

    Returns the path of the saved weights, or None if there are none.
    """
    from convbench.training import weights_file

    state: State | None = session.state
    if state is None:
        if save or export_keras:
            complain("warning: no training came to an end, so no weights were saved")
        return None
    if save:
        weights_file.save(save, session.setup.network, state)
        complain(f"saved {save}")
    if export_keras:
        from convbench.training import keras_model

        keras_model.save(session.setup.network, state.weights, export_keras)
        complain(f"saved {export_keras}")
    return save
