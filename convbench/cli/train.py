"""Run `convbench train`: train a small network on any implementation, beside Keras's `fit`."""

from __future__ import annotations

import os
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convbench.cli.console import Watcher, complain, guarded
from convbench.cli.measuring import (
    EffortName,
    EffortOption,
    Force,
    KernelLayout,
    LayoutOption,
    NoTune,
    Quiet,
    ResultPath,
    SeedOption,
    Threads,
    Timeout,
    result_path,
    thread_count,
)
from convbench.cli.run import exit_code
from convbench.cli.show import Format, print_report
from convbench.errors import ConvbenchError, ExitCode

if TYPE_CHECKING:
    from convbench.schedule import Options
    from convbench.training.arms import Setup
    from convbench.training.network import Network
    from convbench.training.session import TrainingSession
    from convbench.training.trainer import Array, State

DEFAULT = "auto"


class Versus(StrEnum):
    KERAS = "keras"
    NONE = "none"


@guarded
def train(
    target: Annotated[
        str,
        typer.Argument(
            help="A network: a YAML file, or a shipped one by name (mnist_cnn).", metavar="NETWORK"
        ),
    ],
    impl: Annotated[
        list[str] | None,
        typer.Option(
            "--impl",
            help="What computes the convolutions; FILE.py:NAME is your own. Repeatable.  "
            "[default: auto]",
        ),
    ] = None,
    layout: LayoutOption = None,
    kernel_layout: KernelLayout = None,
    versus: Annotated[
        Versus, typer.Option(help="What it is held against; with none nothing is compared.")
    ] = Versus.KERAS,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of a training.  [default: the network's]", min=1)
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Only so many steps of a training.", min=1)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images in a batch.  [default: the network's]", min=1)
    ] = None,
    data: Annotated[
        str,
        typer.Option(
            help="mnist, digits, synthetic, or a file like mnist.npz.  [default: the first of "
            "these that is there]",
            show_default=False,
        ),
    ] = "auto",
    images: Annotated[
        int | None, typer.Option(help="Train on so many images at the most.", min=1)
    ] = None,
    threads: Threads = None,
    effort: EffortOption = None,
    seed: SeedOption = None,
    no_tune: NoTune = False,
    timeout: Timeout = 300.0,
    time_wrong: Annotated[
        bool, typer.Option("--time-wrong", help="Time what does not follow Keras too.")
    ] = False,
    load: Annotated[
        Path | None,
        typer.Option(help="Start from these weights: .npz, or a .keras model of the same shape."),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Save the weights after the last training, as .npz.")
    ] = None,
    export_keras: Annotated[
        Path | None, typer.Option(help="Save them as a .keras model too.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on with a training that was saved; implies --versus none."),
    ] = None,
    output: ResultPath = None,
    force: Force = False,
    format_: Annotated[
        Format, typer.Option("--format", help="How the tables are printed.")
    ] = Format.TABLE,
    quiet: Quiet = False,
) -> None:
    """Train a network: check that it follows Keras step by step, time an epoch, save the result.

    Exit code 0 when all is well, 3 when the timings cannot be trusted, 5 when an implementation
    does not follow Keras, or crashed.
    """
    from dataclasses import replace

    from convbench.training import tables, weights_file
    from convbench.training.arms import Setup
    from convbench.training.file import read_network
    from convbench.training.schedule import train as train_in_rounds
    from convbench.training.schedule import train_once

    network = read_network(target)
    if batch_size is not None:
        network = replace(network, batch_size=batch_size)
    names = _implementations(impl, layout, kernel_layout)
    _check_options(names, load, save, export_keras, resume)
    resumed = weights_file.load(resume, network) if resume else None
    alone = versus is Versus.NONE or resumed is not None
    weights = _initial(load, network)
    session = _session(
        Setup(network, data, images, resumed.seed if resumed else (seed or 0), weights),
        names if alone else [*names, "keras", "keras-xla"],
        output=result_path(output, network.name, force),
        epochs=epochs or network.epochs,
        steps=steps,
        threads=threads,
        effort=effort,
        tune=not no_tune,
    )
    session.time_wrong = time_wrong
    once = alone and (save is not None or resumed is not None)
    events = (
        train_once(session, _options(timeout), resumed)
        if once
        else train_in_rounds(session, _options(timeout))
    )
    interrupted = False
    with Watcher(quiet) as watcher:
        try:
            for event in events:
                watcher.show(event)
        except KeyboardInterrupt:
            interrupted = True
            events.close()
            if not once:
                session.save()
    result = session.result()
    print_report(tables.report(result), format_, None)
    if not once:
        complain(f"saved {session.path}")
    saved_at = _keep(session, save or resume, export_keras)
    if interrupted:
        if saved_at:
            complain(f"interrupted: {_going_on(sys.argv[1:])} goes on")
        raise SystemExit(ExitCode.INTERRUPTED)
    raise SystemExit(exit_code(result))


