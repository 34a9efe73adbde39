"""The worker process: serves the cells of one runtime, one request at a time.

`python -m convbench.measure.worker FD` talks through the inherited file descriptor FD, so that
whatever a library prints cannot corrupt it.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import os
import re
import resource
import signal
import sys
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convbench import implementations
from convbench.agreement.check import checker
from convbench.agreement.diagnosis.diagnosing import Diagnosing
from convbench.errors import ImplementationError, TrainingError
from convbench.implementations.contract import Implementation, Prepared
from convbench.implementations.variants import Delayed
from convbench.machine import tuning
from convbench.machine.calibration import calibrate
from convbench.machine.description import blas_libraries
from convbench.measure import clock
from convbench.measure.probes import probe
from convbench.measure.protocol import (
    Ask,
    Calibrate,
    Check,
    Checked,
    Connect,
    Count,
    Examine,
    Failure,
    Follow,
    Meter,
    Ready,
    Refused,
    Release,
    Released,
    Request,
    Resume,
    Sampled,
    Start,
    TimeCall,
    TimeProducts,
    Train,
    Visit,
)
from convbench.own_code.saying import describe_exception, is_theirs, listening, trace
from convbench.problem import operands
from convbench.problem.layer import Layer, Pass
from convbench.results.model import Explanation

if TYPE_CHECKING:
    from convbench.training.arms import Arm

PR_SET_PDEATHSIG = 1

SLOW_CALL_S = 0.03
"""Seconds from which on the start-up in a first call is nothing beside the call."""


class Server:
    """Answers requests; holds the arms that were warmed up until they are released."""

    def __init__(self, start: Start) -> None:
        self._threads = start.threads
        self._seed = start.seed
        implementations.add_names(*start.names)
        tuning.allow_trials(start.tune)
        if start.cpus:
            _keep_to(start.cpus)
        self._arms: dict[str, Prepared] = {}
        self._loops: dict[str, int] = {}  # calls a sample, by arm
        self._last: str | None = None  # the arm that was visited last
        self._diagnosing = Diagnosing()
        self._training: Arm | None = None
        _start_runtime(start.runtime, start.threads)

    def answer(self, request: Request) -> Any:
        match request:
            case Check():
                return self._check(request)
            case Meter():
                return self._meter(request)
            case Calibrate(threads, seconds):
                return calibrate(threads, seconds)
            case Visit():
                return self._visit(request)
            case Release():
                delays = {
                    name: prepared.seen_delay
                    for name, prepared in self._arms.items()
                    if isinstance(prepared, Delayed)
                }
                self._arms.clear()
                self._loops.clear()
                return Released(_max_rss(), delays)
            case Connect() | Follow() | Train() | Resume() | Ask():
                return self._training_answer(request)
            case Examine() | TimeCall() | Count() | TimeProducts():
                return self._experiment(request)
        raise TypeError(f"not a request: {request!r}")

    def _training_answer(self, request: Connect | Follow | Train | Resume | Ask) -> Any:
        from convbench.training import arms

        if isinstance(request, Connect):
            self._training = arms.connect(request.setup, request.implementation, self._threads)
            if request.warm:
                self._training.warm_up()
                self._training.restart()
            return self._training.connected
        arm = self._training
        assert arm is not None
        match request:
            case Follow(state):
                return arm.follow(state)
            case Train(steps, seconds):
                return arm.train(steps, seconds)
            case Resume(state):
                return arm.resume(state)
            case Ask(what):
                return getattr(arm, what)()

    def _experiment(self, request: Examine | TimeCall | Count | TimeProducts) -> Any:
        from convbench.profile import experiments
        from convbench.profile.products import products

        if isinstance(request, TimeProducts):
            return products(request.layer, request.pass_, self._threads, [*request.dtypes])
        implementation = implementations.get(request.implementation)
        cell = request.layer, request.pass_, self._threads, self._seed
        if isinstance(request, TimeCall):
            return experiments.time_call(implementation, *cell)
        if isinstance(request, Count):
            return experiments.count_call(implementation, *cell)
        is_own = implementations.own_code(request.implementation) is not None
        return experiments.examine(implementation, *cell, is_theirs if is_own else _is_ours)

    def _check(self, request: Check) -> Checked | Refused | Failure:
        """What own code says meanwhile goes along, with what it raises too."""
        implementation = implementations.get(request.implementation)
        if implementations.own_code(request.implementation) is None:
            return self._checked(implementation, request)
        with listening() as said:
            try:
                reason = implementation.unsupported(request.layer, request.pass_)
                answer = Refused(reason) if reason else self._checked(implementation, request)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - it may raise anything
                answer = self._advised(_failure(error), implementation, request)
        if isinstance(answer, Refused):
            return answer
        return replace(answer, said=(*said.lines, *answer.said))

    def _advised(self, failure: Failure, implementation: Implementation, request: Check) -> Failure:
        """What cannot be called at all cannot be called with other axes either."""
        if failure.is_usage:
            return failure
        advice = self._diagnosing.other_layout(implementation, *self._cell(request))
        return replace(failure, reason=f"{failure.reason}; {advice}") if advice else failure

    def _cell(self, request: Check) -> tuple[Layer, Pass, int, int]:
        return request.layer, request.pass_, self._threads, self._seed

    def _checked(self, implementation: Implementation, request: Check) -> Checked | Failure:
        cell = self._cell(request)
        agreement = checker.check(implementation, *cell)
        explanations: tuple[Explanation, ...] = ()
        if agreement.verdict == "wrong":
            explanations = self._diagnosing.explained(implementation, *cell)
        elif implementations.own_code(request.implementation) is not None:
            agreement = self._diagnosing.remarked(agreement, implementation, *cell)
        prepared = implementation.prepare(*cell[:3])
        call_s = 0.0
        if request.timed:
            prepared.load(operands.floats(request.layer, request.pass_, self._seed))
            call_s = clock.clock(prepared.run, 1)
            if call_s < SLOW_CALL_S:  # the first call of a short kernel is mostly start-up
                call_s = clock.clock(prepared.run, 1)
        return Checked(agreement, call_s, prepared.ledger, explanations=explanations)

    def _meter(self, request: Meter) -> Any:
        from convbench.measure import memory

        implementation = implementations.get(request.implementation)
        is_own = implementations.own_code(request.implementation) is not None
        if is_own and (reason := implementation.unsupported(request.layer, request.pass_)):
            return Refused(reason)
        return memory.meter(
            implementation,
            request.layer,
            request.pass_,
            self._threads,
            operands.floats(request.layer, request.pass_, self._seed),
            request.rss_seconds,
        )

    def _visit(self, request: Visit) -> Sampled:
        name = request.implementation
        if name not in self._arms:
            implementation = implementations.get(name)
            prepared = implementation.prepare(request.layer, request.pass_, self._threads)
            prepared.load(operands.floats(request.layer, request.pass_, self._seed))
            self._arms[name] = prepared
        if name != self._last:
            tuning.settle()
            self._last = name
        before = probe()
        visited = clock.visit(self._arms[name].run, request.plan, self._loops.get(name))
        self._loops[name] = visited.loops
        # Threads that still spin for the arm would disturb the probe, as no neighbour does.
        after = probe() if tuning.is_quiet() else before
        return Sampled(visited, (before, after))


def _is_ours(file: str) -> bool:
    """Whether a file is one of the built-in implementations'."""
    return file.startswith(implementations.__path__[0])


