"""Serve the cells of one runtime, one request at a time, in a process of their own.

`python -m convbench.measure.worker inherited FD` talks through the inherited file descriptor FD.
Nothing that a library prints can reach that channel. `... calls PORT` connects to that port of this
machine instead, with a key that it reads from stdin.

Modules that take long to import are imported after the connection is made, since the parent waits
for the connection.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import sys
from multiprocessing.connection import Client, Connection
from typing import TYPE_CHECKING, Any

from convbench.machine import processes

if TYPE_CHECKING:
    from convbench.measure.bench import Bench
    from convbench.measure.messages import Request, Start

MOST_KEY_BYTES = 1024
"""Most bytes that are read as the key, more than any key has."""


def main() -> None:
    processes.die_with_the_parent()
    processes.be_killed_first()
    faulthandler.enable()
    how, number = sys.argv[1:]
    connection = Connection(int(number)) if how == "inherited" else _called(int(number))
    start: Start = connection.recv()

    from convbench.machine.description import blas_libraries
    from convbench.measure.messages import Failure, Ready
    from convbench.own_code.saying import describe_exception

    try:
        bench = _started(start)
        gc.freeze()  # a collection before a sample need not walk over all of TensorFlow (0.1 s)
        connection.send(Ready(blas_libraries(start.runtime.name)))
    except Exception as error:  # noqa: BLE001 - the parent reports whatever an import raises
        connection.send(Failure(describe_exception(error)))
        return
    while True:
        try:
            request = connection.recv()
        except EOFError:  # the parent is gone, or needs this worker no more
            return
        connection.send(_answered(bench, request))


def _called(port: int) -> Connection:
    """Connect to the parent, and watch the pipe on stdin, which ends when the parent does."""
    pipe = os.dup(0)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)  # own code that reads stdin finds nothing
    key = os.read(pipe, MOST_KEY_BYTES)
    processes.end_with(pipe)
    return Client(("127.0.0.1", port), authkey=key)


def _started(start: Start) -> Bench:
    from convbench.machine import affinity, tuning
    from convbench.measure.bench import Bench

    tuning.allow_trials(start.tune)
    if start.cpus:
        affinity.keep_process(start.cpus)
    start.runtime.start(start.threads)
    return Bench(start.registry, start.threads, start.seed)


def _answered(bench: Bench, request: Request[Any]) -> Any:
    from convbench.measure.bench import failure_of

    try:
        return request.answer(bench)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an exception costs only this cell
        return failure_of(error)


if __name__ == "__main__":
    main()