def _going_on(given: list[str]) -> str:
    """The command that goes on: as it was given, data and all, with --resume for --save."""
    resuming = ("--resume" + word.removeprefix("--save") for word in given)
    words = [
        new if word == "--save" or word.startswith("--save=") else word
        for word, new in zip(given, resuming, strict=True)
    ]
    return shlex.join(["convbench", *words])


def _implementations(
    impl: list[str] | None, layout: str | None, kernel_layout: str | None
) -> list[str]:
    """Names that are known, own code made known."""
    from convbench.cli.measuring import with_implementations
    from convbench.suites.suite import KERAS_WAYS, Suite

    suite = with_implementations(
        Suite("", (), (DEFAULT,)), impl, layout, kernel_layout, only_own=True
    )
    keras = [name for name in suite.implementations if name in KERAS_WAYS]
    if keras:
        raise ConvbenchError(
            f"--impl: {keras[0]} is what a training is held against",
            hint="name NumPy's or your own; --versus keras runs Keras's fit",
        )
    return list(suite.implementations)


def _check_options(
    names: list[str],
    load: Path | None,
    save: Path | None,
    export_keras: Path | None,
    resume: Path | None,
) -> None:
    if resume and load:
        raise ConvbenchError("--resume has its weights: --load cannot be given with it")
    if (save or resume) and len(names) > 1:
        raise ConvbenchError(
            f"--save and --resume are for one implementation, found {', '.join(names)}"
        )
    for option, path, suffixes in (
        ("--save", save, (".npz",)),
        ("--export-keras", export_keras, (".keras",)),
        ("--load", load, (".npz", ".keras")),
    ):
        if path is not None and path.suffix not in suffixes:
            raise ConvbenchError(
                f"{option}: found {path}, expected a file that ends in {' or '.join(suffixes)}"
            )


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
    names: list[str],
    *,
    output: Path,
    epochs: int,
    steps: int | None,
    threads: str | None,
    effort: EffortName | None,
    tune: bool,
) -> TrainingSession:
    from convbench import runtimes
    from convbench.machine import description as machine
    from convbench.measure.environment import Environment
    from convbench.results import file as result_file
    from convbench.training.session import TrainingSession

    count = thread_count(threads if threads is not None else "all")
    return TrainingSession(
        setup=setup,
        arms=tuple(names),
        epochs=epochs,
        steps=steps,
        threads=count,
        effort=effort.value if effort is not None else "standard",
        path=output,
        machine=machine.fingerprint(),
        software=machine.software(runtimes.versions()),
        environment=Environment(os.environ, {}).recorded(count),
        metadata=result_file.pyperf_metadata(),
        tune=tune,
    )


def _options(timeout: float) -> Options:
    from convbench.measure.environment import Environment
    from convbench.schedule import Options

    return Options(environment=Environment(os.environ, {}), timeout_s=timeout)


def _keep(session: TrainingSession, save: Path | None, export_keras: Path | None) -> Path | None:
    """Writes the weights of the last training, where that was asked for."""
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