def _keep_to(cpus: tuple[int, ...]) -> None:
    """Every thread of this process; BLAS has its own since NumPy was imported."""
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):  # a thread that is gone
            os.sched_setaffinity(int(task), cpus)


def _max_rss() -> int:
    """The largest resident memory of this process so far, in bytes.

    Not getrusage's where it can be helped: that one counts what the parent held before the fork.
    """
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        if found := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE):
            return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _start_runtime(runtime: str, threads: int) -> None:
    """Imports the runtime and caps its threads, the same number for every implementation."""
    import numpy as np
    import threadpoolctl

    np.ones((64, 64), np.float32) @ np.ones((64, 64), np.float32)  # BLAS allocates its buffers
    threadpoolctl.threadpool_limits(threads, user_api="blas")
    if runtime == "tensorflow":
        from convbench.implementations.keras import layer as keras_layer

        keras_layer.start(threads)


def main() -> None:
    _die_with_the_parent()
    faulthandler.enable()
    connection = Connection(int(sys.argv[1]))
    start: Start = connection.recv()
    try:
        server = Server(start)
        gc.freeze()  # a collection before a sample need not walk over all of TensorFlow (0.1 s)
        connection.send(Ready(blas_libraries(start.runtime)))
    except Exception as error:  # noqa: BLE001 - whatever an import raises is the parent's to report
        connection.send(Failure(describe_exception(error)))
        return
    while True:
        try:
            request = connection.recv()
        except EOFError:  # the parent is gone, or is done with us
            return
        connection.send(_answered(server, request))


def _answered(server: Server, request: Request) -> Any:
    try:
        return server.answer(request)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it costs only that cell
        return _failure(error)


def _failure(error: BaseException) -> Failure:
    if isinstance(error, ImplementationError | TrainingError):
        return Failure(error.message, is_usage=True, hint=error.hint)
    return Failure(describe_exception(error), trace(error))


def _die_with_the_parent() -> None:
    """A parent that is killed leaves no worker behind, not even a stopped or a hung one."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # When memory runs out the kernel should take the worker, not the parent with its results.
    with contextlib.suppress(OSError):
        os.write(os.open("/proc/self/oom_score_adj", os.O_WRONLY), b"800")


if __name__ == "__main__":
    main()
