"""Describe and calibrate the machine, before anything else runs on it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace

from convbench.errors import ConvbenchError
from convbench.implementations.registry import REGISTRY
from convbench.machine.calibration import neighbour_load, sgemm_rate_in
from convbench.machine.cautions import cautions
from convbench.machine.description import MachineDescription, fingerprint, software
from convbench.measure.environment import Environment
from convbench.measure.messages import Calibrate, UnansweredError
from convbench.runtimes import runtimes, versions
from convbench.runtimes.numpy import NumPy
from convbench.schedule.effort import EFFORTS
from convbench.schedule.events import Event, PhaseStarted, Progress
from convbench.schedule.options import Options
from convbench.schedule.session import BaseSession, Key
from convbench.schedule.workers import Workers

TIMEOUT_S = 120.0
"""Seconds that the calibration may take before its worker is given up."""


def describe_once(session: BaseSession[Key], options: Options) -> Iterator[Event]:
    """Describe the machine to a session, unless the file that it resumes already does."""
    if session.machine.calibration is None:
        seconds = EFFORTS[session.effort].calibration_s
        found = yield from describe(options.environment, session.threads, seconds)
        session.machine, session.software = found.machine, found.software
        session.caution(*found.warnings)


def calibrate_again(session: BaseSession[Key], workers: Workers) -> None:
    """Measure the peaks once more, and keep the better ones.

    Raises UnansweredError if the worker has no answer.
    """
    known = session.machine.calibration
    if known is not None:
        request = Calibrate(tuple(known.sgemm), EFFORTS[session.effort].calibration_s)
        found = workers.ask_once(NumPy(), request)
        session.machine = replace(session.machine, calibration=known.best_with(found))


def describe(
    environment: Environment, threads: int, seconds: float
) -> Generator[Event, None, MachineDescription]:
    """Return the machine with its measured peaks, the BLAS of its workers, and what slows it down.

    `environment` is the one that workers get. Measuring the peaks takes about `seconds` seconds.
    Raises ConvbenchError if no worker can measure them.
    """
    yield PhaseStarted("machine", 2)
    yield Progress("machine", "load of other processes")
    load = neighbour_load()
    yield Progress("machine", "SGEMM, DGEMM, copies, calls and fresh pages")
    machine = fingerprint()
    counts = tuple(sorted({1, threads, machine.logical_cpus}))
    numpy = NumPy()
    workers = Workers(environment, threads, 0, REGISTRY, timeout_s=TIMEOUT_S)
    try:
        with workers.one(numpy) as worker:
            blas = worker.wait_ready().blas
            calibration = workers.ask(worker, Calibrate(counts, seconds))
    except UnansweredError as error:
        raise ConvbenchError(
            f"no worker can calibrate this machine: {error}",
            hint="the suite's `environment`, or an environment variable of yours, may keep Python "
            "or NumPy from starting",
        ) from None
    machine = replace(machine, calibration=calibration)
    variables = environment.of_all(threads)
    return MachineDescription(
        machine=machine,
        software=software(versions(), blas),
        environment=environment.recorded(threads),
        warnings=cautions(
            machine,
            variables,
            threads,
            sgemm_rate_in,
            load=load,
            blas=blas,
            of_runtimes=[each for runtime in runtimes() for each in runtime.cautions(variables)],
        ),
    )
